"""A data set in another uncompressed transfer syntax: PS3.5 6.2.2, 7.1.3, 7.3, 7.5, A.1 to A.3, A.5."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence

from netdicom_tx import reencoding as module
from netdicom_tx.archive.encoded.content import same_content
from netdicom_tx.dsutils import part10_header, read_file_meta
from netdicom_tx.encoding import NESTING_LIMIT, DataSetError, turned
from netdicom_tx.reencoding import check_inferable, reencode
from netdicom_tx.uids import UNCOMPRESSED_TRANSFER_SYNTAXES
from support.archive.data_sets import (
    BIG_ENDIAN,
    DEFLATED,
    ENCODINGS,
    EXPLICIT,
    IMPLICIT,
    UNDEFINED,
    Encoding,
    Made,
    ct,
    data_sets,
    deflated,
)

LITTLE, BIG = EXPLICIT.transfer_syntax, BIG_ENDIAN.transfer_syntax
HIDDEN = IMPLICIT.transfer_syntax


def reencoded(octets: bytes, source: str, target: str) -> bytes:
    """The octets of a data set in another transfer syntax."""
    result = io.BytesIO()
    reencode(io.BytesIO(octets).read, result.write, source, target)
    return result.getvalue()


# -- pydicom reads what was meant -------------------------------------------------------------------------

TEXT = {
    "AE": "STORE", "AS": "042Y", "CS": "ORIGINAL", "DA": "20240102", "DS": "-1.5", "DT": "20240102101112",
    "IS": "-7", "LO": "a b", "LT": "a\\b\r\nc", "PN": "Doe^Jane", "SH": "x", "ST": "s", "TM": "101112",
    "UC": "unlimited", "UI": "1.2.840.3", "UR": "http://a.example/", "UT": "t" * 70_001,
}  # fmt: skip
NUMBERS = {
    "FL": [1.5, -2.0], "FD": [1.5, -2e300], "SL": [-2, 2**31 - 1], "SS": [-2, 32767], "SV": [-2, 2**63 - 1],
    "UL": [1, 2**32 - 1], "US": [258, 65535], "UV": [1, 2**64 - 1], "AT": [0x00100020, 0x7FE00010],
}  # fmt: skip
SEQUENCES = (0x00081115, 0x00081140, 0x00081199, 0x00082112, 0x0040A730, 0x00409096)
WORDS = {"OB": 1, "OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8, "UN": 1}


@st.composite
def meant(draw: st.DrawFn, depth: int = 0) -> Dataset:
    """A data set with private elements, whose VR only an explicit one can say."""
    ds = Dataset()
    kinds = draw(st.lists(st.sampled_from([*TEXT, *NUMBERS, *WORDS, "SQ"]), max_size=6))
    for place, vr in enumerate(kinds):
        value: Any
        if vr == "SQ":
            if depth > 2:
                continue
            value = Sequence(draw(st.lists(meant(depth=depth + 1), max_size=2)))
        elif vr in WORDS:
            size = draw(st.integers(1, 40)) * WORDS[vr]
            value = draw(st.binary(min_size=size, max_size=size))
            value += b"\0" * (len(value) % 2)
        else:
            value = draw(st.sampled_from([(TEXT | NUMBERS)[vr], None]))
        tag = SEQUENCES[place] if vr == "SQ" else 0x00091000 + place
        ds.add(DataElement(tag, vr, value, already_converted=vr in WORDS))
    return ds


def written(ds: Dataset, transfer_syntax: str) -> bytes:
    """What pydicom writes, with the octets of OW, OL, ... in the order that PS3.5 7.3 asks for."""
    buffer = io.BytesIO()
    little = transfer_syntax != BIG
    if not little:
        ds = swapped(ds)
    dcmwrite(buffer, ds, implicit_vr=transfer_syntax == HIDDEN, little_endian=little)
    return buffer.getvalue()


def swapped(ds: Dataset) -> Dataset:
    copy = Dataset()
    for element in ds:
        value = element.value
        if element.VR == "SQ":
            value = Sequence(map(swapped, value))
        elif element.VR in WORDS:
            value = turned(value or b"", WORDS[element.VR])
        copy.add(DataElement(element.tag, element.VR, value))
    return copy


def as_read(octets: bytes, transfer_syntax: str) -> Dataset:
    return read_dataset(
        io.BytesIO(octets),  # type: ignore[arg-type]  # it takes any file
        is_implicit_VR=transfer_syntax == HIDDEN,
        is_little_endian=transfer_syntax != BIG,
    )


@given(meant(), st.sampled_from([LITTLE, BIG]), st.sampled_from([LITTLE, BIG, DEFLATED]))
def test_pydicom_reads_the_same_values(ds: Dataset, source: str, target: str) -> None:
    """PS3.5 7.3: every number has its octets turned around when the order changes, and nothing else has."""
    there = reencoded(written(ds, source), source, target)
    if target == DEFLATED:
        there, target = reencoded(there, DEFLATED, LITTLE), LITTLE
    assert as_read(there, target) == as_read(written(ds, target), target)


@given(meant(), st.sampled_from([LITTLE, BIG]))
def test_what_goes_to_implicit_vr_is_what_pydicom_writes_there(ds: Dataset, source: str) -> None:
    """PS3.5 A.1: private elements lose their VR there, and no octet of their values."""
    there = as_read(reencoded(written(ds, source), source, HIDDEN), HIDDEN)
    assert there == as_read(written(ds, HIDDEN), HIDDEN)


def files() -> Iterator[tuple[str, bytes, str]]:
    """The uncompressed files that pydicom brings along, as far as they are DICOM files."""
    directory = Path(str(get_testdata_file("CT_small.dcm", download=False))).parent
    for path in sorted(directory.glob("*.dcm")):
        with path.open("rb") as file:
            try:
                meta = read_file_meta(file)
            except DataSetError:
                continue
            is_whole = "truncated" not in path.name
            if is_whole and meta.transfer_syntax in UNCOMPRESSED_TRANSFER_SYNTAXES:
                yield path.name, file.read(), meta.transfer_syntax


FILES = {name: (octets, syntax) for name, octets, syntax in files()}


@pytest.mark.parametrize("target", UNCOMPRESSED_TRANSFER_SYNTAXES)
@pytest.mark.parametrize("name", FILES)
def test_real_files_keep_their_content(name: str, target: str) -> None:
    octets, source = FILES[name]
    there = reencoded(octets, source, target)
    assert same_content(octets, source, 0, there, target, 0)
    assert same_content(octets, source, 0, reencoded(there, target, source), source, 0)


@given(data_sets, st.sampled_from(UNCOMPRESSED_TRANSFER_SYNTAXES))
def test_any_data_set_keeps_its_content(made: Made, target: str) -> None:
    source = made.encoding.transfer_syntax
    there, refused = b"", ""
    try:
        there = reencoded(made.octets, source, target)
    except DataSetError as error:
        refused = str(error)
    if refused:  # half a number, or a VR that the receiver would not expect
        assert "expected a multiple of" in refused or "data dictionary" in refused
    else:
        assert same_content(made.octets, source, 0, there, target, 0)


@given(data_sets, st.sampled_from(UNCOMPRESSED_TRANSFER_SYNTAXES), st.integers(0))
def test_what_is_cut_is_refused(made: Made, target: str, place: int) -> None:
    """Except between two elements, and where the rest may be padding; deflation alone looks at no element."""
    source, octets = made.encoding.transfer_syntax, made.octets
    place %= len(octets) + 1
    begin = max(each for each in made.boundaries if each <= place)
    is_padding = not octets[begin:place].strip(b"\0")
    if is_padding or {source, target} <= {LITTLE, DEFLATED} or source == target:
        return
    with pytest.raises(DataSetError):
        reencoded(octets[:place], source, target)


@given(data_sets, st.sampled_from(UNCOMPRESSED_TRANSFER_SYNTAXES), st.integers(0), st.binary())
def test_noise_raises_nothing_else(made: Made, target: str, place: int, noise: bytes) -> None:
    source, octets = made.encoding.transfer_syntax, made.octets
    place %= len(octets) + 1
    with suppress(DataSetError):
        reencoded(octets[:place] + noise + octets[place + len(noise) :], source, target)
    with suppress(DataSetError):
        reencoded(noise, DEFLATED, target)


# -- implicit VR hides the VR ---------------------------------------------------------------------------

SEQUENCE, TEXT_TAG, NUMBER = 0x00120064, 0x00100020, 0x00280010
ITEM = IMPLICIT.items(IMPLICIT.element(0x00080100, "SH", b"113100"), defined=True)


@pytest.mark.parametrize(
    ("tag", "vr", "value", "name"),
    [
        (SEQUENCE, "LO", b"Siemens Healthcare Header Anonymizer", "DeidentificationMethodCodeSequence"),
        (SEQUENCE, "LO", ITEM, "DeidentificationMethodCodeSequence"),
        (SEQUENCE, "UN", b"Siemens Healthcare Header Anonymizer", "DeidentificationMethodCodeSequence"),
        (SEQUENCE, "UN", EXPLICIT.items(EXPLICIT.element(0x00080100, "SH", b"113100"), defined=True), "(0012,0064)"),
        (SEQUENCE, "UN", ITEM + b"\0\0", "(0012,0064)"),
        (SEQUENCE, "UN", ITEM[:-2], "(0012,0064)"),
        (SEQUENCE, "OB", ITEM, "(0012,0064)"),
        (SEQUENCE, "UT", ITEM, "(0012,0064)"),
        (SEQUENCE, "??", b"??", "(0012,0064)"),
        (TEXT_TAG, "SQ", ITEM, "PatientID (0010,0020) has the VR SQ"),
        (TEXT_TAG, "US", b"\1\0", "PatientID (0010,0020) has the VR US"),
        (TEXT_TAG, "OB", b"\1\0", "data dictionary says LO"),
        (NUMBER, "LO", b"12", "Rows (0028,0010) has the VR LO"),
        (NUMBER, "UL", b"\1\0\0\0", "Rows (0028,0010) has the VR UL"),
        (NUMBER, "SS", b"\1\0\xff\xff", "Rows (0028,0010) has the VR SS"),
        (0x00280106, "FL", bytes(4), "data dictionary says SS or US"),
        (0x00080018, "FD", bytes(8), "SOPInstanceUID"),
        (0x00204000, "LO", b"a\\b ", "ImageComments (0020,4000) has the VR LO"),
        (0x00080060, "LO", "Röntgen ".encode(), "Modality (0008,0060) has the VR LO"),
        (0x7FE00010, "LO", b"12", "PixelData (7FE0,0010)"),
        (0x60003000, "UL", bytes(4), "OverlayData (6000,3000)"),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("encoding", [EXPLICIT, BIG_ENDIAN], ids=["little", "big"])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_what_the_receiver_would_misread_is_refused_by_its_name(
    tag: int, vr: str, value: bytes, name: str, encoding: Encoding, depth: int
) -> None:
    """PS3.5 7.1.3, A.1: the receiver takes the VR from the dictionary."""
    if vr == "SQ":
        value = encoding.items(encoding.element(0x00080100, "SH", b"113100"), defined=True)
    elif encoding is BIG_ENDIAN and vr in ("US", "SS", "UL", "FL", "FD"):
        value = turned(value, {"US": 2, "SS": 2, "UL": 4, "FL": 4, "FD": 8}[vr])
    octets = encoding.element(tag, vr, value)
    for _ in range(depth):
        octets = encoding.sequence(0x00081140, encoding.identity("1.2"), octets)
    with pytest.raises(DataSetError) as raised:
        reencoded(octets, encoding.transfer_syntax, HIDDEN)
    assert name in str(raised.value)
    if depth:
        assert "in ReferencedImageSequence (0008,1140)" in str(raised.value)


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (SEQUENCE, "LO", b""),
        (TEXT_TAG, "SH", b"ABC "),
        (TEXT_TAG, "UN", b"ABC "),
        (TEXT_TAG, "??", b"ABC "),
        (0x00204000, "LO", b"a b "),
        (0x00080060, "LO", b"CT"),
        (NUMBER, "SS", b"\1\0\xff\x7f"),
        (NUMBER, "UN", b"\1\0"),
        (0x00280106, "SS", b"\xff\xff"),
        (0x00280106, "US", b"\xff\xff"),
        (0x7FE00010, "OB", b"\1\2"),
        (0x00281201, "OB", b"\1\2"),
        (0x00283006, "US", b"\1\2"),
        (0x00091001, "FD", bytes(8)),
        (0x00090010, "LO", b"SIEMENS "),
        (0x00091002, "UN", b"who knows "),
        (0x00080001, "UN", b"whatever"),
        (0x0008FFF0, "LO", b"not in the dictionary "),
    ],
    ids=str,
)
def test_what_the_receiver_reads_rightly_is_passed_on(tag: int, vr: str, value: bytes) -> None:
    octets = EXPLICIT.element(tag, vr, value)
    assert reencoded(octets, LITTLE, HIDDEN) == IMPLICIT.element(tag, vr, value)


@pytest.mark.parametrize("vr", ["UN", "??"])
@pytest.mark.parametrize("defined", [True, False])
def test_a_sequence_that_was_not_known_to_be_one_is_passed_on(vr: str, defined: bool) -> None:
    """PS3.5 6.2.2: the value of UN is in implicit VR little endian, whatever is around it."""
    if vr == "??" and not defined:
        return  # its length has 16 bits
    content = IMPLICIT.element(0x00080100, "SH", b"113100")
    expected = IMPLICIT.sequence(SEQUENCE, content)
    for encoding in (EXPLICIT, BIG_ENDIAN):
        value = IMPLICIT.items(content, defined=defined)
        octets = encoding.element(SEQUENCE, vr, value, None if defined else UNDEFINED)
        if vr == "??" and encoding is BIG_ENDIAN:
            continue
        assert reencoded(octets, encoding.transfer_syntax, HIDDEN) == expected


@pytest.mark.parametrize("tag", [SEQUENCE, 0x00091001, 0x0008FFF0])
@pytest.mark.parametrize("defined", [True, False])
def test_un_stays_as_it_is_in_explicit_vr(tag: int, defined: bool) -> None:
    """PS3.5 6.2.2: little endian in big endian, too."""
    value = IMPLICIT.items(IMPLICIT.element(0x00280010, "US", b"\1\2"), defined=defined)
    length = None if defined else UNDEFINED
    little, big = (each.element(tag, "UN", value, length) for each in (EXPLICIT, BIG_ENDIAN))
    if defined:
        assert reencoded(little, LITTLE, BIG) == big
        assert reencoded(big, BIG, LITTLE) == little
    else:
        there = reencoded(little, LITTLE, BIG)
        assert there.startswith(BIG_ENDIAN.element(tag, "UN", b"", UNDEFINED))
        assert b"\x28\0\x10\0\2\0\0\0\1\2" in there
        assert same_content(little, LITTLE, 0, there, BIG, 0)


@pytest.mark.parametrize("target", [LITTLE, BIG])
def test_a_sequence_of_the_dictionary_must_hold_items(target: str) -> None:
    """The other way round: an implicit value that is text where explicit VR would have to say SQ."""
    with pytest.raises(DataSetError, match="DeidentificationMethodCodeSequence"):
        reencoded(IMPLICIT.element(SEQUENCE, "", b"Siemens Anonymizer"), HIDDEN, target)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        (0x00280106, "US"),
        (0x7FE00010, "OW"),
        (0x60023000, "OW"),
        (0x00283006, "OW"),
        (0x00090010, "LO"),
        (0x00091001, "UN"),
        (0x0008FFF0, "UN"),
        (0x00100010, "PN"),
    ],
)
def test_explicit_vr_says_what_the_dictionary_says(tag: int, expected: str) -> None:
    """PS3.5 A.1 for the tags that have several VRs; 7.8.1 for private creators."""
    octets = IMPLICIT.element(tag, "", b"abcd")
    assert reencoded(octets, HIDDEN, LITTLE) == EXPLICIT.element(tag, expected, b"abcd")


@pytest.mark.parametrize("target", [EXPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize(("representation", "expected"), [(0, "US"), (1, "SS")])
def test_pixel_representation_decides_whether_numbers_have_a_sign(
    target: Encoding, representation: int, expected: str
) -> None:
    """PS3.3 C.7.6.3.1; inside of sequences, too."""

    def make(encoding: Encoding, vr: str) -> bytes:
        value = struct.pack(encoding.order + "H", 0x8001)
        return (
            encoding.element(0x00280103, "US", struct.pack(encoding.order + "H", representation))
            + encoding.element(0x00280106, vr, value)
            + encoding.sequence(0x00409096, encoding.element(0x00409216, vr, value))
        )

    there = reencoded(make(IMPLICIT, ""), HIDDEN, target.transfer_syntax)
    assert there == make(target, expected)


def test_a_value_that_is_too_long_for_its_vr_becomes_un() -> None:
    """PS3.5 6.2.2 note 2, and back again."""
    octets = IMPLICIT.element(0x00409225, "", bytes(70_000)) + IMPLICIT.element(
        0x00420011, "", b"ab"
    )
    there = reencoded(octets, HIDDEN, LITTLE)
    assert there.startswith(EXPLICIT.element(0x00409225, "UN", bytes(70_000)))
    assert reencoded(there, LITTLE, HIDDEN) == octets


# -- form ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vr", ["LO", "UI", "OB", "OW", "UT"])
def test_a_value_of_odd_length_is_padded(vr: str) -> None:
    """PS3.5 7.1.1, 6.2."""
    pad = b" " if vr in ("LO", "UT") else b"\0"
    there = reencoded(EXPLICIT.element(0x00091001, vr, b"abc"), LITTLE, BIG)
    value = b"abc" + pad
    assert there == BIG_ENDIAN.element(0x00091001, vr, turned(value, 2) if vr == "OW" else value)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 100_000])
def test_zeros_behind_the_last_element_are_left_out(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Some senders write them. A few octets deflated hold millions, which are no elements."""
    monkeypatch.setattr(module, "ELEMENT_LIMIT", 10)
    element = EXPLICIT.element(0x00100020, "LO", b"AB")
    expected = BIG_ENDIAN.element(0x00100020, "LO", b"AB")
    assert reencoded(element + bytes(count), LITTLE, BIG) == expected
    if count > 8:
        for more in (element, b"x"):
            with pytest.raises(DataSetError, match="begins with zeros"):
                reencoded(element + bytes(count) + more, LITTLE, BIG)


