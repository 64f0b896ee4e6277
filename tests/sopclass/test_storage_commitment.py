"""Storage commitment in both roles, over associations in memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from twisted.internet import defer

from netdicom_tx import AE, EventHandlingError, RemoteAE, StatusError, applicationentity
from netdicom_tx.dimsemessages import NActionRQ, NEventReportRQ
from netdicom_tx.dsutils import decode, encode
from netdicom_tx.exceptions import DCMTimeoutError, LocalProtocolError
from netdicom_tx.sopclass import (
    CommitmentResult,
    StorageCommitment,
    request_commitment,
    storage_commitment,
    storage_commitment_scu,
)
from netdicom_tx.sopclass.storage_commitment import Report, send_report
from netdicom_tx.testing import Pair, connected, failure_of, success_of
from netdicom_tx.uids import STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS as COMMITMENT
from netdicom_tx.uids import STORAGE_COMMITMENT_PUSH_MODEL_SOP_INSTANCE as WELL_KNOWN

UIDS = [("1.2", "1.2.1"), ("1.2", "1.2.2")]


class Node(AE):
    remote: RemoteAE | None = None
    keeps: tuple[str, ...] = ("1.2.1",)
    raises: Exception | None = None

    def __init__(self) -> None:
        super().__init__("NODE")
        self.add_scp(StorageCommitment())
        self.asked: list[Any] = []

    async def on_commitment_request(self, remote_ae: str, uids: Iterable[tuple[str, str]]) -> Any:
        uids = list(uids)
        self.asked.append((remote_ae, uids))
        if self.raises is not None:
            raise self.raises
        return (
            self.remote,
            [each for each in uids if each[1] in self.keeps],
            [(*each, 0x0112) for each in uids if each[1] not in self.keeps],
        )


class Modality(AE):
    def __init__(self) -> None:
        super().__init__("MODALITY")
        self.add_scu(storage_commitment_scu).add_scp(StorageCommitment())
        self.reports: list[Any] = []
        self.raises: Exception | None = None

    def on_commitment_response(self, transaction_uid: str, success: Any, failure: Any) -> None:
        self.reports.append((transaction_uid, tuple(success), tuple(failure)))
        if self.raises is not None:
            raise self.raises


@pytest.fixture
def pair() -> Iterator[Pair]:
    with connected(Modality(), Node()) as made:
        yield made


def ask(pair: Pair, transaction: str = "1.9") -> int:
    return int(success_of(pair.requestor.get_scu(COMMITMENT)(transaction, UIDS)))


def test_the_report_comes_on_the_same_association_while_it_is_held(pair: Pair) -> None:
    """PS3.4 J.3.3: event type 2, for there is a failure; the hook is told of both lists."""
    assert ask(pair) == 0x0000
    assert pair.scp.asked == [("MODALITY", UIDS)]  # type: ignore[attr-defined]
    assert pair.scu.reports == []  # type: ignore[attr-defined]
    pair.advance(1)
    assert pair.scu.reports == [  # type: ignore[attr-defined]
        ("1.9", (("1.2", "1.2.1"),), (("1.2", "1.2.2", 0x0112),))
    ]


def test_the_report_comes_on_another_association_when_it_was_released(pair: Pair) -> None:
    """PS3.4 J.3.3: the SCP opens it, as SCP by role selection."""
    pair.scp.remote = pair.network.remote(pair.scu)  # type: ignore[attr-defined]
    assert ask(pair) == 0x0000
    success_of(pair.requestor.release())
    pair.advance(1)
    assert len(pair.scu.reports) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("held", [True, False])
def test_one_call_has_the_result_whichever_way_it_comes(pair: Pair, held: bool) -> None:
    pair.scp.remote = pair.network.remote(pair.scu)  # type: ignore[attr-defined]
    done = defer.Deferred.fromCoroutine(
        request_commitment(pair.requestor, UIDS, transaction_uid="1.9")
    )
    if not held:
        success_of(pair.requestor.release())
    pair.advance(1)
    assert success_of(done) == CommitmentResult(
        "1.9", (("1.2", "1.2.1"),), (("1.2", "1.2.2", 0x0112),)
    )
    assert pair.scu.reports == []  # type: ignore[attr-defined]


def test_a_report_that_never_comes_is_a_timeout(pair: Pair) -> None:
    done = defer.Deferred.fromCoroutine(request_commitment(pair.requestor, UIDS, timeout=20))
    success_of(pair.requestor.release())
    pair.advance(21)
    assert isinstance(failure_of(done), DCMTimeoutError)


def test_without_a_service_that_takes_the_report_nothing_is_asked(pair: Pair) -> None:
    """Nobody would hear of the report: an error at once, not one after the whole timeout."""
    scu = applicationentity.AE("DEAF").add_scu(storage_commitment_scu)
    with connected(scu, pair.scp) as deaf:
        failed = defer.Deferred.fromCoroutine(request_commitment(deaf.requestor, UIDS))
        error = failure_of(failed)
    assert isinstance(error, LocalProtocolError)
    assert "add_scp(StorageCommitment())" in str(error)
    assert pair.scp.asked == []  # type: ignore[attr-defined]


def test_a_report_is_answered_before_who_waits_for_it_goes_on(pair: Pair) -> None:
    registration = pair.scu.supported_scp.find(COMMITMENT)
    assert registration is not None
    waiting, forgotten = (registration.service.await_report(uid) for uid in ("1.9", "1.8"))
    waiting.addCallback(lambda _: pair.requestor.abort())
    forgotten.cancel()
    assert isinstance(failure_of(forgotten), defer.CancelledError)
    node, ctx = StorageCommitment(), pair.acceptor.contexts_for(COMMITMENT)[0]
    sent = [
        defer.Deferred.fromCoroutine(
            node.deliver(pair.acceptor, ctx, None, Report(uid, tuple(UIDS), ()))
        )
        for uid in ("1.8", "1.9")
    ]
    pair.advance(1)
    assert [int(success_of(each)) for each in sent] == [0, 0]
    assert not pair.requestor.is_open
    assert pair.scu.reports == [("1.8", tuple(UIDS), ())]  # type: ignore[attr-defined]


def test_a_request_that_cannot_be_handled_is_0110(pair: Pair) -> None:
    """netdicom2: EventHandlingError of the hook is Processing failure, and nothing is reported."""
    pair.scp.raises = EventHandlingError("not today")  # type: ignore[attr-defined]
    assert ask(pair) == 0x0110
    pair.scp.raises = StatusError(0x0213, "too many")  # type: ignore[attr-defined]
    failure = failure_of(defer.Deferred.fromCoroutine(request_commitment(pair.requestor, UIDS)))
    assert (type(failure), failure.status) == (StatusError, 0x0213)  # type: ignore[attr-defined]
    pair.scp.raises = StatusError(0x0213)  # type: ignore[attr-defined]
    failure = failure_of(defer.Deferred.fromCoroutine(request_commitment(pair.requestor, UIDS)))
    assert str(failure) == "Resource limitation (0x0213)"
    pair.advance(2)
    assert pair.scu.reports == []  # type: ignore[attr-defined]


def test_a_report_that_cannot_be_handled_is_0110(pair: Pair) -> None:
    """Unsolicited, or for a foreign transaction: refused, and no state has changed."""
    pair.scu.raises = EventHandlingError("unknown transaction")  # type: ignore[attr-defined]
    node = StorageCommitment()
    done = defer.Deferred.fromCoroutine(
        node.deliver(
            pair.acceptor,
            pair.acceptor.contexts_for(COMMITMENT)[0],
            None,
            Report("1.9", tuple(UIDS), ()),
        )
    )
    pair.advance(1)
    assert int(success_of(done)) == 0x0110


def information(**attributes: Any) -> bytes:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return encode(ds, "1.2.840.10008.1.2.1")


def item(**attributes: Any) -> Dataset:
    """An item that names an instance, changed."""
    ds = Dataset()
    for keyword, value in {
        "ReferencedSOPClassUID": "1.2",
        "ReferencedSOPInstanceUID": "1.2.1",
        **attributes,
    }.items():
        setattr(ds, keyword, value)
    return ds


def text_for(keyword: str) -> bytes:
    """A report or request in which an attribute that should be a sequence is not."""
    ds = Dataset()
    ds.TransactionUID = "1.9"
    ds.add_new(tag_for_keyword(keyword) or 0, "LO", "text")
    return encode(ds, "1.2.840.10008.1.2.1")


@pytest.mark.parametrize(
    ("action", "instance", "data_set", "status"),
    [
        (2, WELL_KNOWN, information(TransactionUID="1.9"), 0x0123),
        (1, "1.2.3", information(TransactionUID="1.9"), 0x0112),
        (1, WELL_KNOWN, None, 0x0115),
        (1, WELL_KNOWN, information(PatientID="1"), 0x0120),
        (1, WELL_KNOWN, information(TransactionUID="1.9"), 0x0115),
        (1, WELL_KNOWN, information(TransactionUID="1.9", ReferencedSOPSequence=[]), 0x0115),
        (1, WELL_KNOWN, text_for("ReferencedSOPSequence"), 0x0115),
        (
            1,
            WELL_KNOWN,
            information(TransactionUID="1.9", ReferencedSOPSequence=[Dataset()]),
            0x0115,
        ),
        *(
            (
                1,
                WELL_KNOWN,
                information(TransactionUID="1.9", ReferencedSOPSequence=[item(), item(**wrong)]),
                0x0115,
            )
            for wrong in (
                {"ReferencedSOPClassUID": ""},
                {"ReferencedSOPInstanceUID": ""},
                {"ReferencedSOPInstanceUID": ["1.2.1", "1.2.2"]},
            )
        ),
        (1, WELL_KNOWN, information(TransactionUID=["1.9", "1.10"]), 0x0120),
        (1, WELL_KNOWN, b"\x08\x00", 0x0110),
    ],
)
def test_a_bad_request_has_the_status_that_fits(
    pair: Pair, action: int, instance: str, data_set: bytes | None, status: int
) -> None:
    """PS3.7 10.1.4.1.10; the association is usable afterwards."""
    ctx = pair.requestor.contexts_for(COMMITMENT)[0]
    request = NActionRQ(
        requested_sop_class_uid=COMMITMENT,
        requested_sop_instance_uid=instance,
        action_type_id=action,
        data_set=data_set,
    )
    assert success_of(pair.requestor.request(request, ctx)).status == status
    assert ask(pair) == 0x0000


@pytest.mark.parametrize(
    ("event", "data_set", "status"),
    [
        (3, information(TransactionUID="1.9"), 0x0113),
        (1, information(PatientID="1"), 0x0115),
        (1, None, 0x0115),
        (1, text_for("ReferencedSOPSequence"), 0x0115),
        (2, text_for("FailedSOPSequence"), 0x0115),
        (2, information(TransactionUID="1.9", FailedSOPSequence=[Dataset()]), 0x0115),
        (1, b"\x08\x00", 0x0110),
    ],
)
def test_a_bad_report_has_the_status_that_fits(
    pair: Pair, event: int, data_set: bytes | None, status: int
) -> None:
    """PS3.7 10.1.1.1.8; nobody is told, and the association is usable afterwards."""
    ctx = pair.acceptor.contexts_for(COMMITMENT)[0]
    request = NEventReportRQ(
        affected_sop_class_uid=COMMITMENT,
        affected_sop_instance_uid=WELL_KNOWN,
        event_type_id=event,
        data_set=data_set,
    )
    assert success_of(pair.acceptor.request(request, ctx)).status == status
    assert pair.scu.reports == []  # type: ignore[attr-defined]
    empty = information(TransactionUID="1.9", ReferencedSOPSequence=[item()], FailedSOPSequence=[])
    again = replace(request, message_id=None, event_type_id=1, data_set=empty)
    assert success_of(pair.acceptor.request(again, ctx)).status == 0
    assert pair.scu.reports == [("1.9", (("1.2", "1.2.1"),), ())]  # type: ignore[attr-defined]


def test_a_reason_that_is_none_is_zero(pair: Pair) -> None:
    ctx = pair.acceptor.contexts_for(COMMITMENT)[0]
    failed = item()
    failed.add_new(0x00081197, "LO", "why?")
    request = NEventReportRQ(
        affected_sop_class_uid=COMMITMENT,
        affected_sop_instance_uid=WELL_KNOWN,
        event_type_id=2,
        data_set=information(TransactionUID="1.9", FailedSOPSequence=[failed, item()]),
    )
    assert success_of(pair.acceptor.request(request, ctx)).status == 0
    assert pair.scu.reports == [("1.9", (), (("1.2", "1.2.1", 0),) * 2)]  # type: ignore[attr-defined]


def test_the_report_is_answered_before_whoever_waited_releases(pair: Pair) -> None:
    """Else the SCP would owe it still, and report again."""

    async def ask_and_go() -> CommitmentResult:
        async with pair.requestor:
            return await request_commitment(pair.requestor, UIDS, transaction_uid="1.9")

    node = pair.scp
    answered: list[Any] = []
    service = StorageCommitment()
    deliver = service.deliver

    async def watch(*arguments: Any) -> Any:
        answered.append(await deliver(*arguments))
        return answered[-1]

    registered = node.supported_scp.find(COMMITMENT)
    assert registered is not None
    registered.service.deliver = watch  # type: ignore[attr-defined]
    done = defer.Deferred.fromCoroutine(ask_and_go())
    pair.advance(1)
    pair.advance(0)
    assert success_of(done).transaction_uid == "1.9"
    assert [int(each) for each in answered] == [0x0000]


def test_a_report_of_many_instances_is_encoded_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set of 7,000 instances takes a second, in which nobody else would be served."""
    threads: list[Callable[[], Any]] = []

    def in_thread(asce: Any, work: Callable[[], bytes]) -> defer.Deferred[bytes]:
        waiting: defer.Deferred[bytes] = defer.Deferred()
        threads.append(lambda: waiting.callback(work()))
        return waiting

    class Asce:
        sent: ClassVar[list[Any]] = []

        def request(self, message: Any, ctx: Any) -> defer.Deferred[Any]:
            self.sent.append(message)
            return defer.succeed(replace(message, message_id=1).response(0x0000))

    monkeypatch.setattr(storage_commitment, "in_thread", in_thread)
    ctx: Any = SimpleNamespace(supported_ts="1.2.840.10008.1.2")
    asce: Any = Asce()
    for count in (50, 51):
        report = Report("1.9", tuple(("1.2", f"1.2.{n}") for n in range(count)), ())
        sending = defer.Deferred.fromCoroutine(send_report(asce, ctx, report))
        assert len(threads) == (count == 51)
        for each in threads:
            each()
        assert success_of(sending) == 0x0000
    assert [
        len(decode(each.data_set, ctx.supported_ts).ReferencedSOPSequence) for each in asce.sent
    ] == [50, 51]
