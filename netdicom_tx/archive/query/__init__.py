"""Queries: identifiers become criteria, criteria find rows, and rows become answers or instances (PS3.4 C)."""
