"""Tests of the ``netdicom`` command: its parts in this process, its commands in their own."""
