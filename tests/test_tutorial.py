"""The tutorials, run as they stand: their node, their files, and their console blocks on a terminal.

What is marked ``<!-- run -->`` is a session, see support.pages. What is marked ``<!-- log -->`` is in
the log of the node. tests/test_pages.py has the other pages.
"""

import re
from contextlib import closing
from pathlib import Path

import pytest

from support.pages import PageNode, Terminal, matches, sessions
from support.processes import free_port, program
from support.shell import ROOT, put_commands
from support.strict import assert_clean

pytestmark = pytest.mark.slow

TUTORIALS = ROOT / "docs" / "tutorial"
_BLOCK = re.compile(r"<!-- (run|log|node|file: \S+) -->\n```\w+\n(.*?)```", re.DOTALL)
# The ports of the pages: the node's, and the one at which it sends to us.
PORTS = ("11112", "11113")


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

    with closing(PageNode(node_directory)) as node:
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
