"""What is kept of an instance: all of its header, bounded, whatever its encoding."""

from __future__ import annotations

import hashlib
import mmap
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

import support.strategies  # noqa: F401 - its Hypothesis profile
from netdicom_tx.archive.encoded.elements import CANONICAL, encode_element
from netdicom_tx.archive.encoded.walk import HEADER_LIMIT, VALUE_LIMIT, InvalidDataSetError
from netdicom_tx.archive.index.record import KeptHeader, record_of
from netdicom_tx.archive.index.schema import Level
from netdicom_tx.archive.query.items import in_coding
from netdicom_tx.dsutils import DataSetError, decode, encode, part10_header
from netdicom_tx.encoding import coding_of
from netdicom_tx.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from support.archive.data_sets import (
    BIG_ENDIAN,
    CT_IMAGE_STORAGE,
    ENCODINGS,
    EXPLICIT,
    IMPLICIT,
    Encoding,
    deflated,
)
from support.archive.patients import data_set

SYNTAXES = (
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)


def image(**values: Any) -> Dataset:
    """An image with something of every kind in it."""
    made = data_set(
        **{
            "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
            "SOPClassUID": CT_IMAGE_STORAGE,
            "SOPInstanceUID": "1.2.3",
            "StudyDate": "20240102",
            "StudyTime": "1015",
            "Modality": "CT",
            "ProcedureCodeSequence": {"CodeValue": "1", "CodeMeaning": "胸部"},
            "NameOfPhysiciansReadingStudy": ["山田^太郎", "Doe^John"],
            "PatientName": "Yamada^Tarou=山田^太郎",
            "PatientID": " 4711 ",
            "PatientBirthDate": "1970.01.31",
            "PatientWeight": "70.50",
            "StudyInstanceUID": "1.2",
            "SeriesInstanceUID": "1.2.1",
            "InstanceNumber": "+007",
            "TimezoneOffsetFromUTC": "+0900",
            "Rows": 512,
            **values,
        }
    )
    made.add_new(0x7FE00010, "OW", b"\1\2" * 64)
    return made


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_columns_do_not_depend_on_the_encoding(syntax: str) -> None:
    record = record_of(encode(image(), syntax), syntax)
    study = record.values(Level.STUDY)
    assert study["study_date"] == study["study_date_key"] == "20240102"
    assert (study["study_time"], study["study_time_key"]) == ("1015", "101500000000")
    assert study["name_of_physicians_reading_study"] == "山田^太郎\\Doe^John"
    assert (study["patient_weight"], study["patient_weight_key"]) == ("70.50", "70.5")
    assert study["timezone"] == "+0900"
    items = study["procedure_code_sequence"]
    assert items == _items("1 ", "胸部")
    patient = record.values(Level.PATIENT)
    assert patient["patient_name"] == "Yamada^Tarou=山田^太郎"
    assert patient["patient_name_alphabetic"] == "yamada^tarou"
    assert patient["patient_name_ideographic"] == "山田^太郎"
    assert patient["patient_name_phonetic"] == ""
    assert (patient["patient_id"], record.patient_id) == ("4711", "4711")
    assert (patient["patient_birth_date"], patient["patient_birth_date_key"]) == (
        "1970.01.31",
        "19700131",
    )
    instance = record.values(Level.IMAGE)
    assert instance["instance_number"] == "7"
    assert instance["sop_instance_uid"] == record.sop_instance_uid == "1.2.3"
    assert instance["available_transfer_syntax_uid"] == syntax
    assert record.values(Level.SERIES)["modality"] == "CT"


def _items(value: str, meaning: str) -> bytes:
    body = encode_element(0x00080100, "SH", value.encode(), CANONICAL)
    body += encode_element(0x00080104, "LO", meaning.encode(), CANONICAL)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_header_is_kept_without_pixel_data(syntax: str) -> None:
    record = record_of(encode(image(), syntax), syntax)
    plain = EXPLICIT_VR_LITTLE_ENDIAN if "1.99" in syntax else syntax
    kept = decode(record.header.data, plain)
    original = image()
    del original[0x7FE00010]
    # The same to the octet: what came is what is kept.
    assert record.header.data == encode(original, plain)
    assert kept.Rows == 512


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_header_is_found_again_in_what_stands_in_the_index(syntax: str) -> None:
    record = record_of(encode(image(), syntax), syntax)
    header = KeptHeader.of(record.packed, syntax, {0x00280010, 0x00081032, 0x00100010})
    assert header.text(0x00280010, "US") == "512"
    assert header.text(0x00100010, "PN") == "Yamada^Tarou=山田^太郎"
    assert header.items(0x00081032) == _items("1 ", "胸部")
    assert 0x00080020 not in header.elements
    assert header.text(0x00080020, "DA") == ""


