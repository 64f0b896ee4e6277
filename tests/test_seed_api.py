"""netdicom2's Service SOP Classes page, sentence by sentence: the service classes keep what users rely on.

Each test is one sentence about ``netdicom2.sopclass`` in our words, shown over two AEs in memory. Where we
say something else than the page, the docstring says why; faults of the ancestor that are gone are in
``test_defects.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from twisted.internet import defer

from netdicom_tx import AE, EventHandlingError, PContextDef, Status, sopclass
from netdicom_tx.asceprovider import Association
from netdicom_tx.dimsemessages import (
    CEchoRQ,
    CFindRQ,
    CStoreRQ,
    NActionRQ,
    NDeleteRQ,
    NEventReportRQ,
    Request,
)
from netdicom_tx.dsutils import decode
from netdicom_tx.sopclass import (
    MessageDispatcher,
    MessageDispatcherSCP,
    MessageDispatcherSCU,
    StorageCommitment,
    modality_work_list_scp,
    modality_work_list_scu,
    normalized_scu,
    qr_find_scp,
    qr_find_scu,
    qr_get_scp,
    qr_get_scu,
    qr_move_scp,
    qr_move_scu,
    sop_classes,
    storage_commitment_scu,
    storage_scp,
    storage_scu,
    store_in_file,
    verification_scp,
    verification_scu,
)
from netdicom_tx.statuses import SUCCESS
from netdicom_tx.testing import connected, success_of
from netdicom_tx.uids import MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS as WORKLIST
from netdicom_tx.uids import PATIENT_ROOT_FIND_SOP_CLASS as PATIENT_FIND
from netdicom_tx.uids import PATIENT_ROOT_GET_SOP_CLASS as PATIENT_GET
from netdicom_tx.uids import PATIENT_ROOT_MOVE_SOP_CLASS as PATIENT_MOVE
from netdicom_tx.uids import STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS as COMMITMENT
from netdicom_tx.uids import STORAGE_COMMITMENT_PUSH_MODEL_SOP_INSTANCE as WELL_KNOWN
from netdicom_tx.uids import STORAGE_SOP_CLASSES
from netdicom_tx.uids import STUDY_ROOT_FIND_SOP_CLASS as STUDY_FIND
from netdicom_tx.uids import STUDY_ROOT_GET_SOP_CLASS as STUDY_GET
from netdicom_tx.uids import STUDY_ROOT_MOVE_SOP_CLASS as STUDY_MOVE
from netdicom_tx.uids import VERIFICATION_SOP_CLASS as VERIFICATION

T = TypeVar("T")

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
FILE = str(get_testdata_file("CT_small.dcm"))
TWO = [FILE, str(get_testdata_file("MR_small.dcm"))]
UIDS = [("1.2", "1.2.1"), ("1.2", "1.2.2")]


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return success_of(defer.Deferred.fromCoroutine(coroutine))


def read(stream: Any) -> list[Any]:
    """All items of a stream."""

    async def collect() -> list[Any]:
        return [item async for item in stream]

    return run(collect())


def data_set(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


class Seen:
    """A service that keeps what it is called with, and answers Success."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, asce: Association, ctx: PContextDef, msg: Request) -> int:
        self.calls.append((asce, ctx, msg))
        return SUCCESS

    @property
    def message(self) -> Any:
        """The only one that came."""
        ((_, _, msg),) = self.calls
        return msg


def asked(scu: Any, sop_class: str, *arguments: Any, **named: Any) -> tuple[Any, Any]:
    """What an SCU sends, and what it gives; its peer answers Success."""
    seen = Seen()
    ae = AE("SCU").add_scu(scu, [sop_class])
    with connected(ae, AE("SCP").add_scp(seen, [sop_class]), {sop_class: [EXPLICIT]}) as pair:
        result = pair.requestor.get_scu(sop_class)(*arguments, **named)
        if isinstance(result, defer.Deferred):
            return seen.message, success_of(result)
        return seen.message, read(result)


class Hooked(AE):
    """An AE whose hooks keep what they are called with, and do what the test says.

    Attributes:
        does: By the name of a hook.
    """

    def __init__(self, title: str, *services: Any) -> None:
        super().__init__(title)
        self.calls: list[tuple[Any, ...]] = []
        self.does: dict[str, Callable[..., Any]] = {}
        for each in services:
            self.add_scp(each)

    def _called(self, name: str, *arguments: Any) -> Any:
        self.calls.append((name, *arguments))
        return self.does[name](*arguments)

    def on_receive_echo(self, context: Any) -> Any:
        return self._called("echo", context)

    def on_receive_store(self, context: Any, ds: Any) -> Any:
        return self._called("store", context, ds)

    def on_receive_find(self, context: Any, ds: Any) -> Any:
        return self._called("find", context, ds)

    def on_receive_get(self, context: Any, ds: Any) -> Any:
        return self._called("get", context, ds)

    def on_receive_move(self, context: Any, ds: Any, destination: str) -> Any:
        return self._called("move", context, ds, destination)

    def on_commitment_request(self, remote_ae: str, uids: Any) -> Any:
        return self._called("request", remote_ae, list(uids))

    def on_commitment_response(self, transaction_uid: str, success: Any, failure: Any) -> Any:
        return self._called("response", transaction_uid, list(success), list(failure))


