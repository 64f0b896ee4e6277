"""The Sphinx configuration of these pages: Markdown with MyST, the API with autodoc.

The build writes tables of options, states and SOP classes from the package itself to ``_generated/``, so
that they are always up to date.
"""

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

project = "netdicom_tx"
author = "netdicom_tx contributors"
copyright = "netdicom_tx contributors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_generated", "explanation/figures"]
html_theme = "furo"
html_title = "netdicom_tx"
# sphinx-build -b man docs build/man
man_pages = [
    ("reference/netdicom", "netdicom", "DICOM from the command line", [author], 1),
    ("reference/twistd-dicom", "twistd-dicom", "the DICOM archive node", [author], 1),
    ("reference/configuration", "netdicom.toml", "the configuration of a node", [author], 5),
]
myst_heading_anchors = 3
# Document attributes as fields of the class; as objects, they would duplicate the members.
napoleon_use_ivar = True
# "Returns:" sections have no types in Google style; the text before the first colon is not a link.
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints_format = "short"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def options() -> str:
    """Return the output of ``twist dicom --help``."""
    output = subprocess.run(
        [sys.executable, "-m", "twisted", "dicom", "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "96"},
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ).stdout
    # The first line contains the path of the interpreter.
    return f"```text\nUsage: twist dicom [options]\n{output.partition(chr(10))[2].rstrip()}\n```\n"


def unit() -> str:
    """Return the systemd unit of a node with the default configuration."""
    from dataclasses import replace

    from netdicom_tx.commands import service

    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "node.toml")
        config.touch()
        plan = service.plan("netdicom", config=config)
    paths = {
        "config": Path("/etc/netdicom/node.toml"),
        "program": Path("/opt/netdicom/bin/netdicom"),
    }
    units = replace(plan, **paths).units()
    return f"```ini\n{units['netdicom.service']}```\n"


def statement() -> str:
    """Return the conformance statement of a node with the default configuration."""
    from netdicom_tx.commands.conformance import markdown, stated

    return markdown(stated(None))


