"""Two data sets with the same content are found to be so, however each is written (PS3.5 7, Annex A)."""

import itertools
import struct
import tracemalloc
from pathlib import Path

import pydicom
import pytest
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from netdicom_tx.archive.encoded import content
from netdicom_tx.archive.encoded import walk as walking
from netdicom_tx.archive.encoded.content import same_content
from support.archive.data_sets import (
    BIG_ENDIAN,
    DEFLATED,
    ENCODINGS,
    EXPLICIT,
    IMPLICIT,
    Encoding,
    deflated,
)
from support.interop.samples import quiet, sources
from support.part10 import data_set_bytes

UNDEFINED = 0xFFFFFFFF
PIXELS = struct.pack("<8H", *range(1000, 1008))


def same(
    one: bytes, one_syntax: Encoding | str, other: bytes, other_syntax: Encoding | str
) -> bool:
    """Compare in both directions, each data set behind a header of another length."""
    syntaxes = [
        each if isinstance(each, str) else each.transfer_syntax
        for each in (one_syntax, other_syntax)
    ]
    found = same_content(b"x" * 3 + one, syntaxes[0], 3, b"y" * 8 + other, syntaxes[1], 8)
    assert same_content(other, syntaxes[1], 0, one, syntaxes[0], 0) is found
    return found


def sample(
    encoding: Encoding, *, defined: bool = True, name: bytes = b"Doe^Jane", rows: int = 2
) -> bytes:
    """A data set with numbers, text and nested sequences, a private one among them."""
    order = encoding.order
    code = encoding.element(0x00080100, "SH", b"T-D1100 ")
    inner = encoding.sequence(0x0040A043, code, defined=defined)
    private = encoding.element(0x00091002, "US", struct.pack(order + "H", 7))
    return (
        encoding.identity("1.2.3")
        + encoding.sequence(0x00081140, encoding.identity("1.2.9") + inner, b"", defined=defined)
        + encoding.element(0x00090010, "LO", b"ACME")
        + encoding.sequence(0x00091001, private, defined=defined)
        + encoding.element(0x00100010, "PN", name)
        + encoding.element(0x00280009, "AT", struct.pack(order + "HH", 0x18, 0x1063))
        + encoding.element(0x00280010, "US", struct.pack(order + "H", rows))
        + encoding.element(0x7FE00010, "OW", struct.pack(order + "8H", *range(1000, 1008)))
    )


@pytest.mark.parametrize(("one", "other"), list(itertools.product(ENCODINGS, repeat=2)))
@pytest.mark.parametrize("defined", [True, False])
def test_how_elements_are_written_does_not_count(
    one: Encoding, other: Encoding, defined: bool
) -> None:
    """PS3.5 A.1 to A.3, 7.5.1: implicit or explicit VR, the order of octets, the kind of length."""
    assert same(sample(one), one, sample(other, defined=defined), other)
    assert not same(sample(one), one, sample(other, defined=defined, name=b"Roe^Jane"), other)
    assert not same(sample(one), one, sample(other, defined=defined, rows=512), other)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_deflation_does_not_count(encoding: Encoding) -> None:
    """PS3.5 A.5; nor does the strength of the compression."""
    assert same(deflated(sample(EXPLICIT)), DEFLATED, sample(encoding), encoding)
    assert not same(deflated(sample(EXPLICIT, rows=3)), DEFLATED, sample(encoding), encoding)