def raising(*arguments: Any) -> Any:
    raise EventHandlingError("not today")


# -- the page as a whole -----------------------------------------------------------------------------

SERVICES = {
    "verification_scu": ([VERIFICATION], "asce, ctx, msg_id"),
    "verification_scp": ([VERIFICATION], "asce, ctx, msg"),
    "storage_scu": ([], "asce, ctx, dataset, msg_id"),
    "storage_scp": (STORAGE_SOP_CLASSES, "asce, ctx, msg"),
    "qr_find_scu": ([PATIENT_FIND, STUDY_FIND], "asce, ctx, ds, msg_id"),
    "qr_find_scp": ([PATIENT_FIND, STUDY_FIND], "asce, ctx, msg"),
    "qr_get_scu": ([PATIENT_GET, STUDY_GET], "asce, ctx, ds, msg_id"),
    "qr_get_scp": ([PATIENT_GET, STUDY_GET], "asce, ctx, msg"),
    "qr_move_scu": ([PATIENT_MOVE, STUDY_MOVE], "asce, ctx, ds, dest_ae, msg_id"),
    "qr_move_scp": ([PATIENT_MOVE, STUDY_MOVE], "asce, ctx, msg"),
    "modality_work_list_scu": ([WORKLIST], "asce, ctx, ds, msg_id"),
    "modality_work_list_scp": ([WORKLIST], "asce, ctx, msg"),
    "storage_commitment_scu": ([COMMITMENT], "asce, ctx, transaction_uid, uids, msg_id"),
}


@pytest.mark.parametrize("name", SERVICES)
def test_a_role_of_a_service_is_a_callable_that_lists_its_sop_classes(name: str) -> None:
    service, (expected, _) = getattr(sopclass, name), SERVICES[name]
    assert callable(service)
    assert set(expected) <= set(service.sop_classes)
    assert bool(expected) == bool(service.sop_classes)


@pytest.mark.parametrize("name", SERVICES)
def test_the_parameters_of_a_service_have_the_names_and_the_order_of_the_page(name: str) -> None:
    """``msg_id`` may be left out: the association counts. What we added is by keyword only."""
    parameters = inspect.signature(getattr(sopclass, name)).parameters.values()
    own = [each for each in parameters if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert ", ".join(each.name for each in own) == SERVICES[name][1]
    left_out = [each.name for each in own if each.default is not inspect.Parameter.empty]
    assert left_out == [each.name for each in own if each.name == "msg_id"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MessageDispatcher.get_method", "self, msg"),
        ("MessageDispatcherSCU.__call__", "self, asce, ctx, msg, *args, **kwargs"),
        ("MessageDispatcherSCP.__call__", "self, asce, ctx, msg"),
        ("StorageCommitment.n_action", "self, asce, ctx, msg"),
        ("StorageCommitment.n_event_report", "self, asce, ctx, msg"),
    ],
)
def test_the_parameters_of_a_method_have_the_names_and_the_order_of_the_page(
    name: str, expected: str
) -> None:
    kind, method = name.split(".")
    parameters = inspect.signature(getattr(getattr(sopclass, kind), method)).parameters.values()
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    assert ", ".join(f"{stars.get(each.kind, '')}{each.name}" for each in parameters) == expected


def test_an_scp_is_called_with_its_association_the_context_and_the_message() -> None:
    seen = Seen()
    with connected(
        AE("SCU").add_scu(verification_scu), AE("SCP").add_scp(seen, [VERIFICATION])
    ) as pair:
        success_of(pair.requestor.get_scu(VERIFICATION)(7))
        ((asce, ctx, msg),) = seen.calls
        assert asce is pair.acceptor
        assert isinstance(msg, CEchoRQ)
        assert msg.message_id == 7
        (accepted,) = pair.requestor.accepted_contexts.values()
        assert (ctx.id, ctx.sop_class) == (accepted.id, VERIFICATION)


def test_the_association_leads_an_scp_to_its_ae_and_sends_and_receives() -> None:
    """Here the SCP asks its peer something before it answers; what it gets is what it answers."""
    told: list[Any] = []

    @sop_classes([VERIFICATION])
    async def echoing_back(asce: Association, ctx: PContextDef, msg: Request) -> int:
        told.append(asce.ae)
        question = NEventReportRQ(
            affected_sop_class_uid=VERIFICATION, affected_sop_instance_uid="1.2", event_type_id=1
        )
        return (await asce.request(question, ctx)).status

    scu = AE("SCU").add_scu(verification_scu).add_scp(lambda *_: 0xB000, [VERIFICATION])
    scp = AE("SCP").add_scp(echoing_back)
    with connected(scu, scp) as pair:
        assert success_of(pair.requestor.get_scu(VERIFICATION)()) == 0xB000
    assert told == [scp]


