"""The walk from head to head, and deflation: PS3.5 7.1, 7.5, A.5."""

import sys
import zlib
from itertools import islice, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from netdicom_tx import encoding as module
from netdicom_tx.dsutils import part10_header
from netdicom_tx.encoding import (
    FILE_HEADER_LIMIT,
    Coding,
    DataSetError,
    coding_of,
    file_header_size,
    heads,
    inflate_part,
)
from netdicom_tx.uids import ALL_TRANSFER_SYNTAXES
from support.archive.data_sets import (
    BIG_ENDIAN,
    ENCODINGS,
    EXPLICIT,
    IMPLICIT,
    LONG_VRS,
    SHORT_VRS,
    UNDEFINED,
    Encoding,
    Made,
    data_sets,
    deflated,
)

each_encoding = pytest.mark.parametrize(
    "encoding", ENCODINGS, ids=lambda each: each.transfer_syntax
)


def all_heads(data: bytes, encoding: Encoding) -> list[tuple[int, bytes, int, int, int]]:
    return list(heads(data, coding_of(encoding.transfer_syntax), 0, len(data)))


@pytest.mark.parametrize("transfer_syntax", ALL_TRANSFER_SYNTAXES)
def test_every_transfer_syntax_has_a_coding(transfer_syntax: str) -> None:
    """PS3.5 A: all but two have explicit VR little endian."""
    expected = {
        IMPLICIT.transfer_syntax: Coding(implicit=True, little=True),
        BIG_ENDIAN.transfer_syntax: Coding(implicit=False, little=False),
    }.get(transfer_syntax, Coding(implicit=False, little=True))
    if transfer_syntax != "1.2.840.10008.1.20":  # Papyrus 3, retired
        assert coding_of(transfer_syntax) == expected


@pytest.mark.parametrize("encoding", [EXPLICIT, BIG_ENDIAN], ids=["little", "big"])
@pytest.mark.parametrize("vr", LONG_VRS + SHORT_VRS)
def test_a_vr_says_how_long_the_length_is(encoding: Encoding, vr: str) -> None:
    """PS3.5 7.1.2."""
    data = encoding.element(0x00091001, vr, b"abcd") + encoding.element(0x00091002, "CS")
    size = 12 if vr in LONG_VRS else 8
    assert all_heads(data, encoding) == [
        (0x00091001, vr.encode(), size, 4, size + 4),
        (0x00091002, b"CS", size + 12, 0, size + 12),
    ]


def test_implicit_vr_has_no_vr() -> None:
    """PS3.5 7.1.3."""
    data = IMPLICIT.element(0x00100010, "PN", b"abcd")
    assert all_heads(data, IMPLICIT) == [(0x00100010, b"", 8, 4, 12)]


@each_encoding
def test_items_and_delimiters_have_no_vr(encoding: Encoding) -> None:
    """PS3.5 7.5: also where the length looks like one."""
    lengths = (0, 4, 0x5343, 0x424F4243)  # the last two are letters
    for length in lengths:
        data = encoding.element(0xFFFEE000, "", b"", length)
        assert all_heads(data, encoding) == [(0xFFFEE000, b"", 8, length, 8 + length)]


@each_encoding
def test_a_value_of_undefined_length_ends_where_the_caller_says(encoding: Encoding) -> None:
    """PS3.5 7.5.2; without a caller who knows, it reaches beyond the end."""
    data = encoding.sequence(0x00081140) + encoding.element(0x00100010, "PN")
    value = 8 if encoding.is_implicit else 12
    asked = []

    def behind(tag: int, vr: bytes, start: int) -> int:
        asked.append((tag, vr, start))
        return start + 8

    vr = b"" if encoding.is_implicit else b"SQ"
    coding = coding_of(encoding.transfer_syntax)
    found = list(heads(data, coding, 0, len(data), behind))
    assert asked == [(0x00081140, vr, value)]
    assert found[0] == (0x00081140, vr, value, UNDEFINED, value + 8)
    assert found[1][0] == 0x00100010
    ((_, _, _, length, end),) = heads(data, coding, 0, len(data))
    assert length == UNDEFINED
    assert end > len(data)


