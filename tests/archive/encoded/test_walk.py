"""The walk over an encoded data set: whole or not, and which instance it is (PS3.5 7)."""

import io
import mmap
import struct
import time
import tracemalloc
import zlib
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pydicom
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.filereader import _read_file_meta_info, read_preamble

from netdicom_tx.archive.encoded import walk as walking
from netdicom_tx.archive.encoded.walk import (
    ELEMENT_LIMIT,
    HEADER_LIMIT,
    INFLATED_LIMIT,
    NESTING_LIMIT,
    VALUE_LIMIT,
    InvalidDataSetError,
    elements,
    find,
    walk,
)
from netdicom_tx.encoding import Buffer, coding_of
from netdicom_tx.uids import (
    COMPRESSED_TRANSFER_SYNTAXES,
    DEFLATED_TRANSFER_SYNTAXES,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from support.archive.data_sets import (
    BIG_ENDIAN,
    CT_IMAGE_STORAGE,
    DEFLATED,
    ENCODINGS,
    EXPLICIT,
    IMPLICIT,
    LONG_VRS,
    SHORT_VRS,
    UNDEFINED,
    Encoding,
    Made,
    ct,
    data_sets,
    deflated,
)
from support.interop.samples import BROKEN, quiet
from support.measuring import unmeasured


class Scanned(NamedTuple):
    """What a walk finds, but for the header."""

    sop_class_uid: str
    sop_instance_uid: str
    header_end: int
    is_whole: bool


def scan(data: Buffer, transfer_syntax: str, offset: int = 0) -> Scanned:
    found = walk(data, transfer_syntax, offset)
    return Scanned(found.sop_class_uid, found.sop_instance_uid, found.header_end, found.is_whole)


JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
DATA = Path(pydicom.__file__).parent / "data"
each_encoding = pytest.mark.parametrize(
    "encoding", ENCODINGS, ids=lambda each: each.transfer_syntax
)


def part10_files() -> list[Path]:
    """pydicom's own files with a Part 10 header that names a transfer syntax."""
    found = []
    for path in sorted(DATA.rglob("*")):
        if path.is_file():
            octets = path.read_bytes()
            if octets[128:132] == b"DICM" and b"\x02\x00\x10\x00UI" in octets[:1024]:
                found.append(path)
    return found


def refused(data: bytes, transfer_syntax: str) -> str:
    """The sentence with which a data set is refused."""
    with pytest.raises(InvalidDataSetError) as caught:
        scan(data, transfer_syntax)
    return str(caught.value)


def is_refused(data: bytes, transfer_syntax: str) -> bool:
    try:
        scan(data, transfer_syntax)
    except InvalidDataSetError:
        return True
    return False


# -- real files ----------------------------------------------------------------------------------------


def test_there_are_files_to_test_with() -> None:
    """A pydicom without its files would make the next test empty."""
    assert len(part10_files()) > 100


@pytest.mark.parametrize("path", part10_files(), ids=lambda path: str(path.relative_to(DATA)))
def test_what_pydicom_reads_is_found(path: Path) -> None:
    """Whole, and with the SOP Class UID, SOP Instance UID and place of Pixel Data that pydicom finds."""
    octets = path.read_bytes()
    with quiet():
        ds = pydicom.dcmread(path)
        header = io.BytesIO(octets)
        read_preamble(header, False)
        _read_file_meta_info(header)
    syntax = str(ds.file_meta.TransferSyntaxUID)
    offset = header.tell()
    if path.name in BROKEN:
        with pytest.raises(InvalidDataSetError):
            scan(octets, syntax, offset)
        return
    found = scan(octets, syntax, offset)
    assert found.is_whole
    with quiet():
        assert found.sop_class_uid == str(ds.get("SOPClassUID", ""))
        assert found.sop_instance_uid == str(ds.get("SOPInstanceUID", ""))
    if "PixelData" in ds:
        # Some have a group length before it.
        raw = ds.get_item(next(tag for tag in sorted(ds.keys()) if tag.group == 0x7FE0))
        head = 8 if syntax == IMPLICIT_VR_LITTLE_ENDIAN or raw.VR == "UL" else 12
        assert found.header_end == raw.value_tell - head  # type: ignore[union-attr]


@pytest.mark.parametrize("path", part10_files(), ids=lambda path: str(path.relative_to(DATA)))
def test_values_are_found_where_pydicom_finds_them(path: Path) -> None:
    """Every element of the header that is wanted and not too long, in what is kept of the header."""
    if path.name in BROKEN:
        return
    octets = path.read_bytes()
    with quiet():
        ds = pydicom.dcmread(path)
        file = io.BytesIO(octets)
        read_preamble(file, False)
        _read_file_meta_info(file)
    syntax = str(ds.file_meta.TransferSyntaxUID)
    raw = {int(tag): ds.get_item(tag) for tag in ds.keys()}  # noqa: SIM118 - raw, not converted
    found = walk(octets, syntax, file.tell(), raw)
    plain = {tag: each for tag, each in raw.items() if isinstance(each.value, bytes)}
    for tag, each in plain.items():
        if tag < 0x7FE00000 and each.value and len(each.value) < VALUE_LIMIT - 12:
            element = found.elements[tag]
            assert found.header[element.start : element.end] == each.value
            assert each.VR in (None, "UN", element.vr)
    sequences = {tag for tag, each in raw.items() if each.VR == "SQ"}
    assert all(found.elements[tag].vr == "SQ" for tag in sequences.intersection(found.elements))
    assert all(tag < 0x7FE00000 for tag in found.elements)


# -- encodings -----------------------------------------------------------------------------------------


@each_encoding
def test_the_instance_is_found_in_every_uncompressed_transfer_syntax(encoding: Encoding) -> None:
    """PS3.5 A.1, A.2, A.3."""
    data = ct("1.2.3.4", encoding=encoding)
    place = data.index(encoding.element(0x7FE00010, "OW", bytes([7]) * 512))
    assert scan(data, encoding.transfer_syntax) == Scanned(CT_IMAGE_STORAGE, "1.2.3.4", place, True)


@each_encoding
def test_the_header_is_kept_without_long_values(encoding: Encoding) -> None:
    """What stands before pixel data; offsets of wanted elements are offsets in it."""
    kept = encoding.element(0x00100020, "LO", b"4711")
    sequence = encoding.sequence(0x00081140, encoding.identity("1.2.9"))
    long = encoding.element(0x00091001, "OB", bytes(VALUE_LIMIT))
    last = encoding.element(0x00280010, "US", b"ab")
    parts = [encoding.identity(), sequence, long, long, kept, long, last]
    pixels = encoding.element(0x7FE00010, "OW", bytes(64)) + encoding.element(0xFFFCFFFC, "OB")
    wanted = (0x00081140, 0x00091001, 0x00100020, 0x00100010, 0x00280010, 0xFFFCFFFC)
    found = walk(b"before" + b"".join(parts) + pixels, encoding.transfer_syntax, 6, wanted)
    assert found.header == encoding.identity() + sequence + kept + last
    assert set(found.elements) == {0x00080016, 0x00080018, 0x00081140, 0x00100020, 0x00280010}
    values = {tag: found.header[each.start : each.end] for tag, each in found.elements.items()}
    assert values[0x00100020] == b"4711"
    assert values[0x00280010] == b"ab"
    delimiter = encoding.element(0xFFFEE0DD, "")
    assert values[0x00081140] + delimiter == encoding.items(encoding.identity("1.2.9"))
    coding = coding_of(encoding.transfer_syntax)
    assert find(found.header, coding, wanted) == {
        tag: each for tag, each in found.elements.items() if tag in wanted
    }


@each_encoding
def test_an_element_without_a_value_is_not_found(encoding: Encoding) -> None:
    """Nor is a sequence without items, however its length is written."""
    data = b"".join(
        (
            encoding.element(0x00080050, "SH"),
            encoding.sequence(0x00081032, defined=True),
            encoding.sequence(0x00081140),
        )
    )
    wanted = (0x00080050, 0x00081032, 0x00081140)
    assert walk(data, encoding.transfer_syntax, 0, wanted).elements == {}
    assert find(data, coding_of(encoding.transfer_syntax), wanted) == {}


def test_a_header_is_kept_up_to_its_limit() -> None:
    """Small elements beyond it are left out like long ones; those that fit are kept."""
    one = EXPLICIT.element(0x00091001, "OB", bytes(8000))
    last = EXPLICIT.element(0x00280010, "US", b"ab")
    found = walk(EXPLICIT.identity() + one * 100 + last, EXPLICIT.transfer_syntax, 0, [0x00280010])
    assert HEADER_LIMIT - len(one) < len(found.header) <= HEADER_LIMIT
    element = found.elements[0x00280010]
    assert found.header[element.start : element.end] == b"ab"


@pytest.mark.parametrize("transfer_syntax", DEFLATED_TRANSFER_SYNTAXES)
def test_a_deflated_data_set_is_walked_inflated(transfer_syntax: str) -> None:
    """PS3.5 A.5; header_end counts inflated octets."""
    plain = ct("1.2.3.4")
    found = scan(deflated(plain), transfer_syntax)
    assert found == scan(plain, EXPLICIT.transfer_syntax)
    assert found.is_whole


@pytest.mark.parametrize(
    "transfer_syntax", sorted(set(COMPRESSED_TRANSFER_SYNTAXES) - set(DEFLATED_TRANSFER_SYNTAXES))
)
def test_encapsulated_header_end_is_walked_to_its_delimiter(transfer_syntax: str) -> None:
    """PS3.5 A.4: an offset table, fragments, the sequence delimiter."""
    fragments = EXPLICIT.items(b"", b"\xff\xd8" * 8, b"\xfe\xff\xdd\xe0", defined=True)
    pixels = EXPLICIT.element(0x7FE00010, "OB", fragments, UNDEFINED)
    data = EXPLICIT.identity() + pixels + EXPLICIT.element(0xFFFEE0DD, "")
    found = scan(data, transfer_syntax)
    assert (found.sop_instance_uid, found.is_whole) == ("1.2.3", True)
    assert found.header_end == len(EXPLICIT.identity())
    with pytest.raises(InvalidDataSetError, match=r"\(7FE0,0010\)"):
        scan(data[:-8], transfer_syntax)


@pytest.mark.parametrize("vr", LONG_VRS + SHORT_VRS)
def test_every_value_representation_is_stepped_over(vr: str) -> None:
    """PS3.5 7.1.2: 32 bits of length for some, 16 for the others."""
    for encoding in (EXPLICIT, BIG_ENDIAN):
        data = encoding.element(0x00080005, vr, b"ab") + encoding.identity()
        assert scan(data, encoding.transfer_syntax).sop_instance_uid == "1.2.3"


def test_a_value_representation_that_does_not_exist_yet_has_a_short_length() -> None:
    """PS3.5 6.2 grows; two capital letters are taken for one of those to come."""
    data = EXPLICIT.element(0x00080005, "ZZ", b"ab") + EXPLICIT.identity()
    assert scan(data, EXPLICIT.transfer_syntax).sop_instance_uid == "1.2.3"


@each_encoding
@pytest.mark.parametrize("defined", [True, False], ids=["defined", "undefined"])
def test_sequences_nest(encoding: Encoding, defined: bool) -> None:
    """PS3.5 7.5; what is inside a sequence does not say which instance this is."""
    inner = encoding.identity("9.9.9")
    for _ in range(10):
        inner = encoding.sequence(0x00081140, inner, b"", inner[:0], defined=defined)
    data = encoding.identity("1.2.3") + inner + encoding.element(0x7FE00010, "OW", b"ab")
    found = scan(data, encoding.transfer_syntax)
    assert found.sop_instance_uid == "1.2.3"
    assert found.header_end == len(data) - (10 if encoding.is_implicit else 14)


@each_encoding
def test_items_and_sequences_of_both_kinds_mix(encoding: Encoding) -> None:
    """PS3.5 7.5.2: an item may have another kind of length than its sequence."""
    item = encoding.element(0xFFFEE000, "", encoding.identity())
    sequence = encoding.element(0x00081140, "SQ", item, UNDEFINED)
    data = sequence + encoding.element(0xFFFEE0DD, "") + encoding.identity("1.2.3")
    assert scan(data, encoding.transfer_syntax).sop_instance_uid == "1.2.3"


@pytest.mark.parametrize("encoding", [EXPLICIT, BIG_ENDIAN], ids=["little", "big"])
def test_unknown_of_undefined_length_has_implicit_little_endian_inside(encoding: Encoding) -> None:
    """PS3.5 6.2.2 note: whatever the transfer syntax is, down to every depth."""
    deep = IMPLICIT.sequence(0x00091002, IMPLICIT.identity("9.9.9"))
    unknown = encoding.element(0x00091001, "UN", IMPLICIT.items(IMPLICIT.identity() + deep))
    data = unknown[:8] + b"\xff\xff\xff\xff" + unknown[12:] + encoding.identity()
    assert scan(data, encoding.transfer_syntax).sop_instance_uid == "1.2.3"


def test_a_sequence_behind_unknown_is_explicit_again() -> None:
    """PS3.5 6.2.2: the encoding of UN ends with it, also inside an item."""
    unknown = EXPLICIT.element(0x00091001, "UN", IMPLICIT.items(IMPLICIT.identity()), UNDEFINED)
    item = unknown + EXPLICIT.element(0x00091002, "CS", b"AB")
    data = EXPLICIT.sequence(0x00081140, item) + EXPLICIT.identity()
    assert scan(data, EXPLICIT.transfer_syntax).sop_instance_uid == "1.2.3"


def test_an_item_whose_length_looks_like_a_value_representation_is_an_item() -> None:
    """Items have no VR in any transfer syntax (PS3.5 7.5): here the length is 'CS' in octets."""
    content = EXPLICIT.element(0x00091001, "OB", bytes(0x5343 - 12))
    for item in (content, content + bytes(1 << 17)):
        assert len(item) & 0xFFFF == 0x5343
        data = EXPLICIT.element(0x00081140, "SQ", EXPLICIT.items(item, defined=True), UNDEFINED)
        data += EXPLICIT.element(0xFFFEE0DD, "") + EXPLICIT.identity()
        assert scan(data, EXPLICIT.transfer_syntax).sop_instance_uid == "1.2.3"


def test_trailing_padding_is_an_element() -> None:
    """PS3.10 7.2: Data Set Trailing Padding (FFFC,FFFC)."""
    data = EXPLICIT.identity() + EXPLICIT.element(0xFFFCFFFC, "OB", bytes(16))
    assert scan(data, EXPLICIT.transfer_syntax).header_end == len(EXPLICIT.identity())


@each_encoding
def test_an_empty_data_set_is_whole(encoding: Encoding) -> None:
    """It is not an instance either; the caller decides what that means."""
    assert scan(b"", encoding.transfer_syntax) == Scanned("", "", 0, True)


@each_encoding
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, mmap.mmap])
def test_the_octets_may_be_in_memory_or_mapped(
    encoding: Encoding, kind: type, tmp_path: Path
) -> None:
    """The offsets count from the beginning of what is given, a Part 10 header for example."""
    header, data = bytes(131), ct("1.2.3", encoding=encoding)
    whole = header + data
    expected = scan(data, encoding.transfer_syntax)
    buffer = whole
    if kind is mmap.mmap:
        path = tmp_path / "mapped"
        path.write_bytes(whole)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            found = scan(view, encoding.transfer_syntax, len(header))
            with pytest.raises(InvalidDataSetError):
                scan(view, encoding.transfer_syntax, len(header) + 1)
    else:
        found = scan(kind(buffer), encoding.transfer_syntax, len(header))
    assert found == expected._replace(header_end=expected.header_end + len(header))