@pytest.mark.parametrize("syntax", [EXPLICIT, "1.2.840.10008.1.2"])
def test_the_context_has_its_id_the_sop_class_and_the_transfer_syntax_that_was_selected(
    syntax: str,
) -> None:
    seen = Seen()
    scu = AE("SCU").add_scu(verification_scu)
    contexts = {CT: [EXPLICIT], VERIFICATION: [syntax]}
    scp = AE("SCP").add_scp(seen, [VERIFICATION]).add_scp(storage_scp)
    with connected(scu, scp, contexts) as pair:
        success_of(pair.requestor.get_scu(VERIFICATION)())
    ((_, ctx, _),) = seen.calls
    assert (ctx.id, ctx.sop_class, ctx.supported_ts) == (3, VERIFICATION, syntax)


def test_the_association_gives_an_scu_its_first_two_arguments_and_the_user_the_rest() -> None:
    def scu(asce: Association, ctx: PContextDef, *args: Any, **kwargs: Any) -> Any:
        return asce, ctx.sop_class, args, kwargs

    ae = AE("SCU").add_scu(scu, [VERIFICATION])
    with connected(ae, AE("SCP").add_scp(verification_scp)) as pair:
        result = pair.requestor.get_scu(VERIFICATION)(1, 2, three=3)
        assert result == (pair.requestor, VERIFICATION, (1, 2), {"three": 3})


# -- decorators ---------------------------------------------------------------------------------------


def test_sop_classes_sets_the_attribute_of_what_it_decorates() -> None:
    @sop_classes(["1.2.3", "1.2.4"])
    def service(asce: Any, ctx: Any, msg: Any) -> int: ...

    assert tuple(service.sop_classes) == ("1.2.3", "1.2.4")  # type: ignore[attr-defined]


def test_sop_classes_extends_the_attribute_when_there_is_one() -> None:
    @sop_classes(["1.2.5"])
    @sop_classes(["1.2.3", "1.2.4"])
    def service(asce: Any, ctx: Any, msg: Any) -> int: ...

    assert tuple(service.sop_classes) == ("1.2.3", "1.2.4", "1.2.5")  # type: ignore[attr-defined]


def test_an_ae_serves_the_sop_classes_that_a_service_lists() -> None:
    seen = sop_classes([VERIFICATION])(Seen())
    with connected(AE("SCU").add_scu(verification_scu), AE("SCP").add_scp(seen)) as pair:
        success_of(pair.requestor.get_scu(VERIFICATION)())
    assert len(seen.calls) == 1


def test_store_in_file_sets_the_attribute_to_true() -> None:
    @store_in_file
    def service(asce: Any, ctx: Any, msg: Any) -> int: ...

    assert service.store_in_file is True  # type: ignore[attr-defined]


@pytest.mark.parametrize("in_file", [True, False])
def test_a_data_set_comes_in_the_file_that_the_ae_gives_when_a_service_wants_it(
    in_file: bool, tmp_path: Path
) -> None:
    came: list[bytes] = []

    def service(asce: Association, ctx: PContextDef, msg: Any) -> int:
        assert hasattr(msg.data_set, "read") == in_file
        came.append(msg.data_set.read() if in_file else msg.data_set)
        return SUCCESS

    class Node(AE):
        def get_file(self, asce: Any, context: Any, command_set: Any) -> tuple[BinaryIO, int]:
            assert command_set.affected_sop_instance_uid == dcmread(FILE).SOPInstanceUID
            file = (tmp_path / "spool").open("w+b")
            file.write(b"mine")
            return file, 0

    scp = Node("SCP").add_scp(store_in_file(service) if in_file else service, [CT])
    scu = AE("SCU").add_scu(storage_scu, [CT])
    with connected(scu, scp, {CT: [EXPLICIT]}) as pair:
        assert success_of(pair.requestor.get_scu(CT)(FILE)) == SUCCESS
    (octets,) = came
    assert (tmp_path / "spool").exists() == in_file
    if in_file:
        assert octets.startswith(b"mine")
        octets = octets[4:]
    assert decode(octets, EXPLICIT).SOPInstanceUID == dcmread(FILE).SOPInstanceUID


# -- message dispatchers --------------------------------------------------------------------------------


def test_a_dispatcher_selects_its_method_by_the_type_of_the_message() -> None:
    class Ours(MessageDispatcher):
        def c_echo(self) -> str:
            return "echo"

        def n_delete(self) -> str:
            return "delete"

    echo = CEchoRQ(affected_sop_class_uid=VERIFICATION, message_id=1)
    delete = NDeleteRQ(requested_sop_class_uid="1.2", requested_sop_instance_uid="1.3")
    assert [Ours().get_method(each)() for each in (echo, delete)] == ["echo", "delete"]


def test_a_message_without_a_method_is_no_operation_of_the_service() -> None:
    """0x0211 (design, section 4). The ancestor raised DIMSEProcessingError, which ended the association."""

    class Nothing(MessageDispatcherSCP):
        sop_classes = (VERIFICATION,)

    with connected(AE("SCU").add_scu(verification_scu), AE("SCP").add_scp(Nothing())) as pair:
        for _ in range(2):
            assert success_of(pair.requestor.get_scu(VERIFICATION)()) == 0x0211