@each_encoding
def test_heads_begin_and_end_where_they_are_told(encoding: Encoding) -> None:
    data = encoding.element(0x00100010, "PN", b"ab") * 3
    size = len(data) // 3
    coding = coding_of(encoding.transfer_syntax)
    assert [each[-1] for each in heads(data, coding, size, 2 * size)] == [2 * size]
    for cut, count in ((2, 3), (3, 2)):
        assert len(list(heads(data, coding, 0, len(data) - cut))) == count


def test_a_head_that_is_cut_has_its_value_beyond_the_end() -> None:
    """The four octets of a long length are not there; what stands behind the end is not read."""
    data = EXPLICIT.element(0x00091001, "OB", b"abcd")
    coding = coding_of(EXPLICIT.transfer_syntax)
    for end in (8, 9, 10, 11):
        ((_, _, value, length, behind),) = heads(data, coding, 0, end)
        assert (value, length, behind) == (12, 0, 12)
    assert list(heads(data, coding, 0, 7)) == []


def test_a_count_ends_the_walk() -> None:
    """One value for each head."""
    data = IMPLICIT.element(0x00100010, "PN") * 5
    coding = coding_of(IMPLICIT.transfer_syntax)
    assert len(list(heads(data, coding, 0, len(data), None, repeat(None, 3)))) == 3
    count = iter(range(100))
    assert len(list(heads(data, coding, 0, len(data), None, count))) == 5
    assert next(count) == 6


@given(data_sets)
def test_every_element_at_the_top_has_a_head(made: Made) -> None:
    """Whatever the encoding: the heads end with the data set."""
    coding = coding_of(made.encoding.transfer_syntax)
    boundaries = sorted(made.boundaries)

    def behind(tag: int, vr: bytes, start: int) -> int:
        return next(each for each in boundaries if each > start)

    found = heads(made.octets, coding, 0, len(made.octets), behind)
    assert [0, *(each[-1] for each in found)] == boundaries


@given(st.binary(max_size=300), st.sampled_from(ENCODINGS))
def test_arbitrary_octets_have_heads(octets: bytes, encoding: Encoding) -> None:
    """Nothing is raised, and each head is behind the one before."""
    found = [each[-1] for each in all_heads(octets, encoding)]
    assert found == sorted(found)


# -- deflate ---------------------------------------------------------------------------------------------


def test_a_stream_is_inflated_to_its_end() -> None:
    """PS3.5 A.5; the NUL that pads it is not part of it."""
    plain = bytes(range(256)) * 1000
    packed = deflated(plain)
    assert inflate_part(packed, len(plain) + 1) == (plain, True)
    assert inflate_part(b"head" + packed, 1 << 20, 4) == (plain, True)
    assert inflate_part(memoryview(packed), 1 << 20) == (plain, True)


@pytest.mark.parametrize("limit", [0, 1, 1000, 255_999])
def test_no_more_than_the_limit_is_inflated(limit: int) -> None:
    plain = bytes(range(256)) * 1000
    assert inflate_part(deflated(plain), limit) == (plain[:limit], False)


def test_a_stream_that_is_cut_has_no_end() -> None:
    """What is there is given; the caller decides what that means."""
    plain = bytes(range(256)) * 1000
    part, is_whole = inflate_part(deflated(plain)[:-20], 1 << 20)
    assert not is_whole
    assert plain.startswith(part)


def test_a_damaged_stream_is_an_error() -> None:
    with pytest.raises(DataSetError, match="the deflated data set is damaged"):
        inflate_part(b"\xff" * 64, 1 << 20)


