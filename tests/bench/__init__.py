"""Benchmarks, run by hand with ``python -m tests.bench.NAME``; pytest does not collect them."""

import sys
from pathlib import Path

# Some of them start servers as the tests do, whose helpers are found from the directory of the tests.
sys.path.append(str(Path(__file__).resolve().parents[1]))