def test_a_value_that_cannot_be_padded_is_refused() -> None:
    """PS3.5 7.1.2: sixteen bits hold no even length above 65534."""
    octets = EXPLICIT.element(0x00100020, "LO", b"A" * 0xFFFF)
    with pytest.raises(DataSetError, match="has 65535 octets; expected an even number"):
        reencoded(octets, LITTLE, BIG)


def test_more_elements_than_an_instance_can_need_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """64 KiB deflated hold six million of them, which took ten seconds."""
    monkeypatch.setattr(module, "ELEMENT_LIMIT", 1000)
    element = EXPLICIT.element(0x00100020, "LO")
    assert reencoded(deflated(element * 1999), DEFLATED, BIG)
    with pytest.raises(DataSetError, match="more than 1000 elements"):
        reencoded(deflated(element * 2001), DEFLATED, BIG)


@pytest.mark.parametrize("vr", ["US", "UL", "FD", "AT", "OD", "OV"])
def test_numbers_that_are_not_whole_are_refused(vr: str) -> None:
    octets = EXPLICIT.element(NUMBER, vr, bytes(3))
    with pytest.raises(DataSetError, match=rf"Rows \(0028,0010\) has 3 octets.*VR {vr}"):
        reencoded(octets, LITTLE, BIG)


