"""Imports run one way: core, then shell, then services, then what is built on them.

:data:`ROWS` is the order; a module imports only what stands before it, and no module of the package is part of a
circle. The imports are read from the sources, so a function that imports late is held to both rules, and so is an
import under ``TYPE_CHECKING``.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "netdicom_tx"

#: The package's name stands for its ``__init__``; a subpackage's name for all of its modules
#: that have no place of their own, and these may import each other.
ROWS = {
    "core": [
        "_lazy",
        "arguments",
        "exceptions",
        "amounts",
        "_registry",
        "uids",
        "statuses",
        "encoding",
        "part10",
        "reencoding",
        "dsutils",
        "userdataitems",
        "pdu",
        "dimsemessages",
        "fragments",
        "negotiation",
        "access",
        "proxyheader",
        "quirks",
        "fsm",
        "upperlayer",
        "audit",
    ],
    "shell": [
        "logs",
        "log_output",
        "refusals",
        "monotonic",
        "turns",
        "collector",
        "terminal",
        "signals",
        "systemd",
        "dulprovider",
        "channel",
        "streams",
        "requests",
        "datasinks",
        "dispatch",
        "operations",
        "tls",
        "audit_trails",
        "passwords",
        "identity",
        "endpoints",
        "remoteae",
        "closing",
        "opening",
        "summary",
        "serviceuser",
        "asceprovider",
        "associations",
        "hooks",
        "service",
        "admission",
        "proxied",
        "budget",
        "descriptors",
        "folders",
        "applicationentity",
        "pool",
        "memory",
        "testing",
    ],
    "services": ["sopclass.base", "sopclass"],
    "verbs": ["results", "verbs", "oneshot"],
    "public names": ["netdicom_tx"],
    "archive": [
        "archive.names",
        "archive.shared",
        "archive.encoded",
        "archive.index",
        "archive.workers",
        "archive.group",
        "archive.store",
        "archive.query",
        "archive.exporting",
        "archive.backup",
        "archive.workflow",
        "archive.auditing",
        "archive.outcomes",
        "archive.retention",
        "archive.snapshots",
        "archive.observations",
        "archive.control",
        "archive.starting",
        "archive.storing",
        "archive.node",
        "archive.former",
        "archive",
    ],
    "web": ["web"],
    "on top": [
        "environment",
        "config",
        "options",
        "workforce",
        "reloading",
        "tap",
        "conformance",
        "worker",
        "fixtures",
        "commands.common",
        "commands",
        "__main__",
    ],
}
ORDER = [module for row in ROWS.values() for module in row]

#: Input and output, time, threads and log lines belong to the shell.
NOT_IN_THE_CORE = {
    "asyncio",
    "logging",
    "multiprocessing",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "twisted",
}
#: A program that embeds an SCU loads none of these.
ONLY_ON_TOP = {"alembic", "cattrs", "click", "rich", "sqlalchemy"}
#: What belongs to the extra ``web``; only a node with a status page loads it.
ONLY_IN_THE_WEB = {"jinja2", "klein", "prometheus_client", "werkzeug"}


class Import(NamedTuple):
    """One imported module, as ``a.b.c``, and how it is imported."""

    module: str
    line: int
    at_module_level: bool
    for_typing: bool


def module_name(path: Path) -> str:
    """``sopclass/base.py`` is ``sopclass.base``, ``sopclass/__init__.py`` is ``sopclass``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts) or "netdicom_tx"


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(source: str, module: str) -> Iterator[Import]:  # noqa: C901 - one branch for each form of an import
    """Every import of a module's source, relative ones resolved."""
    package = ["netdicom_tx", *module.split(".")] if module != "netdicom_tx" else ["netdicom_tx"]
    if module not in SOURCES or SOURCES[module].name != "__init__.py":
        package.pop()

    def visit(node: ast.AST, at_module_level: bool, for_typing: bool) -> Iterator[Import]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            at_module_level = False
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_module_level, for_typing)
        if isinstance(node, ast.ImportFrom):
            base = ".".join(
                [
                    *package[: len(package) - node.level + 1 if node.level else 0],
                    *([node.module] if node.module else []),
                ]
            )
            for alias in node.names:
                # A module of ours or an attribute: only the former has a place of its own.
                # For modules of other packages the longer name is kept: twisted.internet.reactor.
                full = f"{base}.{alias.name}"
                ours = base.split(".")[0] == "netdicom_tx"
                is_module = not ours or full.removeprefix("netdicom_tx.") in {*ORDER, *SOURCES}
                yield Import(full if is_module else base, node.lineno, at_module_level, for_typing)
        if isinstance(node, ast.If):
            typing_only = ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
            for child in node.body:
                yield from visit(child, at_module_level, for_typing or typing_only)
            for child in node.orelse:
                yield from visit(child, at_module_level, for_typing)
            return
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_module_level, for_typing)

    yield from visit(ast.parse(source), True, False)


