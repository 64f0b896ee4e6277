"""Benchmarks, run by hand with ``python -m tests.bench.NAME``; pytest does not collect them."""