def test_a_new_vr_has_32_bits_of_length() -> None:
    """PS3.5 7.1.2, where only that fits."""
    head = struct.pack("<HH2s2xI", 0x0009, 0x1001, b"ZZ", 4)
    for behind in (b"", EXPLICIT.element(0x00100020, "LO", b"AB")):
        octets = head + b"abcd" + behind
        expected = IMPLICIT.element(0x00091001, "", b"abcd")
        assert reencoded(octets, LITTLE, HIDDEN).startswith(expected)
        nested = EXPLICIT.sequence(0x00081140, octets, defined=True)
        assert expected in reencoded(nested, LITTLE, HIDDEN)


@pytest.mark.parametrize(
    "octets", [b"\x09\0\1\x10ZZ\0\0", b"\x09\0\1\x10ZZ\0\0" + ct("1.2.3")[:4]], ids=["end", "cut"]
)
def test_an_unknown_vr_without_a_value(octets: bytes) -> None:
    """At the end it is empty; where the data set is cut off, nobody can say."""
    if len(octets) == 8:
        assert reencoded(octets, LITTLE, HIDDEN) == IMPLICIT.element(0x00091001, "")
        nested = EXPLICIT.sequence(0x00081140, octets, defined=True)
        assert IMPLICIT.element(0x00091001, "") in reencoded(nested, LITTLE, HIDDEN)
    else:
        with pytest.raises(DataSetError, match="ends inside an element"):
            reencoded(octets, LITTLE, HIDDEN)


