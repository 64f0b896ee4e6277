"""The header of a stored instance as a table, and its picture.

Files come from peers, so all that is read of them is bounded: the first mebibyte of a data set, some thousand rows and
some hundred characters of each value. Pixel data are decoded by another process, :mod:`.picture`, which may fail or be
slow without harm to the node.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydicom.datadict import (
    dictionary_description,
    dictionary_has_tag,
    private_dictionary_description,
)
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from ..dsutils import read_file_meta
from ..encoding import DataSetError, coding_of
from ..uids import DEFLATED_TRANSFER_SYNTAXES, name
from .picture import COMPLAINT

__all__ = ["Decoder", "Row", "can_show_pictures", "rows_of"]

_READ: Final = 1 << 20
_ROWS: Final = 2000
_CHARACTERS: Final = 300
_VALUES: Final = 40
_DEPTH: Final = 8
_PIXELS: Final = 0x7FE00008
# The decoder has these seconds.
_DECODING: Final = 20.0
_PNG: Final = b"\x89PNG"


class Row(NamedTuple):
    """An element of a data set.

    Attributes:
        depth: How many sequences it is inside of.
        length: How many octets a value has that is not shown; None when it is shown.
    """

    depth: int
    tag: str
    vr: str
    name: str
    text: str
    length: int | None = None


def rows_of(path: Path) -> tuple[list[Row], bool]:
    """The rows of a file, up to its pixel data; blocks.

    Returns:
        The rows, and whether there are more than these.

    Raises:
        OSError: The file cannot be read.
        ValueError: Its content cannot be read.
    """
    try:
        with path.open("rb") as file:
            syntax = read_file_meta(file).transfer_syntax
            octets = file.read(_READ + 1)
        if syntax in DEFLATED_TRANSFER_SYNTAXES:
            octets = zlib.decompressobj(-zlib.MAX_WBITS).decompress(octets, _READ + 1)
        coding = coding_of(syntax)
        ds = read_dataset(
            BytesIO(octets[:_READ]), coding.implicit, coding.little, stop_when=_at_pixels
        )
        found = list(islice(_rows(ds, 0), _ROWS + 1))
    except OSError:
        raise
    except DataSetError as error:
        raise ValueError(f"The file cannot be read: {error}.") from error
    except Exception as error:  # pydicom has no closed set of errors for what peers send
        raise ValueError(f"The data set cannot be read: {type(error).__name__}.") from error
    return found[:_ROWS], len(found) > _ROWS or len(octets) > _READ


def _at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return bool(tag >= _PIXELS)


def _rows(ds: Dataset, depth: int) -> Iterator[Row]:
    for tag in sorted(ds.keys()):
        number = f"({tag.group:04X},{tag.element:04X})"
        try:
            element: Any = ds[tag]
        except Exception:  # of pydicom, for a value that it cannot convert
            yield Row(depth, number, "", _name(ds, tag), "(this value cannot be read)")
            continue
        vr, title = str(element.VR), _name(ds, tag)
        if vr != "SQ":
            text, length = _text(element)
            yield Row(depth, number, vr, title, text, length)
            continue
        count = len(element.value)
        yield Row(depth, number, vr, title, f"{count} item{'' if count == 1 else 's'}")
        if depth + 1 >= _DEPTH:
            yield Row(depth + 1, "", "", "", "(deeper items are not shown)")
            continue
        for position, item in enumerate(element.value, 1):
            yield Row(depth + 1, "", "", f"Item {position}", "")
            yield from _rows(item, depth + 1)


def _name(ds: Dataset, tag: BaseTag) -> str:
    if not tag.is_private:
        return dictionary_description(tag) if dictionary_has_tag(tag) else ""
    if tag.is_private_creator:
        return "Private Creator"
    creator = ds.get_item((tag.group, tag.element >> 8), keep_deferred=True)
    said = None if creator is None else creator.value
    if isinstance(said, bytes):
        said = said.decode("latin-1").strip()
    try:
        return private_dictionary_description(tag, str(said))
    except KeyError:
        return ""


def _text(element: DataElement) -> tuple[str, int | None]:
    """The value of an element as text; the number of its octets when it is not text."""
    value = element.value
    if value is None:
        return "", None
    if isinstance(value, bytes):
        return "", len(value)
    if isinstance(value, MultiValue | list):
        shown = "\\".join(str(each) for each in islice(value, _VALUES))
        if len(value) > _VALUES:
            shown += f"\\… ({len(value)} values)"
    else:
        shown = str(value)
        if element.VR == "UI" and name(shown) != shown:
            shown = f"{shown} ({name(shown)})"
    if len(shown) > _CHARACTERS:
        shown = f"{shown[:_CHARACTERS]}…"
    return shown, None


def can_show_pictures() -> bool:
    """Whether the packages are there that decode and draw pixel data (extra ``pixel``)."""
    return find_spec("numpy") is not None and find_spec("PIL") is not None


class Decoder:
    """Decodes pictures in a process of its own, one at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def picture_of(self, path: Path, frame: int) -> bytes:
        """A frame as a PNG file; blocks, for seconds when the frame is large.

        Raises:
            ValueError: There is no picture; the message is for people.
        """
        command = [sys.executable, "-m", "netdicom_tx.web.picture", os.fspath(path), str(frame)]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
        ) as process:
            self._process = process
            try:
                png, complaints = process.communicate(timeout=_DECODING)
            except subprocess.TimeoutExpired as error:
                raise ValueError("The picture takes too long to decode.") from error
            finally:
                self._process = None
                process.kill()
        if process.returncode or not png.startswith(_PNG):
            lines = complaints.decode("utf-8", "replace").splitlines()
            said = [line.removeprefix(COMPLAINT) for line in lines if line.startswith(COMPLAINT)]
            raise ValueError(said[-1] if said else "This instance cannot be shown as a picture.")
        return png

    def stop(self) -> None:
        """End the process, if there is one."""
        process = self._process
        if process is not None:
            process.kill()
