"""Fuzzing of every parser that a peer reaches; see ``README.md`` in this directory."""
