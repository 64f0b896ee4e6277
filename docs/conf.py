"""How Sphinx builds these pages: Markdown by MyST, the API by autodoc.

What the package can tell by itself (options, the state table, SOP classes) is printed from the
package when the pages are built, into ``_generated/``, so that it cannot become untrue.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

project = "netdicom_tx"
author = "netdicom_tx contributors"
copyright = "netdicom_tx contributors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_generated"]
html_theme = "furo"
html_title = "netdicom_tx"
myst_heading_anchors = 3
# As fields of the class: as objects of their own they would clash with the members themselves.
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints_format = "short"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def options() -> str:
    """What ``twist dicom --help`` says."""
    said = subprocess.run(
        [sys.executable, "-m", "twisted", "dicom", "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "96"},
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ).stdout
    # The first line has the path of the interpreter in it.
    return f"```text\nUsage: twist dicom [options]\n{said.partition(chr(10))[2].rstrip()}\n```\n"


def state_table() -> str:
    """Table 9-10 as the code has it."""
    from netdicom_tx.fsm import TRANSITIONS, Event, State

    return table(
        ["event", *(state.name for state in State)],
        [
            [
                f"{event.name}: {event.value}",
                *(TRANSITIONS.get((event, state), "") for state in State),
            ]
            for event in Event
        ],
    )


def sop_classes() -> str:
    from netdicom_tx.uids import STORAGE_SOP_CLASSES, name

    return table(["SOP class", "UID"], [(name(uid), f"`{uid}`") for uid in STORAGE_SOP_CLASSES])


def transfer_syntaxes() -> str:
    from netdicom_tx.uids import ALL_TRANSFER_SYNTAXES, name

    return table(
        ["transfer syntax", "UID"], [(name(uid), f"`{uid}`") for uid in ALL_TRANSFER_SYNTAXES]
    )


def implementation() -> str:
    from netdicom_tx.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

    return table(
        ["identification", "value"],
        [
            ["Implementation Class UID", f"`{IMPLEMENTATION_CLASS_UID}`"],
            ["Implementation Version Name", f"`{IMPLEMENTATION_VERSION_NAME}`"],
        ],
    )


def services() -> str:
    """A section for each module of the service classes."""
    pages = []
    for path in sorted((ROOT / "netdicom_tx" / "sopclass").glob("[!_]*.py")):
        summary = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or path.stem).partition(
            "\n"
        )
        title = re.split(r"[:(]", summary[0])[0].strip(" .")
        pages.append(
            f"## {title}\n\n```{{eval-rst}}\n"
            f".. automodule:: netdicom_tx.sopclass.{path.stem}\n```\n"
        )
    return "\n".join(pages)


def generate(_: Sphinx) -> None:
    directory = HERE / "_generated"
    directory.mkdir(exist_ok=True)
    for page in (options, state_table, implementation, services, sop_classes, transfer_syntaxes):
        (directory / f"{page.__name__}.md").write_text(page(), "utf-8")


def check_claims(_: Sphinx) -> None:
    """A claim of conformance names the test that shows it; the test must be there."""
    for name in re.findall(
        r"`((?:\w+/)*test_\w+\.py)`", (HERE / "conformance.md").read_text("utf-8")
    ):
        if not (ROOT / "tests" / name).exists():
            getLogger(__name__).warning("conformance.md names tests/%s, which is not there", name)


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", generate)
    app.connect("builder-inited", check_claims)