@pytest.mark.parametrize(
    ("source", "target"), [(EXPLICIT, BIG_ENDIAN), (BIG_ENDIAN, EXPLICIT), (BIG_ENDIAN, IMPLICIT)]
)
def test_an_unknown_vr_has_no_known_order(source: Encoding, target: Encoding) -> None:
    octets = source.element(0x00091001, "ZZ", b"ab")
    with pytest.raises(DataSetError, match=r"\(0009,1001\) has the unknown VR"):
        reencoded(octets, source.transfer_syntax, target.transfer_syntax)


def test_un_of_undefined_length_is_a_sequence() -> None:
    """PS3.5 6.2.2: also in the tag of a text, and with sequences inside."""
    inner = IMPLICIT.sequence(0x00081140, IMPLICIT.identity("1.2"))
    octets = EXPLICIT.element(SEQUENCE, "UN", IMPLICIT.items(inner), UNDEFINED)
    assert reencoded(octets, LITTLE, HIDDEN) == IMPLICIT.sequence(SEQUENCE, inner)
    octets = EXPLICIT.element(TEXT_TAG, "UN", IMPLICIT.items(inner), UNDEFINED)
    with pytest.raises(DataSetError, match=r"PatientID \(0010,0020\) has the VR UN with items"):
        reencoded(octets, LITTLE, HIDDEN)


