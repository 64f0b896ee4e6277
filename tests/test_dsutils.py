"""Data sets and Part 10 headers against pydicom, on its own test files and on broken ones."""

import struct
import tracemalloc
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.filewriter import write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from netdicom_tx import dsutils
from netdicom_tx.dsutils import (
    DataSetError,
    decode,
    encode,
    file_meta,
    identity,
    inflate,
    part10_header,
    read_file_meta,
)
from netdicom_tx.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

# What pydicom warns of in its broken test files is not what is tested.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
UNCOMPRESSED = [
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
]
SC = "1.2.840.10008.5.1.4.1.1.7"
#: Images, a report, a plan, a waveform, sequences, private elements, multi-frame.
SAMPLES = [
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "rtplan.dcm",
    "test-SR.dcm",
    "reportsi.dcm",
    "rtdose.dcm",
    "waveform_ecg.dcm",
    "image_dfl.dcm",
]


def has_a_header(path: Path) -> bool:
    return path.suffix == ".dcm" and path.read_bytes()[128:132] == b"DICM"


WITH_HEADER = sorted(path.name for path in FILES.iterdir() if has_a_header(path))
#: Test files of pydicom whose header lacks a UID.
WITHOUT_UIDS = {"empty_charset_LEI.dcm", "meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm"}


def plain(data_set: Dataset) -> list[tuple[object, ...]]:
    """Every element as (tag, VR, value), items too; retired group lengths are not written."""
    found: list[tuple[object, ...]] = []
    for element in data_set.iterall():
        if element.tag.element or element.tag.group <= 6:
            value = None if element.VR == "SQ" else element.value
            found.append((element.tag, element.VR, value))
    return found


def element(group: int, number: int, vr: bytes, length: int, value: bytes = b"") -> bytes:
    if vr in (b"OB", b"SQ", b"UN", b"UT"):
        return struct.pack("<HH2sxxI", group, number, vr, length) + value
    return struct.pack("<HH2sH", group, number, vr, length) + value


# -- encode and decode ----------------------------------------------------------------------------


@pytest.mark.parametrize("transfer_syntax", UNCOMPRESSED)
@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_of_header_and_data_set_is_read_by_pydicom(name, transfer_syntax):
    """PS3.10 7.1 and PS3.5 A.1 to A.5: any of the four encodings holds the same elements."""
    original = dcmread(FILES / name)
    header = part10_header(SC, "1.2.3", transfer_syntax)
    again = dcmread(BytesIO(header + encode(original, transfer_syntax)))
    assert again.file_meta.TransferSyntaxUID == transfer_syntax
    expected, found = plain(original), plain(again)
    if transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN or name == "MR_small_implicit.dcm":
        # Without a VR on the wire a private element is UN, and some VRs have a choice.
        expected = [(tag, value) for tag, vr, value in expected if not tag.is_private]
        found = [(tag, value) for tag, vr, value in found if not tag.is_private]
    assert found == expected


@pytest.mark.parametrize("transfer_syntax", UNCOMPRESSED)
@pytest.mark.parametrize("name", ["CT_small.dcm", "rtplan.dcm", "reportsi.dcm"])
def test_the_bytes_are_what_pydicom_writes_to_a_file(name, transfer_syntax):
    """The data set behind the header is the same, octet by octet; the deflated one inflated."""
    data_set = dcmread(FILES / name)
    data_set.file_meta.TransferSyntaxUID = transfer_syntax
    file = BytesIO()
    dcmwrite(
        file,
        data_set,
        implicit_vr=transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN,
        little_endian=transfer_syntax != EXPLICIT_VR_BIG_ENDIAN,
    )
    file.seek(0)
    file.seek(read_file_meta(file).offset)
    expected, written = file.read(), encode(dcmread(FILES / name), transfer_syntax)
    if transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        assert len(written) % 2 == 0
        expected, written = inflate(expected, 1 << 20), inflate(written, 1 << 20)
    assert written == expected


@pytest.mark.parametrize("name", sorted(set(WITH_HEADER) - WITHOUT_UIDS))
def test_a_data_set_is_decoded_as_pydicom_reads_the_file(name):
    """Each test file, compressed ones and odd ones too; but one that is cut is refused."""
    with (FILES / name).open("rb") as file:
        meta = read_file_meta(file)
        raw = file.read()
    if "truncated" in name:
        with pytest.raises(DataSetError, match="damaged"):
            decode(raw, meta.transfer_syntax)
    else:
        data_set = decode(raw, meta.transfer_syntax)
        assert list(data_set.keys()) == list(dcmread(FILES / name).keys())


