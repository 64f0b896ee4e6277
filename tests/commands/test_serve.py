"""``netdicom serve``: the node in the foreground."""

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netdicom_tx.commands import run as netdicom
from netdicom_tx.commands.common.failures import ExitCode
from support.processes import CHECKOUT, Process, eventually, run

Captured = pytest.CaptureFixture[str]
LISTEN = ("--listen", "tcp:0:interface=127.0.0.1")
SERVE = (sys.executable, "-m", "netdicom_tx", "serve")
PYTHONPATH = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))


class Served:
    """A node that ``netdicom serve`` runs in a directory."""

    def __init__(self, directory: Path, *options: str, **environment: str) -> None:
        self.process = Process(
            directory / "out", *SERVE, *options, PYTHONPATH=PYTHONPATH, **environment
        )
        self.port = int(
            self.process.ready(
                lambda: re.search(r"listening on 127\.0\.0\.1:(\d+)", self.text()), "listening node"
            )[1]
        )

    def text(self) -> str:
        return self.process.text()


@pytest.fixture
def ended() -> Iterator[list[Served]]:
    """Nodes that are killed in the end, if they still run."""
    nodes: list[Served] = []
    yield nodes
    for each in nodes:
        each.process.kill()


def of(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_ends_in_order(
    tmp_path: Path, ended: list[Served], number: int
) -> None:
    """With every line as JSON, from the start to the stop."""
    node = Served(tmp_path, *LISTEN, "--log-format", "json", "--aet", "ARCHIVE")
    ended.append(node)
    done = run(*SERVE[:3], "echo", f"ARCHIVE@127.0.0.1:{node.port}", PYTHONPATH=PYTHONPATH)
    assert done.returncode == 0, done.stdout
    os.kill(node.process.pid, number)
    assert node.process.wait() == 0
    lines = of(node.text())
    events = [each["event"] for each in lines if each["system"].startswith("netdicom_tx")]
    assert events[0] == "started"
    assert events[-1] == "stopped"
    (over,) = (each for each in lines if each["event"] == "association-ended")
    assert over["fields"]["peer"] == "NETDICOM-SCU"
    assert over["fields"]["summary"]["performed"] == {"C-ECHO": 1}
    assert (tmp_path / "netdicom-archive").is_dir()
    assert not list(tmp_path.glob("*.pid"))


@pytest.mark.slow
def test_a_log_file_goes_on_when_it_was_moved_away(tmp_path: Path, ended: list[Served]) -> None:
    log = tmp_path / "node.log"
    process = Process(
        tmp_path / "out", *SERVE, "--log-file", str(log), *LISTEN, PYTHONPATH=PYTHONPATH
    )
    try:
        eventually(lambda: log.exists() and "listening" in log.read_text(), "line")
        log.rename(tmp_path / "node.log.1")
        os.kill(process.pid, signal.SIGUSR1)
        eventually(log.exists, "fresh file")
        assert process.stop() == 0
    finally:
        if not process.ended():
            process.kill()
    assert "has stopped" in log.read_text()
    assert "has stopped" not in (tmp_path / "node.log.1").read_text()
    assert process.text() == ""


@pytest.mark.slow
def test_variables_configure_it(tmp_path: Path, ended: list[Served]) -> None:
    node = Served(
        tmp_path,
        NETDICOM_NODE_LISTEN="tcp:0:interface=127.0.0.1",
        NETDICOM_NODE_AET="FROMENV",
        NETDICOM_STORAGE_DIRECTORY="kept",
    )
    ended.append(node)
    assert "FROMENV listening on" in node.text()
    assert node.process.stop() == 0
    assert (tmp_path / "kept").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--max-associations", "many"), 2, "--max-associations: expected a whole number"),
        (("--config", "none.toml"), 78, "none.toml: No such file or directory"),
        (("--storage", "{file}", *LISTEN), 1, "the storage directory {file} cannot be used"),
        (("--listen", "tcp:{port}:interface=127.0.0.1"), 1, "cannot listen: Couldn't listen on"),
        (("--log-file", "{file}/x"), 2, "cannot be written"),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else "",
)
def test_what_keeps_it_from_starting_is_said(
    tmp_path: Path, options: tuple[str, ...], code: int, says: str
) -> None:
    """In three lines on the terminal."""
    file = tmp_path / "file"
    file.write_bytes(b"")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        known = {"file": str(file), "port": str(taken.getsockname()[1])}
        done = run(*SERVE, *(each.format(**known) for each in options), PYTHONPATH=PYTHONPATH)
    assert done.returncode == code, done.stdout
    assert re.search(r"^error: .*\n {7}", done.stdout, re.M), "it looks like a line of the log"
    assert says.format(**known) in done.stdout
    assert "Traceback" not in done.stdout
    assert "listening on" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_log_file_has_the_failure_as_well_as_the_terminal(
    tmp_path: Path, log_format: str
) -> None:
    log, file = tmp_path / "node.log", tmp_path / "file"
    file.write_bytes(b"")
    options = (*LISTEN, "--storage", str(file), "--log-file", str(log), "--log-format", log_format)
    done = run(*SERVE, *options, PYTHONPATH=PYTHONPATH)
    assert done.returncode == 1
    assert done.stdout.startswith("error: the node cannot start\n"), done.stdout
    assert "the node cannot start: the storage directory" in log.read_text()
    if log_format == "json":
        assert of(log.read_text())[-1]["event"] == "start-failed"


def test_the_options_of_the_node_are_listed(capsys: Captured) -> None:
    assert netdicom(["serve", "--node-options"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "--max-associations=" in said
    assert "--log-format=" in said


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["twistd", "twist"])
def test_the_runners_of_twisted_write_json_too(tmp_path: Path, runner: str) -> None:
    own = ("--pidfile=", "-n") if runner == "twistd" else ()
    process = Process(
        tmp_path / "out",
        *(sys.executable, Path(sys.executable).with_name(runner), *own, "dicom"),
        *(*LISTEN, "--log-format", "json"),
        PYTHONPATH=PYTHONPATH,
    )
    try:
        process.ready(lambda: re.search(r"listening on 127", process.text()), "listening node")
        assert process.stop() == 0
    finally:
        if not process.ended():
            process.kill()
    lines = of(process.text())
    assert {"started", "listening", "stopped"} <= {each["event"] for each in lines}
