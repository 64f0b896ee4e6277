"""Many instances: store_all."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from twisted.internet import defer

from netdicom_tx import AE, Timeouts, Window, storage_scp
from netdicom_tx.dsutils import encode, part10_header
from netdicom_tx.exceptions import (
    AssociationRejectedError,
    AssociationReleasedError,
    ClassNotSupportedError,
    DCMTimeoutError,
)
from netdicom_tx.sopclass import Instance, StoreResult, store_all
from netdicom_tx.sopclass.sending import Stop, _groups, _Item
from netdicom_tx.testing import Pair, success_of
from netdicom_tx.uids import (
    ALL_TRANSFER_SYNTAXES,
    DEFAULT_TRANSFER_SYNTAXES,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    JPEG2000,
    STORAGE_SOP_CLASSES,
)

FILES = [
    str(get_testdata_file(name))
    for name in ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "JPEG2000.dcm", "JPGExtended.dcm")
]


class Sink(AE):
    """Counts what it is sent."""

    def __init__(self, syntaxes: Iterable[str] = ALL_TRANSFER_SYNTAXES, **options: Any) -> None:
        super().__init__("SINK", **options)
        self.add_scp(storage_scp, transfer_syntaxes=tuple(syntaxes))
        self.received: list[tuple[str, str, str]] = []
        self.opened = 0
        self.most = 0
        self.then: Any = lambda: 0

    def on_association_request(self, asce: Any, assoc: Any) -> None:
        self.opened += 1
        self.most = max(self.most, len([each for each in self.associations if each.is_open]) + 1)

    def on_receive_store(self, context: Any, ds: BinaryIO) -> Any:
        data_set = dcmread(ds)
        self.received.append(
            (context.sop_class, context.supported_ts, str(data_set.SOPInstanceUID))
        )
        return self.then()


def send(sink: Sink, sources: Iterable[Any], scu: AE | None = None, **options: Any) -> list[Any]:
    """The results of a store_all to a sink in memory."""
    pair = Pair(scu or AE("SCU"), sink)

    async def collect() -> list[StoreResult]:
        return [each async for each in store_all(pair.scu, pair.remote(), sources, **options)]

    return success_of(defer.Deferred.fromCoroutine(collect()))


def made(sop_class: str, number: int) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = f"1.2.3.{number}"
    ds.PatientID = "1"
    return ds


def test_all_kinds_go_on_one_association_as_they_are() -> None:
    """A context for each SOP class and transfer syntax of what is sent."""
    sink = Sink()
    results = send(sink, FILES)
    assert [int(each.status) for each in results] == [0] * 5
    assert sink.opened == 1
    assert {syntax for _, syntax, _ in sink.received} == {
        str(dcmread(file).file_meta.TransferSyntaxUID) for file in FILES
    }


@pytest.mark.slow
def test_more_than_128_contexts_take_several_associations() -> None:
    """PS3.8 9.3.2.2: context IDs are odd and below 256."""
    sink = Sink()
    data_sets = [made(uid, number) for number, uid in enumerate(STORAGE_SOP_CLASSES[:150])]
    results = send(sink, data_sets)
    assert all(each.is_stored for each in results)
    assert (len(sink.received), sink.opened) == (150, 2)


@pytest.mark.slow
def test_an_association_is_used_again_for_the_next_thousand() -> None:
    """Contexts are planned for a thousand at a time; these need no others."""
    sink = Sink()
    results = send(sink, (made(STORAGE_SOP_CLASSES[0], number) for number in range(1500)))
    assert (len(results), sink.opened) == (1500, 1)


def test_each_failure_is_told_and_stops_nothing(tmp_path: Path) -> None:
    """Why an instance was not sent: no file, no DICOM, no context."""
    text = tmp_path / "text.dcm"
    text.write_text("nothing")
    sink = Sink([EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN])
    results = send(sink, [str(tmp_path / "absent"), text, *FILES])
    told = {str(each.source): each for each in results}
    assert isinstance(told[str(tmp_path / "absent")].error, FileNotFoundError)
    assert "not a DICOM file" in str(told[str(text)].error)
    refused = told[FILES[3]].error
    assert isinstance(refused, ClassNotSupportedError)
    assert refused.answers == dict.fromkeys(
        ("1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.51"), "transfer syntax not supported"
    )
    assert sum(each.is_stored for each in results) == 3


def test_a_status_is_a_result() -> None:
    sink = Sink()
    sink.then = lambda: 0xA700
    (result,) = send(sink, FILES[:1])
    assert (int(result.status), result.error, result.is_stored) == (0xA700, None, False)


@pytest.mark.parametrize("status", [0xFE00, 0xFF00, 0xFF01, 0x0001, 0x0107])
def test_a_status_that_c_store_does_not_have_is_a_failure(status: int) -> None:
    """PS3.4 Table B.2-1: nothing says that the peer has the instance."""
    sink = Sink()
    sink.then = lambda: status
    (result,) = send(sink, FILES[:1])
    assert not result.is_stored
    assert result.status == status
    assert f"not a status of C-STORE (0x{status:04X})" in str(result.status)


def test_a_rejection_is_the_result_of_each() -> None:
    sink = Sink(max_associations=0)
    results = send(sink, FILES)
    assert [type(each.error) for each in results] == [AssociationRejectedError] * 5
    assert [each.source for each in results] == FILES


def test_an_association_that_ends_is_opened_anew() -> None:
    """What was under way is told; the rest is sent on another."""
    sink = Sink()

    def abort_once() -> int:
        if sink.opened == 1 and len(sink.received) == 3:
            for each in sink.associations:
                each.abort()
        return 0

    sink.then = abort_once
    results = send(sink, [made(STORAGE_SOP_CLASSES[0], number) for number in range(10)])
    assert sink.opened == 2
    assert [each.is_stored for each in results].count(True) == 9
    assert [type(each.error).__name__ for each in results if each.error] == (
        ["AssociationAbortedError"]
    )


@pytest.mark.parametrize(("kind", "ahead"), [("file", 1), ("data set", 0)])
def test_the_next_file_is_ready_when_an_answer_comes(
    kind: str, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data set of pydicom is not encoded before its turn: it would be in memory twice, whatever its size."""
    encoded: list[Instance] = []
    real = Instance.encoded

    def counted(self: Instance, transfer_syntax: str) -> Any:
        encoded.append(self)
        return real(self, transfer_syntax)

    monkeypatch.setattr(Instance, "encoded", counted)
    sink = Sink()
    pair = Pair(AE("SCU"), sink)
    answers: list[defer.Deferred[int]] = []

    def later() -> defer.Deferred[int]:
        answers.append(defer.Deferred())
        return answers[-1]

    sink.then = later
    sources = [FILES[0] if kind == "file" else dcmread(FILES[0])] * 4

    async def collect() -> list[StoreResult]:
        return [each async for each in store_all(pair.scu, pair.remote(), sources)]

    done = defer.Deferred.fromCoroutine(collect())
    for number in range(1, 5):
        pair.advance(0)
        assert (len(answers), len(encoded)) == (number, min(number + ahead, 4))
        answers[-1].callback(0)
    pair.advance(0)
    assert all(each.is_stored for each in success_of(done))


