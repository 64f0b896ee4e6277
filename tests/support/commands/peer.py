"""A peer for the tests of the commands: an SCP of this package, in a process of its own.

::

    python peer.py STORAGE INSTANCES

``STORAGE`` is where it writes what is stored, ``INSTANCES`` has what it gives out. It prints where it
listens. How it behaves is told by the AE title that it is called by, or by the keys of a query:

====================  ===================================================================
called ``STRICT``     rejects: called AE title not recognized
called ``SILENT``     never answers the association request
called ``NUMB``       accepts the association, and never answers a request
called ``NOECHO``     answers C-ECHO with 0x0122
called ``NOSTORE``    accepts no storage context
called ``FULL``       answers C-STORE with 0xA700
called ``PICKY``      answers every second C-STORE with 0xA700
called ``DYING``      exits at its third C-STORE
called ``ABORTING``   aborts at each C-STORE
called ``ALLERGIC``   aborts at 1.2.3.0 and at 1.2.3.3
called ``NOCOMMIT``   accepts no context for storage commitment
called ``REFUSING``   answers a request for commitment with 0x0213
called ``MUTE``       never reports on it
called ``LEAVING``    aborts instead of reporting
called ``PARTLY``     reports 1.2.3.3 as damaged, 1.2.3.4 with a reason of its own, and 1.2.3.5 not at all
PatientID ``many``    10,000 answers
PatientID ``slow``    three answers, and then nothing for ever, until C-CANCEL
PatientID ``die``     three answers, and then it exits
PatientID ``refused`` 0xA700 to C-FIND, C-GET, C-MOVE
PatientID ``hostile`` an instance whose UID is a path, between two that have proper ones
====================  ===================================================================
"""

import os
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import config, dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from twisted.internet import defer, reactor, task
from twisted.internet.address import IPv4Address

from netdicom_tx import AE, PContextDef, RemoteAE, storage_scp, verification_scp
from netdicom_tx.asceprovider import Association
from netdicom_tx.exceptions import AssociationRejectedError, StatusError
from netdicom_tx.hooks import RequestContext
from netdicom_tx.negotiation import Offer
from netdicom_tx.pdu import AAssociateRQ
from netdicom_tx.sopclass import (
    Instance,
    StorageCommitment,
    modality_work_list_scp,
    qr_find_scp,
    qr_get_scp,
    qr_move_scp,
)
from netdicom_tx.sopclass.storage_commitment import Report
from netdicom_tx.uids import (
    ALL_TRANSFER_SYNTAXES,
    EXPLICIT_VR_LITTLE_ENDIAN,
    STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS,
    STORAGE_SOP_CLASSES,
)

PATIENTS = (
    ("DOE^JOHN", "4711", "20260101"),
    ("DOE^JANE", "4712", "20260102"),
    ("山田^太郎", "4713", "20260103"),
    ("EVIL\x1b[31m^TAB\tHERE", "4714", "20260104"),
)