def test_an_scu_dispatcher_passes_all_its_arguments_on_to_the_method() -> None:
    class Ours(MessageDispatcherSCU):
        def c_echo(self, *arguments: Any, **named: Any) -> Any:
            return arguments, named

    echo = CEchoRQ(affected_sop_class_uid=VERIFICATION, message_id=1)
    scu = AE("SCU").add_scu(Ours(), [VERIFICATION])
    with connected(scu, AE("SCP").add_scp(verification_scp)) as pair:
        arguments, named = pair.requestor.get_scu(VERIFICATION)(echo, 1, two=2)
        (ctx,) = pair.requestor.accepted_contexts.values()
        assert arguments == (pair.requestor, ctx, echo, 1)
        assert named == {"two": 2}


def test_an_scp_dispatcher_passes_the_message_on_to_the_method() -> None:
    class Ours(MessageDispatcherSCP):
        sop_classes = (VERIFICATION,)

        def c_echo(self, asce: Association, ctx: PContextDef, msg: Request) -> int:
            called.append((asce, ctx.sop_class, msg.message_id))
            return 0xB000

    called: list[Any] = []
    with connected(AE("SCU").add_scu(verification_scu), AE("SCP").add_scp(Ours())) as pair:
        assert success_of(pair.requestor.get_scu(VERIFICATION)(9)) == 0xB000
        assert called == [(pair.acceptor, VERIFICATION, 9)]


# -- verification ---------------------------------------------------------------------------------------


def test_verification_scu_sends_a_request_with_the_message_id_and_gives_its_status() -> None:
    message, status = asked(verification_scu, VERIFICATION, 77)
    assert (type(message), message.message_id) == (CEchoRQ, 77)
    assert message.affected_sop_class_uid == VERIFICATION
    assert isinstance(status, Status)
    assert status == SUCCESS


@pytest.mark.parametrize("status", [SUCCESS, 0x0122])
def test_verification_scp_asks_on_receive_echo_and_answers_with_its_status(status: int) -> None:
    scp = Hooked("SCP", verification_scp)
    scp.does["echo"] = lambda context: status
    with connected(AE("SCU").add_scu(verification_scu), scp) as pair:
        assert success_of(pair.requestor.get_scu(VERIFICATION)()) == status
    ((_, context),) = scp.calls
    assert context.sop_class == VERIFICATION


def test_verification_scp_answers_processing_failure_when_the_hook_cannot() -> None:
    scp = Hooked("SCP", verification_scp)
    scp.does["echo"] = raising
    with connected(AE("SCU").add_scu(verification_scu), scp) as pair:
        status = success_of(pair.requestor.get_scu(VERIFICATION)())
    assert (status, status.comment) == (0x0110, "not today")


# -- storage --------------------------------------------------------------------------------------------


def test_storage_scu_has_no_sop_classes_so_they_are_named_when_it_is_added() -> None:
    with pytest.raises(ValueError, match="name them"):
        AE("SCU").add_scu(storage_scu)
    assert [uid for uid, _ in AE("SCU").add_scu(storage_scu, [CT]).supported_scu] == [CT]


@pytest.mark.parametrize("kind", ["data set", "file name"])
def test_storage_scu_sends_a_data_set_or_what_a_file_name_names(kind: str) -> None:
    ds = dcmread(FILE)
    message, status = asked(storage_scu, CT, ds if kind == "data set" else FILE, 5)
    assert (type(message), message.message_id, status) == (CStoreRQ, 5, SUCCESS)
    assert message.affected_sop_class_uid == ds.SOPClassUID
    assert message.affected_sop_instance_uid == ds.SOPInstanceUID
    assert decode(message.data_set, EXPLICIT) == ds


def storing(scp: AE) -> Status:
    """The status of a C-STORE of the file."""
    scu = AE("SCU").add_scu(storage_scu, [CT])
    with connected(scu, scp, {CT: [EXPLICIT]}) as pair:
        return success_of(pair.requestor.get_scu(CT)(FILE))


@pytest.mark.parametrize("status", [SUCCESS, 0xB000, 0xA700])
def test_storage_scp_gives_the_file_to_on_receive_store_and_answers_with_its_status(
    status: int,
) -> None:
    scp = Hooked("SCP", storage_scp)
    kept: list[Dataset] = []

    def keep(context: PContextDef, ds: BinaryIO) -> int:
        kept.append(dcmread(ds))
        return status

    scp.does["store"] = keep
    answer = storing(scp)
    assert (answer, isinstance(answer, Status)) == (status, True)
    assert kept == [dcmread(FILE)]
    ((_, context, _),) = scp.calls
    assert context.sop_class == CT


def test_storage_scp_answers_cannot_understand_when_the_hook_cannot() -> None:
    scp = Hooked("SCP", storage_scp)
    scp.does["store"] = raising
    status = storing(scp)
    assert (status, status.comment) == (0xC000, "not today")