@pytest.mark.parametrize("window", [1, 3])
def test_an_instance_that_only_waited_is_not_lost_with_the_association(
    window: int, tmp_path: Path
) -> None:
    """It was ready behind the window, and the peer never heard of it: it is not tried by itself, nor failed."""
    sink = Sink(window=Window(1, window))
    pair = Pair(AE("SCU", window=Window(window, 1)), sink)
    answers: list[defer.Deferred[int]] = []

    def later() -> defer.Deferred[int]:
        answers.append(defer.Deferred())
        return answers[-1]

    sink.then = later
    sources = []
    for number in range(window + 1):
        sources.append(tmp_path / f"{number}.dcm")
        ds = made(STORAGE_SOP_CLASSES[0], number)
        sources[-1].write_bytes(
            part10_header(ds.SOPClassUID, ds.SOPInstanceUID, IMPLICIT_VR_LITTLE_ENDIAN)
            + encode(ds, IMPLICIT_VR_LITTLE_ENDIAN)
        )

    async def collect() -> list[StoreResult]:
        return [each async for each in store_all(pair.scu, pair.remote(), sources)]

    done = defer.Deferred.fromCoroutine(collect())
    assert len(answers) == window
    for asce in pair.scu.associations:
        asce.abort()
    sink.then = lambda: 0
    pair.advance(0)
    for each in answers:  # the handlers have the files
        each.callback(0)
    results = success_of(done)
    assert len(results) == window + 1
    assert [each.instance and each.instance.sop_instance_uid for each in results if each.error] == (
        ["1.2.3.0"] if window == 1 else []
    )
    assert [uid for *_, uid in sink.received].count(f"1.2.3.{window}") == 1


