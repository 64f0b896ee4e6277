"""Elements of encoded data sets: PS3.5 7."""

from __future__ import annotations

import pytest

from netdicom_tx.archive.encoded.elements import CANONICAL, Element, encode_element, vr_of
from netdicom_tx.archive.encoded.recode import recode
from netdicom_tx.archive.encoded.walk import InvalidDataSetError, elements, items
from netdicom_tx.encoding import Coding, DataSetError, coding_of
from netdicom_tx.uids import EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from support.archive.data_sets import ENCODINGS, EXPLICIT, Encoding

UTF8 = ("utf-8",)


def read(data: bytes, coding: Coding = CANONICAL) -> list[Element]:
    return list(elements(data, coding, 0, len(data)))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("defined", [True, False])
def test_elements_are_found_one_after_the_other(encoding: Encoding, defined: bool) -> None:
    text = encoding.element(0x00080100, "SH", b"abcd")
    inner = encoding.sequence(0x00081032, text, b"", defined=not defined)
    data = text + encoding.sequence(0x00081032, text + inner, defined=defined) + text
    coding = coding_of(encoding.transfer_syntax)
    found = read(data, coding)
    assert [(each.tag, each.vr) for each in found] == [
        (0x00080100, "SH"),
        (0x00081032, "SQ"),
        (0x00080100, "SH"),
    ]
    assert data[found[0].start : found[0].end] == b"abcd"
    assert found[-1].behind == len(data)
    ((start, end),) = items(data, coding, found[1].start, found[1].end)
    assert data[start:end] == text + inner


def test_items_of_both_kinds_stand_in_a_sequence_of_undefined_length() -> None:
    text = EXPLICIT.element(0x00080100, "SH", b"abcd")
    value = EXPLICIT.items(text, defined=True) + EXPLICIT.items(text)
    data = EXPLICIT.element(0x00081032, "SQ", value, 0xFFFFFFFF) + text
    first, second = read(data)
    assert [data[a:b] for a, b in items(data, CANONICAL, first.start, first.end)] == [text, text]
    assert second.behind == len(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x08\0", id="stray octets"),
        pytest.param(EXPLICIT.element(0x00081032, "SQ")[:8], id="no length"),
        pytest.param(EXPLICIT.element(0x00080100, "SH", b"ab", length=4), id="no value"),
        pytest.param(EXPLICIT.element(0xFFFEE000, ""), id="an item"),
        pytest.param(EXPLICIT.element(0x00081032, "SQ", b"", 0xFFFFFFFF), id="no end"),
        pytest.param(
            EXPLICIT.element(0x00081032, "SQ", EXPLICIT.element(0x00080100, "SH"), 0xFFFFFFFF),
            id="an element for an item",
        ),
    ],
)
def test_what_is_no_data_set_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidDataSetError):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xfe\xff\0\xe0", id="stray octets"),
        pytest.param(EXPLICIT.element(0xFFFEE000, "", b"ab", length=4), id="cut off"),
        pytest.param(EXPLICIT.element(0x00080100, "SH"), id="no item"),
        pytest.param(EXPLICIT.element(0xFFFEE000, "", b"", 0xFFFFFFFF), id="no end"),
    ],
)
def test_what_are_no_items_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidDataSetError):
        list(items(data, CANONICAL, 0, len(data)))


def test_items_end_with_their_delimiter() -> None:
    data = EXPLICIT.items(b"") + b"whatever follows"
    assert len(list(items(data, CANONICAL, 0, len(data)))) == 1


@pytest.mark.parametrize(
    ("tag", "vr"),
    [
        (0x00100010, "PN"),
        (0x00280106, "US"),  # US or SS
        (0x00281201, "OW"),
        (0x7FE00010, "OW"),  # OB or OW
        (0x00280071, "US"),
        (0x00091001, "UN"),
        (0xFFFEE000, "UN"),
    ],
)
def test_the_dictionary_says_the_vr(tag: int, vr: str) -> None:
    assert vr_of(tag) == vr


def test_values_are_padded() -> None:
    """PS3.5 6.2: with a space, a UID and octets with NUL."""
    assert encode_element(0x00080100, "SH", b"a", CANONICAL)[8:] == b"a "
    assert encode_element(0x00080018, "UI", b"1", CANONICAL)[8:] == b"1\0"
    assert encode_element(0x00420011, "OB", b"1", CANONICAL)[12:] == b"1\0"


def test_a_value_too_long_for_its_vr_is_refused() -> None:
    """PS3.5 7.1.2: 16 bits of length."""
    assert encode_element(0x00080100, "SH", bytes(70_000), coding_of(IMPLICIT_VR_LITTLE_ENDIAN))
    assert encode_element(0x00080119, "UC", bytes(70_000), CANONICAL)
    with pytest.raises(DataSetError, match="70000 octets"):
        encode_element(0x00080100, "SH", bytes(70_000), CANONICAL)


def test_single_values_are_written_in_another_way() -> None:
    big = coding_of(EXPLICIT_VR_BIG_ENDIAN)
    for vr, value, expected in (
        ("US", b"\1\2\3\4", b"\2\1\4\3"),
        ("LO", "é".encode("latin-1"), "é".encode()),
        ("LO", b"plain", b"plain"),
        ("UI", b"1.2\0", b"1.2\0"),
    ):
        element = Element(0, vr, 0, len(value), len(value), CANONICAL)
        assert recode(value, element, ("latin-1",), big) == expected
