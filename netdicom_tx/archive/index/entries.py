"""The facts about kept instances with which an index answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

__all__ = ["Counts", "Entry", "Files", "InstanceRef", "PathRow"]


class Files(Protocol):
    """Reads the files of instances that are not files of this machine.

    :class:`~netdicom_tx.archive.store.sharedstore.SharedStore` does.
    """

    def octets(self, path: Path, size: int) -> bytes:
        """All octets of a small file, which are what was stored.

        Raises:
            OSError: It cannot be read, or is not what was stored.
        """

    def file(self, path: Path, size: int) -> BinaryIO:
        """The same as an open file of this machine, which the caller closes.

        Raises:
            OSError: Likewise.
        """

    def digest(self, path: Path, size: int, check: Callable[[], None]) -> str:
        """The digest of a file that is read to its end, in the form in which the index has it.

        Args:
            check: Called between pieces of a mebibyte; what it raises ends the reading.

        Raises:
            FileNotFoundError: It does not exist.
            ValueError: It has another size.
            OSError: It cannot be read at the moment.
        """

    def again(self, error: BaseException, failing: float) -> float | None:
        """After how many seconds a file may be read that could not be read; None means not soon.

        Args:
            error: Why it could not be read.
            failing: How many seconds have passed since that was tried first.
        """

    def ahead(self, refs: Sequence[InstanceRef], start: int) -> None:
        """Begin to read those that are needed next.

        Args:
            refs: Instances in the order in which they will be sent.
            start: The first one that is needed.
        """


class InstanceRef(NamedTuple):
    """The facts about a kept instance that are needed to send it.

    Attributes:
        files: Reads the file when it is not a file of this machine.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    path: Path
    size: int
    files: Files | None = None


class Entry(NamedTuple):
    """The facts about a file that are needed to check it.

    Attributes:
        digest: The digest of the file; empty when it has not been computed.
        row: The number of the row.
        files: Reads the file when it is not a file of this machine.
    """

    sop_instance_uid: str
    path: Path
    size: int
    digest: str
    row: int
    files: Files | None = None


class PathRow(NamedTuple):
    """The part of a row that is compared with its file; the path has the form that the index stores."""

    path: str
    size: int
    sop_instance_uid: str


class Counts(NamedTuple):
    """How much the index contains; the size is that of all files, in octets."""

    patients: int
    studies: int
    series: int
    instances: int
    size: int