@pytest.mark.parametrize("end", ["stop", "abort", "none"])
def test_one_other_form_is_in_memory_at_a_time(end: str) -> None:
    """A decompressed data set may be many times larger than its file; the next one is made when it has been sent."""
    sink = Sink([IMPLICIT_VR_LITTLE_ENDIAN])
    pair = Pair(AE("SCU"), sink)
    plain = made(STORAGE_SOP_CLASSES[0], 1)
    compressed = Instance(STORAGE_SOP_CLASSES[0], "1.2.3.1", JPEG2000, plain)
    form = Instance(STORAGE_SOP_CLASSES[0], "1.2.3.1", IMPLICIT_VR_LITTLE_ENDIAN, plain)
    forms: list[defer.Deferred[Instance]] = []
    answers: list[defer.Deferred[int]] = []
    stop = Stop()

    def transcode(*_: object) -> defer.Deferred[Instance]:
        forms.append(defer.Deferred())
        return forms[-1]

    def later() -> defer.Deferred[int]:
        answers.append(defer.Deferred())
        return answers[-1]

    async def collect() -> list[StoreResult]:
        results = store_all(
            pair.scu, pair.remote(), [compressed] * 3, stop=stop, transcode=transcode
        )
        return [each async for each in results]

    sink.then = later
    done = defer.Deferred.fromCoroutine(collect())
    pair.advance(0)
    for number in range(1, 4):
        assert len(forms) == number
        forms[-1].callback(form)
        pair.advance(0)
        assert (len(forms), len(answers)) == (number, number)
        if end == "stop":
            stop.set()
        elif end == "abort" and number == 1:
            for asce in pair.scu.associations:
                asce.abort()
            pair.advance(0)
        answers[-1].callback(0)
        pair.advance(0)
        if done.called:
            break
    stored = [each.is_stored for each in success_of(done)]
    assert stored == {"stop": [True], "abort": [False, True, True], "none": [True] * 3}[end]


def test_a_stop_takes_back_what_only_waits() -> None:
    """What has been sent is answered; what is ready behind the window is not sent."""
    sink = Sink()
    pair = Pair(AE("SCU"), sink)
    stop = Stop()
    answers: list[defer.Deferred[int]] = []

    def later() -> defer.Deferred[int]:
        answers.append(defer.Deferred())
        return answers[-1]

    sink.then = later

    async def collect() -> list[StoreResult]:
        return [each async for each in store_all(pair.scu, pair.remote(), FILES, stop=stop)]

    done = defer.Deferred.fromCoroutine(collect())
    stop.set()
    assert not done.called
    answers[0].callback(0)
    pair.advance(0)
    assert [each.is_stored for each in success_of(done)] == [True]
    assert len(sink.received) == 1


@pytest.mark.parametrize("associations", [1, 3])
def test_as_many_associations_as_allowed_are_used(associations: int) -> None:
    sink = Sink()
    waiting: list[defer.Deferred[int]] = []
    pair = Pair(AE("SCU"), sink)

    def later() -> defer.Deferred[int]:
        waiting.append(defer.Deferred())
        return waiting[-1]

    sink.then = later
    sources = [made(STORAGE_SOP_CLASSES[0], number) for number in range(9)]

    async def collect() -> list[StoreResult]:
        results = store_all(pair.scu, pair.remote(), sources, associations=associations)
        return [each async for each in results]

    done = defer.Deferred.fromCoroutine(collect())
    while not done.called:
        assert len(waiting) <= associations
        waiting.pop(0).callback(0)
        pair.advance(0)
    assert len(success_of(done)) == 9
    assert sink.most == associations


