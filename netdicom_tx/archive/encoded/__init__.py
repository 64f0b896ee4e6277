"""Encoded data sets: their structure, elements and values, read without decoding the rest (PS3.5 6 and 7)."""