def place(module: str) -> str | None:
    """The entry of ORDER that a module of ours belongs to."""
    while module and module not in ORDER:
        module = module.rpartition(".")[0]
    return module or None


def row(entry: str) -> str:
    return next(name for name, modules in ROWS.items() if entry in modules)


def faults(source: str, module: str) -> list[str]:  # noqa: C901 - one branch for each rule
    """What is wrong with a module's imports, in words."""
    here = place(module)
    if here is None:
        return [f"{module} has no place in the order: give it a place in ROWS"]
    found = []
    for imported in imports(source, module):
        where = f"{module}, line {imported.line}: imports {imported.module}"
        top, _, rest = imported.module.partition(".")
        if top == "netdicom_tx":
            there = place(rest or top)
            if there is None:
                found.append(f"{where}, which has no place in the order")
            elif ORDER.index(there) > ORDER.index(here):
                found.append(f"{where}, which stands after it")
        elif top in NOT_IN_THE_CORE and row(here) == "core":
            found.append(f"{where}, which the core does without")
        elif top in ONLY_ON_TOP and (
            row(here) not in ("archive", "web", "on top") or here == "archive.encoded"
        ):
            found.append(f"{where}, which only archive, commands and tap may load")
        elif top in ONLY_IN_THE_WEB and row(here) != "web":
            found.append(f"{where}, which only the status page may load")
        elif (
            imported.module.startswith("twisted.internet.reactor")
            and imported.at_module_level
            and not imported.for_typing
        ):
            found.append(f"{where} at module level, which installs it for the whole process")
    if row(here) == "core":
        found += [
            f"{module}, line {node.lineno}: opens a file, which is the shell's to do"
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("open", "io.open")
        ]
    return found


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_only_what_stands_before_it(module: str) -> None:
    assert faults(SOURCES[module].read_text("utf-8"), module) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        pytest.param("pdu", "from twisted.python import log", id="twisted in the core"),
        pytest.param("pdu", "import time", id="a clock in the core"),
        pytest.param("fsm", "def f():\n    import logging", id="a late import in the core"),
        pytest.param("dsutils", "f = open('x')", id="a file in the core"),
        pytest.param("uids", "from netdicom_tx import pdu", id="a later core module"),
        pytest.param("uids", "from . import pdu", id="a relative import"),
        pytest.param("fsm", "from netdicom_tx import AE", id="a name of the package"),
        pytest.param("fsm", "import netdicom_tx", id="the package"),
        pytest.param(
            "pdu",
            "if TYPE_CHECKING:\n    from netdicom_tx.asceprovider import Association",
            id="a type of another row",
        ),
        pytest.param(
            "dispatch",
            "if TYPE_CHECKING:\n    from netdicom_tx.asceprovider import Association",
            id="a type of its own row",
        ),
        pytest.param("applicationentity", "import netdicom_tx.sopclass", id="a service in the AE"),
        pytest.param(
            "sopclass.storage", "from ..archive import files", id="an archive in a service"
        ),
        pytest.param("sopclass.base", "from .storage import x", id="a service in their base"),
        pytest.param(
            "archive.encoded.values", "from ..index.schema import KEY_FORMS", id="a table in octets"
        ),
        pytest.param("archive.encoded.walk", "import sqlalchemy", id="a database in octets"),
        pytest.param(
            "archive.index.index", "from ..query.matching import Query", id="a query in the index"
        ),
        pytest.param(
            "archive.store.filestore",
            "if TYPE_CHECKING:\n    from ..query.search import Search",
            id="a query in the store",
        ),
        pytest.param(
            "archive.query.search", "from ..workflow.outbound import Queue", id="a queue in queries"
        ),
        pytest.param("archive.workflow.worklist", "from ..node import ArchiveAE", id="the node"),
        pytest.param("dulprovider", "import sqlalchemy.orm", id="a database in the shell"),
        pytest.param("testing", "from rich import print", id="a console in the shell"),
        pytest.param("tap", "def f():\n    import klein", id="a web framework on top"),
        pytest.param("archive.node", "from ..web import server", id="the page in the node"),
        pytest.param("tap", "from twisted.internet import reactor", id="a reactor"),
        pytest.param("tap", "if True:\n    import twisted.internet.reactor as r", id="its module"),
        pytest.param("nowhere", "", id="a module without a place"),
        pytest.param("fsm", "import netdicom_tx.nowhere", id="an import without a place"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str) -> None:
    """The check itself can fail."""
    assert len(faults(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pdu", "from netdicom_tx import exceptions, userdataitems"),
        ("upperlayer", "from .pdu import PDUReader"),
        ("applicationentity", "def f():\n    from twisted.internet import reactor"),
        ("sopclass.storage", "from netdicom_tx.sopclass import verification"),
        ("archive.index.index", "import sqlalchemy\nfrom netdicom_tx import AE"),
    ],
)
def test_a_right_import_is_let_through(module: str, source: str) -> None:
    assert faults(source, module) == []


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Modules of which each imports the next and the last imports the first; none when there is no circle."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module not in done:
            for imported in graph.get(module, ()):
                if found := visit(imported, [*path, module]):
                    return found
            done.add(module)
        return []

    return next((found for module in graph if (found := visit(module, []))), [])