@pytest.mark.parametrize("does", [lambda *_: SUCCESS, raising])
def test_storage_scp_closes_the_file_when_the_hook_is_done(does: Any) -> None:
    scp = Hooked("SCP", storage_scp)
    scp.does["store"] = does
    storing(scp)
    ((_, _, file),) = scp.calls
    assert file.closed


def test_storage_scp_wants_its_data_sets_in_files() -> None:
    assert storage_scp.store_in_file is True  # type: ignore[attr-defined]


# -- C-FIND, and the worklist which is one ---------------------------------------------------------------

FINDS = [
    pytest.param(qr_find_scu, qr_find_scp, STUDY_FIND, id="query"),
    pytest.param(modality_work_list_scu, modality_work_list_scp, WORKLIST, id="worklist"),
]


@pytest.mark.parametrize(("scu", "_", "sop_class"), FINDS)
def test_find_scu_sends_the_data_set_in_c_find_with_the_message_id(
    scu: Any, _: Any, sop_class: str
) -> None:
    ds = data_set(PatientID="P*")
    message, _ = asked(scu, sop_class, ds, 3)
    assert (type(message), message.message_id) == (CFindRQ, 3)
    assert message.affected_sop_class_uid == sop_class
    assert decode(message.data_set, EXPLICIT) == ds


def finding(scu: Any, scp: Any, sop_class: str, does: Any) -> tuple[Hooked, list[Any]]:
    """The AE that was asked, and what the SCU gave."""
    ae = Hooked("SCP", scp)
    ae.does["find"] = does
    with connected(AE("SCU").add_scu(scu), ae) as pair:
        return ae, read(pair.requestor.get_scu(sop_class)(data_set(PatientID="P*")))


@pytest.mark.parametrize(("scu", "scp", "sop_class"), FINDS)
def test_find_scu_yields_data_set_and_status_until_the_status_is_not_pending(
    scu: Any, scp: Any, sop_class: str
) -> None:
    """In this order for the worklist too, of which the ancestor yielded the status first."""
    matches = [data_set(PatientID="P1"), data_set(PatientID="P2")]
    _, items = finding(scu, scp, sop_class, lambda *_: iter(matches))
    assert items == [(matches[0], 0xFF00), (matches[1], 0xFF00), (None, SUCCESS)]
    assert [status.is_pending for _, status in items] == [True, True, False]


@pytest.mark.parametrize(("scu", "scp", "sop_class"), FINDS)
def test_find_scp_calls_on_receive_find_with_the_context_and_what_is_looked_for(
    scu: Any, scp: Any, sop_class: str
) -> None:
    ae, _ = finding(scu, scp, sop_class, lambda *_: iter([]))
    ((_, context, ds),) = ae.calls
    assert context.sop_class == sop_class
    assert ds == data_set(PatientID="P*")


@pytest.mark.parametrize(("scu", "scp", "sop_class"), FINDS)
def test_find_scp_sends_each_pair_of_the_generator_and_success_behind_them(
    scu: Any, scp: Any, sop_class: str
) -> None:
    one, other = data_set(PatientID="P1"), data_set(PatientID="P2")

    def matches(context: PContextDef, ds: Dataset) -> Iterator[tuple[Dataset, int]]:
        yield one, 0xFF00
        yield other, 0xFF01

    _, items = finding(scu, scp, sop_class, matches)
    assert items == [(one, 0xFF00), (other, 0xFF01), (None, SUCCESS)]


@pytest.mark.parametrize(("scu", "scp", "sop_class"), FINDS)
def test_find_scp_answers_success_alone_when_the_generator_is_empty(
    scu: Any, scp: Any, sop_class: str
) -> None:
    assert finding(scu, scp, sop_class, lambda *_: iter([]))[1] == [(None, SUCCESS)]


@pytest.mark.parametrize(("scu", "scp", "sop_class"), FINDS)
def test_find_scp_answers_unable_to_process_when_the_hook_cannot(
    scu: Any, scp: Any, sop_class: str
) -> None:
    _, items = finding(scu, scp, sop_class, raising)
    ((found, status),) = items
    assert (found, status, status.comment) == (None, 0xC000, "not today")


# -- C-GET ----------------------------------------------------------------------------------------------


@sop_classes(STORAGE_SOP_CLASSES)
def storage_in_memory(asce: Association, ctx: PContextDef, msg: Any) -> Any:
    """Storage of small things, such as structured reports."""
    return asce.ae.on_receive_store(ctx, msg.data_set)


def getting(storage: Any, does: Any = lambda *_: SUCCESS) -> tuple[Hooked, Hooked, list[Any]]:
    """The AE that got, the one that gave, and what the SCU yielded, read where it is a file."""
    scu, scp = Hooked("SCU", storage), Hooked("SCP", qr_get_scp)
    scu.add_scu(qr_get_scu, [STUDY_GET])
    scu.does["store"] = does
    scp.does["get"] = lambda context, ds: (len(TWO), TWO)

    async def collect(asce: Association) -> list[Any]:
        found = []
        async for context, each in asce.get_scu(STUDY_GET)(data_set(StudyInstanceUID="1.2")):
            found.append((context, dcmread(each) if hasattr(each, "read") else each))
        return found

    with connected(scu, scp) as pair:
        return scu, scp, run(collect(pair.requestor))


