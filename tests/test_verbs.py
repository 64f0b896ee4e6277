"""The calls on an association, and what ``associate`` proposes for them, over associations in memory."""

from __future__ import annotations

import io
from collections.abc import Coroutine
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from netdicom_tx import (
    AE,
    ClassNotSupportedError,
    RemoteAE,
    StatusError,
    sop_classes,
    storage_scp,
    storage_scu,
    uids,
    verification_scu,
)
from netdicom_tx.dimsemessages import Request
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.negotiation import PContextDef
from netdicom_tx.sopclass import (
    qr_find_scu,
)
from netdicom_tx.testing import Pair, failure_of, success_of
from netdicom_tx.verbs import Association, Progress
from support.serving import COMPRESSED, FILES, Archive, study

_T = TypeVar("_T")


class Net:
    """An SCU, an archive, and the line between them."""

    def __init__(self, scu: AE | None = None) -> None:
        self.scu, self.archive = scu or AE("SCU"), Archive()
        self.pair = Pair(self.scu, self.archive)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return success_of(defer.Deferred.fromCoroutine(work))

    def associate(self, *services: Any, **options: Any) -> Association:
        return success_of(self.scu.associate(self.pair.remote(), *services, **options))


@pytest.fixture
def net() -> Net:
    return Net()


# -- associate --------------------------------------------------------------------------------------


def test_without_services_the_common_ones_are_proposed(net: Net) -> None:
    asce = net.associate()
    proposed = [each.sop_class for each in asce.accepted_contexts.values()]
    assert len(proposed) == len(set(proposed))
    for uid in (
        uids.Verification,
        uids.StudyRootQueryRetrieveInformationModelFind,
        uids.PatientRootQueryRetrieveInformationModelGet,
        uids.ModalityWorklistInformationModelFind,
        uids.CTImageStorage,
        uids.SecondaryCaptureImageStorage,
    ):
        assert asce.contexts_for(uid), uids.name(uid)
    assert asce.request_pdu is not None
    assert len(asce.request_pdu.presentation_contexts) == 128


def test_the_services_of_the_call_are_proposed_and_nothing_else(net: Net) -> None:
    asce = net.associate(verification_scu, uids.ModalityPerformedProcedureStep)
    assert [each.sop_class for each in asce.accepted_contexts.values()] == [
        uids.Verification,
        uids.ModalityPerformedProcedureStep,
    ]


def test_the_registered_services_are_proposed_when_the_call_names_none() -> None:
    net = Net(AE("SCU").add_scu(verification_scu))
    assert [each.sop_class for each in net.associate().accepted_contexts.values()] == [
        uids.Verification
    ]


def test_the_files_say_their_contexts(net: Net) -> None:
    """A compressed file needs a context of its own transfer syntax (PS3.8 9.3.2.2)."""
    asce = net.associate(files=[COMPRESSED, FILES[0]])
    assert [(each.sop_class, each.supported_ts) for each in asce.accepted_contexts.values()] == [
        (uids.SecondaryCaptureImageStorage, uids.JPEG2000),
        (uids.CTImageStorage, uids.ExplicitVRLittleEndian),
    ]
    assert success_of(asce.store(COMPRESSED)) == 0x0000


def test_storage_scu_stands_for_the_current_storage_classes(net: Net) -> None:
    asce = net.associate(storage_scu)
    assert asce.contexts_for(uids.CTImageStorage)
    assert not asce.contexts_for(uids.Verification)


def test_c_get_brings_the_storage_classes_with_the_scp_role(net: Net) -> None:
    """PS3.4 C.4.3: the requestor is SCP of storage on the association of its C-GET."""
    asce = net.associate(uids.StudyRootQueryRetrieveInformationModelGet)
    contexts = asce.contexts_for(uids.CTImageStorage)
    assert all(ctx.as_scp for ctx in contexts)
    assert {ctx.supported_ts for ctx in contexts} == {*uids.DEFAULT_TRANSFER_SYNTAXES}
    assert not any(each.as_scp for each in net.associate(storage_scu).accepted_contexts.values())


