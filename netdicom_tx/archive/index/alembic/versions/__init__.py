"""One file for each schema version; a released file is never changed."""