def test_a_map_can_be_closed_after_a_refusal(tmp_path: Path) -> None:
    """No view of it may be left, or closing it raises BufferError."""
    path = tmp_path / "mapped"
    path.write_bytes(b"\xff" * 4096)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        for syntax in (EXPLICIT.transfer_syntax, IMPLICIT.transfer_syntax, DEFLATED):
            try:
                scan(view, syntax)
            except InvalidDataSetError as error:
                refusal = error  # keeps its traceback, and so the frames, alive
                view.size()
    assert refusal.__traceback__ is not None


def test_a_uid_loses_its_padding_and_only_that() -> None:
    """PS3.5 9.1: a trailing NUL; some pad with a space. A text longer than 64 is not a UID."""
    for value, expected in (
        (b"1.2.3\0", "1.2.3"),
        (b"1.2.3 ", "1.2.3"),
        (b"1.2\0.3", "1.2\0.3"),
        (b"", ""),
        (b"1." * 32, "1." * 32),
        (b"1." * 33, ""),
    ):
        data = EXPLICIT.element(0x00080018, "UI", value)
        assert scan(data, EXPLICIT.transfer_syntax).sop_instance_uid == expected


def test_the_last_value_may_be_odd_and_padded_by_the_sender() -> None:
    """PS3.8 Annex E wants even fragments: who sends an odd Pixel Data adds a NUL behind it."""
    odd = EXPLICIT.identity() + EXPLICIT.element(0x7FE00010, "OB", b"abc")
    assert scan(odd, EXPLICIT.transfer_syntax).is_whole
    assert scan(odd + b"\0", EXPLICIT.transfer_syntax).is_whole
    assert "stray" in refused(odd + b"\1", EXPLICIT.transfer_syntax)
    assert "stray" in refused(EXPLICIT.identity() + b"\0", EXPLICIT.transfer_syntax)


