"""Small additions to the calls of the system for code that makes something durable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["sync_folder", "write_all"]


def write_all(descriptor: int, octets: ReadableBuffer) -> int:
    """Write octets at the position of a file, in as many calls as the system needs; returns the number of octets.

    Raises:
        OSError: The disk refuses. Some of the octets may have been written.
    """
    left = memoryview(octets).cast("B")
    size = len(left)
    while left:
        left = left[os.write(descriptor, left) :]
    return size


def sync_folder(folder: Path) -> None:
    """Make the names of the files in a folder durable.

    Raises:
        OSError: The disk has failed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