def test_get_scp_asks_on_receive_get_how_many_and_which_instances_there_are() -> None:
    """The ancestor had no SCP; this is the counterpart of its C-MOVE."""
    _, scp, items = getting(storage_scp)
    ((_, context, ds),) = scp.calls
    assert (context.sop_class, ds) == (STUDY_GET, data_set(StudyInstanceUID="1.2"))
    assert [each.SOPInstanceUID for _, each in items[:-1]] == [
        dcmread(file).SOPInstanceUID for file in TWO
    ]


def test_get_scu_receives_the_instances_on_its_own_association_by_on_receive_store() -> None:
    open_then: list[int] = []

    def keep(context: PContextDef, ds: BinaryIO) -> int:
        open_then.append(len(scu.associations))
        return SUCCESS

    scu, scp = Hooked("SCU", storage_scp), Hooked("SCP", qr_get_scp)
    scu.add_scu(qr_get_scu, [STUDY_GET])
    scu.does["store"], scp.does["get"] = keep, lambda *_: (len(TWO), TWO)
    with connected(scu, scp) as pair:
        read(pair.requestor.get_scu(STUDY_GET)(data_set()))
    assert open_then == [1, 1]
    assert [context.sop_class for _, context, _ in scu.calls] == [
        dcmread(file).SOPClassUID for file in TWO
    ]


def test_get_scu_yields_the_context_and_a_file_when_store_in_file_is_set() -> None:
    """At the end (None, status), by which a failure is seen; the ancestor did not tell."""
    *found, end = getting(storage_scp)[2]
    assert [(context.sop_class, ds) for context, ds in found] == [
        (dcmread(file).SOPClassUID, dcmread(file)) for file in TWO
    ]
    assert end == (None, SUCCESS)


def test_get_scu_yields_the_context_and_a_data_set_when_it_is_not() -> None:
    *found, _ = getting(storage_in_memory)[2]
    assert [type(ds) for _, ds in found] == [Dataset, Dataset]
    assert [ds.SOPInstanceUID for _, ds in found] == [dcmread(file).SOPInstanceUID for file in TWO]


def test_get_scu_needs_a_context_for_each_kind_of_instance() -> None:
    """What was not proposed fails at the SCP, and the others come."""
    *found, (_, status) = getting(sop_classes([CT])(lambda *arguments: SUCCESS))[2]
    assert [context.sop_class for context, _ in found] == [CT]
    assert status == 0xB000


def test_get_scu_answers_a_failure_and_yields_nothing_when_the_hook_cannot() -> None:
    _, _, items = getting(storage_scp, raising)
    ((_, status),) = items
    assert status == 0xA702


# -- C-MOVE ---------------------------------------------------------------------------------------------


def moving(sources: list[str] = TWO, known: bool = True) -> tuple[Hooked, Hooked, list[Any]]:
    """The AE that was asked, the destination, and what the SCU yielded."""
    scp, destination = Hooked("SCP", qr_move_scp), Hooked("DEST", storage_scp)
    destination.does["store"] = lambda context, ds: SUCCESS
    with connected(AE("SCU").add_scu(qr_move_scu), scp) as pair:
        remote = pair.network.add(destination) if known else None
        scp.does["move"] = lambda *_: (remote, len(sources), iter(sources))
        scu = pair.requestor.get_scu(STUDY_MOVE)
        return scp, destination, read(scu(data_set(StudyInstanceUID="1.2"), "DEST"))


def test_move_scu_asks_for_a_destination_with_the_parameters_of_the_request() -> None:
    scp, _, _ = moving()
    ((_, context, ds, destination),) = scp.calls
    assert (context.sop_class, destination) == (STUDY_MOVE, "DEST")
    assert ds == data_set(StudyInstanceUID="1.2")


def test_move_scu_yields_statuses_and_responses_by_which_progress_is_seen() -> None:
    """The final one too, which the ancestor kept to itself."""
    *_, items = moving()
    assert [
        (int(status), response.number_of_completed_suboperations) for status, response in items
    ] == [(0xFF00, 1), (0x0000, 2)]


def test_move_scp_sends_what_on_receive_move_names_to_the_remote_ae_that_it_names() -> None:
    _, destination, _ = moving()
    assert [context.sop_class for _, context, _ in destination.calls] == [
        dcmread(file).SOPClassUID for file in TWO
    ]


def test_move_scp_answers_at_once_when_there_is_nothing_to_move() -> None:
    _, destination, items = moving([])
    ((status, _),) = items
    assert (status, destination.calls) == (SUCCESS, [])


def test_move_scp_answers_destination_unknown_when_on_receive_move_names_none() -> None:
    *_, items = moving(known=False)
    assert [int(status) for status, _ in items] == [0xA801]


