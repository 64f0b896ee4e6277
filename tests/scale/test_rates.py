"""The rates are measured and printed as a table; what they are is for an idle machine to say."""

import subprocess
import sys

import pytest

from support.processes import CHECKOUT


@pytest.mark.slow
def test_the_rate_of_a_single_node_is_printed_as_markdown() -> None:
    options = ("--count=80", "--rounds=1", "--shapes=sqlite-files")
    done = subprocess.run(
        [sys.executable, "-m", "tests.scale.rates", *options],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("80 instances, 8 senders, ")
    assert done.stdout.splitlines()[-1].startswith("| `sqlite-files`: 1 node, sqlite, local | ")