def test_a_group_length_has_a_length() -> None:
    with pytest.raises(DataSetError, match=r"\(0008,0000\) has no defined length"):
        reencoded(EXPLICIT.sequence(0x00080000), LITTLE, HIDDEN)


@pytest.mark.parametrize("source", ENCODINGS, ids=lambda each: each.transfer_syntax)
def test_what_does_not_belong_to_the_content_is_left_out(source: Encoding) -> None:
    """Group lengths would be wrong (PS3.5 7.2); group 0002 belongs to a file (PS3.10 7.1); the rest says nothing."""
    target = LITTLE if source is IMPLICIT else HIDDEN
    plain = source.element(0x00100020, "LO", b"ABCD")
    octets = (
        source.element(0x00020010, "UI", b"1.2\0")
        + source.element(0x00100000, "UL", bytes(4))
        + plain
        + source.element(0xFFFEE00D, "")
        + bytes(13)
    )
    assert reencoded(octets, source.transfer_syntax, target) == reencoded(
        plain, source.transfer_syntax, target
    )


@pytest.mark.parametrize("defined", [True, False])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (EXPLICIT.element(0x00100020, "LO", b"AB"), "stands in place of an item"),
        (EXPLICIT.element(0xFFFEE000, "", b"\0" * 4), "ends inside|ended|longer|in place"),
        (EXPLICIT.items(EXPLICIT.element(0x00100020, "LO", b"AB", 40), defined=True), "longer than its item"),
        (EXPLICIT.items(EXPLICIT.element(0xFFFEE0DD, ""), defined=True), "in place of an element"),
    ],
)  # fmt: skip
def test_a_sequence_that_is_damaged_is_refused(body: bytes, message: str, defined: bool) -> None:
    octets = EXPLICIT.element(0x00081140, "SQ", body, None if defined else UNDEFINED)
    with pytest.raises(DataSetError, match=message):
        reencoded(octets, LITTLE, HIDDEN)


