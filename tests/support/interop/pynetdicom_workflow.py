"""pynetdicom as modality, as archive and as RIS, in threads of the test."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event

from ..node import Address
from ..processes import PATIENCE
from .pynetdicom_peer import one_request_after_another

COMMITMENT = "1.2.840.10008.1.20.1"
WELL_KNOWN = "1.2.840.10008.1.20.1.1"
MPPS = "1.2.840.10008.3.1.2.3.3"
RETRIEVE = "1.2.840.10008.3.1.2.3.4"
NOTIFICATION = "1.2.840.10008.3.1.2.3.5"
AVAILABILITY = "1.2.840.10008.5.1.4.33"


def data_set(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def request_information(transaction: str, references: list[tuple[str, str]]) -> Dataset:
    """The data set of an N-ACTION for storage commitment (PS3.4 Table J.3-1)."""
    return data_set(
        TransactionUID=transaction,
        ReferencedSOPSequence=[
            data_set(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid)
            for sop_class, uid in references
        ],
    )


def report_of(ds: Dataset) -> tuple[str, list[str], dict[str, int]]:
    """The content of an N-EVENT-REPORT: the transaction, what is kept, and what is not, with the reasons."""
    return (
        str(ds.TransactionUID),
        [str(each.ReferencedSOPInstanceUID) for each in ds.get("ReferencedSOPSequence", [])],
        {
            str(each.ReferencedSOPInstanceUID): int(each.FailureReason)
            for each in ds.get("FailedSOPSequence", [])
        },
    )


class Told:
    """What a peer was told, in the order in which it came; and what it answers.

    Attributes:
        answers: Statuses for the next messages; Success when there are none left.
    """

    def __init__(self) -> None:
        self._seen: queue.Queue[Any] = queue.Queue()
        self.answers: list[int] = []

    def put(self, what: Any) -> int:
        self._seen.put(what)
        return self.answers.pop(0) if self.answers else 0x0000

    def next(self, within: float = PATIENCE) -> Any:
        """The next one; the test fails when none comes."""
        try:
            return self._seen.get(timeout=within)
        except queue.Empty:
            raise AssertionError(f"nothing came within {within:g} s") from None

    @property
    def is_empty(self) -> bool:
        return self._seen.empty()


def handlers(told: Told) -> list[Any]:
    """For reports, steps and notices."""

    def on_event(event: Event) -> tuple[int, None]:
        request: Any = event.request  # one of pynetdicom's primitives, by the event
        if request.AffectedSOPClassUID == COMMITMENT:
            return told.put((event.event_type, *report_of(event.event_information))), None
        return told.put(("event", str(request.AffectedSOPInstanceUID), event.event_type)), None

    def on_create(event: Event) -> tuple[int, Dataset | None]:
        request: Any = event.request
        what = "notice" if request.AffectedSOPClassUID == AVAILABILITY else "create"
        uid = str(request.AffectedSOPInstanceUID)
        return told.put((what, uid, event.attribute_list)), None

    def on_set(event: Event) -> tuple[int, Dataset | None]:
        request: Any = event.request
        uid = str(request.RequestedSOPInstanceUID)
        return told.put(("set", uid, event.modification_list)), None

    return [
        (evt.EVT_N_EVENT_REPORT, on_event),
        (evt.EVT_N_CREATE, on_create),
        (evt.EVT_N_SET, on_set),
    ]


@contextmanager
def listening(
    title: str, told: Told, port: int = 0, more: list[Any] | None = None
) -> Iterator[Address]:
    """An AE that takes reports as SCU by role selection, and steps and notices as SCP."""
    ae = AE(title)
    for uid in (COMMITMENT, NOTIFICATION):
        ae.add_supported_context(uid, scu_role=True, scp_role=True)
    for uid in (MPPS, AVAILABILITY):
        ae.add_supported_context(uid)
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers(told))
    assert server is not None
    try:
        yield Address(title, server.server_address[1])
    finally:
        server.shutdown()
        ae.shutdown()


@contextmanager
def associated(
    address: Address, title: str, contexts: list[str], told: Told | None = None
) -> Iterator[Association]:
    """An association with the node, as SCU; released at the end if it is still there."""
    ae = AE(title)
    for uid in contexts:
        ae.add_requested_context(uid)
    # To be told of events is the SCU's part; so no role is asked for.
    association = ae.associate(
        "127.0.0.1", address.port, ae_title=address.ae_title, evt_handlers=handlers(told or Told())
    )
    assert association.is_established
    one_request_after_another(association)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


@contextmanager
def reporting(ae: AE, requestor: Address) -> Iterator[Association]:
    """An association with a requestor of commitments, as SCP by role selection; released at the end."""
    association = ae.associate(
        "127.0.0.1",
        requestor.port,
        ae_title=requestor.ae_title,
        ext_neg=[build_role(COMMITMENT, scp_role=True)],
    )
    assert association.is_established
    one_request_after_another(association)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


@contextmanager
def committing(title: str, requestor: Address) -> Iterator[Address]:
    """An SCP of storage commitment that keeps everything but what ends with ``.99``.

    It reports on the association of the request when that is there after half a second, else at the address
    of the requestor.
    """
    ae = AE(title)
    ae.add_supported_context(COMMITMENT)
    ae.add_requested_context(COMMITMENT)
    threads: list[threading.Thread] = []

    def report(association: Association, ds: Dataset) -> None:
        deadline = threading.Event()
        deadline.wait(0.5)
        kept: list[Dataset] = []
        failed: list[Dataset] = []
        for each in ds.ReferencedSOPSequence:
            is_kept = not each.ReferencedSOPInstanceUID.endswith(".99")
            (kept if is_kept else failed).append(each)
        for each in failed:
            each.FailureReason = 0x0112
        information = data_set(
            TransactionUID=ds.TransactionUID, ReferencedSOPSequence=kept, FailedSOPSequence=failed
        )
        told = (information, 2, UID(COMMITMENT), UID(WELL_KNOWN))
        if association.is_established:
            association.send_n_event_report(*told)
            return
        with reporting(ae, requestor) as own:
            own.send_n_event_report(*told)

    def on_action(event: Event) -> tuple[int, None]:
        threads.append(
            threading.Thread(target=report, args=(event.assoc, event.action_information))
        )
        threads[-1].start()
        return 0x0000, None

    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_ACTION, on_action)]
    )
    assert server is not None
    try:
        yield Address(title, server.server_address[1])
    finally:
        for thread in threads:
            thread.join(PATIENCE)
        server.shutdown()
        ae.shutdown()


def ask(association: Association, transaction: str, references: list[tuple[str, str]]) -> int:
    """The status of a request for commitment."""
    information = request_information(transaction, references)
    status, _ = association.send_n_action(information, 1, UID(COMMITMENT), UID(WELL_KNOWN))
    return int(status.Status)
