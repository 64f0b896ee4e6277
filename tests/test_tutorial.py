"""The tutorials, run as they stand: their node, their files, and their console blocks on a terminal.

What is marked ``<!-- run -->`` is a session: lines that begin with ``$`` are typed, the others are
expected. ``...`` stands for anything on its line, alone on a line for any lines; spaces count as one.
What is marked ``<!-- log -->`` is in the log of the node.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.commands.running import on_a_terminal
from support.processes import Process, accepts_connections, free_port, program
from support.shell import ROOT, environment, put_commands
from support.strict import STRICT, assert_clean

pytestmark = pytest.mark.slow

TUTORIALS = ROOT / "docs" / "tutorial"
_BLOCK = re.compile(r"<!-- (run|log|node|file: \S+) -->\n```\w+\n(.*?)```", re.DOTALL)
# The ports of the pages: the node's, and the one at which it sends to us.
PORTS = ("11112", "11113")


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

    def type(self, command: str) -> str:
        """What it says, on stdout and stderr."""
        self._status, said = on_a_terminal(
            ["sh", "-c", f"(exit {self._status}); {command}"], self.directory, self._environment
        )
        return said


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A directory for the PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    put_commands(directory)
    return directory


def blocks(page: str) -> list[tuple[str, str]]:
    """The marked blocks of a page, with what each is."""
    return _BLOCK.findall((TUTORIALS / page).read_text("utf-8"))


def follow(page: str, node_directory: Path, terminal: Terminal) -> None:
    """Do what a page says, with free ports in the place of its own."""
    ports = {port: str(free_port()) for port in PORTS}

    def here(text: str) -> str:
        for port, ours in ports.items():
            text = text.replace(port, ours)
        return text.replace("/home/you/netdicom_tx", str(node_directory))

    with closing(_Node(node_directory)) as node:
        for kind, text in blocks(page):
            if kind == "node":
                node.start(here(text).split(), ports[PORTS[0]])
            elif kind == "log":
                assert here(text).strip() in node.log
            elif kind.startswith("file: "):
                (terminal.directory / kind.removeprefix("file: ")).write_text(here(text), "utf-8")
            else:
                for command, expected in sessions(here(text)):
                    said = terminal.type(command)
                    assert matches(said, expected), f"$ {command}\n{said}"
                    assert_clean(said)


def test_the_first_images_are_stored_as_the_tutorial_says(tmp_path: Path, commands: Path) -> None:
    """By DCMTK and by a program, in the directory of the node: a checkout."""
    program("storescu")
    (checkout := tmp_path / "checkout").mkdir()
    (checkout / "docs").symlink_to(ROOT / "docs")
    follow("store.md", checkout, Terminal(checkout, commands))


def test_the_tutorial_from_echo_to_retrieve_works_as_it_stands(
    tmp_path: Path, commands: Path
) -> None:
    """By the ``netdicom`` command, in a directory of its own."""
    (node := tmp_path / "node").mkdir()
    (here := tmp_path / "here").mkdir()
    follow("retrieve.md", node, Terminal(here, commands))


class _Node:
    """The ``twistd`` of a page, at a port of the test's."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: Process | None = None

    def start(self, words: list[str], port: str) -> None:
        assert words[:3] == ["twistd", "-n", "dicom"]
        self._process = process = Process(
            self._directory / "node.log",
            *(sys.executable, Path(sys.executable).with_name("twistd")),
            *words[1:],
            *("--listen", f"tcp:{port}:interface=127.0.0.1"),
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


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        ("store.md", ["echoscu ", "python docs/examples/echo_scu.py", "storescu "]),
        ("store.md", ["python docs/examples/store_scu.py"]),
        ("retrieve.md", [f"netdicom {each} " for each in ("echo", "store", "find", "get", "move")]),
    ],
)
def test_the_pages_have_all_they_promise(page: str, wanted: list[str]) -> None:
    typed = "".join(text for kind, text in blocks(page) if kind == "run")
    assert [each for each in wanted if f"$ {each}" not in typed] == []