def test_a_window_is_filled() -> None:
    """PS3.7 D.3.3.3: up to so many operations outstanding, never more."""
    sink = Sink(window=Window(1, 4))
    pair = Pair(AE("SCU", window=Window(4, 1)), sink)
    waiting: list[defer.Deferred[int]] = []

    def later() -> defer.Deferred[int]:
        waiting.append(defer.Deferred())
        return waiting[-1]

    sink.then = later
    sources = [made(STORAGE_SOP_CLASSES[0], number) for number in range(9)]

    async def collect() -> list[StoreResult]:
        return [each async for each in store_all(pair.scu, pair.remote(), sources)]

    done = defer.Deferred.fromCoroutine(collect())
    assert len(waiting) == 4
    while not done.called:
        assert len(waiting) <= 4
        waiting.pop().callback(0)  # the last first: answers come in any order
        pair.advance(0)
    assert all(each.is_stored for each in success_of(done))


def test_closing_the_generator_ends_the_associations() -> None:
    sink = Sink()
    pair = Pair(AE("SCU"), sink)

    async def first() -> None:
        results = store_all(pair.scu, pair.remote(), FILES)
        async for _ in results:
            break
        await results.aclose()

    success_of(defer.Deferred.fromCoroutine(first()))
    pair.advance(0)
    assert not sink.associations


def test_what_is_stopped_before_it_begins_sends_nothing() -> None:
    stop = Stop()
    stop.set()
    sink = Sink()
    assert send(sink, FILES, stop=stop) == []
    assert not sink.opened


def test_an_association_that_is_refused_leaves_the_work_to_the_others() -> None:
    """PS3.8 9.3.4: "local limit exceeded" is about one more association, not about the instances."""
    sink = Sink(max_associations=1)
    waiting: list[defer.Deferred[int]] = []
    pair = Pair(AE("SCU"), sink)

    def later() -> defer.Deferred[int]:
        waiting.append(defer.Deferred())
        return waiting[-1]

    sink.then = later

    async def collect() -> list[StoreResult]:
        results = store_all(pair.scu, pair.remote(), FILES, associations=3)
        return [each async for each in results]

    done = defer.Deferred.fromCoroutine(collect())
    while not done.called:
        waiting.pop().callback(0)
        pair.advance(0)
    assert [each.error for each in success_of(done)] == [None] * len(FILES)
    assert len(sink.received) == len(FILES)


def test_closing_the_generator_sends_no_more_and_releases_when_it_can() -> None:
    """A-RELEASE-RQ waits for the answer to what is outstanding (PS3.8 7.2)."""
    sink = Sink()
    pair = Pair(AE("SCU"), sink)
    answers: list[defer.Deferred[int]] = []
    ends: list[object] = []

    def later() -> int | defer.Deferred[int]:
        if len(sink.received) == 1:
            return 0
        answers.append(defer.Deferred())
        for asce in pair.scu.associations:
            asce.closed().addCallback(ends.append)
        return answers[-1]

    sink.then = later

    async def first() -> None:
        results = store_all(pair.scu, pair.remote(), FILES)
        async for _ in results:
            break
        await results.aclose()

    success_of(defer.Deferred.fromCoroutine(first()))
    assert not ends
    while answers:
        answers.pop().callback(0)
        pair.advance(0)
    assert {type(end) for end in ends} == {AssociationReleasedError}
    assert len(sink.received) == 2 < len(FILES)


def test_a_peer_that_serves_one_association_at_a_time_is_not_waited_for() -> None:
    """DCMTK's storescp: the requests of the other associations stand in its queue."""
    sink = Sink()

    def one_at_a_time(asce: Any, assoc: Any) -> defer.Deferred[None] | None:
        sink.opened += 1
        return None if sink.opened == 1 else defer.Deferred()

    waiting: list[defer.Deferred[int]] = []

    def later() -> defer.Deferred[int]:
        waiting.append(defer.Deferred())
        return waiting[-1]

    sink.on_association_request = one_at_a_time  # type: ignore[method-assign,assignment]
    sink.then = later
    pair = Pair(AE("SCU"), sink)

    async def collect() -> list[StoreResult]:
        results = store_all(pair.scu, pair.remote(), FILES, associations=3)
        return [each async for each in results]

    done = defer.Deferred.fromCoroutine(collect())
    while waiting:
        waiting.pop().callback(0)
        pair.advance(0)
    assert sink.opened == 3
    assert [each.error for each in success_of(done)] == [None] * len(FILES)