def test_contexts_of_the_call_are_proposed_as_they_are(net: Net) -> None:
    asce = net.associate(contexts={uids.Verification: [uids.ImplicitVRLittleEndian]})
    (ctx,) = asce.accepted_contexts.values()
    assert ctx.supported_ts == uids.ImplicitVRLittleEndian


def test_the_block_releases_the_association(net: Net) -> None:
    async def work() -> Association:
        async with net.scu.associate(net.pair.remote()) as asce:
            assert await asce.echo() == 0x0000
        return asce

    asce = net.run(work())
    assert not asce.is_open
    assert not net.archive.associations


def test_an_exception_in_the_block_aborts_the_association(net: Net) -> None:
    async def work() -> None:
        async with net.scu.associate(net.pair.remote()):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        net.run(work())
    assert not net.archive.associations


def test_cancelling_gives_up_the_attempt() -> None:
    @implementer(IStreamClientEndpoint)
    class Silent:
        def connect(self, factory: Any) -> defer.Deferred[Any]:
            return defer.Deferred()

    opening = AE("SCU", reactor=MemoryReactorClock()).associate(Silent())
    opening.cancel()
    assert isinstance(failure_of(opening), defer.CancelledError)


def test_serving_lasts_until_it_is_cancelled(net: Net) -> None:
    """One call for a program that only serves; its port is closed again."""
    reactor = net.archive.reactor
    serving = net.archive.serve("tcp:11112")
    assert 11112 in reactor.ports
    serving.cancel()
    assert isinstance(failure_of(serving), defer.CancelledError)
    assert 11112 not in reactor.ports


def test_serving_at_a_taken_port_raises_at_once(net: Net) -> None:
    net.archive.serve("tcp:11112").addErrback(lambda _: None)
    with pytest.raises(CannotListenError):
        net.archive.serve("tcp:11112")


@pytest.mark.parametrize(
    ("services", "options", "message"),
    [
        ((), {"files": "image.dcm"}, "expected a list"),
        ((object(),), {}, "names no SOP classes"),
    ],
)
def test_a_wrong_argument_of_associate_raises_at_once(
    net: Net, services: Any, options: Any, message: str
) -> None:
    with pytest.raises((TypeError, LocalProtocolError), match=message):
        net.scu.associate(net.pair.remote(), *services, **options)


# -- addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "title", "endpoint"),
    [
        ("ARCHIVE@pacs.example:104", "ARCHIVE", "pacs.example:104"),
        ("pacs.example:104", "ANY-SCP", "pacs.example:104"),
        ("A@[::1]:11112", "A", "[::1]:11112"),
        ("ARCHIVE@tcp:pacs.example:104", "ARCHIVE", "tcp:pacs.example:104"),
        ("tcp:host=pacs.example:port=104", "ANY-SCP", "tcp:host=pacs.example:port=104"),
    ],
)
def test_an_address_is_written_in_several_ways(text: str, title: str, endpoint: str) -> None:
    remote = RemoteAE.of(text)
    assert (remote.ae_title, remote.endpoint) == (title, endpoint)
    remote.connector(MemoryReactorClock())  # it is an endpoint


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("@pacs.example:104", "no AE title before the @"),
        ("pacs.example", "has no port"),
        ("A@pacs.example:70000", "not a port from 1 to 65535"),
        (17, "is not an address"),
    ],
)
def test_a_wrong_address_is_told_with_the_right_forms(address: Any, message: str) -> None:
    with pytest.raises(LocalProtocolError, match=message):
        AE("SCU").associate(address)


def test_an_endpoint_and_a_remote_ae_are_addresses_as_well() -> None:
    endpoint = TCP4ClientEndpoint(MemoryReactorClock(), "127.0.0.1", 104)
    assert RemoteAE.of(endpoint).endpoint is endpoint
    remote = RemoteAE("A", endpoint)
    assert RemoteAE.of(remote) is remote


