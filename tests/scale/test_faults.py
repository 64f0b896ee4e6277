"""The parts of a group fail while it receives, and nothing acknowledged is lost or doubled."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import CHECKOUT, absent, program

pytestmark = [pytest.mark.interop, pytest.mark.slow]


def need_all() -> None:
    """Skip or fail without one of the programs that a group consists of."""
    for name in ("haproxy", "memcached", "swift-proxy-server", "swift-object-server"):
        program(name)
    if not list(Path("/usr/lib/postgresql").glob("*/bin")):
        absent("PostgreSQL is not installed (Debian's postgresql)")


def run(*options: str) -> str:
    """What a run of the faults has printed; the test fails with it when something was wrong."""
    need_all()
    done = subprocess.run(
        [sys.executable, "-m", "tests.scale.faults", *options],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_three_nodes_on_postgresql_and_s3_behind_haproxy_lose_nothing() -> None:
    """A node is killed, the database crashes, the object store refuses, a node is drained, stopped and started.

    Others do what the dead node has promised.
    """
    # A machine that runs other tests, too, may take longer than the minute that is promised.
    said = run("--instances=300", "--away=2", "--studies=4", "--takeover=100")
    assert "the object store refuses for 2 s" in said
    assert "the commitment of the dead node was reported" in said
    assert said.endswith("0 problems\n")