def test_a_large_stream_is_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """zlib copies what it has not taken: it is never given all."""
    stream = zlib.compressobj(0, wbits=-zlib.MAX_WBITS)  # stored, not compressed
    plain = bytes(islice(repeat(7), 1 << 20))
    packed = stream.compress(plain) + stream.flush()
    taken = []

    class Watched:
        def __init__(self, wbits: int) -> None:
            self._stream = real(wbits)

        @property
        def eof(self) -> bool:
            return self._stream.eof

        @property
        def unconsumed_tail(self) -> bytes:
            return self._stream.unconsumed_tail

        def decompress(self, data: bytes, limit: int) -> bytes:
            taken.append(len(data))
            return self._stream.decompress(data, limit)

    real = zlib.decompressobj
    monkeypatch.setattr(module.zlib, "decompressobj", Watched)
    assert inflate_part(packed, 1 << 21) == (plain, True)
    assert max(taken) == 1 << 16


# -- a file header in front of a data set ----------------------------------------------------------------

HEADER = part10_header("1.2.840.10008.5.1.4.1.1.2", "1.2.3", EXPLICIT.transfer_syntax)
SYNTAX = EXPLICIT.element(0x00020010, "UI", b"1.2.840.10008.1.2\0")


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"", id="none"),
        pytest.param(HEADER, id="whole"),
        pytest.param(HEADER[128:], id="without preamble"),
        pytest.param(HEADER[132:], id="without prefix"),
        pytest.param(SYNTAX, id="one element"),
        pytest.param(HEADER[:132] + SYNTAX, id="without group length"),
        pytest.param(EXPLICIT.element(0x00020000, "UL", b"\1\0\0\0") + SYNTAX, id="wrong length"),
        pytest.param(EXPLICIT.element(0x00020000, "UL", b"\xff" * 4) + SYNTAX, id="long length"),
        pytest.param(HEADER * 3, id="three"),
        pytest.param(bytes(128) + b"DICM", id="a preamble alone"),
        pytest.param(b"II*\0" + HEADER[4:], id="the preamble of a TIFF file"),
    ],
)
@each_encoding
def test_a_file_header_is_passed_over(encoding: Encoding, header: bytes) -> None:
    """PS3.10 7.1: explicit VR little endian, whatever follows."""
    data = encoding.identity() + encoding.element(0x00100020, "LO", b"7 ")
    assert file_header_size(b"xy" + header + data, 2) == len(header)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\2\0", id="too short"),
        pytest.param(bytes(132), id="zeros"),
        pytest.param(SYNTAX[:-1], id="cut"),
        pytest.param(IMPLICIT.element(0x00020000, "UL", b"\x1a\0\0\0"), id="implicit VR"),
        pytest.param(IMPLICIT.element(0x00020010, "UI", b"1.2.840.10008.1.2\0"), id="implicit UI"),
        pytest.param(BIG_ENDIAN.element(0x00020010, "UI", b"1.2.840.10008.1.2\0"), id="big endian"),
        pytest.param(b"DICM" + EXPLICIT.identity(), id="a prefix alone"),
        pytest.param(
            EXPLICIT.element(0x00080005, "CS", b"x" * 120) + b"DICM" + bytes(8),
            id="text at its place",
        ),
    ],
)
def test_what_is_no_file_header_is_not_passed_over(data: bytes) -> None:
    assert file_header_size(data) == 0


def test_headers_are_passed_over_up_to_a_limit() -> None:
    many = HEADER * (FILE_HEADER_LIMIT // len(HEADER) + 5)
    assert FILE_HEADER_LIMIT - len(HEADER) < file_header_size(many) <= FILE_HEADER_LIMIT


# -- data sets of pydicom ------------------------------------------------------------------------------


def test_only_a_data_set_of_pydicom_is_one() -> None:
    assert module.is_data_set(Dataset())
    assert not any(map(module.is_data_set, ({}, b"", None, Dataset)))


def test_without_pydicom_nothing_is_a_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is not loaded to find that out."""
    monkeypatch.delitem(sys.modules, "pydicom.dataset")
    assert not module.is_data_set({})
    assert "pydicom.dataset" not in sys.modules