@pytest.mark.parametrize(
    ("scu", "sop_class", "arguments"),
    [(qr_get_scu, STUDY_GET, ()), (qr_move_scu, STUDY_MOVE, ("DEST",))],
    ids=["get", "move"],
)
def test_retrieve_scus_send_the_data_set_with_the_message_id(
    scu: Any, sop_class: str, arguments: tuple[str, ...]
) -> None:
    ds = data_set(StudyInstanceUID="1.2")
    message, _ = asked(scu, sop_class, ds, *arguments, 6)
    assert (message.message_id, message.affected_sop_class_uid) == (6, sop_class)
    assert decode(message.data_set, EXPLICIT) == ds


@pytest.mark.parametrize(
    ("scu", "scp", "sop_class", "arguments"),
    [(qr_get_scu, qr_get_scp, STUDY_GET, ()), (qr_move_scu, qr_move_scp, STUDY_MOVE, ("DEST",))],
    ids=["get", "move"],
)
def test_retrieve_scps_answer_unable_to_process_when_the_hook_cannot(
    scu: Any, scp: Any, sop_class: str, arguments: tuple[str, ...]
) -> None:
    ae = Hooked("SCP", scp)
    ae.does = {"get": raising, "move": raising}
    with connected(AE("SCU").add_scu(scu), ae) as pair:
        items = read(pair.requestor.get_scu(sop_class)(data_set(), *arguments))
    assert 0xC000 in [int(each) for each in items[-1] if isinstance(each, Status)]


# -- storage commitment -----------------------------------------------------------------------------------


class Commitments:
    """A requestor, and a provider that keeps what the test says."""

    def __init__(self, decision: Any = lambda *_: (None, UIDS, None)) -> None:
        self.scu = Hooked("SCU", StorageCommitment())
        self.scu.add_scu(storage_commitment_scu)
        self.scu.does["response"] = lambda *_: None
        self.scp = Hooked("SCP", StorageCommitment())
        self.scp.does["request"] = decision
        self.sent: list[Any] = []  # requests of the provider to the requestor
        self.answers: list[Any] = []

    def ask(self, hold: bool = True) -> int:
        """The status of a request; then time passes, in which the report comes."""
        with connected(self.scu, self.scp) as pair:
            status = success_of(pair.requestor.get_scu(COMMITMENT)("1.9", UIDS))
            if not hold:
                success_of(pair.requestor.release())
            pair.advance(1)
            return int(status)

    def report(self, event: int = 1, **information: Any) -> Any:
        """The response to a report that the provider sends."""
        with connected(self.scu, self.scp) as pair:
            (ctx,) = pair.acceptor.contexts_for(COMMITMENT)
            ds = data_set(TransactionUID="1.9", **information)
            reported = normalized_scu(pair.acceptor, ctx).n_event_report(WELL_KNOWN, event, ds)
            return success_of(reported)


def reference(sop_class: str, uid: str, **more: Any) -> Dataset:
    return data_set(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid, **more)


def test_storage_commitment_scu_requests_commitment_of_uids_in_a_transaction() -> None:
    message, status = asked(storage_commitment_scu, COMMITMENT, "1.9", UIDS, 4)
    assert (type(message), message.message_id, message.action_type_id) == (NActionRQ, 4, 1)
    assert message.requested_sop_class_uid == COMMITMENT
    assert message.requested_sop_instance_uid == WELL_KNOWN
    assert decode(message.data_set, EXPLICIT) == data_set(
        TransactionUID="1.9", ReferencedSOPSequence=[reference(*each) for each in UIDS]
    )
    assert (status, isinstance(status, Status)) == (SUCCESS, True)


def test_storage_commitment_names_the_reasons_of_failure() -> None:
    """PS3.3 C.14.1.1."""
    assert {name: value for name, value in vars(StorageCommitment).items() if name.isupper()} == {
        "PROCESSING_FAILURE": 0x0110,
        "NO_SUCH_OBJECT_INSTANCE": 0x0112,
        "RESOURCE_LIMITATION": 0x0213,
        "REFERENCED_SOP_CLASS_NOT_SUPPORTED": 0x0122,
        "CLASS_OR_INSTANCE_CONFLICT": 0x0119,
        "DUPLICATE_TRANSACTION_UID": 0x0131,
    }


def test_storage_commitment_is_a_dispatcher_of_its_sop_class() -> None:
    assert issubclass(StorageCommitment, MessageDispatcherSCP)
    assert StorageCommitment.sop_classes == (COMMITMENT,)


def test_n_action_asks_on_commitment_request_with_the_ae_title_and_the_uids() -> None:
    both = Commitments()
    assert both.ask() == SUCCESS
    assert both.scp.calls == [("request", "SCU", UIDS)]


def test_n_action_answers_processing_failure_and_reports_nothing_when_the_hook_cannot() -> None:
    both = Commitments(raising)
    assert both.ask() == 0x0110
    assert both.scu.calls == []


