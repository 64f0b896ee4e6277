"""Identifiers to criteria, criteria to rows, rows to answers; and what C-MOVE and C-GET retrieve (PS3.4 C)."""