def test_the_host_of_an_address_is_what_its_certificate_must_name() -> None:
    assert RemoteAE.of("A@pacs.example:104")._host() == "pacs.example"
    assert RemoteAE.of("A@[::1]:104")._host() == "::1"


# -- echo and store ---------------------------------------------------------------------------------


def test_a_missing_context_says_what_to_name(net: Net) -> None:
    asce = net.associate(qr_find_scu)
    with pytest.raises(ClassNotSupportedError, match=r"associate\(peer"):
        asce.echo()


@pytest.mark.parametrize("form", ["path", "Path", "file", "Dataset"])
def test_store_takes_paths_files_and_data_sets(net: Net, form: str) -> None:
    source: Any = {
        "path": lambda: FILES[0],
        "Path": lambda: Path(FILES[0]),
        "file": lambda: io.BytesIO(Path(FILES[0]).read_bytes()),
        "Dataset": lambda: dcmread(FILES[0]),
    }[form]()
    assert success_of(net.associate().store(source)) == 0x0000
    assert net.archive.stored[0].SOPInstanceUID == dcmread(FILES[0]).SOPInstanceUID


def test_storing_what_cannot_be_read_fails_the_deferred(net: Net, tmp_path: Path) -> None:
    asce = net.associate()
    assert isinstance(failure_of(asce.store(tmp_path / "absent.dcm")), FileNotFoundError)
    assert asce.is_open


def test_storing_without_a_fitting_context_says_to_name_the_files(net: Net) -> None:
    error = failure_of(net.associate(verification_scu).store(FILES[0]))
    assert isinstance(error, ClassNotSupportedError)
    assert "files=" in str(error)


# -- find and worklist ------------------------------------------------------------------------------


def test_find_gives_data_sets_and_keeps_the_final_response(net: Net) -> None:
    net.archive.matches = [study(PatientName="DOE^A"), study(PatientName="DOE^B")]

    async def work() -> list[str]:
        stream = net.associate().find("STUDY", PatientName="DOE*", StudyDescription="")
        names = [str(each.PatientName) async for each in stream]
        assert stream.final is not None
        assert stream.final.status == 0x0000
        assert await stream.done == 0x0000
        return names

    assert net.run(work()) == ["DOE^A", "DOE^B"]
    ((model, asked),) = net.archive.asked
    assert model == uids.StudyRootQueryRetrieveInformationModelFind
    assert asked.QueryRetrieveLevel == "STUDY"
    assert asked.PatientName == "DOE*"
    assert asked["StudyInstanceUID"].is_empty
    assert asked["StudyDescription"].is_empty


def test_awaiting_a_find_gives_the_list(net: Net) -> None:
    net.archive.matches = [study(PatientID="1"), study(PatientID="2")]

    async def work() -> list[Dataset]:
        return await net.associate().find(PatientID="")

    assert [each.PatientID for each in net.run(work())] == ["1", "2"]


@pytest.mark.parametrize("before", ["awaited", "read"])
def test_a_stream_is_awaited_once(net: Net, before: str) -> None:
    """The matches are not kept; an empty list would say that there are none."""
    net.archive.matches = [study(PatientID="1"), study(PatientID="2")]

    async def work() -> None:
        stream = net.associate().find(PatientID="")
        if before == "awaited":
            assert len(await stream) == 2
        else:
            assert len([each async for each in stream]) == 2
        with pytest.raises(LocalProtocolError, match="has been read already; make the call again"):
            await stream

    net.run(work())


def test_the_counts_of_a_move_are_awaited_once(net: Net) -> None:
    keeper = AE("KEEPER").add_scp(storage_scp)
    there = net.pair.network.add(keeper)
    net.archive.on_receive_move = lambda *_: (there, 0, [])  # type: ignore[method-assign]

    async def work() -> None:
        stream = net.associate().move(to="KEEPER", StudyInstanceUID="1.2.3")
        assert (await stream).status == 0x0000
        with pytest.raises(LocalProtocolError, match="has been read already"):
            await stream

    net.run(work())


