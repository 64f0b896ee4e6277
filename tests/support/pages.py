"""The blocks of a page, and a shell and a node to run them.

The comment in front of a block says what is done with it:

=====================  ================================================================================
``run``                a session, or lines of a shell. In a session, lines that begin with ``$`` are
                       typed, and the others are expected. ``...`` stands for anything on its line, and
                       alone on a line for any lines; spaces count as one.
``run: other numbers`` the same; the numbers of the page stand for any
``node``               the command starts the node that the rest of the page talks to
``starts``             the command starts a node, which is stopped again when it serves
``file: NAME``         the text is written to a file
``example: NAME``      a program, which a test of its own runs
``log``                what the node has logged
``not run: REASON``    nothing is done
=====================  ================================================================================
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .commands.running import on_a_terminal
from .processes import Process, accepts_connections
from .shell import ROOT, environment
from .strict import STRICT, assert_clean

__all__ = ["Block", "PageNode", "Terminal", "blocks", "commands", "matches", "sessions"]

_FENCE = re.compile(r"( *)(`{3,}|~{3,})(.*)")
_COMMENT = re.compile(r"<!-- (.*) -->")


class Block(NamedTuple):
    """A fenced block of a page.

    Attributes:
        line: Where it begins.
        language: What stands behind the fence, such as ``sh`` or ``{include}``.
        mark: The comment in front of it; may be empty.
        text: What is in it.
    """

    line: int
    language: str
    mark: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page."""
    lines = page.read_text("utf-8").splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.fullmatch(lines[number])
        if fence is None:
            number += 1
            continue
        end = next(n for n in range(number + 1, len(lines)) if lines[n].strip() == fence[2])
        comment = _COMMENT.fullmatch(lines[number - 1].strip()) if number else None
        text = "".join(f"{line.removeprefix(fence[1])}\n" for line in lines[number + 1 : end])
        yield Block(number + 1, fence[3].partition(" ")[0], comment[1] if comment else "", text)
        number = end + 1


def commands(text: str) -> list[str]:
    """The commands of lines of a shell; a backslash continues one."""
    return [each for each in text.replace("\\\n", " ").splitlines() if each.strip()]


def sessions(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block, with the lines that are expected of it."""
    command = ""
    expected: list[str] = []
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
        self._environment = environment(commands, directory)

    @property
    def status(self) -> int:
        """The exit status of the last command."""
        return self._status

    def type(self, command: str) -> str:
        """What it says, on stdout and stderr."""
        self._status, said = on_a_terminal(
            ["sh", "-c", f"(exit {self._status}); {command}"], self.directory, self._environment
        )
        return said


class PageNode:
    """The ``twistd`` of a page, at a port of the test's."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: Process | None = None

    def start(self, words: list[str], port: str) -> None:
        """Run the words of a block, and wait until the node listens.

        Args:
            words: The command: twistd, twist or ``netdicom serve``, with options.
            port: The port that the node is given if the page leaves it to the default.
        """
        name, *options = words
        assert name in ("twistd", "twist") or words[:2] == ["netdicom", "serve"]
        program = (
            ["-m", "netdicom_tx"] if name == "netdicom" else [Path(sys.executable).with_name(name)]
        )
        if not {"--listen", "--tls-listen", "--config"} & set(words):
            options += ["--listen", f"tcp:{port}:interface=127.0.0.1"]
        self._process = process = Process(
            self._directory / "node.log",
            *(sys.executable, *program, *options),
            PYTHONPATH=str(ROOT),
            **STRICT,
        )
        process.ready(
            lambda: "listening on" in process.text() and accepts_connections(int(port)),
            "listening node",
        )

    @property
    def log(self) -> str:
        """What it has printed."""
        assert self._process is not None, "the page has started no node"
        return self._process.text()

    def close(self) -> None:
        if self._process is not None:
            self._process.stop()
            assert_clean(self._process.text())
