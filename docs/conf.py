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
# Google style has no types in "Returns:"; what stands before its first colon is a sentence, no link.
napoleon_use_rtype = False
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


def closing_states() -> str:
    """The states of the end of an association, as the code has them."""
    from netdicom_tx.closing import TIMED, WAITS, State

    return table(
        ["state", "meaning", "waits for", "has a time"],
        [
            [
                state.name,
                state.value,
                ", ".join(wait.name.lower() for wait in WAITS.get(state, ()) if wait.name),
                "yes" if state in TIMED else "",
            ]
            for state in State
        ],
    )


def closing_table() -> str:
    """The transitions of the end of an association, as the code has them."""
    from netdicom_tx.closing import TRANSITIONS, Event

    return table(
        ["state", "event", "next state", "action"],
        [
            [state.name, event.value, after.name, action.value if action else ""]
            for (state, event), (after, action) in TRANSITIONS.items()
            if event is not Event.ENDED
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


def matching(vr: str, is_counted: bool) -> str:
    """Which kinds of matching a key of this VR takes (PS3.4 C.2.2.2)."""
    from netdicom_tx.archive.query.criteria import WILD_CARD_VRS

    if vr == "SQ":
        return "sequence"
    if vr == "UI":
        return "single value, list of UID"
    if vr in ("DA", "TM"):
        return "single value, range"
    if vr in WILD_CARD_VRS:
        return "single value, wild card"
    return "number" if is_counted else "single value"


def query_keys() -> str:
    """The attributes of each level that the index has columns for, or counts."""
    from netdicom_tx.archive.index.schema import ATTRIBUTES, COMPUTED, LEVELS

    parts = []
    for level in LEVELS:
        rows = [
            (
                f"{each.keyword}{' (counted)' if each.tag in COMPUTED else ''}",
                f"({each.tag >> 16:04X},{each.tag & 0xFFFF:04X})",
                each.vr,
                each.key_type.replace("X", "none"),
                matching(each.vr, each.tag in COMPUTED),
            )
            for each in (*ATTRIBUTES.values(), *COMPUTED.values())
            if each.level is level
        ]
        parts.append(
            f"#### {level} level\n\n"
            + table(["attribute", "tag", "VR", "key type", "matching"], rows)
        )
    return "\n".join(parts)


def query_options() -> str:
    """What the node answers to extended negotiation that asks for everything (PS3.4 C.5.1.1.1)."""
    from netdicom_tx.archive.query.identifiers import QueryOptions

    options = (
        "relational queries; relational retrieval",
        "date and time matched as one",
        "fuzzy semantic matching of person names",
        "timezone query adjustment",
        "enhanced multi-frame image conversion",
        "empty value matching",
        "multiple value matching",
    )
    answer = QueryOptions.answer(b"\1" * len(options))
    return table(
        ["byte", "option", "answered"],
        [
            (str(number), option, "yes" if byte else "no")
            for number, (option, byte) in enumerate(zip(options, answer, strict=True), 1)
        ],
    )


def procedure_step() -> str:
    """What a performed procedure step needs (PS3.4 Table F.7.2-1)."""
    from pydicom.datadict import keyword_for_tag

    from netdicom_tx.sopclass.procedure_step import RULES, Rule

    def rows(rules: Iterable[Rule], depth: int) -> Iterable[Sequence[str]]:
        for rule in rules:
            yield (
                "&gt;" * depth + keyword_for_tag(rule.tag),
                f"({rule.tag >> 16:04X},{rule.tag & 0xFFFF:04X})",
                rule.create,
                rule.modify,
                "" if rule.final == "." else rule.final,
            )
            yield from rows(rule.items, depth + 1)

    return table(
        ["attribute", "tag", "N-CREATE", "N-SET", "in a final state"], rows(RULES.values(), 0)
    )


def limits() -> str:
    """Bounds that are constants of the package."""
    from netdicom_tx import asceprovider, dulprovider, fragments, pdu, requests, userdataitems
    from netdicom_tx.archive.encoded import walk
    from netdicom_tx.archive.query import identifiers

    mega, kilo = 1 << 20, 1 << 10
    return table(
        ["what", "limit", "above it"],
        [
            (
                "P-DATA-TF received",
                f"{dulprovider.RECEIVE_LIMIT} octets by default, `max_pdu_length`",
                "A-ABORT",
            ),
            (
                "A-ASSOCIATE-RQ and -AC",
                f"{pdu.MAXIMUM_CONTROL_PDU_LENGTH // kilo} KiB",
                "A-ABORT",
            ),
            (
                "items of an A-ASSOCIATE PDU, and of its user information",
                str(userdataitems.MAXIMUM_ITEMS),
                "A-ABORT",
            ),
            (
                "sub-items of all presentation contexts together",
                str(pdu.MAXIMUM_CONTEXT_ITEMS),
                "A-ABORT",
            ),
            (
                "PDVs without a value in a message",
                str(fragments.EMPTY_PDV_LIMIT),
                "A-ABORT",
            ),
            ("command set", f"{fragments.COMMAND_SET_LIMIT // kilo} KiB", "A-ABORT"),
            ("data set in a file (C-STORE)", "none", "0xA700 when the disk is full"),
            (
                "data set of a C-STORE whose service takes it in memory",
                f"{asceprovider.MEMORY_LIMIT // mega} MiB",
                "A-ABORT",
            ),
            (
                "any other data set, such as an identifier",
                f"{asceprovider.IDENTIFIER_LIMIT // mega} MiB",
                "A-ABORT",
            ),
            (
                "unread responses of a stream",
                str(requests.HIGH_WATER),
                "the transport pauses; nothing is lost",
            ),
            ("nesting of sequences in an instance", str(walk.NESTING_LIMIT), "0xC000"),
            ("elements, items and fragments of an instance", str(walk.ELEMENT_LIMIT), "0xC000"),
            (
                "what is inflated of a deflated data set for the index",
                f"{walk.INFLATED_LIMIT // mega} MiB",
                "the rest is kept in the file, and not indexed",
            ),
            (
                "a value in the index",
                f"{walk.VALUE_LIMIT} octets",
                "it is kept in the file, and answered empty",
            ),
            (
                "header of an instance in the index",
                f"{walk.HEADER_LIMIT // kilo} KiB",
                "the rest is kept in the file, and answered empty",
            ),
            ("keys of an identifier", str(identifiers.KEY_LIMIT), "0xC000"),
            ("values of all keys together", str(identifiers.VALUE_LIMIT), "0xC000"),
            ("keys with wild cards", str(identifiers.PATTERNS_LIMIT), "0xC000"),
            ("characters of such a key", str(identifiers.PATTERN_LIMIT), "0xC000"),
            ("nesting of sequences in keys", str(identifiers.DEPTH_LIMIT), "0xC000"),
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
    for page in (
        options,
        state_table,
        closing_states,
        closing_table,
        implementation,
        services,
        sop_classes,
        transfer_syntaxes,
        query_keys,
        query_options,
        procedure_step,
        limits,
    ):
        (directory / f"{page.__name__}.md").write_text(page(), "utf-8")


def check_claims(_: Sphinx) -> None:
    """A claim of conformance names the test that shows it; the test must be there."""
    for name in re.findall(
        r"`((?:\w+/)*test_\w+\.py)`", (HERE / "conformance.md").read_text("utf-8")
    ):
        if not (ROOT / "tests" / name).exists():
            getLogger(__name__).warning("conformance.md names tests/%s, which is not there", name)


def said() -> str:
    """All string constants of the package, a line each; an f-string is what stands between its braces."""
    constants = (
        node.value.replace("\n", " ")
        for path in (ROOT / "netdicom_tx").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return "\n".join(constants)


def check_messages(_: Sphinx) -> None:
    """The page of error messages quotes what the package says."""
    page = (HERE / "howto" / "troubleshooting.md").read_text("utf-8")
    everything = said()
    for quoted in re.findall(r"^### `(.+)`$", page, re.MULTILINE):
        if quoted not in everything:
            getLogger(__name__).warning("troubleshooting.md quotes %r: nobody says that", quoted)


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", generate)
    app.connect("builder-inited", check_claims)
    app.connect("builder-inited", check_messages)