@pytest.mark.parametrize(
    ("level", "accepted", "expected"),
    [
        ("PATIENT", (), uids.PatientRootQueryRetrieveInformationModelFind),
        ("series", (), uids.StudyRootQueryRetrieveInformationModelFind),
        (
            "STUDY",
            (uids.PatientRootQueryRetrieveInformationModelFind,),
            uids.PatientRootQueryRetrieveInformationModelFind,
        ),
    ],
)
def test_the_model_follows_the_level_and_what_was_accepted(
    net: Net, level: str, accepted: tuple[str, ...], expected: str
) -> None:
    """PS3.4 C.6.1 and C.6.2: Patient Root has patients, Study Root does not."""

    async def work() -> None:
        await net.associate(*accepted).find(level)

    net.run(work())
    assert net.archive.asked[0][0] == expected


def test_a_failed_query_is_raised_and_never_an_empty_answer(net: Net) -> None:
    net.archive.matches = [study(PatientID="1"), 0xA700]

    async def work() -> None:
        matches = net.associate().find(PatientID="")
        assert (await anext(matches)).PatientID == "1"
        with pytest.raises(StatusError) as raised:
            await anext(matches)
        assert raised.value.status == 0xA700

    net.run(work())


def test_leaving_a_query_early_cancels_it(net: Net) -> None:
    net.archive.matches = (study(PatientID=str(n)) for n in range(10_000))

    async def work() -> int | None:
        asce = net.associate()
        async with asce.find(PatientID="") as matches:
            async for _ in matches:
                break
        assert await asce.echo() == 0x0000
        return matches.final and matches.final.status

    assert net.run(work()) == 0xFE00


def test_cancel_ends_a_query_without_an_error(net: Net) -> None:
    """FE00 is what was asked for, and not a failure."""
    net.archive.matches = (study(PatientID=str(n)) for n in range(10_000))

    async def work() -> int:
        count = 0
        matches = net.associate().find(PatientID="")
        async for _ in matches:
            count += 1
            matches.cancel()
        return count

    assert 0 < net.run(work()) < 10_000


def test_an_end_that_nobody_has_asked_for_is_a_failure(net: Net) -> None:
    """FE00 of a peer that was not asked to cancel: what came is not all there is."""
    net.archive.matches = [study(PatientID="1"), 0xFE00]

    async def work() -> list[str]:
        matches = net.associate().find(PatientID="")
        read = [(await anext(matches)).PatientID]
        with pytest.raises(StatusError) as told:
            await anext(matches)
        assert told.value.status == 0xFE00
        return read

    assert net.run(work()) == ["1"]


def test_keys_may_be_lists_dates_items_and_text_of_any_language(net: Net) -> None:
    async def work() -> None:
        await net.associate().find(
            "SERIES",
            StudyInstanceUID=["1.2.3", "1.2.4"],
            StudyDate=date(2026, 11, 28),
            PatientName="山田^太郎",
            RequestAttributesSequence={"RequestedProcedureID": "P1"},
        )

    net.run(work())
    asked = net.archive.asked[0][1]
    assert list(asked.StudyInstanceUID) == ["1.2.3", "1.2.4"]
    assert asked.StudyDate == "20261128"
    assert asked.SpecificCharacterSet == "ISO_IR 192"
    assert asked.PatientName == "山田^太郎"
    assert asked.RequestAttributesSequence[0].RequestedProcedureID == "P1"


