"""The files of an archive, which survive a power cut, and their agreement with the index."""