class Peer(AE):
    """Behaves as the table of this module says."""

    def __init__(self, storage: Path, instances: Path) -> None:
        super().__init__("PEER")
        self.storage = storage
        self.instances = instances
        self.stores = 0
        self.called = ""

    def offer(self, abstract_syntax: str) -> Offer | None:
        if self.called == "NOSTORE" and abstract_syntax in STORAGE_SOP_CLASSES:
            return None
        if self.called == "NOCOMMIT" and abstract_syntax == STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS:
            return None
        return super().offer(abstract_syntax)

    def on_association_request(
        self, asce: Association, assoc: AAssociateRQ
    ) -> defer.Deferred[None] | None:
        self.called = assoc.called_ae_title
        self.asce = asce
        print("association", assoc.calling_ae_title, assoc.called_ae_title, flush=True)
        if self.called == "STRICT":
            raise AssociationRejectedError(1, 1, 7)
        if self.called == "SILENT":
            return defer.Deferred()
        asce.closed().addCallback(lambda reason: print("end", type(reason).__name__, flush=True))
        return None

    def on_receive_echo(self, context: RequestContext) -> int | defer.Deferred[int]:
        if self.called == "NUMB":
            return defer.Deferred()
        print("echo", flush=True)
        return 0x0122 if self.called == "NOECHO" else 0

    def on_receive_store(self, context: RequestContext, ds: BinaryIO) -> int | defer.Deferred[int]:
        if self.called == "NUMB":
            return defer.Deferred()
        self.stores += 1
        if self.called == "ABORTING":
            self.asce.abort()
            return 0
        if self.called == "DYING" and self.stores == 3:
            os._exit(1)
        if self.called == "FULL" or (self.called == "PICKY" and self.stores % 2 == 0):
            return 0xA700
        uid = dcmread(ds, stop_before_pixels=True).SOPInstanceUID
        if self.called == "ALLERGIC" and uid in ("1.2.3.0", "1.2.3.3"):
            context.association.abort()
            return 0
        ds.seek(0)
        (self.storage / uid).write_bytes(ds.read())
        return 0

    def on_commitment_request(self, remote_ae: str, uids: Iterable[tuple[str, str]]) -> Any:
        uids = list(uids)
        print("commitment of", len(uids), flush=True)
        if self.called == "REFUSING":
            raise StatusError(0x0213, "the disk is full")
        if self.called != "PARTLY":
            return None, uids, None
        reasons = {"1.2.3.3": 0x0110, "1.2.3.4": 0xC001}
        failed = [(*each, reasons[each[1]]) for each in uids if each[1] in reasons]
        kept = [each for each in uids if each[1] not in (*reasons, "1.2.3.5")]
        return None, kept, failed

    # -- queries

    def on_receive_find(self, context: RequestContext, ds: Dataset) -> Any:
        if self.called == "NUMB":
            return defer.Deferred()
        which = ds.get("PatientID")
        if which == "refused":
            raise StatusError(0xA700, "no room")
        if which in ("slow", "die", "many"):
            return self.some(ds, which)
        return [self.answer(ds, *each) for each in PATIENTS if which in (None, "", each[1])]

    def answer(self, asked: Dataset, name: str, patient: str, date: str) -> Dataset:
        found = Dataset()
        found.SpecificCharacterSet = "ISO_IR 192"
        if "QueryRetrieveLevel" in asked:
            found.QueryRetrieveLevel = asked.QueryRetrieveLevel
        for keyword, value in (
            ("PatientName", name),
            ("PatientID", patient),
            ("StudyDate", date),
            ("StudyInstanceUID", f"1.2.{patient}"),
        ):
            if keyword in asked:
                setattr(found, keyword, value)
        if "ScheduledProcedureStepSequence" in asked:
            step = Dataset()
            step.Modality = "CT"
            step.ScheduledStationAETitle = "CT1"
            found.ScheduledProcedureStepSequence = [step]
        return found

    async def some(self, asked: Dataset, which: str) -> AsyncIterator[Dataset]:
        for number in range(10_000 if which == "many" else 3):
            yield self.answer(asked, f"PATIENT^{number}", str(number), "20260101")
        if which == "slow":
            try:
                await defer.Deferred[None]()
            finally:
                print("cancelled", flush=True)
        if which == "die":
            # Behind what has been sent.
            await task.deferLater(reactor, 0.1, lambda: None)
            os._exit(1)

    def matching(self, ds: Dataset) -> Sequence[Path | Instance]:
        if ds.get("PatientID") == "refused":
            raise StatusError(0xA700, "no room")
        if ds.get("PatientID") == "hostile":
            return [hostile(uid) for uid in ("1.2.3.0", "../../../escaped", "1.2.3.1")]
        found: list[Path] = []
        for path in sorted(self.instances.iterdir()):
            header = dcmread(path, stop_before_pixels=True)
            if all(
                header.get(key) in _values(ds.get(key))
                for key in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
                if ds.get(key)
            ):
                found.append(path)
        return found

    def on_receive_get(self, context: RequestContext, ds: Dataset) -> Any:
        if self.called == "NUMB":
            return defer.Deferred()
        found = self.matching(ds)
        return len(found), found

    def on_receive_move(self, context: RequestContext, ds: Dataset, destination: str) -> Any:
        if self.called == "NUMB":
            return defer.Deferred()
        host, _, port = destination.partition("-")
        if host != "PORT":
            return None, 0, []
        found = self.matching(ds)
        return RemoteAE(destination, f"tcp:127.0.0.1:{port}"), len(found), found


class Commitment(StorageCommitment):
    """Reports at once, or does not."""

    same_association = 0

    def owe(
        self, asce: Association, ctx: PContextDef, remote: RemoteAE | None, report: Report
    ) -> None:
        assert isinstance(asce.ae, Peer)
        if asce.ae.called == "LEAVING":
            # Behind the answer to the request.
            task.deferLater(reactor, 0.1, asce.abort)
        elif asce.ae.called != "MUTE":
            super().owe(asce, ctx, remote, report)


def hostile(uid: str) -> Instance:
    """An instance that says of itself what it is told to, and of its study a path."""
    data_set = Dataset()
    data_set.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data_set.add(DataElement(0x00080018, "UI", uid, validation_mode=config.IGNORE))
    data_set.add(DataElement(0x0020000D, "UI", "../..", validation_mode=config.IGNORE))
    data_set.SeriesInstanceUID = "1.2.3"
    return Instance(data_set.SOPClassUID, uid, EXPLICIT_VR_LITTLE_ENDIAN, data_set)


def _values(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


async def main(reactor: Any, storage: str, instances: str) -> None:
    ae = Peer(Path(storage), Path(instances))
    ae.add_scp(verification_scp)
    ae.add_scp(storage_scp, transfer_syntaxes=ALL_TRANSFER_SYNTAXES)
    for service in (qr_find_scp, qr_get_scp, qr_move_scp, modality_work_list_scp):
        ae.add_scp(service)
    ae.add_scp(Commitment())
    port = await ae.listen("tcp:0:interface=127.0.0.1")
    address = port.getHost()
    assert isinstance(address, IPv4Address)
    print("listening", address.port, flush=True)
    await defer.Deferred[None]()


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
