"""The database of an archive: its tables and engine, the records of instances, one writer and many readers."""
