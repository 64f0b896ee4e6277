"""A file of the store is checked before it is sent: what it was is not what it must still be."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from netdicom_tx import dsutils
from netdicom_tx.archive.store import checked
from netdicom_tx.dimsemessages import CGetRQ, CStoreRQ, Message, decode_command
from netdicom_tx.uids import IMPLICIT_VR_LITTLE_ENDIAN, WITHOUT_BULK_DATA_GET_SOP_CLASS
from netdicom_tx.uids import STUDY_ROOT_GET_SOP_CLASS as GET
from netdicom_tx.userdataitems import MaximumLength, RoleSelection
from support.archive.archives import Archive, stored
from support.archive.data_sets import CT_IMAGE_STORAGE as CT
from support.archive.data_sets import EXPLICIT, IMPLICIT, padded
from support.doubles import RawPeer, message
from support.doubles import logged_lines as logged_lines

UIDS = ("1.2.1", "1.2.2", "1.2.3")
BAD = "1.2.2"


def ct(uid: str, fill: bytes = b"\1\2") -> bytes:
    return b"".join(
        (
            EXPLICIT.identity(uid),
            EXPLICIT.element(0x00100020, "LO", b"7 "),
            EXPLICIT.element(0x0020000D, "UI", padded("1.9")),
            EXPLICIT.element(0x0020000E, "UI", padded("1.9.1")),
            EXPLICIT.sequence(0x00081140, EXPLICIT.element(0x00081150, "UI", padded(CT))),
            EXPLICIT.element(0x7FE00010, "OW", fill * 3000),
        )
    )


def cut(path: Path) -> None:
    os.truncate(path, 900)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def remove(path: Path) -> None:
    path.unlink()


def swap(path: Path) -> None:
    """Another instance of the same size takes its name."""
    path.write_bytes(path.read_bytes().replace(b"1.2.2\0", b"1.2.9\0"))


def link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def break_structure(path: Path) -> None:
    """A length inside becomes wrong; the size of the file stays."""
    data = path.read_bytes()
    at = data.index(struct.pack("<HH", 0x0010, 0x0020)) + 6
    path.write_bytes(data[:at] + b"\x07\0" + data[at + 2 :])


def empty_head(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


HARM: list[Callable[[Path], None]] = [
    *(cut, grow, remove, swap, link, pipe, folder, break_structure, empty_head)
]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive(tmp_path / "archive")
    sender = opened.sender()
    for uid in UIDS:
        assert stored(sender, ct(uid), uid) == 0x0000
    yield opened
    opened.close()


def get(node: Archive, sop_class: str = GET) -> tuple[dict[str, bytes], Any, Dataset | None]:
    """What a C-GET brings, its final response, and the identifier of that."""
    peer = node.associate(
        {sop_class: [IMPLICIT_VR_LITTLE_ENDIAN], CT: [EXPLICIT.transfer_syntax]},
        MaximumLength(0),
        RoleSelection(CT, False, True),
    )
    level = b"IMAGE " if sop_class == WITHOUT_BULK_DATA_GET_SOP_CLASS else b"STUDY "
    asked = IMPLICIT.element(0x00080052, "CS", level)
    if level == b"IMAGE ":
        asked = IMPLICIT.element(0x00080018, "UI", padded("\\".join(UIDS))) + asked
    else:
        asked += IMPLICIT.element(0x0020000D, "UI", padded("1.9"))
    peer.send(CGetRQ(affected_sop_class_uid=sop_class, message_id=1, data_set=asked))
    brought: dict[str, bytes] = {}
    while True:
        for found, data in _messages(peer):
            if isinstance(found, CStoreRQ):
                brought[str(found.affected_sop_instance_uid)] = data
                peer.send(message(found.response(0), 3))
            elif found.status != 0xFF00:
                ds = dsutils.decode(data, IMPLICIT_VR_LITTLE_ENDIAN) if data else None
                return brought, found, ds


def _messages(peer: RawPeer) -> list[tuple[Any, bytes]]:
    found: list[tuple[Message, bytes]] = []
    command = data = b""
    pdus = peer.take()
    assert pdus, "the node has sent nothing more"
    for kind, body in pdus:
        assert kind == 4
        while body:
            length, _, flags = struct.unpack_from(">IBB", body)
            part, body = body[6 : length + 4], body[length + 4 :]
            if flags & 1:
                command += part
                if flags & 2:
                    found.append((decode_command(command)[0], b""))
                    command = b""
            else:
                data += part
                if flags & 2:
                    found[-1] = (found[-1][0], data)
                    data = b""
    return found


@pytest.mark.parametrize("harm", HARM, ids=lambda each: each.__name__)
@pytest.mark.parametrize("at_once", [0, checked.AT_ONCE], ids=["large", "small"])
@pytest.mark.parametrize(
    "sop_class", [GET, WITHOUT_BULK_DATA_GET_SOP_CLASS], ids=["get", "without bulk data"]
)
def test_what_is_not_the_instance_any_more_is_not_sent(
    node: Archive,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[Path], None],
    at_once: int,
    sop_class: str,
) -> None:
    """It went out as Completed, and was that instance at the receiver for good. The others arrive."""
    monkeypatch.setattr(checked, "AT_ONCE", at_once)
    harm(node.store.path(BAD))
    brought, final, identifier = get(node, sop_class)
    assert set(brought) == {uid for uid in UIDS if uid != BAD}
    if sop_class == GET:
        assert brought == {uid: ct(uid) for uid in UIDS if uid != BAD}
    assert final.status == 0xB000
    assert (
        final.number_of_completed_suboperations,
        final.number_of_failed_suboperations,
        final.number_of_warning_suboperations,
    ) == (2, 1, 0)
    assert identifier is not None
    assert identifier.FailedSOPInstanceUIDList == BAD
    assert len([line for line in lines if f"{BAD} failed" in line]) == 1


def test_what_is_whole_is_sent(node: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    for at_once in (0, 1 << 20):
        monkeypatch.setattr(checked, "AT_ONCE", at_once)
        brought, final, identifier = get(node)
        assert brought == {uid: ct(uid) for uid in UIDS}
        assert (final.status, identifier) == (0x0000, None)


def test_a_large_file_is_checked_in_a_thread(
    node: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fragment of its pixel data is looked at, and a whole slide has 100,000; others are served meanwhile."""
    ref = node.index.get(UIDS[0])
    assert ref is not None
    kept = checked.KeptInstance.of_ref(ref)
    monkeypatch.setattr(checked, "AT_ONCE", ref.size)
    assert not kept.takes_long(EXPLICIT.transfer_syntax)
    monkeypatch.setattr(checked, "AT_ONCE", ref.size - 1)
    assert kept.takes_long(EXPLICIT.transfer_syntax)
