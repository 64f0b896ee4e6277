"""Writes netdicom_tx/_registry.py: a constant for each UID of PS3.6 Table A-1 that a network service names.

::

    python tests/support/uid_registry.py > netdicom_tx/_registry.py

The source is pydicom's registry. What is newer than that comes from the tables in tests/standard/.
"""

from __future__ import annotations

import csv
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pydicom
from pydicom._uid_dict import UID_dictionary

STANDARD = Path(__file__).parent.parent / "standard"

#: The kinds of UIDs that presentation contexts, messages and negotiation carry, in the order of the file.
#: Frames of reference, coding schemes and LDAP attributes are values of data sets or of a directory.
KINDS = (
    "Application Context Name",
    "SOP Class",
    "Meta SOP Class",
    "Service Class",
    "Well-known SOP Instance",
    "Transfer Syntax",
)


class Row(NamedTuple):
    """A row of PS3.6 Table A-1; two retired SOP classes have neither a name nor a keyword."""

    uid: str
    name: str
    kind: str
    is_retired: bool
    keyword: str


def pydicoms() -> dict[str, Row]:
    """The rows of the installed pydicom, by UID."""
    return {
        uid: Row(uid, name, kind, retired == "Retired", keyword)
        for uid, (name, kind, _, retired, keyword) in UID_dictionary.items()
        if kind in KINDS
    }


def standards() -> dict[str, Row]:
    """The rows of the tables in tests/standard/, by UID."""
    found = {}
    for name in ("sop_classes.csv", "transfer_syntaxes.csv"):
        with (STANDARD / name).open(newline="") as file:
            for row in csv.DictReader(file):
                kind = row.get("type", "Transfer Syntax")
                found[row["uid"]] = Row(
                    row["uid"], row["name"], kind, row["retired"] == "yes", row["keyword"]
                )
    return found


def rows() -> list[Row]:
    """All rows, by kind and then in the order of their numbers."""
    return sorted(
        (standards() | pydicoms()).values(),
        key=lambda row: (KINDS.index(row.kind), [int(part) for part in row.uid.split(".")]),
    )


def constants(found: list[Row]) -> Iterator[str]:
    for kind in KINDS:
        yield f"\n# {kind}.\n"
        yield from (
            f'{row.keyword}: Final = "{row.uid}"\n'
            for row in found
            if row.kind == kind and row.keyword
        )


def module() -> Iterator[str]:
    """The text of the module, piece by piece."""
    found = rows()
    yield (
        '"""The UIDs of PS3.6 Table A-1 that a network service names, as constants by their keyword.\n\n'
        f"tests/support/uid_registry.py has written this file from the registry of pydicom {pydicom.__version__}\n"
        "and from tests/standard/. Do not edit it: run that program again. The module is one long table,\n"
        "and so may have more lines than a module of code.\n"
        '"""\n\nfrom __future__ import annotations\n\nfrom typing import Final\n\n__all__ = [\n'
    )
    names = ", ".join(f'"{keyword}"' for keyword in sorted({row.keyword for row in found} - {""}))
    yield textwrap.fill(names + ",", 100, initial_indent="    ", subsequent_indent="    ")
    yield "\n]\n"
    yield from constants(found)
    yield (
        "\n#: UID -> name, kind and whether it is retired.\n"
        "REGISTRY: Final[dict[str, tuple[str, str, bool]]] = {\n"
    )
    yield from (
        f'    {row.keyword or chr(34) + row.uid + chr(34)}: ("{row.name}", "{row.kind}", {row.is_retired}),\n'
        for row in found
    )
    yield "}\n"


if __name__ == "__main__":
    sys.stdout.writelines(module())
