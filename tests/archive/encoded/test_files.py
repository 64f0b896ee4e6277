"""The walk through a file finds what the walk through its octets finds, and reads little of its pixel data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netdicom_tx.archive.encoded import files
from netdicom_tx.archive.encoded.files import walk_file
from netdicom_tx.archive.encoded.walk import InvalidDataSetError, Walked, walk
from support.archive.data_sets import (
    BIG_ENDIAN,
    DEFLATED,
    ENCODINGS,
    EXPLICIT,
    IMPLICIT,
    UNDEFINED,
    Encoding,
    Made,
    data_sets,
    deflated,
)

WANTED = (0x00080016, 0x00100010, 0x00280010)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as large, and are read in small pieces."""
    monkeypatch.setattr(files, "_WHOLE", 0)
    monkeypatch.setattr(files, "_FIRST", 32)
    monkeypatch.setattr(files, "_RUN", 24)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "file"


def walked(path: Path, data: bytes, transfer_syntax: str, before: bytes = b"HEAD") -> Walked:
    path.write_bytes(before + data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return walk_file(descriptor, transfer_syntax, len(before), WANTED)
    finally:
        os.close(descriptor)


def same(path: Path, data: bytes, transfer_syntax: str) -> bool:
    """Whether both walks say the same; what is behind the header is not compared by its offset."""
    try:
        expected = walk(data, transfer_syntax, 0, WANTED)
    except InvalidDataSetError:
        with pytest.raises(InvalidDataSetError):
            walked(path, data, transfer_syntax)
        return True
    found = walked(path, data, transfer_syntax)
    assert found[:4] == expected[:4]
    assert found.header_end == expected.header_end
    return True


def pixels(encoding: Encoding, *fragments: bytes, is_ended: bool = True) -> bytes:
    content = b"".join(encoding.element(0xFFFEE000, "", each) for each in fragments)
    end = encoding.element(0xFFFEE0DD, "") if is_ended else b""
    return encoding.element(0x7FE00010, "OB", content + end, UNDEFINED)


@given(made=data_sets, cut=st.integers(0, 40), more=st.sampled_from([b"", b"\0", bytes(9), b"x"]))
def test_files_and_octets_are_walked_alike(path: Path, made: Made, cut: int, more: bytes) -> None:
    octets = made.octets[: len(made.octets) - cut] if cut else made.octets
    assert same(path, octets + more, made.encoding.transfer_syntax)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda each: each.transfer_syntax)
@pytest.mark.parametrize("zeros", range(20))
def test_a_file_without_pixels_may_end_in_zeros(path: Path, encoding: Encoding, zeros: int) -> None:
    octets = b"".join(encoding.element(0x00100010, "PN", b"A^B" * 2) for _ in range(4))
    assert same(path, octets + bytes(zeros), encoding.transfer_syntax)
    assert same(path, bytes(2) + octets + bytes(zeros), encoding.transfer_syntax)
    assert same(path, bytes(20 + zeros), encoding.transfer_syntax)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda each: each.transfer_syntax)
@pytest.mark.parametrize(
    "behind",
    [
        lambda e: b"",
        lambda e: e.element(0x7FE00010, "OW", bytes(1000)),
        lambda e: e.element(0x7FE00010, "OW", bytes(1000)) + e.element(0xFFFCFFFC, "OB", bytes(50)),
        lambda e: e.element(0x7FE00010, "OW", bytes(100)) + bytes(200),
        lambda e: e.element(0x7FE00010, "OW", bytes(100)) + e.element(0xFFFEE00D, "") + bytes(3),
        lambda e: e.element(0x7FE00010, "OW", bytes(1000))[:-1],
        lambda e: e.element(0x7FE00010, "OW", bytes(1000)) + b"xy",
        lambda e: pixels(e, b"", bytes(500), bytes(7)),
        lambda e: pixels(e, b"", bytes(500), is_ended=False),
        lambda e: pixels(e, b"", bytes(500)) + e.element(0x7FE00020, "OB", b"ab"),
        lambda e: pixels(e, b"", bytes(500))[:-4],
    ],
    ids=[
        "no pixels",
        "pixels",
        "padding",
        "zeros",
        "a delimiter",
        "cut",
        "stray",
        "fragments",
        "fragments without end",
        "more behind fragments",
        "cut in the end",
    ],
)
def test_pixel_data_is_gone_through(path: Path, encoding: Encoding, behind: object) -> None:
    sequence = encoding.sequence(0x00081140, encoding.element(0x00080100, "SH", b"ab" * 40))
    data = encoding.identity() + sequence + behind(encoding)  # type: ignore[operator]  # a lambda
    assert same(path, data, encoding.transfer_syntax)


def test_a_deflated_data_set_is_walked_inflated(path: Path) -> None:
    data = deflated(EXPLICIT.identity() + EXPLICIT.element(0x7FE00010, "OW", bytes(1000)))
    assert same(path, data, DEFLATED)


def test_of_pixel_data_only_heads_are_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    pread = os.pread

    def counting(descriptor: int, length: int, offset: int) -> bytes:
        part = pread(descriptor, length, offset)
        read.append(len(part))
        return part

    monkeypatch.setattr(os, "pread", counting)
    for coding in (EXPLICIT, IMPLICIT, BIG_ENDIAN):
        read.clear()
        data = coding.identity() + coding.element(0x7FE00010, "OW", bytes(1 << 20))
        walked(path, data, coding.transfer_syntax)
        assert sum(read) < 1000


@pytest.mark.parametrize("encoding", [EXPLICIT, BIG_ENDIAN], ids=["little", "big"])
@pytest.mark.parametrize(
    "behind",
    [
        lambda e: b"",
        lambda e: e.element(0x00420013, "IS", b"1 "),
        lambda e: e.sequence(0x00540016, e.element(0x00080100, "SH", b"ab")),
        lambda e: e.element(0x7FE00010, "OW", bytes(1000)),
        lambda e: e.element(0x7FE00010, "OW", bytes(1000))[:-1],
        lambda e: b"xy",
        lambda e: bytes(20),
    ],
    ids=["nothing", "an element", "a sequence", "pixels", "cut pixels", "stray", "zeros"],
)
def test_a_long_value_is_not_read(
    path: Path, encoding: Encoding, behind: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encapsulated document has no pixel data, and may have any size."""
    read: list[int] = []
    pread = os.pread

    def counting(descriptor: int, length: int, offset: int) -> bytes:
        part = pread(descriptor, length, offset)
        read.append(len(part))
        return part

    monkeypatch.setattr(os, "pread", counting)
    document = encoding.element(0x00420011, "OB", bytes(3 << 20))
    data = encoding.identity() + document + behind(encoding)  # type: ignore[operator]  # a lambda
    try:
        expected = walk(data, encoding.transfer_syntax, 0, WANTED)
    except InvalidDataSetError:
        with pytest.raises(InvalidDataSetError):
            walked(path, data, encoding.transfer_syntax)
    else:
        assert walked(path, data, encoding.transfer_syntax)[:5] == expected[:5]
    if not behind(encoding).startswith(encoding.sequence(0x00540016, b"")[:4]):  # type: ignore[operator]
        assert sum(read) < 1 << 20


def test_a_long_value_beyond_the_end_is_cut_off(path: Path) -> None:
    data = EXPLICIT.identity() + EXPLICIT.element(0x00420011, "OB", bytes(2 << 20))
    with pytest.raises(InvalidDataSetError, match="2097152"):
        walked(path, data[:-1], EXPLICIT.transfer_syntax)