# -- what is odd, and kept -------------------------------------------------------------------------------

EXPLICIT_VRS = pytest.mark.parametrize("encoding", [EXPLICIT, BIG_ENDIAN], ids=["little", "big"])


def oddities(data: bytes, encoding: Encoding) -> tuple[str, ...]:
    """What is said of a data set that is kept; its UIDs and what stands behind the oddity are found."""
    found = walk(data, encoding.transfer_syntax, wanted=(0x00280010,))
    assert found.sop_instance_uid == "1.2.3"
    return found.oddities


def rows(encoding: Encoding) -> bytes:
    return encoding.element(0x00280010, "US", struct.pack(f"{encoding.order}H", 512))


@EXPLICIT_VRS
@pytest.mark.parametrize("vr", ["??", "\0\0", "  ", "cs", "1C", "C1", "--", "oX"])
@pytest.mark.parametrize("value", [b"", b"ab", bytes(6)], ids=len)
def test_an_unknown_vr_has_a_short_length(encoding: Encoding, vr: str, value: bytes) -> None:
    """Makers' own, and those of programs that forget to write one; DCMTK and pydicom read them likewise."""
    odd = encoding.element(0x00091001, "CS", value).replace(b"CS", vr.encode("latin-1"), 1)
    data = encoding.identity() + odd + rows(encoding)
    assert "(0009,1001) has the unknown VR" in oddities(data, encoding)[0]
    assert 0x00280010 in walk(data, encoding.transfer_syntax, wanted=(0x00280010,)).elements


