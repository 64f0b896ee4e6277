"""Measure an index with a million instances on PostgreSQL: queries, the start, and storing beside them.

A server is started in a temporary folder, and ends with the script. It has its defaults, apart from sync. Rows are
copied into its tables. No query may read a table as a whole that grows with the archive; those that do are printed with
their statements.

    python -m tests.bench.million [--studies N] [--rounds N] [--json FILE] [--check]

With ``--check``, the script fails when a query reads a table as a whole, when p95 of a query at STUDY level is 50 ms or
more, or when the index takes 5 s to open and count.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles
from typing import TypeVar

from netdicom_tx.archive.index.index import Index
from support.archive.databases import PostgreSQL
from support.archive.many import QUERIES, fill, scans, statements
from support.archive.records import record

_T = TypeVar("_T")
_STUDY_P95, _START = 0.050, 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=10_000, help="100 instances each")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    wrong: list[str] = []

    def said(name: str, value: float, unit: str) -> None:
        figures[f"{name}, {unit}"] = round(value, 3)
        print(f"{name:<56} {value:>12,.2f} {unit}", flush=True)

    server = PostgreSQL()
    try:
        url = server.url("million")
        with Index(url) as index:
            seconds, many = timed(lambda: fill(index, arguments.studies))
            said(f"copy {many:,} instances", seconds, "s")
            with index.reading() as reading:
                octets = reading.exec_driver_sql(
                    "SELECT pg_database_size(current_database())"
                ).scalar()
            said("size of the database", int(octets or 0) / 1e6, "MB")
        index = Index(url)
        seconds, _ = timed(index.open)
        said("open the index", seconds, "s")
        opened = seconds
        seconds, _ = timed(index.counts)
        said("count what it contains", seconds, "s")
        if opened + seconds >= _START:
            wrong.append("the start")
        with closing(index):
            for name, call in QUERIES.items():
                with statements(index) as found:
                    answers = len(list(call(index)))
                for each in scans(index, found, forced=False):
                    print(f"  {name} reads {each}")
                    wrong.append(f"the plan of {name}")
                times = [
                    timed(lambda call=call: list(call(index)))[0] for _ in range(arguments.rounds)
                ]  # type: ignore[misc]
                p95 = quantiles(times, n=20)[-1]
                said(f"{name} ({answers}), p50", median(times) * 1e3, "ms")
                said(f"{name} ({answers}), p95", p95 * 1e3, "ms")
                if "stud" in name and p95 >= _STUDY_P95:
                    wrong.append(f"the time of {name}")
            begin = time.perf_counter()
            for number in range(500):
                index.add(record(f"9.{number}", StudyInstanceUID=f"8.{number // 50}")).result()
            said(
                "store, one after the other, without sync",
                500 / (time.perf_counter() - begin),
                "instances/s",
            )
    finally:
        server.end()
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1))
    if wrong:
        print("not as it should be:", "; ".join(wrong))
    sys.exit(bool(wrong) and arguments.check)


def timed(call: Callable[[], _T]) -> tuple[float, _T]:
    """Call a function, and return the seconds that it takes with its result."""
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


if __name__ == "__main__":
    main()
