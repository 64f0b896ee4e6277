"""A group of nodes is started and ended by one command."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from scale.test_faults import need_all
from support.processes import CHECKOUT, Process, succeed

pytestmark = [pytest.mark.interop, pytest.mark.slow]


def test_a_group_runs_until_it_is_interrupted_and_leaves_nothing(tmp_path: Path) -> None:
    need_all()
    words = ("-m", "tests.scale", "--nodes=1", "--store=local")
    group = Process(tmp_path / "log", sys.executable, *words, PYTHONPATH=str(CHECKOUT))
    try:
        group.ready(lambda: "Press Ctrl-C" in group.text(), "started group")
        said = re.search(r"the group +(\S+)$", group.text(), re.MULTILINE)
        assert said is not None
        netdicom = Path(sys.executable).with_name("netdicom")
        succeed(netdicom, "echo", said[1], PYTHONPATH=str(CHECKOUT))
        folder = re.search(r", in (\S+)$", group.text(), re.MULTILINE)
        assert folder is not None
        os.kill(group.pid, signal.SIGINT)
        assert group.wait() == 0, group.text()
        assert not Path(folder[1]).exists()
    finally:
        if not group.ended():
            group.stop()