@pytest.mark.parametrize("source", ENCODINGS, ids=lambda each: each.transfer_syntax)
def test_pixels_that_are_encapsulated_belong_to_another_transfer_syntax(source: Encoding) -> None:
    """PS3.5 A.4."""
    octets = source.sequence(0x7FE00010, b"", vr="OB")
    target = LITTLE if source is IMPLICIT else HIDDEN
    with pytest.raises(DataSetError, match="encapsulated"):
        reencoded(octets, source.transfer_syntax, target)


@pytest.mark.parametrize("target", [HIDDEN, BIG])
def test_fragments_outside_of_pixel_data_are_refused(target: str) -> None:
    octets = EXPLICIT.sequence(0x00291010, b"", vr="OB")
    with pytest.raises(DataSetError, match=r"\(0029,1010\) has no defined length"):
        reencoded(octets, LITTLE, target)


def test_sequences_are_nested_as_deeply_as_the_node_takes_them() -> None:
    octets = b""
    for _ in range(NESTING_LIMIT):
        octets = EXPLICIT.sequence(0x00091001, octets)
    assert len(reencoded(octets, LITTLE, HIDDEN)) == NESTING_LIMIT * 32
    with pytest.raises(DataSetError, match="nested more than 64 deep"):
        reencoded(EXPLICIT.sequence(0x00091001, octets), LITTLE, HIDDEN)