def state_table() -> str:
    """Return Table 9-10 as the code implements it."""
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
    """Return the kinds of matching for a key of this VR (PS3.4 C.2.2.2)."""
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
    """Return the attributes of each level that the index has a column for or counts."""
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
    """Return the node's answer when extended negotiation proposes every option (PS3.4 C.5.1.1.1)."""
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
    """Return the requirements for a performed procedure step (PS3.4 Table F.7.2-1)."""
    from pydicom.datadict import keyword_for_tag

    from netdicom_tx.sopclass.step_rules import RULES, Rule

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
    """Return the bounds that are constants of the package."""
    from netdicom_tx import (
        admission,
        asceprovider,
        closing,
        descriptors,
        dulprovider,
        fragments,
        pdu,
        proxied,
        proxyheader,
        reencoding,
        refusals,
        requests,
        userdataitems,
    )
    from netdicom_tx.archive.encoded import walk
    from netdicom_tx.archive.index import watch
    from netdicom_tx.archive.query import criteria, identifiers
    from netdicom_tx.archive.workflow import commitment
    from netdicom_tx.sopclass import query_retrieve

    mega, kilo = 1 << 20, 1 << 10
    return table(
        ["bound", "limit", "above the limit"],
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
                "data set of a C-STORE whose service receives it in memory",
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
                "reading pauses; nothing is lost",
            ),
            ("nesting of sequences in an instance", str(walk.NESTING_LIMIT), "0xC000"),
            ("elements, items and fragments of an instance", str(walk.ELEMENT_LIMIT), "0xC000"),
            (
                "bytes inflated from a deflated data set for the index",
                f"{walk.INFLATED_LIMIT // mega} MiB",
                "the rest is kept in the file but not indexed",
            ),
            (
                "bytes inflated from a deflated data set to re-encode it",
                f"{reencoding.INFLATED_LIMIT // mega} MiB",
                "the instance is not sent",
            ),
            (
                "a value in the index",
                f"{walk.VALUE_LIMIT} octets",
                "it is kept in the file but returned empty",
            ),
            (
                "header of an instance in the index",
                f"{walk.HEADER_LIMIT // kilo} KiB",
                "the rest is kept in the file but returned empty",
            ),
            (
                "connections without an A-ASSOCIATE-RQ",
                f"{admission.HALF_OPEN_LIMIT} for more than {admission.GIVE_WAY:g} s, {admission.BURST_LIMIT} in all",
                "the oldest one of the host with most of them is closed",
            ),
            (
                "headers of the PROXY protocol",
                f"{proxyheader.LIMIT} octets, {proxied.HEADER_TIMEOUT:g} s, {proxied.WAITING_LIMIT} waited for",
                "the connection is closed, the oldest one first",
            ),
            (
                "incomplete requests for associations, all together",
                f"{admission.HALF_OPEN_OCTETS // kilo // kilo} MiB",
                "the connection with most is closed",
            ),
            (
                "lines of the log about refused peers",
                f"one in {refusals.INTERVAL:g} s for each host and kind, {refusals.TABLE_SIZE} in all",
                "the others are counted, and told later",
            ),
            (
                "file descriptors of the node for each association",
                str(descriptors.EACH),
                "the soft limit is raised; where the hard one is too low, fewer associations are admitted",
            ),
            (
                "octets a second of a message that has begun",
                f"at least {closing.LEAST_RATE}",
                "A-ABORT after `timeouts.idle`; at once when its place is needed",
            ),
            (
                "elements, and items, of an identifier",
                str(query_retrieve.PARTS_LIMIT),
                "0xC000",
            ),
            ("keys of an identifier", str(identifiers.KEY_LIMIT), "0xC000"),
            ("values of all keys in total", str(identifiers.VALUE_LIMIT), "0xC000"),
            ("values with wild cards in total", str(identifiers.PATTERNS_LIMIT), "0xC000"),
            (
                "ranges, names, numbers and values with wild cards in total",
                str(identifiers.COMPARISONS_LIMIT),
                "0xC000",
            ),
            (
                "values of a key, all of which must be found",
                str(criteria.TESTS_LIMIT),
                "0xC000",
            ),
            (
                "characters of a person name in a key",
                str(identifiers.VALUE_LENGTHS["PN"]),
                "0xC000",
            ),
            (
                "characters of a date, time, age or number in a key",
                str(identifiers.VALUE_LENGTHS["DA"]),
                "0xC000",
            ),
            (
                "characters of a code, UID, AE title or short text in a key",
                str(identifiers.VALUE_LENGTHS["LO"]),
                "0xC000",
            ),
            ("characters of a long text in a key", str(identifiers.TEXT_LENGTH), "0xC000"),
            (
                "commitment requests of an AE title that wait for their report",
                str(commitment.OWED_LIMIT),
                "0x0213",
            ),
            ("each step of a search", f"{watch.SECONDS:g} s", "0xA700 (C-FIND), 0xA701"),
            ("nesting of sequences in keys", str(identifiers.DEPTH_LIMIT), "0xC000"),
        ],
    )


def services() -> str:
    """Return a section for each module of service classes."""
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
        unit,
        statement,
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
    """Warn if the conformance statement names a test that does not exist."""
    for name in re.findall(
        r"`((?:\w+/)*test_\w+\.py)`", (HERE / "conformance.md").read_text("utf-8")
    ):
        if not (ROOT / "tests" / name).exists():
            getLogger(__name__).warning("conformance.md names tests/%s, which does not exist", name)


def strings() -> str:
    """Return all string constants of the package, one on each line; an f-string yields its literal parts."""
    constants = (
        node.value.replace("\n", " ")
        for path in (ROOT / "netdicom_tx").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return "\n".join(constants)


def check_messages(_: Sphinx) -> None:
    """Warn if the troubleshooting page quotes a message that the package does not contain."""
    page = (HERE / "howto" / "troubleshooting.md").read_text("utf-8")
    everything = strings()
    for quoted in re.findall(r"^### `(.+)`$", page, re.MULTILINE):
        if quoted not in everything:
            getLogger(__name__).warning(
                "troubleshooting.md quotes %r, which the package does not contain", quoted
            )


def resolve_source(_: Sphinx) -> None:
    """Give autodoc the type Source, which is text where a program runs, so that sending files loads no pydicom."""
    from pydicom.dataset import Dataset

    from netdicom_tx import oneshot
    from netdicom_tx.sopclass import sending, storage

    for module in (oneshot, sending, storage):
        vars(module)["Source"] = Dataset | str | os.PathLike[str] | BinaryIO


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", resolve_source)
    app.connect("builder-inited", generate)
    app.connect("builder-inited", check_claims)
    app.connect("builder-inited", check_messages)
