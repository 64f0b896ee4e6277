"""Every block that a reader may paste from README.md, a tutorial or a how-to guide is run, or says why it is not.

support.pages has the marks. The tutorials are run by tests/test_tutorial.py, the programs by tests/test_docs.py and
tests/test_examples.py, the table of the README by tests/interop/test_readme.py. Here the blocks of the how-to guides
run in order, in a fresh directory, with free ports and with directories below it.
"""

import ast
import re
import shlex
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trustme
from pydicom import dcmread
from pydicom.data import get_charset_files, get_testdata_file

import netdicom_tx
from netdicom_tx.commands import run
from netdicom_tx.commands.common.failures import ExitCode
from support.pages import Block, PageNode, Terminal, blocks, commands, matches, sessions
from support.processes import free_port, program
from support.shell import ROOT, put_commands
from support.strict import assert_clean

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs" / "tutorial").glob("*.md")),
    *sorted((ROOT / "docs" / "howto").glob("*.md")),
]
#: What is pasted: commands and programs. Files are looked at as what they are.
PASTED = ("sh", "bash", "console", "python", "pycon")
MARKS = re.compile(
    r"run(: other numbers)?|node|starts|log|(file|example): \S+|not run: .{12,}"
    r"|install and start the node|run the tests"
)
#: The directories of the pages, which are below that of the test.
DIRECTORIES = (
    *("/etc/netdicom", "/data/dicom", "/srv/worklist", "/var/lib/netdicom"),
    *("/mnt/old-archive", "/mnt/backup", "/mnt", "/var/lib", "/data"),
)