# -- without some elements -----------------------------------------------------------------------------------


def stripped(octets: bytes, source: str, target: str) -> bytes:
    """Without pixel data and the Patient ID."""
    result = io.BytesIO()
    reencode(
        io.BytesIO(octets).read, result.write, source, target, {0x7FE00010, TEXT_TAG}.__contains__
    )
    return result.getvalue()


@pytest.mark.parametrize("target", UNCOMPRESSED_TRANSFER_SYNTAXES)
@pytest.mark.parametrize("source", [*ENCODINGS, EXPLICIT._replace(transfer_syntax=DEFLATED)])
def test_elements_are_left_out_at_every_depth(source: Encoding, target: str) -> None:
    """In the same transfer syntax, too, and in sequences of either kind of length."""

    def make(*left_out: bytes) -> bytes:
        item = source.identity("1.2") + b"".join(left_out)
        return b"".join(
            (
                source.identity("1.2.3"),
                source.sequence(0x00081115, source.sequence(0x00081140, item, defined=True), item),
                source.sequence(0x00081140, item, defined=True),
                *left_out,
                source.element(0x7FE00001, "OV", bytes(8)),
            )
        )

    whole = make(source.element(TEXT_TAG, "LO", b"ABCD"), source.element(0x7FE00010, "OW", b"ab"))
    without = make()
    syntax = source.transfer_syntax
    if syntax == DEFLATED:
        whole, without = deflated(whole), deflated(without)
    assert same_content(stripped(whole, syntax, target), target, 0, without, syntax, 0)


def test_fragments_of_pixel_data_are_left_out() -> None:
    """PS3.5 A.4: what is left of a compressed instance has explicit VR little endian."""
    fragments = b"".join(EXPLICIT.element(0xFFFEE000, "", each) for each in (b"", b"abcd", b"ef"))
    plain = EXPLICIT.identity("1.2.3")
    pixels = EXPLICIT.element(
        0x7FE00010, "OB", fragments + EXPLICIT.element(0xFFFEE0DD, ""), UNDEFINED
    )
    padding = EXPLICIT.element(0xFFFCFFFC, "OB", bytes(4))
    jpeg = "1.2.840.10008.1.2.4.50"
    assert stripped(plain + pixels + padding, jpeg, LITTLE) == plain + padding
    with pytest.raises(DataSetError, match=r"PixelData .* is not ended|ends inside"):
        stripped(plain + pixels[:-8], jpeg, LITTLE)
    with pytest.raises(DataSetError, match=r"PixelData .* is not ended"):
        stripped(plain + pixels[:-8] + padding, jpeg, LITTLE)


def test_what_is_not_left_out_stays_as_it_is() -> None:
    """An unknown VR, UN, and a sequence of the dictionary that holds no items."""
    octets = EXPLICIT.element(0x00091001, "??", b"ab") + EXPLICIT.element(0x00091002, "UN", b"abc ")
    assert stripped(octets, LITTLE, LITTLE) == octets
    octets = IMPLICIT.element(SEQUENCE, "", b"text")
    assert stripped(octets, HIDDEN, HIDDEN) == octets