def test_the_walk_of_a_stored_header_ends_with_what_is_wanted() -> None:
    """Most return keys stand near the beginning."""
    octets = EXPLICIT.element(0x00080020, "DA", b"20240101") + b"no element at all"
    header = KeptHeader.of(zlib.compress(octets, wbits=-15), EXPLICIT.transfer_syntax, [0x00080005])
    assert header.elements == {}


def test_a_file_and_its_octets_give_one_record(tmp_path: Path) -> None:
    octets = encode(image(), EXPLICIT_VR_LITTLE_ENDIAN)
    head = part10_header(CT_IMAGE_STORAGE, "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN)
    path = tmp_path / "a.dcm"
    path.write_bytes(head + octets)
    from_file = record_of(path)
    assert from_file.digest == "sha256:" + hashlib.sha256(head + octets).hexdigest()
    assert from_file == record_of(
        head + octets,
        EXPLICIT_VR_LITTLE_ENDIAN,
        offset=len(head),
        path=path,
        digest=from_file.digest,
    )
    assert from_file.size == len(head + octets)
    assert from_file.path == path
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        mapped = record_of(view, EXPLICIT_VR_LITTLE_ENDIAN, offset=len(head), size=1)
    assert mapped.header.data == from_file.header.data
    assert (mapped.path, mapped.size, mapped.digest) == (Path(), 1, "")
    assert record_of(str(path), path="/else", digest="none").path == Path("/else")


def test_octets_may_end_where_pixel_data_begins() -> None:
    octets = encode(image(), EXPLICIT_VR_LITTLE_ENDIAN)
    end = octets.index(b"\xe0\x7f\x10\x00")
    whole, cut = (record_of(each, EXPLICIT_VR_LITTLE_ENDIAN) for each in (octets, octets[:end]))
    assert whole.header.data == cut.header.data


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_long_values_are_left_out(encoding: Encoding) -> None:
    octets = (
        encoding.identity()
        + encoding.element(0x00081030, "LO", b"short ")
        + encoding.sequence(0x00081032, encoding.element(0x00080100, "SH", b"x" * VALUE_LIMIT))
        + encoding.element(0x00091001, "OB", bytes(VALUE_LIMIT))
        + encoding.element(0x00100020, "LO", b"behind")
    )
    record = record_of(octets, encoding.transfer_syntax)
    assert record.patient_id == "behind"
    assert record.values(Level.STUDY)["study_description"] == "short"
    assert record.values(Level.STUDY)["procedure_code_sequence"] is None
    assert len(record.header.data) < 200
    again = KeptHeader.of(record.packed, encoding.transfer_syntax, [0x00100020, 0x00091001])
    assert again.text(0x00100020, "LO") == "behind"
    assert 0x00091001 not in again.elements


def test_a_header_has_an_end() -> None:
    """A data set of many elements, each of them short, is kept in part."""
    one = EXPLICIT.element(0x00091001, "OB", bytes(8000))
    octets = EXPLICIT.identity() + one * 100 + EXPLICIT.element(0x00100020, "LO", b"behind")
    record = record_of(octets, EXPLICIT.transfer_syntax)
    assert len(record.header.data) <= HEADER_LIMIT
    many = EXPLICIT.identity() + EXPLICIT.element(0x00091001, "CS") * (HEADER_LIMIT // 8)
    many += EXPLICIT.element(0x00100020, "LO", b"behind")
    assert record_of(many, EXPLICIT.transfer_syntax).patient_id == ""


@pytest.mark.slow
def test_a_deflated_data_set_is_inflated_no_further_than_needed() -> None:
    """RELIABILITY 5: a deflate bomb."""
    octets = EXPLICIT.identity() + EXPLICIT.element(0x7FE00010, "OB", bytes(1 << 26))
    record = record_of(deflated(octets), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert record.sop_instance_uid == "1.2.3"
    # Cut off within an element by the limit of what is inflated.
    octets = EXPLICIT.identity() + EXPLICIT.element(0x00091001, "OB", bytes(1 << 26))
    record = record_of(deflated(octets), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert record.sop_instance_uid == "1.2.3"


@pytest.mark.parametrize(
    ("octets", "syntax", "words"),
    [
        pytest.param(b"", EXPLICIT.transfer_syntax, "no SOP Class UID", id="nothing"),
        pytest.param(
            EXPLICIT.element(0x00080018, "UI", b"1.23"),
            EXPLICIT.transfer_syntax,
            "no SOP Class UID",
            id="no class",
        ),
        pytest.param(
            EXPLICIT.identity() + EXPLICIT.element(0x00100020, "LO", b"ab", length=200),
            EXPLICIT.transfer_syntax,
            "says 200 octets, 2 are left",
            id="cut off",
        ),
        pytest.param(b"no deflate", DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "damaged", id="deflated"),
    ],
)
def test_what_is_no_instance_is_refused(octets: bytes, syntax: str, words: str) -> None:
    with pytest.raises(InvalidDataSetError, match=words):
        record_of(octets, syntax)


def test_a_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    head = part10_header(CT_IMAGE_STORAGE, "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN)
    path.write_bytes(head + encode(image(), EXPLICIT_VR_LITTLE_ENDIAN)[:-2])
    with pytest.raises(InvalidDataSetError):
        record_of(path)
    path.write_bytes(b"no DICOM")
    with pytest.raises(DataSetError):
        record_of(path)


def test_octets_need_their_transfer_syntax() -> None:
    with pytest.raises(TypeError, match="transfer syntax"):
        record_of(b"")


def test_a_sequence_that_cannot_be_read_is_unknown() -> None:
    octets = (
        EXPLICIT.identity()
        + EXPLICIT.element(0x00081032, "SQ", b"no items")
        + EXPLICIT.element(0x00100020, "LO", b"behind")
    )
    record = record_of(octets, EXPLICIT.transfer_syntax)
    assert record.values(Level.STUDY)["procedure_code_sequence"] is None
    assert record.patient_id == "behind"


@pytest.mark.parametrize("encoding", [EXPLICIT, BIG_ENDIAN])
def test_what_was_known_as_un_is_read_by_the_dictionary(encoding: Encoding) -> None:
    """PS3.5 6.2.2: such a value is implicit VR little endian inside."""
    item = IMPLICIT.element(0x00080100, "SH", b"P1")
    octets = (
        encoding.identity()
        + encoding.element(0x00081030, "UN", b"Thorax")
        + encoding.element(0x00081032, "UN", IMPLICIT.items(item, defined=True))
        + encoding.element(0x00081110, "UN", IMPLICIT.items(item), length=0xFFFFFFFF)
    )
    values = record_of(octets, encoding.transfer_syntax).values(Level.STUDY)
    assert values["study_description"] == "Thorax"
    expected = EXPLICIT.items(EXPLICIT.element(0x00080100, "SH", b"P1"), defined=True)
    assert values["procedure_code_sequence"] == expected
    assert values["referenced_study_sequence"] == expected


def test_an_item_may_have_a_character_set_of_its_own() -> None:
    """PS3.5 7.5.3: it is in force there, and within."""
    inner = EXPLICIT.element(0x00080104, "LO", "Θ".encode("iso8859-7") + b" ")
    item = (
        EXPLICIT.element(0x00080000, "UL", bytes(4))
        + EXPLICIT.element(0x00080005, "CS", b"ISO_IR 126")
        + EXPLICIT.sequence(0x00081032, inner)
        + inner
    )
    octets = EXPLICIT.identity() + EXPLICIT.sequence(0x00081032, item)
    record = record_of(octets, EXPLICIT.transfer_syntax)
    utf8 = EXPLICIT.element(0x00080104, "LO", "Θ ".encode() + b" ")
    expected = EXPLICIT.sequence(0x00081032, utf8, defined=True) + utf8
    assert record.values(Level.STUDY)["procedure_code_sequence"] == EXPLICIT.items(
        expected, defined=True
    )


NUMBERS = {
    "US": (0x00280010, struct.pack("<HH", 1, 515), struct.pack(">HH", 1, 515)),
    "FD": (0x00189087, struct.pack("<d", 1.5), struct.pack(">d", 1.5)),
    "AT": (0x00280009, struct.pack("<HH", 0x18, 0x1063), struct.pack(">HH", 0x18, 0x1063)),
    "OB": (0x00420011, b"abcd", b"abcd"),
    "OW": (0x00281201, b"abcd", b"badc"),
}


@pytest.mark.parametrize("vr", NUMBERS)
def test_items_are_written_in_every_encoding(vr: str) -> None:
    tag, little, big = NUMBERS[vr]
    canonical = EXPLICIT.items(
        EXPLICIT.sequence(0x00081032, EXPLICIT.element(tag, vr, little), defined=True), defined=True
    )
    for encoding, value in ((IMPLICIT, little), (EXPLICIT, little), (BIG_ENDIAN, big)):
        inner = encoding.sequence(0x00081032, encoding.element(tag, vr, value), defined=True)
        expected = encoding.items(inner, defined=True)
        coding = coding_of(encoding.transfer_syntax)
        assert in_coding(canonical, coding) == expected
        octets = encoding.identity() + encoding.element(0x00081032, "SQ", expected)
        values = record_of(octets, encoding.transfer_syntax).values(Level.STUDY)
        assert values["procedure_code_sequence"] == canonical


@pytest.mark.parametrize("defined", [True, False])
def test_sequences_nested_too_deep_are_refused(defined: bool) -> None:
    """No RecursionError, whatever the way that lengths are written."""
    inner = b""
    for _ in range(100):
        inner = EXPLICIT.sequence(0x00081032, inner, defined=defined)
    with pytest.raises(InvalidDataSetError, match="nested"):
        record_of(EXPLICIT.identity() + inner, EXPLICIT.transfer_syntax)


@given(octets=st.binary(max_size=200), syntax=st.sampled_from(SYNTAXES))
def test_any_octets_are_a_record_or_refused(octets: bytes, syntax: str) -> None:
    for encoding in ENCODINGS:
        if encoding.transfer_syntax == syntax:
            octets = encoding.identity() + octets
    try:
        record = record_of(octets, syntax)
    except InvalidDataSetError:
        return
    for level in Level:
        record.values(level)


@given(octets=st.binary(max_size=40), encoding=st.sampled_from(ENCODINGS))
def test_any_octets_are_a_sequence_or_unknown(octets: bytes, encoding: Encoding) -> None:
    data = encoding.identity() + encoding.element(0x00081032, "SQ", octets)
    items = record_of(data, encoding.transfer_syntax).values(Level.STUDY)["procedure_code_sequence"]
    assert items is None or in_coding(items, CANONICAL) == items


PLAIN = st.tuples(
    st.sampled_from(
        [
            (0x00080100, "SH"),
            (0x00081150, "UI"),
            (0x00189087, "FD"),
            (0x00280009, "AT"),
            (0x00280010, "US"),
            (0x00420011, "OB"),
        ]
    ),
    st.integers(0, 3).map(lambda count: b"ABCDEFGH" * count),
)
NESTED = st.recursive(
    st.lists(PLAIN, max_size=3),
    lambda item: st.lists(st.one_of(PLAIN, st.tuples(st.booleans(), item)), max_size=3),
)


def _item(encoding: Encoding, parts: list[Any]) -> bytes:
    made = b""
    for head, value in parts:
        if isinstance(head, bool):
            inner = _item(encoding, value)
            made += encoding.sequence(0x00081032, inner, b"", defined=head)
        else:
            made += encoding.element(*head, value)
    return made


@pytest.mark.slow
@given(parts=NESTED, encoding=st.sampled_from(ENCODINGS))
def test_items_come_through_every_encoding(parts: list[Any], encoding: Encoding) -> None:
    octets = encoding.items(_item(encoding, parts))
    data = encoding.identity() + encoding.element(0x00081032, "SQ", octets)
    items = record_of(data, encoding.transfer_syntax).values(Level.STUDY)["procedure_code_sequence"]
    assert items
    for other in ENCODINGS:
        octets = in_coding(items, coding_of(other.transfer_syntax))
        data = other.identity() + other.element(0x00081032, "SQ", octets)
        values = record_of(data, other.transfer_syntax).values(Level.STUDY)
        assert values["procedure_code_sequence"] == items