@pytest.mark.parametrize(
    ("success", "failure"),
    [
        (UIDS, None),
        (UIDS, []),
        (UIDS[:1], [(*UIDS[1], 0x0112)]),
        (None, [(*each, 0x0110) for each in UIDS]),
    ],
)
def test_after_n_action_was_answered_what_the_hook_returned_is_reported(
    success: Any, failure: Any
) -> None:
    """Both lists may be None. The hook of the requestor has them as the provider's hook gave them."""
    both = Commitments(lambda *_: (None, iter(success) if success else None, failure))
    assert both.ask() == SUCCESS
    assert both.scu.calls == [("response", "1.9", list(success or ()), list(failure or ()))]


def test_the_report_has_event_type_2_when_there_are_failures_and_else_1() -> None:
    """PS3.4 J.3.3.1.1; the sequences are there when they have items."""
    one, failed = UIDS[:1], [(*UIDS[1], 0x0112)]
    for success, failure, event, sequences in (
        (one, [], 1, {"ReferencedSOPSequence"}),
        (one, failed, 2, {"ReferencedSOPSequence", "FailedSOPSequence"}),
        ([], failed, 2, {"FailedSOPSequence"}),
    ):
        both = Commitments(lambda *_, told=(None, success, failure): told)
        seen = Seen()
        both.scu = AE("SCU").add_scu(storage_commitment_scu).add_scp(seen, [COMMITMENT])  # type: ignore[assignment]
        assert both.ask() == SUCCESS
        message = seen.message
        assert (type(message), message.event_type_id) == (NEventReportRQ, event)
        assert message.affected_sop_instance_uid == WELL_KNOWN
        ((_, ctx, _),) = seen.calls
        ds = decode(message.data_set, ctx.supported_ts)
        assert {each.keyword for each in ds} == {"TransactionUID", *sequences}


def test_the_report_goes_to_the_remote_ae_of_the_hook_on_a_new_association() -> None:
    """When the requestor has released; while it holds the association it comes on that (PS3.4 J.3.3)."""
    both = Commitments()
    with connected(both.scu, both.scp) as pair:
        remote = pair.network.remote(both.scu)
        both.scp.does["request"] = lambda *_: (remote, UIDS, [])
        assert success_of(pair.requestor.get_scu(COMMITMENT)("1.9", UIDS)) == SUCCESS
        success_of(pair.requestor.release())
        assert both.scu.associations == frozenset()
        pair.advance(1)
    assert both.scu.calls == [("response", "1.9", UIDS, [])]


def test_n_event_report_gives_transaction_success_and_failure_to_on_commitment_response() -> None:
    both = Commitments()
    response = both.report(
        2,
        ReferencedSOPSequence=[reference(*UIDS[0])],
        FailedSOPSequence=[reference(*UIDS[1], FailureReason=0x0213)],
    )
    assert (response.status, response.event_type_id) == (SUCCESS, 2)
    assert both.scu.calls == [("response", "1.9", UIDS[:1], [(*UIDS[1], 0x0213)])]


def test_n_event_report_gives_empty_lists_for_sequences_that_are_not_there() -> None:
    both = Commitments()
    assert both.report().status == SUCCESS
    assert both.scu.calls == [("response", "1.9", [], [])]


def test_n_event_report_answers_processing_failure_when_the_hook_cannot() -> None:
    both = Commitments()
    both.scu.does["response"] = raising
    response = both.report(ReferencedSOPSequence=[reference(*UIDS[0])])
    assert (response.status, response.error_comment) == (0x0110, "not today")


@pytest.mark.parametrize("kind", ["value", "Deferred", "coroutine"])
def test_a_hook_may_answer_later(kind: str) -> None:
    """Design, section 4; the ancestor blocked."""

    async def later(value: Any) -> Any:
        return value

    wrap: Any = {"value": lambda value: value, "Deferred": defer.succeed, "coroutine": later}[kind]
    echoed = Hooked("SCP", verification_scp)
    echoed.does["echo"] = lambda _: wrap(0xB000)
    with connected(AE("SCU").add_scu(verification_scu), echoed) as pair:
        assert success_of(pair.requestor.get_scu(VERIFICATION)()) == 0xB000
    stored = Hooked("SCP", storage_scp)
    stored.does["store"] = lambda *_: wrap(0xB007)
    assert storing(stored) == 0xB007
    _, items = finding(qr_find_scu, qr_find_scp, STUDY_FIND, lambda *_: wrap(iter([data_set()])))
    assert len(items) == 2
    both = Commitments(lambda *_: wrap((None, UIDS, [])))
    both.scu.does["response"] = lambda *_: wrap(None)
    assert both.ask() == SUCCESS
    assert len(both.scu.calls) == 1


def test_the_names_of_the_page_are_importable_from_one_place() -> None:
    """Design, section 4."""
    names = {"sop_classes", "store_in_file", "MessageDispatcher", "StorageCommitment", *SERVICES}
    assert names | {"MessageDispatcherSCU", "MessageDispatcherSCP"} <= set(sopclass.__all__)
    for name in sopclass.__all__:
        assert getattr(sopclass, name) is not None
