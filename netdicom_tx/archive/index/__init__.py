"""The database of an archive: tables, the engine, the records that are kept, one writer and many readers."""
