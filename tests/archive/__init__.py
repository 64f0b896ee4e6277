"""Tests of the archive: the walk over a data set, the file store, the node."""
