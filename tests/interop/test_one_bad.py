"""Instances at which DCMTK's storescp aborts the association, among others: only they fail."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from netdicom_tx.dsutils import part10_header
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT, padded
from support.commands.running import Netdicom
from support.interop.peers import StoreSCP
from support.node import Node
from support.processes import program, run

pytestmark = [pytest.mark.interop, pytest.mark.slow]

STUDY = "1.2.826.84"
LITTLE = EXPLICIT.transfer_syntax
# Fragments outside of pixel data: "Illegal element with OB or OW Value Representation and undefined length".
FRAGMENTS = EXPLICIT.sequence(0x00291010, vr="OB").replace(
    EXPLICIT.element(0xFFFEE0DD, ""),
    EXPLICIT.element(0xFFFEE000, "", b"abcd") + EXPLICIT.element(0xFFFEE0DD, ""),
)
# The same kind of damage that DCMTK does not read: a length that leads beyond its item.
TOO_LONG = EXPLICIT.sequence(
    0x00291011, EXPLICIT.element(0x00291012, "LO", b"ab", 400), defined=True
)
BAD = {"fragments": FRAGMENTS, "too long": TOO_LONG}


@pytest.fixture
def netdicom(tmp_path: Path) -> Netdicom:
    directory = tmp_path / "netdicom"
    directory.mkdir()
    return Netdicom(directory)


def uid(number: int) -> str:
    return f"{STUDY}.0.{number}"


def written(directory: Path, order: str, damage: bytes) -> Path:
    """A directory with CT images of one study: good ones and bad ones."""
    directory.mkdir()
    for number, kind in enumerate(order):
        data = (
            EXPLICIT.identity(uid(number), CT_IMAGE_STORAGE)
            + EXPLICIT.element(0x00100020, "LO", b"PATIENT1")
            + EXPLICIT.element(0x0020000D, "UI", padded(STUDY))
            + EXPLICIT.element(0x0020000E, "UI", padded(STUDY + ".0"))
            + damage * (kind == "b")
            + EXPLICIT.element(0x7FE00010, "OW", struct.pack("<2H", 1, number))
        )
        header = part10_header(CT_IMAGE_STORAGE, uid(number), LITTLE)
        (directory / f"{number}.dcm").write_bytes(header + data)
    return directory


def good(order: str) -> set[str]:
    return {uid(number) for number, kind in enumerate(order) if kind == "g"}


@pytest.mark.parametrize(
    ("order", "jobs", "damage"),
    [
        ("bggg", "1", "fragments"),
        ("gbbgg", "1", "too long"),
        ("bgbgb", "1", "fragments"),
        ("bggg", "3", "too long"),
        ("gbbgg", "3", "fragments"),
        ("gggb", "3", "fragments"),
    ],
)
def test_store_brings_all_others(
    netdicom: Netdicom,
    start_storescp: Callable[..., StoreSCP],
    tmp_path: Path,
    order: str,
    jobs: str,
    damage: str,
) -> None:
    """PS3.8 9.3.8: the abort ends the association, and the others go on a new one."""
    files = written(tmp_path / "files", order, BAD[damage])
    scp = start_storescp()
    peer = f"{scp.ae_title}@127.0.0.1:{scp.address.port}"
    done = netdicom("store", peer, files, "--jobs", jobs, "-v")
    assert set(scp.instances()) == good(order), done.stderr
    assert done.returncode == 1, done.stderr
    failed = set(re.findall(r"failed: .*/(\d+)\.dcm: (?!not tried).*abort", done.stderr))
    assert {uid(int(number)) for number in failed} == {uid(n) for n in range(len(order))} - good(
        order
    )


@pytest.mark.parametrize(("associations", "damage"), [("1", "fragments"), ("3", "too long")])
def test_move_brings_all_others(
    netdicom: Netdicom,
    start_storescp: Callable[..., StoreSCP],
    start_node: Callable[..., Node],
    tmp_path: Path,
    associations: str,
    damage: str,
) -> None:
    """PS3.4 C.4.2: the sub-operations that failed are counted and listed, and the others are completed."""
    scp = start_storescp()
    node = start_node(
        f"--peer=DEST@127.0.0.1:{scp.address.port}", f"--move-associations={associations}"
    )
    peer = f"{node.ae_title}@127.0.0.1:{node.address.port}"
    order = "bgggbgg"
    files = written(tmp_path / "files", order, BAD[damage])
    assert netdicom("store", peer, files).returncode == 0
    # DCMTK's movescu ends with a code of its own when sub-operations have failed.
    done = run(
        *(program("movescu"), "--debug", "-S", "-aec", node.ae_title, "-aem", "DEST"),
        *("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}"),
        *node.address.arguments,
    )
    assert set(scp.instances()) == good(order), node.log
    final = done.stdout[done.stdout.rindex("C-MOVE RSP") :]
    assert re.search(r"DIMSE Status +: 0xb000", final), done.stdout
    assert re.search(r"Completed Suboperations +: 5\b", final), done.stdout
    assert re.search(r"Failed Suboperations +: 2\b", final), done.stdout
    assert {*re.findall(r"C-MOVE .* to DEST: (\S+) failed", node.log)} == {uid(0), uid(4)}
