"""The tutorial on ``netdicom``, run as it stands: its node, its file, and its console blocks on a terminal.

What is marked ``<!-- run -->`` is a session: lines that begin with ``$`` are typed, the others are
expected. ``...`` stands for anything on its line, alone on a line for any lines; spaces count as one.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.commands.running import on_a_terminal
from support.interop.peers import Process, accepts_connections, free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "tutorial" / "retrieve.md"
_BLOCK = re.compile(r"<!-- (run|node|file: \S+) -->\n```\w+\n(.*?)```", re.DOTALL)
# The ports of the page: the node's, and the one at which it sends to us.
PORTS = ("11112", "11113")


def sessions(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block, with the lines that are expected of it."""
    command, expected = "", []
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, expected
            command, expected = line[2:], []
        else:
            expected.append(line)
    yield command, expected


def matches(said: str, expected: list[str]) -> bool:
    """Whether a command said what it should."""
    lines = [" ".join(line.split()) for line in said.splitlines()]
    wanted = [" ".join(line.split()) for line in expected]
    patterns = [
        r"[\s\S]*" if line == "..." else re.escape(line).replace(re.escape("..."), ".*")
        for line in wanted
    ]
    return re.fullmatch("\n".join(patterns), "\n".join(lines)) is not None


class Terminal:
    """Runs commands in a directory, on a terminal of 200 columns, as one shell would."""

    def __init__(self, directory: Path, commands: Path) -> None:
        self.directory = directory
        self._status = 0
        self._environment = {
            "PATH": f"{commands}:{os.defpath}",
            "HOME": str(directory),
            "TERM": "dumb",
            "COLUMNS": "200",
            "PYTHONUTF8": "1",
            "PYTHONPATH": str(ROOT),
        }

    def type(self, command: str) -> str:
        """What it says, on stdout and stderr."""
        self._status, said = on_a_terminal(
            ["sh", "-c", f"(exit {self._status}); {command}"], self.directory, self._environment
        )
        return said


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """``netdicom``, ``twistd`` and ``python`` for the PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name, arguments in (
        ("netdicom", "-m netdicom_tx"),
        ("twistd", "-m twisted.scripts.twistd"),
        ("python", ""),
    ):
        script = directory / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        script.chmod(0o755)
    return directory


def blocks() -> list[tuple[str, str]]:
    return _BLOCK.findall(PAGE.read_text("utf-8"))


def test_the_tutorial_works_as_it_stands(tmp_path: Path, commands: Path) -> None:
    """From echo to retrieve, against the node that it starts."""
    ports = {port: str(free_port()) for port in PORTS}

    def here(text: str) -> str:
        for port, ours in ports.items():
            text = text.replace(port, ours)
        return text

    (node_directory := tmp_path / "node").mkdir()
    (directory := tmp_path / "here").mkdir()
    terminal = Terminal(directory, commands)
    with closing(_Node(node_directory)) as node:
        for kind, text in blocks():
            if kind == "node":
                node.start(here(text).split(), ports[PORTS[0]])
            elif kind.startswith("file: "):
                (directory / kind.removeprefix("file: ")).write_text(here(text), "utf-8")
            else:
                for command, expected in sessions(here(text)):
                    said = terminal.type(command)
                    assert matches(said, expected), f"$ {command}\n{said}"


class _Node:
    """The ``twistd`` of the page, at a port of the test's."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: Process | None = None

    def start(self, words: list[str], port: str) -> None:
        assert words[:3] == ["twistd", "-n", "dicom"]
        self._process = Process(
            self._directory / "node.log",
            *(sys.executable, "-m", "twisted", "dicom"),
            *words[3:],
            *("--listen", f"tcp:{port}:interface=127.0.0.1"),
            PYTHONPATH=str(ROOT),
        )
        self._process.ready(lambda: accepts_connections(int(port)), "listening node")

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()


@pytest.mark.parametrize(
    ("said", "expected", "result"),
    [
        ("a  b\n", ["a b"], True),
        ("a b", ["a c"], False),
        ("took 3 s\n", ["took ... s"], True),
        ("one\ntwo\n", ["one"], False),
        ("one\n", ["one", "two"], False),
        ("", [], True),
        ("x", [], False),
        ("a\nb\nc", ["...", "c"], True),
        ("a\nb\nd", ["...", "c"], False),
    ],
)
def test_what_was_said_is_held_against_what_is_written(
    said: str, expected: list[str], result: bool
) -> None:
    """The check itself can fail."""
    assert matches(said, expected) is result


def test_the_page_has_all_it_promises() -> None:
    text = "".join(text for kind, text in blocks() if kind == "run")
    assert {f"$ netdicom {each} " in text for each in ("echo", "store", "find", "get", "move")} == {
        True
    }
