"""Data sets that senders in the field make: kept as they came, found, sent, and indexed again."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netdicom_tx.archive.query.matching import InformationModel
from netdicom_tx.dimsemessages import CGetRQ
from netdicom_tx.dsutils import part10_header
from netdicom_tx.pdu import AAbort
from netdicom_tx.uids import IMPLICIT_VR_LITTLE_ENDIAN
from netdicom_tx.uids import STUDY_ROOT_GET_SOP_CLASS as GET
from netdicom_tx.userdataitems import MaximumLength, RoleSelection
from support.archive.archives import Archive, stored
from support.archive.data_sets import (
    BIG_ENDIAN,
    CT_IMAGE_STORAGE,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    Encoding,
    deflated,
)
from support.archive.patients import data_set as identifier
from support.archive.patients import find
from support.doubles import logged_lines as logged_lines

UID = "1.2.3"


def instance(encoding: Encoding, *more: bytes) -> bytes:
    """A small CT image, with elements behind those that identify it."""
    text = lambda value: value.encode() + b"\0" * (len(value) % 2)  # noqa: E731
    return b"".join(
        (
            encoding.element(0x00080016, "UI", text(CT_IMAGE_STORAGE)),
            encoding.element(0x00080018, "UI", text(UID)),
            encoding.element(0x00100010, "PN", b"ODD^ONE "),
            encoding.element(0x00100020, "LO", b"7 "),
            encoding.element(0x0020000D, "UI", b"1.2.3.1\0"),
            encoding.element(0x0020000E, "UI", b"1.2.3.1.1\0"),
            *more,
        )
    )


def with_vr(encoding: Encoding, vr: bytes, value: bytes = b"abcd") -> bytes:
    return encoding.element(0x00290010, "CS", value).replace(b"CS", vr, 1)


def pixels(encoding: Encoding) -> bytes:
    return encoding.element(0x7FE00010, "OW", b"abcd")


def padding(encoding: Encoding) -> bytes:
    return encoding.element(0xFFFCFFFC, "OB", bytes(100))


def end(encoding: Encoding, tag: int = 0xFFFEE00D) -> bytes:
    return encoding.element(tag, "")


def file_header(encoding: Encoding) -> bytes:
    """What stands before the data set in a file: in explicit VR little endian, whatever the data set is in."""
    return part10_header(CT_IMAGE_STORAGE, UID, encoding.transfer_syntax)


def group_2(encoding: Encoding, of: Encoding = EXPLICIT) -> bytes:
    """Group 0002 as some routers leave it: the transfer syntax alone."""
    uid = encoding.transfer_syntax.encode()
    return of.element(0x00020010, "UI", uid + b"\0" * (len(uid) % 2))


ODD: dict[str, Callable[[Encoding], bytes]] = {
    "VR ??": lambda e: instance(e, with_vr(e, b"??"), pixels(e)),
    "VR of two NULs": lambda e: instance(e, with_vr(e, b"\0\0"), pixels(e)),
    "VR of two blanks": lambda e: instance(e, with_vr(e, b"  "), pixels(e)),
    "VR in small letters": lambda e: instance(e, with_vr(e, b"lo"), pixels(e)),
    "VR of one letter": lambda e: instance(e, with_vr(e, b"L "), pixels(e)),
    "unknown VR at the end": lambda e: instance(e, with_vr(e, b"??", b"")),
    "an item delimiter at the end": lambda e: instance(e, end(e)),
    "a sequence delimiter behind pixels": lambda e: instance(e, pixels(e), end(e, 0xFFFEE0DD)),
    "a delimiter in the middle": lambda e: instance(e, end(e), pixels(e)),
    "zeros at the end": lambda e: instance(e, bytes(200)),
    "zeros behind pixels": lambda e: instance(e, pixels(e), bytes(200)),
    "two zeros behind pixels": lambda e: instance(e, pixels(e), bytes(2)),
    "zeros behind padding": lambda e: instance(e, pixels(e), padding(e), bytes(16)),
    "a file": lambda e: file_header(e) + instance(e, pixels(e)),
    "a file without preamble": lambda e: file_header(e)[128:] + instance(e),
    "a file header without prefix": lambda e: file_header(e)[132:] + instance(e, pixels(e)),
    "a file within a file": lambda e: file_header(e) * 2 + instance(e, pixels(e)),
    "a file without group length": lambda e: bytes(128) + b"DICM" + group_2(e) + instance(e),
    "a preamble without header": lambda e: bytes(128) + b"DICM" + instance(e, pixels(e)),
    "group 0002 in explicit VR": lambda e: group_2(e) + instance(e, pixels(e)),
    "group 0002 of another syntax": lambda e: group_2(BIG_ENDIAN) + instance(e, pixels(e)),
    "a file header, zeros behind": lambda e: file_header(e) + instance(e, pixels(e), bytes(200)),
    "padding, a delimiter and zeros": lambda e: instance(e, padding(e), end(e), bytes(12)),
}
CASES = [
    pytest.param(encoding, make, id=f"{name}, {label}")
    for name, make in ODD.items()
    for label, encoding in (("explicit", EXPLICIT), ("implicit", IMPLICIT), ("big", BIG_ENDIAN))
    if not (encoding is IMPLICIT and "VR" in name)
]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive(tmp_path / "archive")
    yield opened
    opened.close()


def got(node: Archive, encoding: Encoding) -> bytes:
    """The data set that a C-GET of the study brings."""
    peer = node.associate(
        {GET: [IMPLICIT_VR_LITTLE_ENDIAN], CT_IMAGE_STORAGE: [encoding.transfer_syntax]},
        MaximumLength(0),
        RoleSelection(CT_IMAGE_STORAGE, False, True),
    )
    asked = IMPLICIT.element(0x00080052, "CS", b"STUDY ") + IMPLICIT.element(
        0x0020000D, "UI", b"1.2.3.1\0"
    )
    peer.send(CGetRQ(affected_sop_class_uid=GET, message_id=1, data_set=asked))
    data = b""
    for kind, body in peer.take():
        assert kind == 4
        while body:
            length, _, flags = struct.unpack_from(">IBB", body)
            data += b"" if flags & 1 else body[6 : length + 4]
            body = body[length + 4 :]
    # The instance is not answered, so the operation would be left to the garbage collector.
    peer.send(AAbort(0, 0))
    node.advance(0)
    return data


@pytest.mark.parametrize(("encoding", "make"), CASES)
def test_an_odd_data_set_is_kept(
    node: Archive, lines: list[str], encoding: Encoding, make: Callable[[Encoding], bytes]
) -> None:
    """An archive keeps what came, octet for octet, and says what was odd in one line."""
    data = make(encoding)
    assert stored(node.sender(encoding), data) == 0x0000
    assert node.kept(UID) == data
    assert len([each for each in lines if "is kept as it was received" in each]) == 1
    (answer,) = find(
        node.index,
        identifier(QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.3.1", PatientName=""),
        model=InformationModel.STUDY_ROOT,
    )
    assert answer.PatientName == "ODD^ONE"
    assert got(node, encoding) == data


@pytest.mark.parametrize(("encoding", "make"), CASES)
def test_an_odd_data_set_is_the_same_again_and_survives_its_index(
    node: Archive, encoding: Encoding, make: Callable[[Encoding], bytes]
) -> None:
    data = make(encoding)
    assert stored(node.sender(encoding), data) == 0x0000
    assert stored(node.sender(encoding), data) == 0x0000
    node.close()
    for file in node.store.root.glob("index.db*"):
        file.unlink()
    node.ae.start()
    assert node.kept(UID) == data


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(instance(IMPLICIT), id="implicit VR"),
        pytest.param(instance(EXPLICIT, EXPLICIT.element(0x00290010, "LO", b"ab", 4)), id="cut"),
        pytest.param(file_header(EXPLICIT) + instance(IMPLICIT), id="a file in implicit VR"),
        pytest.param(file_header(EXPLICIT), id="a file header alone"),
        pytest.param(file_header(EXPLICIT) + instance(EXPLICIT)[:-2], id="a file that is cut"),
        pytest.param(instance(EXPLICIT, bytes(200), EXPLICIT.element(0x00290010, "LO")), id="gap"),
        pytest.param(bytes(200), id="zeros alone"),
    ],
)
def test_what_cannot_be_read_is_refused(node: Archive, data: bytes) -> None:
    assert stored(node.sender(EXPLICIT), data) in (0xC000, 0xA900)
    assert node.kept(UID) is None


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param(b"ISO_IR 10\xe9", id="not ASCII"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(b"ISO_IR 100\\\xe4\xe4\xe4", id="the second one"),
        pytest.param("ISO_IR 192é".encode(), id="UTF-8"),
        pytest.param(b"ISO_IR\x00192  ", id="a NUL"),
        pytest.param(b"UTF-8 ", id="unknown"),
        pytest.param(b"\x1b$B\x1b(J", id="escapes"),
        pytest.param(b"a\\" * 600, id="many"),
    ],
)
def test_an_odd_character_set_is_kept_and_stops_no_start(node: Archive, terms: bytes) -> None:
    """It was answered with 0x0110; and a file with it, once stored, kept the node from starting."""
    data = EXPLICIT.element(0x00080005, "CS", terms) + instance(EXPLICIT)
    assert stored(node.sender(), data) == 0x0000
    assert node.kept(UID) == data
    node.close()
    for file in node.store.root.glob("index.db*"):
        file.unlink()
    node.ae.start()
    assert node.kept(UID) == data
    for asked in ("ISO_IR 192", None):
        keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2.3.1", "PatientName": ""}
        keys |= {"SpecificCharacterSet": asked} if asked else {}
        (answer,) = find(node.index, identifier(**keys), model=InformationModel.STUDY_ROOT)
        assert answer.PatientName == "ODD^ONE"


@pytest.mark.parametrize("encoding", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize(
    "make",
    [
        lambda e: group_2(IMPLICIT, e) + instance(e),
        lambda e: e.element(0x00020000, "UL", bytes(4)) + instance(e, pixels(e)),
        lambda e: instance(e, group_2(e, e)),
    ],
    ids=["in front", "a group length alone", "among the others"],
)
def test_group_2_that_is_written_as_the_data_set_is_kept(
    node: Archive, encoding: Encoding, make: Callable[[Encoding], bytes]
) -> None:
    """PS3.10 7.1: it belongs to a file. It comes back where it was, and is the same again without it."""
    data = make(encoding)
    assert stored(node.sender(encoding), data) == 0x0000
    assert got(node, encoding) == data
    assert stored(node.sender(encoding), data) == 0x0000


def test_a_deflated_data_set_behind_a_file_header_is_kept(node: Archive) -> None:
    plain = instance(EXPLICIT, pixels(EXPLICIT))
    odd = EXPLICIT._replace(transfer_syntax=DEFLATED)
    data = file_header(odd) + deflated(file_header(odd) + plain)
    assert stored(node.sender(odd), data) == 0x0000
    assert got(node, odd) == data
    # PS3.5 A.5: the same instance, written otherwise.
    assert stored(node.sender(odd), deflated(plain)) == 0x0000
    assert stored(node.sender(EXPLICIT), plain) == 0x0000
    assert node.kept(UID) == data