def test_a_file_is_decoded_from_its_position():
    """A spooled data set stands behind its Part 10 header."""
    with (FILES / "MR_small.dcm").open("rb") as file:
        meta = read_file_meta(file)
        assert decode(file, meta.transfer_syntax).PatientName == "CompressedSamples^MR1"


def test_compressed_pixel_data_is_written_as_it_is():
    """PS3.5 A.4: fragments are neither made nor undone here."""
    original = dcmread(FILES / "MR_small_RLE.dcm")
    again = decode(encode(original, RLELossless), RLELossless)
    assert again.PixelData == original.PixelData
    assert again["PixelData"].is_undefined_length


def test_an_odd_deflated_stream_is_padded():
    """PS3.5 A.5: with a NUL, to an even length; the padding does not belong to the stream."""
    lengths = set()
    for n in range(40):
        data_set = Dataset()
        data_set.PatientName = "x" * n
        data = encode(data_set, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        stream.decompress(data)
        lengths.add(len(stream.unused_data))
        assert len(data) % 2 == 0
        assert decode(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN).PatientName == "x" * n
    assert lengths == {0, 1}


@pytest.mark.parametrize("transfer_syntax", UNCOMPRESSED[:3])
def test_an_empty_data_set_is_no_bytes_at_all(transfer_syntax):
    """An identifier without keys; and no bytes are an empty data set."""
    assert encode(Dataset(), transfer_syntax) == b""
    assert list(decode(b"", transfer_syntax)) == []


def test_the_file_header_is_no_part_of_a_data_set():
    """PS3.7 6.3: group 0002 belongs to a file; a data set that was given it loses it."""
    data_set = Dataset()
    data_set.PatientID = "7"
    data_set.add_new(0x00020010, "UI", EXPLICIT_VR_LITTLE_ENDIAN)
    written = encode(data_set, EXPLICIT_VR_LITTLE_ENDIAN)
    assert list(decode(written, EXPLICIT_VR_LITTLE_ENDIAN).keys()) == [0x00100020]
    assert 0x00020010 in data_set


def test_characters_are_written_in_the_data_sets_own_set():
    """PS3.5 6.1: Specific Character Set (0008,0005) decides."""
    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 192"
    data_set.PatientName = "Müller^Jörg"
    raw = encode(data_set, EXPLICIT_VR_LITTLE_ENDIAN)
    assert "Müller^Jörg".encode() in raw
    assert decode(raw, EXPLICIT_VR_LITTLE_ENDIAN).PatientName == "Müller^Jörg"


def with_text(text: str, character_set: str | list[str] | None) -> Dataset:
    data_set = Dataset()
    if character_set is not None:
        data_set.SpecificCharacterSet = character_set
    data_set.PatientName = text
    return data_set


@pytest.mark.parametrize(
    ("text", "character_set", "said"),
    [
        ("山田", None, "ISO 8859-1 where there is no Specific Character Set;"),
        ("山田", "", "ISO 8859-1 where there is no Specific Character Set;"),
        ("山田", "ISO_IR 100", "ISO_IR 100;"),
        ("Łukasz", "ISO_IR 100", "ISO_IR 100;"),
        ("山田", "ISO_IR 13", "ISO_IR 13;"),
        ("Łukasz=山田", ["", "ISO 2022 IR 87"], "\\ISO 2022 IR 87;"),
        ("ﾔﾏﾀﾞ", ["", "ISO 2022 IR 87"], "\\ISO 2022 IR 87;"),
        ("ﾔﾏﾀﾞ Taro", "ISO_IR 13", "ISO_IR 13;"),  # it has both, but pydicom loses the katakana
        ("\ufffd", "ISO_IR 101", "ISO_IR 101;"),
        ("\ud800", "ISO_IR 192", "ISO_IR 192;"),
    ],
)
def test_text_that_its_character_set_does_not_have_is_an_error(text, character_set, said):
    """pydicom writes question marks, which in a key ask for any character (PS3.4 C.2.2.2.4)."""
    with pytest.raises(DataSetError) as caught:
        encode(with_text(text, character_set), EXPLICIT_VR_LITTLE_ENDIAN)
    assert str(caught.value).startswith(
        "PatientName (0010,0010) cannot be written in its character"
    )
    assert said in str(caught.value)
    assert text not in str(caught.value), "what a patient is called belongs into no log"


@pytest.mark.parametrize(
    ("text", "character_set"),
    [
        ("Müller", None),
        ("Müller", "ISO_IR 100"),
        ("Łukasz", "ISO_IR 101"),
        ("ﾔﾏﾀﾞ", "ISO_IR 13"),
        ("Yamada=山田=やまだ", ["", "ISO 2022 IR 87"]),
        ("ﾔﾏﾀﾞ=山田", ["ISO 2022 IR 13", "ISO 2022 IR 87"]),
        ("Hong=洪=홍", ["", "ISO 2022 IR 149"]),
        ("Wang=王", "GB18030"),
        ("Łukasz=山田=홍", "ISO_IR 192"),
    ],
)
def test_text_that_its_character_set_has_is_written(text, character_set):
    """With code extensions each character may be in another set (PS3.5 6.1.2.5)."""
    raw = encode(with_text(text, character_set), EXPLICIT_VR_LITTLE_ENDIAN)
    assert decode(raw, EXPLICIT_VR_LITTLE_ENDIAN).PatientName == text


def test_text_is_looked_at_wherever_it_is():
    """In each of several values, and in items, which have the character set of what is around them."""
    outer, item = with_text("山田", "ISO_IR 192"), with_text("山田", None)
    outer.OtherPatientIDsSequence = [item]
    encode(outer, EXPLICIT_VR_LITTLE_ENDIAN)
    item.SpecificCharacterSet = "ISO_IR 100"
    item.PatientName = "Müller"
    item.OtherPatientNames = ["Müller", "山田"]
    with pytest.raises(DataSetError, match=r"^OtherPatientNames \(0010,1001\) .* ISO_IR 100"):
        encode(outer, EXPLICIT_VR_LITTLE_ENDIAN)


def test_text_that_was_only_read_is_written_as_it_came():
    """Whatever it says, and in whatever it is written: those are not our words."""
    for raw in (b"\xff\xfe", "山田".encode()):
        element = b"\x10\0\x10\0PN" + struct.pack("<H", len(raw)) + raw
        charset = b"\x08\0\x05\0CS\x0a\0ISO_IR 100"
        data_set = decode(charset + element, EXPLICIT_VR_LITTLE_ENDIAN)
        assert encode(data_set, EXPLICIT_VR_LITTLE_ENDIAN) == charset + element


def test_a_value_that_cannot_be_written_is_an_error_of_ours():
    """pydicom raises whatever its writers meet; callers wait for one class."""
    data_set = Dataset()
    data_set.Rows = 70_000
    with pytest.raises(DataSetError, match="cannot be written"):
        encode(data_set, EXPLICIT_VR_LITTLE_ENDIAN)


# -- the reader of flat data sets -----------------------------------------------------------------

#: One element of each short VR, and a private one.
FLAT = {
    0x00080005: "CS",
    0x00080018: "UI",
    0x00080020: "DA",
    0x00080030: "TM",
    0x00080050: "SH",
    0x00080052: "CS",
    0x00080054: "AE",
    0x0008002A: "DT",
    0x00080081: "ST",
    0x00090010: "LO",
    0x00091001: "DS",
    0x00100010: "PN",
    0x00100020: "LO",
    0x00101010: "AS",
    0x00101030: "DS",
    0x00104000: "LT",
    0x00186020: "SL",
    0x00186028: "FD",
    0x00200013: "IS",
    0x00280009: "AT",
    0x00280010: "US",
    0x00280106: "SS",
    0x00720050: "CS",
}
CHARACTER_SETS = ["ISO_IR 100", "ISO_IR 192", "\\ISO 2022 IR 87", "", "NO SUCH", "ISO_IR 100 "]
flat_elements = st.dictionaries(
    st.sampled_from(sorted(FLAT)), st.text("A1.9^\\-* é", max_size=8), max_size=8
)


def written(elements: dict[int, bytes], transfer_syntax: str) -> bytes:
    """Elements by hand: FLAT's VR, and whatever value, valid or not."""
    order = "<" if dsutils.is_little_endian(transfer_syntax) else ">"
    found = b""
    for tag, value in sorted(elements.items()):
        number = (tag >> 16, tag & 0xFFFF)
        if dsutils.is_implicit_vr(transfer_syntax):
            found += struct.pack(f"{order}HHI", *number, len(value))
        else:
            found += struct.pack(f"{order}HH2sH", *number, FLAT[tag].encode(), len(value))
        found += value
    return found


def what_a_reader_sees(data_set: Dataset) -> list[object]:
    """Its encodings, and the values, or the errors of those who touch them."""
    # pydicom has one codec as itself or as a list of one.
    codecs = data_set.original_character_set
    seen: list[object] = [
        data_set.original_encoding,
        [codecs] if isinstance(codecs, str) else list(codecs),
    ]
    for tag in sorted(data_set.keys()):
        seen.append(tag)
        try:
            seen.append((data_set[tag].VR, repr(data_set[tag].value)))
        except Exception as error:
            seen.append(type(error))
    return seen


@pytest.mark.slow
@given(flat_elements, st.sampled_from(CHARACTER_SETS), st.sampled_from(UNCOMPRESSED[:3]))
def test_a_flat_data_set_is_read_as_pydicom_reads_it(elements, character_set, transfer_syntax):
    """Identifiers are read by a short way of our own; nobody must see the difference."""
    values = {
        tag: text.encode() + b" " * (len(text.encode()) % 2) for tag, text in elements.items()
    }
    if 0x00080005 in values:
        values[0x00080005] = character_set.encode()
    raw = written(values, transfer_syntax)
    theirs = read_dataset(
        BytesIO(raw),
        dsutils.is_implicit_vr(transfer_syntax),
        dsutils.is_little_endian(transfer_syntax),
    )
    assert what_a_reader_sees(decode(raw, transfer_syntax)) == what_a_reader_sees(theirs)


def test_an_identifier_does_not_go_through_pydicoms_reader(monkeypatch):
    """The short way is taken, or the test above would compare pydicom with itself."""
    raw = written({0x00080052: b"STUDY ", 0x00100010: b"DOE*"}, EXPLICIT_VR_LITTLE_ENDIAN)
    monkeypatch.setattr(dsutils, "read_dataset", None)
    assert decode(raw, EXPLICIT_VR_LITTLE_ENDIAN).QueryRetrieveLevel == "STUDY"
    with pytest.raises(DataSetError):
        decode(element(0x40, 0x275, b"SQ", 0), EXPLICIT_VR_LITTLE_ENDIAN)


def test_a_character_set_that_pydicom_is_told_to_refuse_is_refused(monkeypatch):
    """pydicom's own setting decides, whichever way a data set is read."""
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    raw = written({0x00080005: b"NONESUCH"}, EXPLICIT_VR_LITTLE_ENDIAN)
    with pytest.raises(DataSetError, match="cannot be read") as raised:
        decode(raw, EXPLICIT_VR_LITTLE_ENDIAN)
    # The peer gets the message, and may not get the value.
    assert "NONESUCH" in str(raised.value.__cause__)


# -- which instance it is -------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(WITH_HEADER) - WITHOUT_UIDS))
def test_the_uids_of_a_data_set_are_read_from_its_beginning(name):
    """A file's header may say others than its data set, and it is the data set that is sent."""
    data_set = dcmread(FILES / name, stop_before_pixels=True)
    expected = (data_set.get("SOPClassUID", ""), data_set.get("SOPInstanceUID", ""))
    with (FILES / name).open("rb") as file:
        meta = read_file_meta(file)
        found = identity(file, meta.transfer_syntax) or ("", "")
        # This one is in another encoding than its header says.
        assert found == (("", "") if name == "SC_rgb_jpeg.dcm" else expected)


@pytest.mark.parametrize("transfer_syntax", UNCOMPRESSED)
def test_the_uids_are_read_in_each_encoding(transfer_syntax):
    """Behind elements with long lengths, too, and without their padding."""
    data_set = Dataset()
    data_set.add_new(0x00080006, "SQ", [])
    data_set.SOPClassUID, data_set.SOPInstanceUID = "1.2", "1.2.3"
    data_set.StudyDate = "20200101"
    file = BytesIO(encode(data_set, transfer_syntax))
    assert identity(file, transfer_syntax) == ("1.2", "1.2.3")


UIDS_AND_DATE = (
    element(0x08, 0x16, b"UI", 4, b"1.2\0")
    + element(0x08, 0x18, b"UI", 6, b"1.2.3\0")
    + element(0x08, 0x20, b"DA", 8, b"20200101")
)


@pytest.mark.parametrize(
    ("data", "transfer_syntax"),
    [
        (b"", EXPLICIT_VR_LITTLE_ENDIAN),
        (UIDS_AND_DATE[:20], EXPLICIT_VR_LITTLE_ENDIAN),
        (element(8, 6, b"SQ", 0xFFFFFFFF) + UIDS_AND_DATE, EXPLICIT_VR_LITTLE_ENDIAN),
        (element(8, 5, b"CS", 0xFFFE) + UIDS_AND_DATE, EXPLICIT_VR_LITTLE_ENDIAN),
        (b"\xff\xff\xff\xff", DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
    ],
)
def test_the_uids_of_what_is_not_plain_are_not_guessed(data, transfer_syntax):
    """Cut off, with a sequence of undefined length before them, or damaged: somebody else looks."""
    assert identity(BytesIO(UIDS_AND_DATE), EXPLICIT_VR_LITTLE_ENDIAN) == ("1.2", "1.2.3")
    assert identity(BytesIO(data), transfer_syntax) is None


@given(st.binary(max_size=80), st.sampled_from(UNCOMPRESSED))
def test_the_uids_of_arbitrary_bytes_are_read_or_not(data, transfer_syntax):
    """Nothing is raised."""
    found = identity(BytesIO(data), transfer_syntax)
    assert found is None or len(found) == 2


# -- what cannot be read --------------------------------------------------------------------------


PATIENT_ID = element(0x10, 0x20, b"LO", 2, b"7 ")
BROKEN = {
    "a value that is cut": PATIENT_ID + element(0x10, 0x30, b"DA", 8, b"2020"),
    "a value of 4 GiB": PATIENT_ID + element(0x7FE0, 0x10, b"OB", 0xFFFFFFFE, b"abcd"),
    "an encapsulation without end": PATIENT_ID
    + element(0x7FE0, 0x10, b"OB", 0xFFFFFFFF, b"\xfe\xff\x00\xe0\0\0\0\0"),
    "a sequence without end": PATIENT_ID + element(0x40, 0x275, b"SQ", 0xFFFFFFFF),
    "an item without end": element(0x40, 0x275, b"SQ", 0xFFFFFFFF)
    + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    + PATIENT_ID,
    "a sequence that is cut": PATIENT_ID + element(0x40, 0x275, b"SQ", 100, b"\xfe\xff\x00\xe0"),
    "half an element": b"\x10\0\x20\0L",
    "text": b"<html><body>no DICOM here</body></html>",
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_data_set_that_is_cut_or_none_is_refused(what):
    """Half an identifier would ask for more than its sender meant: pydicom only warns."""
    with pytest.raises(DataSetError):
        decode(BROKEN[what], EXPLICIT_VR_LITTLE_ENDIAN)


ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, len(PATIENT_ID)) + PATIENT_ID
DELIMITER = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
ELEMENTS = [
    PATIENT_ID,
    element(0x10, 0x30, b"DA", 8, b"20200101"),
    element(0x40, 0x275, b"SQ", len(ITEM), ITEM),
    element(0x40, 0x280, b"SQ", 0xFFFFFFFF, ITEM + DELIMITER),
    element(0x40, 0x281, b"LO", 0),
    element(0x7FE0, 0x10, b"OB", 0xFFFFFFFF, b"\xfe\xff\x00\xe0\0\0\0\0" + DELIMITER),
    element(0xFFFC, 0xFFFC, b"OB", 2, b"\0\0"),
]


def test_a_data_set_cut_anywhere_but_between_elements_is_refused():
    """Values, headers, sequences of both kinds, encapsulated pixel data: at every octet."""
    raw = b"".join(ELEMENTS)
    ends = [len(b"".join(ELEMENTS[:n])) for n in range(len(ELEMENTS) + 1)]
    whole = []
    for size in range(len(raw) + 1):
        with suppress(DataSetError):
            whole.append((size, len(decode(raw[:size], EXPLICIT_VR_LITTLE_ENDIAN))))
    # The length of the delimiter behind pixel data is zero; that it is cut loses nothing.
    without_length = range(ends[6] - 4, ends[6])
    assert [cut for cut in whole if cut[0] not in without_length] == [
        (end, n) for n, end in enumerate(ends)
    ]


def test_ten_thousand_sequences_in_each_other_are_refused():
    """Neither a RecursionError nor the end of the process."""
    nested = (
        element(0x40, 0x275, b"SQ", 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    ) * 10_000
    with pytest.raises(DataSetError):
        decode(nested, EXPLICIT_VR_LITTLE_ENDIAN)


def test_a_length_of_4_gib_allocates_nothing():
    """An element says what it likes; what came is what is held."""
    tracemalloc.start()
    try:
        with pytest.raises(DataSetError):
            decode(BROKEN["a value of 4 GiB"], EXPLICIT_VR_LITTLE_ENDIAN)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


@given(st.binary(max_size=120), st.sampled_from(UNCOMPRESSED))
def test_arbitrary_bytes_are_a_data_set_or_an_error_of_ours(data, transfer_syntax):
    """pydicom documents no closed set of errors for bad input."""
    try:
        found = decode(data, transfer_syntax)
    except DataSetError:
        return
    assert isinstance(found, Dataset)


# -- deflated -------------------------------------------------------------------------------------


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


def test_a_deflated_stream_may_fill_its_limit():
    """The limit is of what comes out, and is inclusive."""
    assert inflate(deflated(bytes(1000)), 1000) == bytes(1000)
    assert inflate(deflated(bytes(1000)) + b"\0", 1000) == bytes(1000)
    with pytest.raises(DataSetError, match="more than 999 octets"):
        inflate(deflated(bytes(1000)), 999)


def test_a_small_message_cannot_fill_memory():
    """64 MiB of zeros come in 64 KiB: what is inflated is bounded, not what was received."""
    bomb = deflated(bytes(64 << 20))
    assert len(bomb) < 1 << 17
    tracemalloc.start()
    try:
        with pytest.raises(DataSetError, match="more than 1048576"):
            decode(bomb, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, limit=1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize("data", [b"\xff\xff\xff", deflated(bytes(range(200)))[:-3], b""])
def test_a_deflated_stream_that_is_damaged_or_cut_is_refused(data):
    """PS3.5 A.5, RFC 1951: a stream has an end of its own."""
    with pytest.raises(DataSetError, match="damaged"):
        inflate(data, 1000)


def test_zeros_behind_a_data_set_are_padding():
    """PS3.5 A.5 pads a deflated stream; some peers pad what is not deflated too."""
    assert list(decode(PATIENT_ID + b"\0", EXPLICIT_VR_LITTLE_ENDIAN).keys()) == [0x00100020]
    with pytest.raises(DataSetError, match="it ends inside an element"):
        decode(PATIENT_ID + b"\x10\0\x21\0L", EXPLICIT_VR_LITTLE_ENDIAN)


# -- the Part 10 header ---------------------------------------------------------------------------

uid_texts = st.lists(st.integers(0, 9999), min_size=2, max_size=9).map(
    lambda parts: ".".join(map(str, parts))
)


@pytest.mark.slow
@given(uid_texts, uid_texts, st.sampled_from(UNCOMPRESSED), st.text("ABC_ ", max_size=16))
def test_the_file_meta_information_is_pydicoms(sop_class, sop_instance, transfer_syntax, source):
    """PS3.10 7.1: the same bytes, group length and padding included."""
    theirs = FileMetaDataset()
    theirs.FileMetaInformationVersion = b"\0\1"
    theirs.MediaStorageSOPClassUID = sop_class
    theirs.MediaStorageSOPInstanceUID = sop_instance
    theirs.TransferSyntaxUID = transfer_syntax
    theirs.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    theirs.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    if source:
        theirs.SourceApplicationEntityTitle = source
    written = BytesIO()
    write_file_meta_info(written, theirs)
    ours = file_meta(sop_class, sop_instance, transfer_syntax, source_ae_title=source)
    assert ours == written.getvalue()


@pytest.mark.slow
@given(uid_texts, uid_texts, uid_texts, st.text("AZ_ é✓", max_size=16))
def test_a_header_is_read_again_and_the_file_left_at_its_data_set(
    sop_class, sop_instance, transfer_syntax, source
):
    """PS3.10 7.1: preamble, prefix, group 0002, and then the data set."""
    header = part10_header(sop_class, sop_instance, transfer_syntax, source_ae_title=source)
    file = BytesIO(header + b"\x08\0data set")
    meta = read_file_meta(file)
    assert meta[:4] == (sop_class, sop_instance, transfer_syntax, len(header))
    if source.isascii():
        assert meta.source_ae_title == source.strip()
    assert file.read() == b"\x08\0data set"


@pytest.mark.parametrize("name", WITH_HEADER)
def test_a_header_is_read_as_pydicom_reads_it(name):
    """Each test file: the three UIDs, and the place where the data set begins."""
    with (FILES / name).open("rb") as file:
        meta = read_partial(file, stop_when=lambda tag, vr, length: True).file_meta
        data_set_begins = file.tell()
    theirs = (
        meta.get("MediaStorageSOPClassUID"),
        meta.get("MediaStorageSOPInstanceUID"),
        meta.get("TransferSyntaxUID"),
    )
    assert all(theirs) == (name not in WITHOUT_UIDS)
    with (FILES / name).open("rb") as file:
        if name in WITHOUT_UIDS:
            with pytest.raises(DataSetError, match=r"has no .* UID \(0002,00"):
                read_file_meta(file)
            return
        assert read_file_meta(file)[:3] == theirs
        # pydicom has already read a deflated one, to inflate it.
        if theirs[2] != DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            assert file.tell() == data_set_begins


def test_the_test_files_are_there():
    """A glob that finds nothing would pass."""
    assert len(WITH_HEADER) > 50


@pytest.mark.parametrize(
    "name", ["no_meta.dcm", "ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "rtstruct.dcm"]
)
def test_a_file_without_preamble_is_no_dicom_file(name):
    """PS3.10 7.1: 'DICM' at octet 128; which encoding the rest has would be a guess."""
    with (FILES / name).open("rb") as file, pytest.raises(DataSetError, match="DICM"):
        read_file_meta(file)


PREAMBLE = bytes(128) + b"DICM"
HEADER = part10_header(SC, "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 131])
def test_a_file_that_is_too_short_is_no_dicom_file(size):
    """An empty upload is the commonest of all broken files."""
    with pytest.raises(DataSetError, match="DICM"):
        read_file_meta(BytesIO(HEADER[:size]))


@pytest.mark.slow
@given(st.integers(132, len(HEADER) - 1))
def test_a_header_that_is_cut_is_refused(size):
    """Inside an element, or before the UIDs have come."""
    file = BytesIO(HEADER[:size])
    try:
        meta = read_file_meta(file)
    except DataSetError:
        return
    # Behind the last of the three UIDs the header may end.
    assert meta.offset <= size
    assert meta[:3] == (SC, "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN)


def test_a_huge_element_of_a_header_is_refused_before_it_is_read():
    """Private information (0002,0102) may be long, not endless."""
    huge = struct.pack("<HH2sxxI", 2, 0x0102, b"OB", 0xFFFFFFF0)
    with pytest.raises(DataSetError, match=r"\(0002,0102\) of the file header has 4294967280"):
        read_file_meta(BytesIO(PREAMBLE + huge))


def test_private_information_in_the_header_is_passed_over():
    """PS3.10 7.1: (0002,0100) and (0002,0102), the latter with a long length."""
    private = struct.pack("<HH2sxxI", 2, 0x0102, b"OB", 1000) + bytes(1000)
    file = BytesIO(header_of(META + private) + b"\x08\0")
    assert read_file_meta(file).offset == len(HEADER) + len(private)
    assert file.read() == b"\x08\0"


#: The elements of group 0002 behind their group length.
META = HEADER[144:]


def header_of(meta: bytes, length: int | None = None) -> bytes:
    """A header with these elements, and a group length that counts them or says something else."""
    said = len(meta) if length is None else length
    return PREAMBLE + struct.pack("<HH2sHI", 2, 0, b"UL", 4, said) + meta


def test_a_header_ends_where_its_group_length_says():
    """PS3.10 7.1: a router had sent its own file header along, as the beginning of the data set."""
    for data_set in (META, META[14:], HEADER[132:], struct.pack("<HH2sH", 2, 0x10, b"UI", 0)):
        file = BytesIO(HEADER + data_set + b"\x08\0")
        assert read_file_meta(file)[:4] == (SC, "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN, len(HEADER))
        assert file.read() == data_set + b"\x08\0"


@pytest.mark.parametrize(
    "header",
    [
        PREAMBLE + META,
        header_of(META, 0),
        header_of(META, 14),
        header_of(META, len(META) - 1),
        header_of(META, len(META) + 2),
        header_of(META, 0xFFFFFFFF),
        PREAMBLE + struct.pack("<HH2sHH", 2, 0, b"US", 2, 7) + META,
    ],
    ids=["absent", "0", "before the UIDs", "in an element", "beyond", "huge", "of two octets"],
)
def test_a_header_without_a_right_group_length_ends_at_the_next_group(header):
    """Old writers leave it out, and some count wrongly."""
    file = BytesIO(header + b"\x08\0\x05\0")
    assert read_file_meta(file)[:4] == (SC, "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN, len(header))
    assert file.read() == b"\x08\0\x05\0"


def test_a_header_without_end_is_refused_before_memory_is_full():
    """Each element is short; a real header has about 200 octets in all."""
    endless = struct.pack("<HH2sH", 2, 0x0102, b"CS", 8) + bytes(8)
    file = BytesIO(PREAMBLE + endless * (1 << 18))
    with pytest.raises(DataSetError, match="the file header has more than"):
        read_file_meta(file)
    assert file.tell() < 1 << 22


def test_a_header_whose_long_length_is_missing_is_refused():
    """The file ends between the VR and the length of (0002,0001)."""
    with pytest.raises(DataSetError):
        read_file_meta(BytesIO(PREAMBLE + b"\2\0\1\0OB\0\0"))


@given(st.binary(max_size=60))
def test_arbitrary_bytes_behind_the_prefix_are_a_header_or_an_error_of_ours(data):
    """Nothing else is raised, whatever a file holds."""
    try:
        read_file_meta(BytesIO(PREAMBLE + data))
    except DataSetError:
        return


def test_a_title_that_is_no_ascii_does_not_stop_a_file_from_being_written():
    """A peer's odd AE title is worth less than its image."""
    header = part10_header(SC, "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN, source_ae_title="ネット")
    assert read_file_meta(BytesIO(header)).sop_instance_uid == "1.2.3"


@pytest.mark.parametrize("uid", [*UNCOMPRESSED, "1.2.840.10008.1.20", RLELossless, "1.2.3"])
def test_a_transfer_syntax_is_told_apart_as_pydicom_does(uid):
    """PS3.5 A: implicit, little endian, deflated; a private one is taken for explicit little."""
    theirs = pydicom.uid.UID(uid)
    if theirs.is_transfer_syntax and uid != "1.2.840.10008.1.20":
        assert dsutils.is_implicit_vr(uid) == theirs.is_implicit_VR
        assert dsutils.is_little_endian(uid) == theirs.is_little_endian
        assert dsutils.is_deflated(uid) == theirs.is_deflated
    else:
        assert dsutils.is_little_endian(uid)
        assert not dsutils.is_deflated(uid)
        assert dsutils.is_implicit_vr(uid) == (uid == "1.2.840.10008.1.20")


def test_sequences_keep_their_items():
    """PS3.5 7.5: items with items, in both VR encodings."""
    inner, outer = Dataset(), Dataset()
    inner.CodeValue = "x"
    outer.ConceptNameCodeSequence = Sequence([inner, Dataset()])
    for transfer_syntax in UNCOMPRESSED:
        again = decode(encode(outer, transfer_syntax), transfer_syntax)
        assert [len(item) for item in again.ConceptNameCodeSequence] == [1, 0]


@pytest.mark.parametrize(
    "syntax", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN]
)
@pytest.mark.parametrize("kind", ["elements", "items"])
def test_too_many_parts_are_refused_before_they_are_decoded(syntax: str, kind: str) -> None:
    """A mebibyte of empty items kept pydicom busy for two seconds."""
    ds = Dataset()
    if kind == "elements":
        for number in range(101):
            ds.add_new(0x00190010 + number, "LO", "")
    else:
        ds.ReferencedSOPSequence = [Dataset() for _ in range(101)]
    octets = dsutils.encode(ds, syntax)
    dsutils.check_parts(octets, syntax, 101)
    with pytest.raises(DataSetError, match="more than 100 elements or items"):
        dsutils.check_parts(octets, syntax, 100)