@EXPLICIT_VRS
@pytest.mark.parametrize("vr", ["XY", "??", "\0\0"])
@pytest.mark.parametrize("value", [b"ab", b"abcdef", b"a" * 70_000], ids=len)
def test_an_unknown_vr_may_have_a_long_length(encoding: Encoding, vr: str, value: bytes) -> None:
    """PS3.5 7.1.2: a VR that is newer than this code has 32 bits of length."""
    odd = encoding.element(0x00091001, "OB", value).replace(b"OB", vr.encode("latin-1"), 1)
    data = encoding.identity() + odd + rows(encoding)
    assert "(0009,1001) has the unknown VR" in oddities(data, encoding)[0]
    assert 0x00280010 in walk(data, encoding.transfer_syntax, wanted=(0x00280010,)).elements


@each_encoding
@pytest.mark.parametrize("tag", [0xFFFEE00D, 0xFFFEE0DD])
def test_a_delimiter_that_ends_nothing_is_passed_over(encoding: Encoding, tag: int) -> None:
    stray = encoding.element(tag, "")
    last = encoding.element(0x7FE00010, "OB", b"abcd")
    for data in (
        encoding.identity() + stray,
        encoding.identity() + stray + stray,
        encoding.identity() + stray + rows(encoding),
        encoding.identity() + rows(encoding) + last + stray,
    ):
        assert len(oddities(data, encoding)) == 1
        assert [
            each.tag for each in elements(data, coding_of(encoding.transfer_syntax), 0, len(data))
        ]


@each_encoding
@pytest.mark.parametrize("count", [8, 9, 15, 200, 100_000])
def test_zeros_behind_a_data_set_are_kept(encoding: Encoding, count: int) -> None:
    padding = encoding.element(0xFFFCFFFC, "OB", bytes(10))
    for data in (
        encoding.identity(),
        encoding.identity() + rows(encoding) + encoding.element(0x7FE00010, "OB", b"abcd"),
        encoding.identity() + encoding.element(0x7FE00010, "OB", b"abcd") + padding,
        encoding.identity() + padding + encoding.element(0xFFFEE00D, ""),
    ):
        assert oddities(data + bytes(count), encoding)[-1].endswith("behind the data set")
        found = walk(data + bytes(count), encoding.transfer_syntax)
        assert found.header == walk(data, encoding.transfer_syntax).header


@each_encoding
def test_a_few_zeros_behind_pixel_data_are_kept_and_those_before_are_half_a_tag(
    encoding: Encoding,
) -> None:
    pixels = encoding.element(0x7FE00010, "OB", b"abcd")
    for count in range(1, 8):
        assert oddities(encoding.identity() + pixels + bytes(count), encoding)
        assert is_refused(encoding.identity() + bytes(count), encoding.transfer_syntax)


# -- what is refused -------------------------------------------------------------------------------------


@each_encoding
@pytest.mark.parametrize("length", [0xFFFFFFFE, 0x7FFFFFFF, 5])
def test_a_length_beyond_the_end_is_refused(encoding: Encoding, length: int) -> None:
    """The element is named, and nothing is allocated for it."""
    data = encoding.identity() + encoding.element(0x00091001, "OB", b"abcd", length)
    tracemalloc.start()
    try:
        said = refused(data, encoding.transfer_syntax)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert said == f"element (0009,1001) says {length} octets, 4 are left"
    assert peak < 1 << 20