# -- deflation, and size ------------------------------------------------------------------------------------


def test_deflation_changes_nothing_else() -> None:
    """PS3.5 A.5: the octets of explicit VR little endian, and an even number of them."""
    plain = ct("1.2.3") + EXPLICIT.element(0xFFFCFFFC, "OB", bytes(6))
    packed = reencoded(plain, LITTLE, DEFLATED)
    assert len(packed) % 2 == 0
    assert reencoded(packed, DEFLATED, LITTLE) == plain
    assert reencoded(deflated(plain), DEFLATED, LITTLE) == plain


def test_what_inflates_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INFLATED_LIMIT", 1000)
    assert len(reencoded(deflated(bytes(1000)), DEFLATED, LITTLE)) == 1000
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    empty, last = (
        b"\0\0\0\xff\xff",
        b"\1\0\0\xff\xff",
    )  # stored blocks without octets (RFC 1951 3.2.4)
    in_two = stream.compress(bytes(1000)) + stream.flush(zlib.Z_SYNC_FLUSH) + empty * 20_000 + last
    assert reencoded(in_two, DEFLATED, LITTLE) == bytes(1000)
    with pytest.raises(DataSetError, match="more than 1000 octets"):
        reencoded(deflated(bytes(1001)), DEFLATED, LITTLE)
    with pytest.raises(DataSetError, match="ends before its stream"):
        reencoded(deflated(ct("1.2.3"))[:-30], DEFLATED, LITTLE)


@pytest.mark.parametrize("target", [HIDDEN, BIG, DEFLATED])
def test_a_large_value_is_never_in_memory(target: str) -> None:
    """It goes through in pieces."""
    octets = ct("1.2.3", pixels=8 << 20)
    asked, written = [], []
    file = io.BytesIO(octets)

    def read(size: int) -> bytes:
        asked.append(size)
        return file.read(size)

    reencode(read, lambda piece: written.append(len(piece)), LITTLE, target)
    assert max(asked) <= 1 << 18
    assert max(written) <= 1 << 19


# -- pydicom's data sets --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "vr"),
    [(SEQUENCE, "LO"), (SEQUENCE, "UN"), (TEXT_TAG, "SQ"), (TEXT_TAG, "US"), (NUMBER, "FD"), (NUMBER, "OB")],
)  # fmt: skip
def test_a_vr_that_is_none_of_the_dictionarys_kind_is_named(tag: int, vr: str) -> None:
    with pytest.raises(DataSetError, match=f"has the VR {vr}, and the data dictionary says"):
        check_inferable(tag, vr)


@pytest.mark.parametrize(
    ("tag", "vr"),
    [(SEQUENCE, "SQ"), (TEXT_TAG, "SH"), (TEXT_TAG, "UN"), (NUMBER, "SS"), (0x00091001, "SQ"), (0x7FE00010, "OB")],
)  # fmt: skip
def test_a_vr_of_the_dictionarys_kind_is_taken(tag: int, vr: str) -> None:
    check_inferable(tag, vr)


def test_the_samples_are_dicom() -> None:
    """pydicom's own reader agrees with ours on what the files are."""
    assert dcmread(str(get_testdata_file("CT_small.dcm"))).file_meta.TransferSyntaxUID == LITTLE


@pytest.mark.parametrize("target", [LITTLE, BIG, HIDDEN, DEFLATED])
@pytest.mark.parametrize("source", [LITTLE, BIG, HIDDEN, DEFLATED])
def test_a_file_header_in_front_is_left_out(source: str, target: str) -> None:
    """PS3.10 7.1: it belongs to a file, and is written in explicit VR little endian whatever follows."""
    if source == target:
        return  # sent as it is
    data = reencoded(ct("1.2.3"), LITTLE, source) if source != LITTLE else ct("1.2.3")
    header = part10_header("1.2.840.10008.5.1.4.1.1.2", "1.2.3", source)
    assert reencoded(header + data, source, target) == reencoded(data, source, target)