@pytest.mark.slow
def test_no_modules_import_each_other() -> None:
    graph = {
        module: {
            imported.module.removeprefix("netdicom_tx.")
            for imported in imports(path.read_text("utf-8"), module)
            if imported.module.partition(".")[0] == "netdicom_tx"
        }
        for module, path in SOURCES.items()
    }
    assert circle(graph) == []


def test_a_circle_is_found() -> None:
    """The check itself can fail."""
    graph = {"a": ["b", "d"], "b": ["d"], "c": ["e"], "d": ["c", "b"], "e": []}
    assert circle(graph) == ["b", "d"]
    assert circle({**graph, "d": ["c"]}) == []
    assert circle({"a": ["a"]}) == ["a"]


@pytest.mark.slow
def test_the_library_loads_neither_a_reactor_nor_what_only_the_node_needs() -> None:
    """A program that embeds an SCU or an SCP chooses the reactor, and loads neither a database nor a console."""
    program = "import sys, netdicom_tx.sopclass, netdicom_tx.testing; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PACKAGE.parent,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert not {"twisted.internet.reactor", *ONLY_ON_TOP}.intersection(loaded)


@pytest.mark.parametrize("module", [each for each in SOURCES if each.startswith("commands.")])
def test_a_command_imports_no_other_command(module: str) -> None:
    """What two commands need is in ``commands.common``."""
    source = SOURCES[module].read_text("utf-8")
    ours = {each.module.removeprefix("netdicom_tx.") for each in imports(source, module)}
    assert [
        each
        for each in sorted(ours)
        if each.startswith("commands") and not each.startswith("commands.common")
    ] == []


@pytest.mark.slow
def test_a_node_without_a_status_page_does_not_load_its_packages() -> None:
    """Nor does a command."""
    program = "import sys, netdicom_tx.tap, netdicom_tx.commands; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PACKAGE.parent,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert not {"netdicom_tx.web", "twisted.web", *ONLY_IN_THE_WEB}.intersection(loaded)
