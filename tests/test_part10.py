"""The header of a file: one that is ours is recognised by its octets, and read as any other (PS3.10 7.1)."""

from __future__ import annotations

import struct
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netdicom_tx.encoding import DataSetError
from netdicom_tx.part10 import FileMeta, own_header_size, part10_header, read_file_meta

CLASS, INSTANCE, SYNTAX = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.45", "1.2.840.10008.1.2.1"
BEHIND = b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + bytes(100)
uids = st.from_regex(r"[0-9.]{1,64}", fullmatch=True)


@given(uids, uids, uids, st.text("ABCDEFGH_ ", max_size=16).map(str.strip))
def test_a_header_of_ours_is_as_long_as_it_is_read_to_be(
    sop_class: str, instance: str, syntax: str, title: str
) -> None:
    header = part10_header(sop_class, instance, syntax, source_ae_title=title)
    assert own_header_size(header + BEHIND, sop_class, instance, syntax) == len(header)
    assert read_file_meta(BytesIO(header + BEHIND)).offset == len(header)


@pytest.mark.parametrize("title", ["", "SENDER", "ODD"])
def test_a_header_that_was_changed_anywhere_is_not_taken_for_ours(title: str) -> None:
    """The file may be damaged, or that of another instance; then the header is read, element by element."""
    whole = part10_header(CLASS, INSTANCE, SYNTAX, source_ae_title=title) + BEHIND
    size = len(whole) - len(BEHIND)
    for at in range(size):
        changed = bytearray(whole)
        changed[at] ^= 1
        found = own_header_size(bytes(changed), CLASS, INSTANCE, SYNTAX)
        if found is not None:
            # An octet of the AE title, which is not compared.
            assert read_file_meta(BytesIO(changed)).offset == found == size
            assert size - len(title) - 1 <= at


@pytest.mark.parametrize("size", [0, 100, 132, 143, 150, 250])
def test_a_header_that_was_cut_is_not_taken_for_ours(size: int) -> None:
    whole = part10_header(CLASS, INSTANCE, SYNTAX, source_ae_title="SENDER")
    assert own_header_size(whole[:size], CLASS, INSTANCE, SYNTAX) is None


def test_a_header_of_another_instance_is_not_taken_for_ours() -> None:
    whole = part10_header(CLASS, INSTANCE, SYNTAX) + BEHIND
    assert own_header_size(whole, CLASS, INSTANCE + "1", SYNTAX) is None
    assert own_header_size(whole, CLASS + "1", INSTANCE, SYNTAX) is None
    assert own_header_size(whole, CLASS, INSTANCE, SYNTAX + "1") is None


def test_a_file_without_a_header_has_none() -> None:
    with pytest.raises(DataSetError, match="expected 'DICM'"):
        read_file_meta(BytesIO(BEHIND))
    assert own_header_size(BEHIND, CLASS, INSTANCE, SYNTAX) is None


# -- what older systems have written --------------------------------------------------------------------

EXPLICIT_DATA = b"".join(
    struct.pack("<HH2sH", 8, number, b"UI", len(value)) + value
    for number, value in ((0x16, CLASS.encode() + b"\0"), (0x18, INSTANCE.encode()), (0x20, b""))
)
IMPLICIT_DATA = b"".join(
    struct.pack("<HHI", 8, number, len(value)) + value
    for number, value in ((0x16, CLASS.encode() + b"\0"), (0x18, INSTANCE.encode()), (0x20, b""))
)
BIG_ENDIAN_DATA = b"".join(
    struct.pack(">HH2sH", 8, number, b"UI", len(value)) + value
    for number, value in ((0x16, CLASS.encode() + b"\0"), (0x18, INSTANCE.encode()), (0x20, b""))
)
HEADER = part10_header(CLASS, INSTANCE, SYNTAX)
ONLY_SYNTAX = b"\2\0\x10\0UI\x14\0" + SYNTAX.encode() + b"\0"
IMPLICIT_SYNTAX = b"\2\0\x10\0\x14\0\0\0" + SYNTAX.encode() + b"\0"


@pytest.mark.parametrize(
    ("octets", "syntax", "offset"),
    [
        (HEADER[132:] + EXPLICIT_DATA, SYNTAX, len(HEADER) - 132),
        (HEADER[128:] + EXPLICIT_DATA, SYNTAX, len(HEADER) - 128),
        (EXPLICIT_DATA, SYNTAX, 0),
        (IMPLICIT_DATA, "1.2.840.10008.1.2", 0),
        (BIG_ENDIAN_DATA, "1.2.840.10008.1.2.2", 0),
        (HEADER[:132] + ONLY_SYNTAX + EXPLICIT_DATA, SYNTAX, 160),
        (HEADER[:132] + IMPLICIT_SYNTAX + EXPLICIT_DATA, SYNTAX, 160),
    ],
    ids=[
        "no preamble",
        "prefix",
        "explicit",
        "implicit",
        "big endian",
        "syntax",
        "implicit header",
    ],
)
def test_a_lenient_reader_takes_files_that_are_no_longer_allowed(
    octets: bytes, syntax: str, offset: int
) -> None:
    """The data set says which instance it is."""
    file = BytesIO(b"before" + octets)
    file.seek(6)
    assert read_file_meta(file, is_lenient=True) == FileMeta(
        CLASS, INSTANCE, syntax, offset, is_complete=False
    )
    assert file.tell() == 6 + offset
    with pytest.raises(DataSetError):
        read_file_meta(BytesIO(octets))


@pytest.mark.parametrize(
    ("octets", "says"),
    [
        (b"", "expected 'DICM'"),
        (b"\x08\0\x16\0UI\0\0" * 3, "expected 'DICM'"),  # no UIDs
        (EXPLICIT_DATA[:40], "expected 'DICM'"),  # it ends before they do
        (b"\x08\0" + bytes(200), "expected 'DICM'"),
        (HEADER[:132] + EXPLICIT_DATA, "no Transfer Syntax UID"),
        (HEADER[:132] + ONLY_SYNTAX + EXPLICIT_DATA[:30], "no SOP Class UID"),
    ],
)
def test_a_lenient_reader_does_not_take_everything(octets: bytes, says: str) -> None:
    with pytest.raises(DataSetError, match=says):
        read_file_meta(BytesIO(octets), is_lenient=True)


@given(st.binary(max_size=300))
def test_a_lenient_reader_raises_nothing_else(octets: bytes) -> None:
    for begin in (b"", b"\x08\0\x16\0UI", b"\2\0\0\0UL\4\0", HEADER[:132], HEADER[:150]):
        with suppress(DataSetError):
            read_file_meta(BytesIO(begin + octets), is_lenient=True)
