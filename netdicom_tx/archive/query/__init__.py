"""From identifiers to criteria, from criteria to rows, from rows to answers and to what is retrieved (PS3.4 C)."""