@each_encoding
def test_an_item_beyond_the_end_is_refused(encoding: Encoding) -> None:
    """The length may be that of a sequence, or of a fragment of pixel data."""
    item = encoding.element(0xFFFEE000, "", b"abcd", 0xFFFFFFFE)
    data = encoding.element(0x7FE00010, "OB", item, UNDEFINED)
    said = refused(data, encoding.transfer_syntax)
    assert said == "element (FFFE,E000) says 4294967294 octets, 4 are left"


@each_encoding
def test_a_sequence_that_is_never_ended_is_refused(encoding: Encoding) -> None:
    """PS3.5 7.5.2: length 0xFFFFFFFF needs a delimiter, at each depth."""
    sequence = encoding.sequence(0x00081140, encoding.identity())
    delimiter = len(encoding.element(0xFFFEE0DD, ""))
    for cut in (delimiter, 2 * delimiter):
        assert is_refused(sequence[:-cut], encoding.transfer_syntax)
        inside = encoding.sequence(0x00081140, sequence[:-cut])
        assert is_refused(inside, encoding.transfer_syntax)


@each_encoding
def test_an_item_outside_a_sequence_is_refused(encoding: Encoding) -> None:
    """PS3.5 7.5."""
    data = encoding.identity() + encoding.element(0xFFFEE000, "")
    says = refused(data, encoding.transfer_syntax)
    assert says == "delimiter (FFFE,E000) outside a sequence"


@each_encoding
@pytest.mark.parametrize("tag", [0xFFFEE00D, 0xFFFEE0DD])
def test_a_delimiter_with_a_length_is_refused(encoding: Encoding, tag: int) -> None:
    data = encoding.identity() + encoding.element(tag, "", b"ab")
    assert "outside a sequence" in refused(data, encoding.transfer_syntax)


@each_encoding
def test_octets_that_are_no_tag_are_not_called_a_delimiter(encoding: Encoding) -> None:
    """Zeros in front of the data set; and what a disk has of a file that was not written."""
    behind = bytes(128) + encoding.identity()
    assert refused(behind, encoding.transfer_syntax) == "octets 00000000 in place of a tag"
    blank = encoding.identity() + b"\xff" * 20
    assert refused(blank, encoding.transfer_syntax) == "octets FFFFFFFF in place of a tag"


@each_encoding
def test_what_stands_between_items_is_refused(encoding: Encoding) -> None:
    """PS3.5 7.5: a sequence holds items and nothing else."""
    data = encoding.element(0x00081140, "SQ", encoding.identity(), UNDEFINED)
    assert (
        refused(data, encoding.transfer_syntax)
        == "expected an item in sequence (0008,1140), found (0008,0016)"
    )
    stray = encoding.element(0x00081140, "SQ", encoding.element(0xFFFEE00D, ""), UNDEFINED)
    assert "in sequence (0008,1140), found (FFFE,E00D)" in refused(stray, encoding.transfer_syntax)


@each_encoding
@pytest.mark.parametrize("tag", [0xFFFEE000, 0xFFFEE0DD])
def test_a_wrong_delimiter_inside_an_item_is_refused(encoding: Encoding, tag: int) -> None:
    """PS3.5 7.5: an item of undefined length ends with (FFFE,E00D)."""
    item = encoding.element(0xFFFEE000, "", encoding.element(tag, ""), UNDEFINED)
    data = encoding.element(0x00081140, "SQ", item, UNDEFINED)
    said = refused(data, encoding.transfer_syntax)
    assert said == f"delimiter (FFFE,{tag & 0xFFFF:04X}) inside an item"


@pytest.mark.parametrize("encoding", [EXPLICIT, BIG_ENDIAN], ids=["little", "big"])
@pytest.mark.parametrize("vr", ["\x1a\0", "\0\x01", "C\0", "\n\n", "\xff\xff"])
def test_an_element_without_a_value_representation_is_refused(encoding: Encoding, vr: str) -> None:
    """PS3.5 7.1.2, at the top and inside an item."""
    bad = encoding.element(0x00091001, "CS", b"ab").replace(b"CS", vr.encode("latin-1"))
    for data in (encoding.identity() + bad, encoding.sequence(0x00081140, bad)):
        assert "element (0009,1001) has no value representation" in refused(
            data, encoding.transfer_syntax
        )


@pytest.mark.parametrize(
    ("sent", "announced"),
    [
        (EXPLICIT, BIG_ENDIAN),
        (BIG_ENDIAN, EXPLICIT),
        (IMPLICIT, EXPLICIT),
        (IMPLICIT, BIG_ENDIAN),
        (EXPLICIT, IMPLICIT),
        (BIG_ENDIAN, IMPLICIT),
    ],
)
def test_another_transfer_syntax_than_announced_is_refused(
    sent: Encoding, announced: Encoding
) -> None:
    """Kept under the wrong name it would be lost for most readers."""
    assert is_refused(ct("1.2.3", encoding=sent), announced.transfer_syntax)


@each_encoding
def test_sequences_nested_to_the_limit_are_walked(encoding: Encoding) -> None:
    """And one more is not."""
    data = b""
    for _ in range(NESTING_LIMIT):
        data = encoding.sequence(0x00081140, data)
    assert scan(data, encoding.transfer_syntax).is_whole
    too_deep = encoding.sequence(0x00081140, data)
    assert (
        refused(too_deep, encoding.transfer_syntax)
        == f"sequences are nested more than {NESTING_LIMIT} deep"
    )