def test_an_identifier_may_be_given_and_stays_as_it_was(net: Net) -> None:
    given = study(PatientID="7")

    async def work() -> None:
        await net.associate().find("STUDY", given, StudyDate="")

    net.run(work())
    assert net.archive.asked[0][1].PatientID == "7"
    assert list(given.keys()) == [given.data_element("PatientID").tag]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("level", "keys", "message"),
    [
        ("STUDIES", {}, "expected PATIENT, STUDY, SERIES, IMAGE"),
        ("STUDY", {"PatientNam": "X"}, "did you mean PatientName"),
        ("STUDY", {"Rows": "many"}, "not a value for Rows"),
        ("STUDY", {"RequestAttributesSequence": "X"}, "expected a dict"),
    ],
)
def test_a_wrong_key_raises_at_once(
    net: Net, level: str, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(LocalProtocolError, match=message):
        net.associate().find(level, **keys)


def test_keys_of_the_step_go_into_its_sequence(net: Net) -> None:
    """PS3.4 Table K.6-1: the attributes of the step are matched inside the sequence."""

    async def work() -> None:
        await net.associate().worklist(Modality="CT", PatientName="DOE*")

    net.run(work())
    model, asked = net.archive.asked[0]
    assert model == uids.ModalityWorklistInformationModelFind
    assert "QueryRetrieveLevel" not in asked
    (step,) = asked.ScheduledProcedureStepSequence
    assert step.Modality == "CT"
    assert step["ScheduledProcedureStepStartDate"].is_empty
    assert asked.PatientName == "DOE*"
    assert asked["StudyInstanceUID"].is_empty
    assert "Modality" not in asked


# -- get and move -----------------------------------------------------------------------------------


def test_get_gives_one_kind_of_item(net: Net, tmp_path: Path) -> None:
    async def work() -> list[tuple[str, str]]:
        got = []
        stream = net.associate().get(StudyInstanceUID="1.2.3")
        async for instance in stream:
            saved = tmp_path / "saved.dcm"
            instance.save(saved)
            assert dcmread(saved) == instance.dataset()
            assert instance.sop_instance_uid in repr(instance)
            got.append((instance.sop_class_uid, instance.sop_instance_uid))
        assert stream.final is not None
        assert getattr(stream.final, "number_of_completed_suboperations", None) == len(FILES)
        return got

    expected = [dcmread(each) for each in FILES]
    assert net.run(work()) == [(each.SOPClassUID, each.SOPInstanceUID) for each in expected]
    assert [path.name for path in tmp_path.iterdir()] == ["saved.dcm"]


def test_a_copy_that_fails_leaves_nothing_behind(net: Net, tmp_path: Path) -> None:
    async def work() -> None:
        async with net.associate().get(StudyInstanceUID="1.2.3") as stream:
            instance = await anext(stream)
            (tmp_path / "taken").mkdir()
            with pytest.raises(OSError, match="taken"):
                instance.save(tmp_path / "taken")

    net.run(work())
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_what_nobody_reads_is_not_answered_with_success(net: Net) -> None:
    """An instance that comes without a C-GET would be lost: 0x0110, not 0x0000 (PS3.7 9.1.1)."""
    asce = net.associate()
    (acceptor,) = net.archive.associations
    (ctx,) = acceptor.contexts_for(uids.CTImageStorage)
    net.archive.add_scu(storage_scu, [uids.CTImageStorage])
    assert success_of(acceptor.get_scu(uids.CTImageStorage)(FILES[0])) == 0x0110
    assert ctx.as_scu
    assert asce.is_open


def test_the_storage_service_of_the_ae_takes_what_get_brings() -> None:
    """``add_scp(storage_scp)`` keeps its meaning: its answer counts, the reader has the file after it."""

    class Receiver(AE):
        def on_receive_store(self, context: PContextDef, ds: BinaryIO) -> int:
            return 0xA700 if dcmread(ds).Modality == "MR" else 0x0000

    net = Net(Receiver("SCU").add_scp(storage_scp))

    async def work() -> list[str]:
        stream = net.associate().get(StudyInstanceUID="1.2.3")
        return [each.sop_class_uid async for each in stream]

    assert net.run(work()) == [uids.CTImageStorage, uids.RTPlanStorage]


def test_a_retrieve_must_say_what(net: Net) -> None:
    """PS3.4 C.4.2.2.1: the unique key of the level has a value."""
    asce = net.associate()
    with pytest.raises(LocalProtocolError, match="give StudyInstanceUID a value"):
        asce.get(PatientName="DOE*")
    with pytest.raises(LocalProtocolError, match="give SeriesInstanceUID a value"):
        asce.move("SERIES", to="DEST", StudyInstanceUID="1.2.3")


def test_move_tells_its_progress_and_its_failure(net: Net) -> None:
    async def work() -> None:
        asce = net.associate()
        with pytest.raises(StatusError) as raised:
            await asce.move(to="NOWHERE", StudyInstanceUID="1.2.3")
        assert raised.value.status == 0xA801

    net.run(work())


def test_move_counts(net: Net) -> None:
    class Keeper(AE):
        def on_receive_store(self, context: PContextDef, ds: BinaryIO) -> int:
            return 0x0000

    keeper = Keeper("KEEPER").add_scp(storage_scp)
    there = net.pair.network.add(keeper)
    net.archive.on_receive_move = lambda *_: (there, len(FILES), FILES)  # type: ignore[method-assign]

    async def work() -> list[Progress]:
        return [each async for each in net.associate().move(to="KEEPER", StudyInstanceUID="1.2.3")]

    seen = net.run(work())
    assert [each.completed for each in seen] == [1, 2, 3]
    assert (seen[-1].status, seen[-1].remaining, seen[-1].failed) == (0x0000, 0, 0)


# -- storage commitment, DIMSE-N --------------------------------------------------------------------


def test_commit_waits_for_the_report(net: Net) -> None:
    waiting = net.associate().commit([*FILES, (uids.CTImageStorage, "1.2.3")])
    net.pair.advance(1)
    result = success_of(waiting)
    assert [each[1] for each in result.committed] == [
        *(dcmread(each).SOPInstanceUID for each in FILES),
        "1.2.3",
    ]
    assert result.failed == ()


def test_one_file_is_not_a_list_of_instances(net: Net) -> None:
    with pytest.raises(TypeError, match="expected a list"):
        net.associate().commit(FILES[0])


def test_the_normalized_calls_give_replies(net: Net) -> None:
    asce = net.associate()
    mpps = uids.ModalityPerformedProcedureStep
    created = success_of(asce.n_create(mpps, study(PatientName="A"), "1.2.3"))
    assert (created.status, created.data_set) == (0x0000, study(PatientName="A"))
    success_of(asce.n_set(mpps, "1.2.3", study(PatientName="B")))
    assert success_of(asce.n_get(mpps, "1.2.3", ["PatientName", 0x00100020])).data_set == study(
        PatientName="DOE^JANE"
    )
    success_of(asce.n_action(mpps, "1.2.3", 1))
    assert success_of(asce.n_delete(mpps, "1.2.3")).status == 0x0112
    assert [each.OPERATION for each in net.archive.film.asked] == [
        "N-CREATE",
        "N-SET",
        "N-GET",
        "N-ACTION",
        "N-DELETE",
    ]
    asked: Any = net.archive.film.asked[2]
    assert asked.attribute_identifier_list == (0x00100010, 0x00100020)
    with pytest.raises(LocalProtocolError, match="not the keyword"):
        asce.n_get(mpps, "1.2.3", ["PatientNam"])


def test_a_meta_sop_class_lends_its_context(net: Net) -> None:
    """PS3.4 H.3: the instances of a meta SOP class have classes of their own."""
    meta = uids.BasicGrayscalePrintManagementMeta
    asce = net.associate(meta)
    reply = success_of(asce.n_create(uids.BasicFilmSession, study(), meta=meta))
    assert reply.status == 0x0000
    assert net.archive.film.asked[0].sop_class_uid == uids.BasicFilmSession


def test_an_event_is_reported_by_the_scp() -> None:
    @sop_classes([uids.ModalityPerformedProcedureStep])
    def listener(asce: Any, ctx: PContextDef, msg: Request) -> int:
        heard.append(msg)
        return 0x0000

    heard: list[Request] = []
    net = Net(AE("SCU").add_scu(listener))
    net.associate()
    (acceptor,) = net.archive.associations
    assert isinstance(acceptor, Association)
    reply = success_of(acceptor.n_event_report(uids.ModalityPerformedProcedureStep, "1.2.3", 1))
    assert reply.status == 0x0000
    assert len(heard) == 1
