"""An archive in memory that serves every service from what a test sets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO

from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from netdicom_tx import AE, storage_scp, uids, verification_scp
from netdicom_tx.dimsemessages import Request, Response
from netdicom_tx.negotiation import PContextDef
from netdicom_tx.sopclass import (
    MessageDispatcherSCP,
    StorageCommitment,
    modality_work_list_scp,
    qr_find_scp,
    qr_get_scp,
    qr_move_scp,
)

FILES = [str(get_testdata_file(name)) for name in ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm")]
COMPRESSED = str(get_testdata_file("JPEG2000.dcm"))


def study(**keys: str) -> Dataset:
    made = Dataset()
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    return made


class Film(MessageDispatcherSCP):
    """Answers the DIMSE-N requests with what they asked."""

    sop_classes = (uids.ModalityPerformedProcedureStep, uids.BasicGrayscalePrintManagementMeta)

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def answer(self, asce: Any, ctx: PContextDef, msg: Request) -> Response:
        self.asked.append(msg)
        return msg.response(0x0000, msg.data_set)

    n_create = n_set = n_action = answer

    def n_get(self, asce: Any, ctx: PContextDef, msg: Request) -> tuple[int, Dataset]:
        self.asked.append(msg)
        return 0x0000, study(PatientName="DOE^JANE")

    def n_delete(self, asce: Any, ctx: PContextDef, msg: Request) -> int:
        self.asked.append(msg)
        return 0x0112


class Archive(AE):
    """Serves everything from what a test sets."""

    def __init__(self) -> None:
        super().__init__("ARCHIVE")
        for service in (
            verification_scp,
            qr_find_scp,
            qr_get_scp,
            qr_move_scp,
            modality_work_list_scp,
            StorageCommitment(),
        ):
            self.add_scp(service)
        self.add_scp(storage_scp, transfer_syntaxes=uids.ALL_TRANSFER_SYNTAXES)
        self.film = Film()
        self.add_scp(self.film)
        self.matches: Any = []
        self.sources: list[Any] = list(FILES)
        self.asked: list[tuple[str, Dataset]] = []
        self.stored: list[Dataset] = []

    def on_receive_store(self, context: PContextDef, ds: BinaryIO) -> int:
        self.stored.append(dcmread(ds))
        return 0x0000

    def on_receive_find(self, context: PContextDef, ds: Dataset) -> Any:
        self.asked.append((context.sop_class, ds))
        return self.matches

    def on_receive_get(self, context: PContextDef, ds: Dataset) -> Any:
        self.asked.append((context.sop_class, ds))
        return len(self.sources), self.sources

    def on_receive_move(self, context: PContextDef, ds: Dataset, destination: str) -> Any:
        self.asked.append((context.sop_class, ds))
        return None, 0, ()

    def on_commitment_request(self, remote_ae: str, asked: Iterable[tuple[str, str]]) -> Any:
        return None, list(asked), None