@each_encoding
def test_ten_thousand_nested_sequences_are_refused(encoding: Encoding) -> None:
    """Closed or not, at once and without recursion."""
    opening = encoding.element(0x00081140, "SQ", b"", UNDEFINED) + encoding.element(
        0xFFFEE000, "", b"", UNDEFINED
    )
    closing = encoding.element(0xFFFEE00D, "") + encoding.element(0xFFFEE0DD, "")
    for data in (opening * 10_000, opening * 10_000 + closing * 10_000):
        assert "nested more than" in refused(data, encoding.transfer_syntax)


TOO_DEEP = f"sequences are nested more than {NESTING_LIMIT} deep"


def nested(encoding: Encoding, defined: Sequence[bool]) -> bytes:
    """One sequence in the other, the innermost first, with an empty item in that."""
    data = b""
    for each in defined:
        data = encoding.sequence(0x00081140, data, defined=each)
    return data


@each_encoding
@pytest.mark.parametrize(
    "pattern",
    [
        [True],
        [False],
        [True, False],
        [False, True],
        [True] * 8 + [False] * 8,
        [False] * 40 + [True],
    ],
    ids=str,
)
def test_depth_is_the_same_for_each_kind_of_length(encoding: Encoding, pattern: list[bool]) -> None:
    """And for every mixture of them, up to the limit and beyond it."""
    for depth in (NESTING_LIMIT, NESTING_LIMIT + 1):
        kinds = list(islice(cycle(pattern), depth))
        for each in (kinds, kinds[::-1]):
            data = encoding.identity() + nested(encoding, each)
            if depth == NESTING_LIMIT:
                assert scan(data, encoding.transfer_syntax).is_whole
            else:
                assert refused(data, encoding.transfer_syntax) == TOO_DEEP


@each_encoding
@pytest.mark.parametrize("depth", [NESTING_LIMIT, NESTING_LIMIT + 1])
def test_depth_is_the_same_for_each_kind_of_item(encoding: Encoding, depth: int) -> None:
    """A sequence of undefined length may have items of defined length."""
    data = b""
    for _ in range(depth):
        items = encoding.items(data, defined=True) + encoding.element(0xFFFEE0DD, "")
        data = encoding.element(0x00081140, "SQ", items, UNDEFINED)
    assert is_refused(data, encoding.transfer_syntax) == (depth > NESTING_LIMIT)


@each_encoding
def test_ten_thousand_sequences_of_defined_length_are_refused(encoding: Encoding) -> None:
    """At once: no octet is looked at twice."""
    data = nested(encoding, [True] * 10_000)
    assert refused(data, encoding.transfer_syntax) == TOO_DEEP


@each_encoding
@pytest.mark.parametrize("length", [None, UNDEFINED])
def test_depth_inside_unknown_counts(encoding: Encoding, length: int | None) -> None:
    """PS3.5 6.2.2: there is implicit VR little endian inside."""
    inner = nested(IMPLICIT, [True] * NESTING_LIMIT)
    body = IMPLICIT.items(inner, defined=length is None)
    data = encoding.element(0x00091001, "UN", body, length)
    assert refused(data, encoding.transfer_syntax) == TOO_DEEP
    flat = encoding.element(0x00091001, "UN", b"\xfe\xff\x00\xe0" + b"x" * 5000)
    assert scan(flat, encoding.transfer_syntax).is_whole


@pytest.mark.parametrize("encoding", [EXPLICIT, BIG_ENDIAN], ids=["little", "big"])
def test_fragments_inside_a_sequence_hide_no_depth(encoding: Encoding) -> None:
    """An icon may be compressed (PS3.3 F.7); what stands behind it is looked at as well."""
    fragments = encoding.items(b"", b"\xff\xd8" * 50, defined=True) + encoding.element(
        0xFFFEE0DD, ""
    )
    icon = encoding.sequence(
        0x00880200, encoding.element(0x7FE00010, "OB", fragments, UNDEFINED), defined=True
    )
    for depth in (NESTING_LIMIT - 1, NESTING_LIMIT):
        inner = icon + nested(encoding, [True] * depth)
        data = encoding.sequence(0x00081140, inner, defined=True)
        assert is_refused(data, encoding.transfer_syntax) == (depth == NESTING_LIMIT)


@each_encoding
def test_empty_sequences_hide_no_depth(encoding: Encoding) -> None:
    """One of undefined length has a delimiter, which ends nothing else."""
    data = b""
    for depth in range(1, NESTING_LIMIT + 2):
        empty = encoding.sequence(0x00081110) * 2
        data = encoding.sequence(0x00081140, empty + data, defined=True)
        assert is_refused(data, encoding.transfer_syntax) == (depth > NESTING_LIMIT)


@each_encoding
@pytest.mark.parametrize("length", [1 << 20, 0xFFFFFFFE])
def test_a_length_that_is_too_large_hides_no_depth(encoding: Encoding, length: int) -> None:
    """An item or a sequence in a sequence of defined length lacks its end; a reader may take it to the end."""
    inner = nested(encoding, [True] * NESTING_LIMIT)
    item = encoding.element(0xFFFEE000, "", inner, length)
    data = encoding.element(0x00081140, "SQ", item)
    assert refused(data, encoding.transfer_syntax) == TOO_DEEP
    sequence = encoding.element(0x00081140, "SQ", encoding.items(inner, defined=True), length)
    data = encoding.sequence(0x00081140, sequence, defined=True)
    assert refused(data, encoding.transfer_syntax) == TOO_DEEP