class Allergic(Sink):
    """Aborts at each instance of some."""

    def __init__(self, bad: Iterable[int], **options: Any) -> None:
        super().__init__(**options)
        self.bad = {f"1.2.3.{number}" for number in bad}

    def on_receive_store(self, context: Any, ds: BinaryIO) -> Any:
        uid = str(dcmread(ds).SOPInstanceUID)
        if uid in self.bad:
            for each in self.associations:
                if each.is_open:
                    each.abort()
            return 0
        self.received.append((context.sop_class, context.supported_ts, uid))
        return 0


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("associations", [1, 3])
@pytest.mark.parametrize(
    "bad", [[0], [4], [9], [0, 9], [3, 4], [0, 1, 2], [2, 4, 6, 8]], ids=lambda bad: f"bad {bad}"
)
def test_an_instance_that_ends_its_association_costs_no_other(
    bad: list[int], associations: int, window: int
) -> None:
    """PS3.4 C.4.2: a sub-operation that fails is one that failed. All others arrive."""
    sink = Allergic(bad, window=Window(window, window))
    scu = AE("SCU", window=Window(window, window))
    data_sets = [made(STORAGE_SOP_CLASSES[0], number) for number in range(10)]
    results = send(sink, data_sets, scu, associations=associations)
    assert len(results) == 10
    failed = {each.instance.sop_instance_uid: each for each in results if not each.is_stored}
    assert set(failed) == sink.bad
    assert {uid for *_, uid in sink.received} == {
        f"1.2.3.{number}" for number in range(10) if number not in bad
    }
    for each in failed.values():
        assert "abort" in str(each.error)
        assert not each.is_given_up


@pytest.mark.parametrize("associations", [1, 3])
def test_an_instance_that_the_peer_never_answers_costs_no_other(associations: int) -> None:
    """The association is aborted when the time for the response is over, and the others go on a new one."""
    sink = Sink()
    never: defer.Deferred[int] = defer.Deferred()
    sink.then = lambda: never if sink.received[-1][-1] == "1.2.3.1" else 0
    pair = Pair(AE("SCU"), sink)
    data_sets = [made(STORAGE_SOP_CLASSES[0], number) for number in range(6)]

    async def collect() -> list[StoreResult]:
        results = store_all(pair.scu, pair.remote(), data_sets, associations=associations)
        return [each async for each in results]

    done = defer.Deferred.fromCoroutine(collect())
    pair.advance(61)
    failed = [each for each in success_of(done) if not each.is_stored]
    assert [each.instance and each.instance.sop_instance_uid for each in failed] == ["1.2.3.1"]
    assert isinstance(failed[0].error, DCMTimeoutError)
    assert len(sink.received) == 6
    pair.advance(0)
    if not never.called:  # the handler still waits, and has the file
        never.callback(0)


def test_a_peer_that_ends_every_association_is_given_up() -> None:
    """It is not called for each of a hundred instances; each of those that it had is told by itself."""
    sink = Allergic(range(100))
    results = send(sink, [made(STORAGE_SOP_CLASSES[0], number) for number in range(100)])
    assert sink.opened == 5
    assert [each.is_given_up for each in results] == [False] * 5 + [True] * 95
    assert all("abort" in str(each.error) for each in results)


def test_a_silent_peer_is_given_up_after_three_timeouts() -> None:
    """A hundred instances do not take a hundred times the timeout."""
    sink = Sink()
    never: list[defer.Deferred[int]] = []

    def unanswered() -> defer.Deferred[int]:
        never.append(defer.Deferred())
        return never[-1]

    sink.then = unanswered
    results = send_for(sink, 100, 3 * Timeouts().response)
    for each in never:  # its handler has the file
        each.callback(0)
    assert sink.opened == 3
    assert [each.is_given_up for each in results] == [False] * 3 + [True] * 97
    assert all(isinstance(each.error, DCMTimeoutError) for each in results)