def test_a_deflated_data_set_beyond_the_limit_is_different(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small message must not fill the memory."""
    monkeypatch.setattr(walking, "INFLATED_LIMIT", 100)
    assert not same(deflated(sample(EXPLICIT)), DEFLATED, sample(EXPLICIT), EXPLICIT)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_says_nothing_of_the_instance_does_not_count(encoding: Encoding) -> None:
    """PS3.5 7.2 group lengths, PS3.10 7.2 trailing padding, PS3.10 7.1 group 0002."""
    length = struct.pack(encoding.order + "I", 100)
    more = (
        encoding.element(0x00020010, "UI", b"1.2.840.10008.1.2\0")
        + encoding.element(0x00080000, "UL", length)
        + sample(encoding)
        + encoding.element(0xFFFCFFFC, "OB", bytes(100))
    )
    assert same(more, encoding, sample(encoding), encoding)
    inside = encoding.element(0x00080000, "UL", length) + encoding.identity()
    one = encoding.sequence(0x00081140, inside)
    assert same(one, encoding, encoding.sequence(0x00081140, encoding.identity()), encoding)


@pytest.mark.parametrize(
    ("vr", "pad", "is_same"), [("OB", b"\0", True), ("LO", b" ", True), ("LO", b"c", False)]
)
def test_the_octet_that_makes_a_length_even_does_not_count(
    vr: str, pad: bytes, is_same: bool
) -> None:
    """PS3.5 7.1.1: values have an even length, and programs that write an odd one again pad it."""
    odd, even = (EXPLICIT.element(0x00091001, vr, value) for value in (b"abc", b"abc" + pad))
    assert same(odd, EXPLICIT, even, EXPLICIT) is is_same
    longer = EXPLICIT.element(0x00091001, vr, b"abcd" + pad)
    assert not same(even, EXPLICIT, longer, EXPLICIT)


def test_unknown_says_nothing_and_its_sequences_are_implicit() -> None:
    """PS3.5 6.2.2: a program that does not know an element writes UN."""
    sequence = IMPLICIT.items(IMPLICIT.identity())
    for length in (None, UNDEFINED):
        unknown = EXPLICIT.element(0x00091001, "UN", sequence, length)
        assert same(unknown, EXPLICIT, EXPLICIT.sequence(0x00091001, EXPLICIT.identity()), EXPLICIT)
    one, other = (EXPLICIT.element(0x00091001, vr, b"ab") for vr in ("UN", "LO"))
    assert same(one, EXPLICIT, other, EXPLICIT)


def test_two_different_value_representations_are_different() -> None:
    """PS3.5 6.2: the same octets are other numbers; but OB and OW are a choice of the writer (PS3.5 A.2)."""
    one, other = (EXPLICIT.element(0x00280120, vr, b"\xff\xff") for vr in ("US", "SS"))
    assert not same(one, EXPLICIT, other, EXPLICIT)
    one, other = (EXPLICIT.element(0x7FE00010, vr, PIXELS) for vr in ("OB", "OW"))
    assert same(one, EXPLICIT, other, EXPLICIT)


def test_what_one_has_and_the_other_has_not_counts() -> None:
    """At the end, in the middle, in an item; and items themselves."""
    one = sample(EXPLICIT)
    assert not same(one, EXPLICIT, one + EXPLICIT.element(0x7FE10010, "LO"), EXPLICIT)
    assert not same(one, EXPLICIT, b"", EXPLICIT)
    sequences = [
        EXPLICIT.sequence(0x00081140, *items)
        for items in ((), (b"",), (b"", b""), (EXPLICIT.identity(),))
    ]
    for a, b in itertools.combinations(sequences, 2):
        assert not same(a, EXPLICIT, b, EXPLICIT)


def test_fragments_count_in_one_transfer_syntax() -> None:
    """PS3.5 A.4: encapsulated octets are compared as they are; another compression is another content."""

    def encapsulated(*fragments: bytes) -> bytes:
        items = b"".join(EXPLICIT.element(0xFFFEE000, "", each) for each in fragments)
        value = items + EXPLICIT.element(0xFFFEE0DD, "")
        return EXPLICIT.identity() + EXPLICIT.element(0x7FE00010, "OB", value, UNDEFINED)

    padding = EXPLICIT.element(0xFFFCFFFC, "OB", bytes(10))
    jpeg = "1.2.840.10008.1.2.4.50"
    assert same(encapsulated(b"", b"ab") + padding, jpeg, encapsulated(b"", b"ab"), jpeg)
    assert not same(encapsulated(b"", b"ab"), jpeg, encapsulated(b"", b"ac"), jpeg)
    assert not same(encapsulated(b"", b"ab"), jpeg, encapsulated(b"", b"ab", b""), jpeg)
    assert not same(encapsulated(b"ab"), jpeg, encapsulated(b"ab"), EXPLICIT)


@pytest.mark.parametrize("broken", [b"\x08\x00", b"\x08\x00\x18\x00UI\xff\xff", b"x" * 40])
def test_a_sequence_that_is_no_sequence_is_compared_octet_for_octet(broken: bytes) -> None:
    """The end of a value of defined length is known, so what cannot be read in it is a value."""
    one = EXPLICIT.identity() + EXPLICIT.sequence(0x00091001, broken, defined=True)
    assert same(one, EXPLICIT, one, EXPLICIT)
    other = one.replace(broken, b"z" * len(broken))
    assert not same(one, EXPLICIT, other, EXPLICIT)


def test_the_order_of_elements_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """PS3.5 7.1: tags ascend, and programs put those that do not in order; of very many the order counts."""
    name, identity = EXPLICIT.element(0x00100010, "PN", b"A^B "), EXPLICIT.identity()
    assert same(name + identity, EXPLICIT, identity + name, EXPLICIT)
    twice = EXPLICIT.element(0x00100010, "PN", b"C^D ")
    assert not same(name + twice, EXPLICIT, twice + name, EXPLICIT)
    monkeypatch.setattr(content, "_SORTED_LIMIT", 3)
    assert not same(name + identity, EXPLICIT, identity + name, EXPLICIT)
    assert same(name + identity, EXPLICIT, name + identity, EXPLICIT)


def test_what_cannot_be_read_is_different() -> None:
    """A kept file may have been damaged since."""
    whole = sample(EXPLICIT)
    assert not same(whole, EXPLICIT, whole[:-1], EXPLICIT)
    assert not same(deflated(whole), DEFLATED, deflated(whole)[:20], DEFLATED)


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.name)
def test_real_files_are_the_same_when_pydicom_writes_them_again(path: Path) -> None:
    """In the same transfer syntax; lengths, group lengths and padding may change."""
    with quiet():
        ds = pydicom.dcmread(path)
        syntax = str(ds.file_meta.TransferSyntaxUID)
        data = data_set_bytes(path)
        assert same(data, syntax, data, syntax)
        # pydicom keeps one of the two SOP Instance UIDs that winter.dcm has.
        is_plain = syntax in (EXPLICIT.transfer_syntax, IMPLICIT.transfer_syntax)
        if not is_plain or path.name == "winter.dcm":
            return
        buffer = DicomBytesIO()
        buffer.is_little_endian = True
        buffer.is_implicit_VR = syntax == IMPLICIT.transfer_syntax
        write_dataset(buffer, ds)
    assert same(data, syntax, buffer.getvalue(), syntax)


def test_memory_does_not_grow_with_the_values() -> None:
    """A piece of each is looked at at a time."""
    one = EXPLICIT.element(0x7FE00010, "OW", bytes(1 << 25))
    other = BIG_ENDIAN.element(0x7FE00010, "OW", bytes(1 << 25))
    tracemalloc.start()
    try:
        assert same_content(one, EXPLICIT.transfer_syntax, 0, other, BIG_ENDIAN.transfer_syntax, 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 24
