"""What senders send, and how they do: they keep what is not acknowledged, and send it again."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from random import Random
from typing import Any, BinaryIO

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from twisted.internet import task
from twisted.internet.error import ConnectError

from netdicom_tx import AE, NetDICOMError
from netdicom_tx.dsutils import read_file_meta
from netdicom_tx.uids import CTImageStorage

__all__ = ["PER_SERIES", "PER_STUDY", "Counts", "Instance", "Plan", "Sender", "digest_of"]

PER_STUDY = 20
PER_SERIES = 10

_ROOT = "1.2.826.0.1.3680043.9.3811.14"
# Sizes of the pixels: most are small, so that what is counted is instances; some fill PDUs and disks, and one in so
# many is put in parts.
_SMALL, _MIDDLE, _LARGE = 2048, 256 * 1024, 12 * 2**20
_SENDING = [(CTImageStorage, (ExplicitVRLittleEndian,))]
# Seconds that a sender waits after a failure, about.
_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance by its number: the same octets on each call.

    Attributes:
        owner: The sender, or 0 for what all senders send.
        number: Of the owner's, from 0.
        pixels: How many octets of noise it has.
    """

    owner: int
    number: int
    pixels: int

    @property
    def patient(self) -> str:
        return f"SCALE{self.owner}"

    @property
    def study(self) -> str:
        return f"{_ROOT}.{self.owner}.{self.number // PER_STUDY + 1}"

    @property
    def series(self) -> str:
        return f"{self.study}.{self.number % PER_STUDY // PER_SERIES + 1}"

    @property
    def uid(self) -> str:
        return f"{self.series}.{self.number + 1}"

    def file(self) -> BytesIO:
        """The Part 10 file."""
        study = self.number // PER_STUDY
        ds = Dataset()
        ds.SpecificCharacterSet = "ISO_IR 100"
        ds.SOPClassUID = UID(CTImageStorage)
        ds.SOPInstanceUID = UID(self.uid)
        ds.StudyDate, ds.StudyTime = f"202601{study % 28 + 1:02d}", "101112"
        ds.AccessionNumber = f"A{self.owner}-{study}"
        ds.Modality = "CT" if self.series.endswith(".1") else "MR"
        ds.StudyDescription = f"Study {study}"
        ds.PatientName, ds.PatientID = f"Scale^{self.owner:02d}", self.patient
        ds.PatientBirthDate, ds.PatientSex = "19700101", "O"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = self.study, self.series
        ds.SeriesNumber, ds.InstanceNumber = int(self.series[-1]), self.number + 1
        ds.Rows = ds.Columns = 32
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = UID(CTImageStorage)
        meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta = meta
        file = BytesIO()
        dcmwrite(file, ds, enforce_file_format=True)
        # PS3.5 7.1.2: group, element, VR, two reserved octets, length of 32 bits.
        file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, self.pixels))
        file.write(Random(self.uid).randbytes(self.pixels))
        file.seek(0)
        return file


def digest_of(file: BinaryIO) -> str:
    """The digest of the data set in a Part 10 file, as it is encoded."""
    file.seek(0)
    read_file_meta(file)
    digest = hashlib.sha256()
    while octets := file.read(1 << 20):
        digest.update(octets)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Plan:
    """Which instances the senders send.

    Attributes:
        instances: How many there are in all.
        senders: How many peers send them.
        common: Which part of them all senders send, as several gateways do that have the same study.
        large: How many of them are so large that the object store gets them in parts.
        middle: One in so many fills some PDUs; 0 for none.
    """

    instances: int
    senders: int = 8
    common: float = 0.05
    large: int = 1
    middle: int = 50

    def of(self, sender: int) -> Iterator[Instance]:
        """The instances of a sender, from 1, in the order in which it sends them."""
        common = math.ceil(self.instances * self.common)
        own, more = divmod(self.instances - common, self.senders)
        for number in range(own + (sender <= more)):
            yield Instance(sender, number, self._pixels(sender, number))
            if number < common:
                yield Instance(0, number, _SMALL)
        for number in range(own, common):
            yield Instance(0, number, _SMALL)

    def all(self) -> dict[str, Instance]:
        """All instances by their UID."""
        senders = range(1, self.senders + 1)
        return {each.uid: each for sender in senders for each in self.of(sender)}

    def _pixels(self, sender: int, number: int) -> int:
        if number == 7 and sender <= self.large:
            return _LARGE
        return _MIDDLE if self.middle and number % self.middle == 13 else _SMALL


@dataclass
class Counts:
    """What all senders have done.

    Attributes:
        acknowledged: The digests of the acknowledged instances by UID.
        troubles: How often each kind of failure made a sender try again.
        allowed: How many instances may be acknowledged before the senders wait.
    """

    acknowledged: dict[str, str] = field(default_factory=dict)
    troubles: dict[str, int] = field(default_factory=dict)
    allowed: float = float("inf")

    def trouble(self, what: str) -> None:
        self.troubles[what] = self.troubles.get(what, 0) + 1


class Sender:
    """A peer that sends a list of instances, one after another, until each is acknowledged.

    Args:
        number: Of the sender, from 1.
        address: Where it sends to.
        instances: What it sends.
        counts: Of all senders.
        reactor: The reactor.
        timeout: After how many seconds without an answer it gives an association up.
    """

    def __init__(
        self,
        number: int,
        address: str,
        instances: Iterator[Instance],
        counts: Counts,
        reactor: Any,
        timeout: float = 60.0,
    ) -> None:
        self._ae = AE(f"SENDER{number}")
        self._address = address
        self._left = list(instances)[::-1]
        self._counts = counts
        self._reactor = reactor
        self._random = Random(number)
        self._timeout = timeout

    async def run(self) -> None:
        """Send all; return when the last one is acknowledged."""
        while self._left:
            try:
                await self._visit()
            except (NetDICOMError, ConnectError) as error:
                self._counts.trouble(type(error).__name__)
                await self._pause(_PAUSE * (0.5 + self._random.random()))

    async def _visit(self) -> None:
        """Send a study or so on one association, as modalities do."""
        async with self._ae.associate(self._address, contexts=_SENDING) as asce:
            for _ in range(PER_STUDY):
                if not self._left:
                    return
                while len(self._counts.acknowledged) >= self._counts.allowed:
                    await self._pause(0.05)
                file = self._left[-1].file()
                digest = digest_of(file)
                file.seek(0)
                status = await asce.store(file, timeout=self._timeout)
                if not status.is_success:
                    self._counts.trouble(f"status 0x{int(status):04X}")
                    await self._pause(_PAUSE)
                    return
                self._counts.acknowledged[self._left.pop().uid] = digest

    async def _pause(self, seconds: float) -> None:
        await task.deferLater(self._reactor, seconds)