def title(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def each_block(*languages: str) -> list[object]:
    """The blocks in these languages, as parameters of a test."""
    return [
        pytest.param(page, block, id=f"{title(page)}:{block.line}")
        for page in PAGES
        for block in blocks(page)
        # That one configures the commands; the tutorial runs it.
        if block.language in languages and block.mark != "file: netdicom.toml"
    ]


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_each_block_is_run_or_says_why_not(page: Path) -> None:
    wrong = [
        f"{title(page)}:{block.line}: mark the block as one that is run, or say why not: {block.mark!r}"
        for block in blocks(page)
        if block.language in PASTED and not MARKS.fullmatch(block.mark)
    ]
    assert wrong == []
    # A test that stands for a block has to be there.
    for block in blocks(page):
        for name in re.findall(r"(?:tests|docs)/[\w/.-]+\.(?:py|md)", block.mark):
            assert (ROOT / name).exists(), f"{title(page)}:{block.line} names {name}"


@pytest.mark.parametrize(("page", "block"), each_block("python"))
def test_a_program_or_a_part_of_one_compiles_and_imports_what_there_is(
    page: Path, block: Block
) -> None:
    tree = compile(
        block.text, title(page), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("netdicom_tx"):
            exec(compile(ast.Module([node], []), title(page), "exec"), {})
        match node:
            case ast.Attribute(value=ast.Name(id="netdicom_tx"), attr=name):
                assert hasattr(netdicom_tx, name), name


def below(text: str, directory: Path) -> str:
    """The text with the directories of the pages below one of the test's."""
    for name in DIRECTORIES:
        text = re.sub(rf"(?<![\w/.]){name}(?![\w-])", str(directory) + name, text)
    return text


@pytest.mark.parametrize(("page", "block"), each_block("toml"))
def test_each_configuration_is_right(
    page: Path, block: Block, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``netdicom config check`` finds no mistake; the files that it names are there."""
    for name in DIRECTORIES:
        (tmp_path / name[1:]).mkdir(parents=True, exist_ok=True)
    certificates(tmp_path / "etc/netdicom")
    for name, text in SECRETS.items():
        (tmp_path / "etc/netdicom" / name).write_text(text)
    path = tmp_path / "node.toml"
    path.write_text(below(block.text, tmp_path))
    done = run(["config", "check", str(path)])
    assert done == ExitCode.OK, capsys.readouterr().err


# Further files that the pages name.
SECRETS = {
    "users": "",
    "database": "postgresql://netdicom:secret@db.example/netdicom\n",
    "s3-secret": "secret\n",
}


def certificates(directory: Path) -> None:
    """The files that the pages name."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    issued.private_key_pem.write_to_path(directory / "key.pem")
    shutil.copy(directory / "key.pem", directory / "login.pem")


# -- the how-to guides -------------------------------------------------------------------------------


def character_sets(here: Path, reader: "Reader") -> None:
    """A patient with a Japanese name, and the peer ``archive``."""
    shutil.copy(get_charset_files("chrH31.dcm")[0], here / "FILE")
    (here / "netdicom.toml").write_text(
        reader.here('[peers]\narchive = "ARCHIVE@127.0.0.1:11112"\n')
    )
    reader.type("netdicom store archive FILE")


def study(here: Path, reader: "Reader") -> None:
    (here / "study").mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm"):
        shutil.copy(str(get_testdata_file(name)), here / "study")


def old_archive(here: Path, reader: "Reader") -> None:
    """Files of a patient, and some that are no instances."""
    directory = Path(reader.here("/mnt/old-archive"))
    for name in ("CT_small.dcm", "MR_small.dcm"):
        image = dcmread(str(get_testdata_file(name)))
        image.PatientID, image.Modality = "4711", "CT"
        image.save_as(directory / name)
    for name in ("README.txt", "index.dat"):
        (directory / name).write_text("no instance")


def archive(here: Path, reader: "Reader") -> None:
    """An archive with a few instances, and no backup of it yet."""
    old_archive(here, reader)
    reader.type("netdicom import /mnt/old-archive --storage /var/lib/netdicom")
    Path(reader.here("/mnt/backup")).rmdir()


#: What a page takes for granted, and whether the default node runs meanwhile.
BEFORE: dict[str, Callable[[Path, "Reader"], None]] = {
    "backup.md": archive,
    "character-sets.md": character_sets,
    "import-export.md": old_archive,
    "tls.md": lambda here, _: certificates(here),
    "workflow.md": study,
}
NEEDS_A_NODE = {"character-sets.md", "workflow.md"}
GUIDES = [
    page
    for page in PAGES
    if page.parent.name == "howto"
    and any(block.mark.startswith(("run", "starts", "node")) for block in blocks(page))
]


def without_numbers(text: str) -> str:
    """The text with a mark for each number."""
    return re.sub(r"\d+(\.\d+)?", "#", text)


class Reader:
    """Does what a page says, in a directory, at ports that are free."""

    def __init__(self, page: Path, directory: Path) -> None:
        self._page = page
        self._directory = directory
        self._port = str(free_port())
        (made := directory / "bin").mkdir()
        put_commands(made)
        (home := directory / "home").mkdir()
        self._terminal = Terminal(home, made)
        for name in DIRECTORIES:
            (directory / name[1:]).mkdir(parents=True, exist_ok=True)

    def here(self, text: str) -> str:
        """The text with our ports and directories."""
        text = below(text, self._directory)
        text = re.sub(r"\btcp:(11112|2762|104)\b(?!:)", r"tcp:\1:interface=127.0.0.1", text)
        return re.sub(r"\b(11112|2762)\b", self._port, text)

    def type(self, command: str) -> str:
        """Type a command, which must end well."""
        said = self._terminal.type(self.here(command))
        assert self._terminal.status == 0, f"$ {command}\n{said}"
        assert_clean(said)
        return said

    def run(self, block: Block) -> None:
        """Do what the mark of a block says."""
        if block.mark == "starts":
            words = shlex.split(self.here(block.text.replace("\\\n", " ")))
            has_port = any(word.endswith(("listen", "--config")) for word in words)
            with closing(PageNode(self._terminal.directory)) as node:
                node.start(words, self._port if has_port else str(free_port()))
        elif block.mark.startswith("file: "):
            name = self.here(block.mark.removeprefix("file: "))
            (self._terminal.directory / name).write_text(self.here(block.text), "utf-8")
        elif block.mark.startswith("run") and block.language == "console":
            seen = without_numbers if block.mark.endswith("other numbers") else str
            for command, expected in sessions(self.here(block.text)):
                said = self._terminal.type(command)
                assert matches(seen(said), [*map(seen, expected)]), f"$ {command}\n{said}"
        elif block.mark == "run":
            for command in commands(block.text):
                self.type(command)

    def follow(self) -> None:
        """Do everything, in order."""
        (of_the_node := self._directory / "node").mkdir()
        with closing(PageNode(of_the_node)) as node:
            if self._page.name in NEEDS_A_NODE:
                node.start(["netdicom", "serve"], self._port)
            before = BEFORE.get(self._page.name)
            if before is not None:
                before(self._terminal.directory, self)
            for block in blocks(self._page):
                self.run(block)


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES, ids=title)
def test_a_guide_runs_in_order(page: Path, tmp_path: Path) -> None:
    """Each node starts, and each command ends well."""
    for block in blocks(page):
        if block.mark.startswith("run") and re.search(
            r"\b(dcmdump|echoscu|storescu|findscu)\b", block.text
        ):
            program("dcmdump")
        if block.mark == "run" and "openssl" in block.text:
            program("openssl")
    Reader(page, tmp_path).follow()


def test_the_guides_that_run_are_those() -> None:
    """So that a lost mark is noticed."""
    assert {page.name for page in GUIDES} >= {
        "backup.md",
        "character-sets.md",
        "import-export.md",
        "peers.md",
        "run.md",
        "tls.md",
        "workflow.md",
    }