@pytest.mark.slow
def test_an_association_that_ended_while_it_was_idle_costs_nothing() -> None:
    """Between two thousands it is kept open, and the peer may have had enough of waiting."""
    sink = Sink()

    def end_the_idle_one() -> int:
        if len(sink.received) == 1001 and sink.opened == 1:
            for asce in sink.associations:
                asce.abort()
        return 0

    sink.then = end_the_idle_one
    results = send(sink, (made(STORAGE_SOP_CLASSES[0], number) for number in range(1100)))
    assert [each.error for each in results] == [None] * 1100
    assert sink.opened == 2


def test_a_group_has_room_for_the_contexts_of_other_forms() -> None:
    """PS3.8 9.3.2.2: 128 contexts, of which half may be those in which a decompressed instance is sent."""
    instances = [
        Instance(each, "1.2.3", JPEG2000, made(each, 3)) for each in STORAGE_SOP_CLASSES[:100]
    ]
    groups = list(_groups([_Item(each, each) for each in instances], is_plain_proposed=True))
    assert [(len(contexts), len(group)) for contexts, group in groups] == [(128, 64), (72, 36)]
    contexts, _ = groups[0]
    assert contexts[0] == (STORAGE_SOP_CLASSES[0], (JPEG2000,))
    assert contexts[64] == (STORAGE_SOP_CLASSES[0], DEFAULT_TRANSFER_SYNTAXES)


class Forgetful(Allergic):
    """Counts an association that has ended for some more requests, each of which it rejects for now."""

    def __init__(self, bad: Iterable[int], rejections: int, result: int = 2) -> None:
        super().__init__(bad)
        self.rejections, self.result = rejections, result
        self.called = 0

    def on_association_request(self, asce: Any, assoc: Any) -> None:
        self.called += 1
        if self.called > 1 and self.rejections:
            self.rejections -= 1
            raise AssociationRejectedError(self.result, 3, 2)  # local limit exceeded
        super().on_association_request(asce, assoc)


def send_for(sink: Sink, count: int, seconds: float) -> list[StoreResult]:
    """The results of a store_all that are there after some seconds."""
    pair = Pair(AE("SCU"), sink)
    results: list[StoreResult] = []

    async def collect() -> None:
        sources = [made(STORAGE_SOP_CLASSES[0], number) for number in range(count)]
        async for each in store_all(pair.scu, pair.remote(), sources):
            results.append(each)

    running = defer.Deferred.fromCoroutine(collect())
    for _ in range(round(seconds * 2)):
        pair.advance(0.5)
    success_of(running)
    return results


def test_a_peer_that_still_counts_the_association_that_ended_is_called_again() -> None:
    """PS3.8 9.3.4: result 2 is transient."""
    sink = Forgetful([0], rejections=3)
    results = send_for(sink, 3, 4)
    assert [each.is_stored for each in results] == [False, True, True]
    assert sink.called == 5


@pytest.mark.parametrize(("result", "called"), [(2, 5), (1, 2)], ids=["transient", "permanent"])
def test_a_peer_that_rejects_is_not_called_again_and_again(result: int, called: int) -> None:
    sink = Forgetful([0], rejections=1000, result=result)
    results = send_for(sink, 3, 4)
    assert [each.is_given_up for each in results] == [False, True, True]
    assert sink.called == called


def test_a_peer_that_rejects_the_first_association_is_not_called_again() -> None:
    """It has not ended one that it may still count."""
    sink = Forgetful([], rejections=1000)
    sink.called = 1
    results = send_for(sink, 2, 0)
    assert [each.is_given_up for each in results] == [True, True]
    assert sink.called == 2


def test_a_stop_ends_the_wait_for_a_peer_that_rejects_for_now() -> None:
    sink = Forgetful([0], rejections=1000)
    pair = Pair(AE("SCU"), sink)
    stop = Stop()

    async def collect() -> list[StoreResult]:
        sources = [made(STORAGE_SOP_CLASSES[0], number) for number in range(3)]
        return [each async for each in store_all(pair.scu, pair.remote(), sources, stop=stop)]

    running = defer.Deferred.fromCoroutine(collect())
    pair.advance(0)
    stop.set()
    results = success_of(running)
    assert len(results) == 3
    assert sink.called == 2