@each_encoding
@pytest.mark.parametrize("item", [b"x" * 5000, b"\0" * 5000, b"\xff" * 5001, b"AA" * 2500])
def test_what_is_no_data_set_in_a_sequence_of_defined_length_is_let_be(
    encoding: Encoding, item: bytes
) -> None:
    """Its end is known; nothing inside can make the data set end early."""
    data = encoding.identity() + encoding.sequence(0x00091001, item, defined=True)
    assert scan(data, encoding.transfer_syntax).sop_instance_uid == "1.2.3"


def many(encoding: Encoding, kind: str, count: int) -> bytes:
    """So many elements, items or fragments, as small as they can be."""
    empty, item = encoding.element(0x00100010, "PN"), encoding.element(0xFFFEE000, "")
    if kind == "elements":
        return empty * count
    if kind == "items":
        return encoding.element(0x00081140, "SQ", item * count, UNDEFINED)
    if kind == "items of undefined length":
        item = encoding.element(0xFFFEE000, "", b"", UNDEFINED) + encoding.element(0xFFFEE00D, "")
        return encoding.element(0x00081140, "SQ", item * (count // 2), UNDEFINED)
    if kind == "fragments":
        return encoding.element(0x7FE00010, "OB", item * count, UNDEFINED)
    return encoding.sequence(0x00081140, empty * (count - 1), defined=True)


KINDS = ["elements", "items", "items of undefined length", "fragments", "elements of an item"]


@each_encoding
@pytest.mark.parametrize("kind", KINDS)
def test_more_elements_than_an_instance_can_need_are_refused(
    monkeypatch: pytest.MonkeyPatch, encoding: Encoding, kind: str
) -> None:
    """Whatever they are, and without memory; a gigabyte of them would keep a thread for minutes."""
    monkeypatch.setattr(walking, "ELEMENT_LIMIT", 1000)
    says = "the data set has more than 1000 elements"
    data = many(encoding, kind, 2100)
    tracemalloc.start()
    try:
        assert refused(data, encoding.transfer_syntax) == says
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 15
    monkeypatch.setattr(walking, "ELEMENT_LIMIT", 5000)
    assert says not in refused(data + b"x", encoding.transfer_syntax), "it goes on to the end"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_time_for_the_most_elements_is_bounded(kind: str) -> None:
    """Two million of them, in however many octets; some microseconds each."""
    data = many(IMPLICIT, kind, 2 * ELEMENT_LIMIT)
    started = time.process_time()
    assert "more than 2097152 elements" in refused(data, IMPLICIT.transfer_syntax)
    assert time.process_time() - started < 30


@each_encoding
def test_delimiters_before_something_else_are_looked_through_once(
    monkeypatch: pytest.MonkeyPatch, encoding: Encoding
) -> None:
    """64 KiB of them took seconds, because each looked through all that follow."""
    looks = []
    look = walking._is_zero

    def counted(data: bytes, position: int, end: int) -> bool:
        looks.append(position)
        return look(data, position, end)

    monkeypatch.setattr(walking, "_is_zero", counted)
    stray = encoding.element(0xFFFEE00D, "") * 5000
    data = encoding.identity() + stray + encoding.element(0x00100020, "LO", b"AB") + stray
    found = walk(data, encoding.transfer_syntax, 0, (0x00100020,))
    assert found.elements[0x00100020].end - found.elements[0x00100020].start == 2
    assert len(looks) <= 3


@each_encoding
@pytest.mark.parametrize("left", range(1, 8))
def test_stray_octets_at_the_end_are_refused(encoding: Encoding, left: int) -> None:
    """An element has at least eight."""
    data = encoding.identity() + b"\x09\x00\x01\x10LO\x00"[:left]
    assert refused(data, encoding.transfer_syntax) == f"{left} stray octets in place of an element"


def test_a_long_element_cut_before_its_length_is_refused() -> None:
    """PS3.5 7.1.2: eight octets of such an element are not enough."""
    data = EXPLICIT.identity() + EXPLICIT.element(0x00091001, "OB")
    for left in range(1, 5):
        assert "(0009,1001)" in refused(data[:-left], EXPLICIT.transfer_syntax)


# -- deflate ---------------------------------------------------------------------------------------------


def test_a_damaged_deflate_stream_is_refused() -> None:
    """The sentence says so."""
    assert "is damaged" in refused(b"\xff" * 64, DEFLATED)


def test_a_deflated_data_set_that_is_cut_is_refused() -> None:
    """At every octet of the stream."""
    packed = deflated(ct("1.2.3", pixels=64))
    plain = zlib.decompressobj(-zlib.MAX_WBITS)
    plain.decompress(packed)
    end = len(packed) - len(plain.unused_data)
    for cut in range(end):
        assert is_refused(packed[:cut], DEFLATED), cut


def test_a_deflated_data_set_may_be_broken_inside() -> None:
    """The stream is whole, what it holds is not."""
    assert "(7FE0,0010)" in refused(deflated(ct("1.2.3")[:-1]), DEFLATED)


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [1 << 20, 1 << 27], ids=["by ratio", "by size"])
def test_a_deflate_bomb_is_walked_as_far_as_the_limit(pixels: int) -> None:
    """It may be a genuine image of one colour, so it is not an error; it costs neither memory nor time."""
    plain = EXPLICIT.identity() + EXPLICIT.element(0x00280010, "US", b"\0\2")
    stream = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = bytearray(
        stream.compress(plain + EXPLICIT.element(0x7FE00010, "OB", b"", length=pixels))
    )
    for _ in range(pixels >> 20):
        packed += stream.compress(bytes(1 << 20))
    packed += stream.flush()
    data = bytes(packed)
    tracemalloc.start()
    try:
        found = scan(data, DEFLATED)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == Scanned(CT_IMAGE_STORAGE, "1.2.3", len(plain), False)
    assert peak < 3 * INFLATED_LIMIT


@pytest.mark.slow
def test_a_large_deflated_data_set_is_not_copied() -> None:
    """What zlib has not taken when the limit is reached stays where it is."""
    stream = zlib.compressobj(0, wbits=-zlib.MAX_WBITS)  # stored, not compressed
    size = 4 * INFLATED_LIMIT
    data = stream.compress(EXPLICIT.identity() + EXPLICIT.element(0x7FE00010, "OB", bytes(size)))
    data += stream.flush()
    tracemalloc.start()
    try:
        found = scan(data, DEFLATED)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == Scanned(CT_IMAGE_STORAGE, "1.2.3", len(EXPLICIT.identity()), False)
    assert peak < 2.5 * INFLATED_LIMIT


@pytest.mark.slow
def test_a_bomb_that_ends_within_an_element_of_the_header_is_kept() -> None:
    """The data set is not at fault for the place where the walk stops."""
    for tail in (bytes(1 << 20), EXPLICIT.sequence(0x00081140, bytes(1 << 20))):
        plain = EXPLICIT.identity() + EXPLICIT.element(0x00091001, "OB", tail)
        for lead in range(0, 48, 2):
            data = deflated(plain + EXPLICIT.element(0x00091002, "OB", bytes(lead)) * 20_000)
            assert scan(data, DEFLATED).sop_instance_uid == "1.2.3"


def test_a_bomb_of_sequences_is_still_bounded_in_depth() -> None:
    """The limits hold for what is inflated."""
    opening = EXPLICIT.element(0x00081140, "SQ", b"", UNDEFINED) + EXPLICIT.element(
        0xFFFEE000, "", b"", UNDEFINED
    )
    assert "nested more than" in refused(deflated(opening * 100_000), DEFLATED)


# -- anything ----------------------------------------------------------------------------------------------


@given(data_sets)
def test_what_is_valid_is_whole(made: Made) -> None:
    """Sequences and items of both kinds of length, all value representations."""
    found = scan(made.octets, made.encoding.transfer_syntax)
    assert found.is_whole
    if made.encoding is EXPLICIT:
        assert scan(deflated(made.octets), DEFLATED) == found


@pytest.mark.slow
@given(data_sets, st.data())
def test_a_data_set_that_is_cut_within_an_element_is_refused(
    made: Made, data: st.DataObject
) -> None:
    """And whole when it is cut between two."""
    cut = data.draw(st.integers(0, len(made.octets)))
    refused_there = is_refused(made.octets[:cut], made.encoding.transfer_syntax)
    assert refused_there == (cut not in made.boundaries)


@given(
    st.binary(max_size=300),
    st.sampled_from([*(each.transfer_syntax for each in ENCODINGS), DEFLATED, JPEG_BASELINE]),
)
@example(b"\x08\x00\x18\x00UI\xff\xff", EXPLICIT.transfer_syntax)
@example(b"\x09\x00\x01\x10UN\0\0\xff\xff\xff\xff\xff\xfe\xe0\x00", BIG_ENDIAN.transfer_syntax)
def test_arbitrary_octets_are_walked_or_refused(octets: bytes, transfer_syntax: str) -> None:
    """Nothing but InvalidDataSetError comes out."""
    is_refused(octets, transfer_syntax)


@given(data_sets, st.binary(max_size=64))
def test_a_look_inside_never_changes_what_is_found(made: Made, octets: bytes) -> None:
    """It looks at large values only; here at all. What is invalid inside is let be."""
    inside = made.encoding.sequence(0x00091001, octets, defined=True)
    data, syntax = made.octets + inside, made.encoding.transfer_syntax
    expected = scan(data, syntax)
    with patch.object(walking, "_SMALLEST_LEVEL", 0):
        assert scan(data, syntax) == expected


@given(data_sets, st.data())
def test_a_changed_data_set_is_walked_or_refused(made: Made, data: st.DataObject) -> None:
    """Deeper than arbitrary octets come: lengths, tags and delimiters overwritten in a valid one."""
    octets = bytearray(made.octets)
    for _ in range(data.draw(st.integers(1, 4))):
        if octets:
            place = data.draw(st.integers(0, len(octets) - 1))
            octets[place] = data.draw(st.sampled_from([0, 1, 8, 0xE0, 0xFE, 0xFF, 0x41]))
    is_refused(bytes(octets), made.encoding.transfer_syntax)


@each_encoding
@pytest.mark.parametrize(
    "octets",
    [bytes(1 << 20), b"\xff" * (1 << 20), b"\xfe\xff\x00\xe0" * (1 << 18), b"AA" * (1 << 19)],
    ids=["zeros", "ones", "items", "letters"],
)
def test_the_time_for_a_mebibyte_is_bounded(encoding: Encoding, octets: bytes) -> None:
    """The most elements that fit are 131072; a walk that looked at one octet twice would show."""
    started = time.process_time()
    is_refused(octets, encoding.transfer_syntax)
    assert time.process_time() - started < 5


def test_a_ct_header_costs_well_under_a_millisecond() -> None:
    """It stands on the receive path; the best of many runs, so that a busy machine does not matter."""
    octets = (DATA / "test_files" / "CT_small.dcm").read_bytes()
    offset = 144 + struct.unpack_from("<I", octets, 140)[0]
    best = 1.0
    with unmeasured():
        for _ in range(50):
            started = time.process_time()
            scan(octets, EXPLICIT.transfer_syntax, offset)
            best = min(best, time.process_time() - started)
    assert best < 0.0005
