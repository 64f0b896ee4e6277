"""One way to customise a service: each decision has a handler, given, overridden, or asked of the AE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from twisted.internet import defer

from netdicom_tx import AE, Association, PContextDef, RemoteAE, storage_scu, uids, verification_scu
from netdicom_tx.dimsemessages import Request
from netdicom_tx.hooks import RequestContext
from netdicom_tx.sopclass import (
    Available,
    CommitmentResult,
    InstanceAvailabilityNotification,
    MessageDispatcherSCP,
    ModalityPerformedProcedureStep,
    ModalityWorklist,
    QueryRetrieveFind,
    QueryRetrieveGet,
    QueryRetrieveMove,
    Storage,
    StorageCommitment,
    Verification,
    availability,
    instance_availability_scu,
    modality_work_list_scu,
    procedure_step_scu,
    qr_find_scu,
    qr_get_scu,
    qr_move_scu,
    storage_commitment_scu,
)
from netdicom_tx.sopclass.procedure_step import report_procedure_step
from netdicom_tx.sopclass.storage_commitment import Report, send_report
from netdicom_tx.testing import Pair, connected, success_of
from netdicom_tx.uids import STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS as COMMITMENT
from support.doubles import logged_failures as logged_failures
from support.steps import new_step

CT = uids.CTImageStorage
FILE = str(get_testdata_file("CT_small.dcm"))
MPPS = uids.ModalityPerformedProcedureStep
RETRIEVE = uids.ModalityPerformedProcedureStepRetrieve
NOTIFICATION = uids.ModalityPerformedProcedureStepNotification
NOTICE = uids.InstanceAvailabilityNotification
WORKLIST = uids.MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS
FIND, GET, MOVE = (
    uids.STUDY_ROOT_FIND_SOP_CLASS,
    uids.STUDY_ROOT_GET_SOP_CLASS,
    uids.STUDY_ROOT_MOVE_SOP_CLASS,
)


def study() -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel, ds.StudyInstanceUID = "STUDY", "1.2"
    return ds


def last(stream: Any) -> int:
    """The final status of a stream."""
    return int(success_of(stream.done))


@dataclass(frozen=True)
class Case:
    """A handler, and what asks it.

    Attributes:
        kind: Its service.
        name: Its own name.
        hook: The name of the AE's hook that is asked without one.
        own: How many of the handler's arguments, from the end, that hook has.
        with_context: The hook has the context as well.
        scu: What the requestor uses.
        sop_class: Of the context.
        answer: What the handler gives, so that the status is the expected one.
        ask: Does the request; gives its status.
        status: The expected one.
    """

    kind: type[MessageDispatcherSCP]
    name: str
    hook: str
    own: int
    with_context: bool
    scu: Any
    sop_class: str
    answer: Any
    ask: Callable[[Pair], int]
    status: int = 0


def scu(pair: Pair, sop_class: str) -> Any:
    return pair.requestor.get_scu(sop_class)


def committed(pair: Pair) -> int:
    """Ask for a commitment, and take its report."""
    status = int(success_of(scu(pair, COMMITMENT)("1.9", [(CT, "1.2")])))
    pair.advance(1)
    return status


def report(pair: Pair) -> int:
    """The acceptor reports a commitment that nobody waits for."""
    ctx = pair.acceptor.contexts_for(COMMITMENT)[0]
    sent = send_report(pair.acceptor, ctx, Report("1.9", ((CT, "1.2"),), ()))
    return int(success_of(defer.Deferred.fromCoroutine(sent)))


def event(pair: Pair) -> int:
    ctx = pair.acceptor.contexts_for(NOTIFICATION)[0]
    return int(success_of(report_procedure_step(pair.acceptor, ctx, "1.2", 2)))


def got_step(pair: Pair) -> int:
    status, _ = success_of(defer.Deferred.fromCoroutine(scu(pair, RETRIEVE)().get("1.2")))
    return int(status)


CASES = [
    Case(
        Verification,
        "on_echo",
        "on_receive_echo",
        0,
        True,
        verification_scu,
        uids.VERIFICATION_SOP_CLASS,
        0xB001,
        lambda pair: int(success_of(scu(pair, uids.VERIFICATION_SOP_CLASS)())),
        0xB001,
    ),
    Case(
        Storage,
        "on_store",
        "on_receive_store",
        1,
        True,
        storage_scu,
        CT,
        0xB007,
        lambda pair: int(success_of(scu(pair, CT)(FILE))),
        0xB007,
    ),
    Case(
        QueryRetrieveFind,
        "on_find",
        "on_receive_find",
        1,
        True,
        qr_find_scu,
        FIND,
        [study()],
        lambda pair: last(scu(pair, FIND)(study())),
    ),
    Case(
        ModalityWorklist,
        "on_find",
        "on_receive_find",
        1,
        True,
        modality_work_list_scu,
        WORKLIST,
        [study()],
        lambda pair: last(scu(pair, WORKLIST)(study())),
    ),
    Case(
        QueryRetrieveGet,
        "on_get",
        "on_receive_get",
        1,
        True,
        qr_get_scu,
        GET,
        (0, []),
        lambda pair: last(scu(pair, GET)(study())),
    ),
    Case(
        QueryRetrieveMove,
        "on_move",
        "on_receive_move",
        2,
        True,
        qr_move_scu,
        MOVE,
        (RemoteAE("DEST", "tcp:127.0.0.1:104"), 0, []),
        lambda pair: last(scu(pair, MOVE)(study(), "DEST")),
    ),
    Case(
        StorageCommitment,
        "on_request",
        "on_commitment_request",
        1,
        False,
        storage_commitment_scu,
        COMMITMENT,
        (None, [], []),
        committed,
    ),
    Case(
        StorageCommitment,
        "on_report",
        "on_commitment_response",
        1,
        False,
        storage_commitment_scu,
        COMMITMENT,
        None,
        report,
    ),
    Case(
        ModalityPerformedProcedureStep,
        "on_create",
        "on_mpps_create",
        2,
        False,
        procedure_step_scu,
        MPPS,
        None,
        lambda pair: int(success_of(scu(pair, MPPS)().create("1.2", new_step()))),
    ),
    Case(
        ModalityPerformedProcedureStep,
        "on_set",
        "on_mpps_set",
        2,
        False,
        procedure_step_scu,
        MPPS,
        0x0112,
        lambda pair: int(success_of(scu(pair, MPPS)().set("1.2", Dataset()))),
        0x0112,
    ),
    Case(
        ModalityPerformedProcedureStep,
        "on_get",
        "on_mpps_get",
        2,
        False,
        procedure_step_scu,
        RETRIEVE,
        study(),
        got_step,
    ),
    Case(
        ModalityPerformedProcedureStep,
        "on_event",
        "on_mpps_event",
        2,
        False,
        procedure_step_scu,
        NOTIFICATION,
        None,
        event,
    ),
    Case(
        InstanceAvailabilityNotification,
        "on_available",
        "on_instances_available",
        2,
        False,
        instance_availability_scu,
        NOTICE,
        0x0111,
        lambda pair: int(
            success_of(
                scu(pair, NOTICE)(availability("1.2", {"1.3": [Available(CT, "1.4", "AE")]}))
            )
        ),
        0x0111,
    ),
]
#: Those whose request goes from the acceptor to the requestor.
_EVENTS = ("on_report", "on_event")


async def _coroutine(value: Any) -> Any:
    return value


def _soon(value: Any) -> defer.Deferred[Any]:
    waiting: defer.Deferred[Any] = defer.Deferred()
    waiting.callback(value)
    return waiting


FORMS: dict[str, Callable[[Any], Any]] = {
    "value": lambda value: value,
    "Deferred": _soon,
    "coroutine": _coroutine,
}


class Asked:
    """A handler or hook that keeps what it is asked."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer
        self.arguments: list[tuple[Any, ...]] = []

    def __call__(self, *arguments: Any) -> Any:
        self.arguments.append(arguments)
        return self._answer()


def perform(case: Case, service: MessageDispatcherSCP, ae: AE) -> tuple[int, Association]:
    """Do the request of a case with a service of an AE; its status, and the association of the AE."""
    other = AE("OTHER").add_scp(lambda *_: 0, [case.sop_class])
    other.add_scu(case.scu, [case.sop_class])
    if case.name in _EVENTS:
        ae.add_scu(case.scu, [case.sop_class]).add_scp(service)
        with connected(ae, other) as pair:
            return case.ask(pair), pair.requestor
    ae.add_scp(service)
    with connected(other, ae, {case.sop_class: [uids.ImplicitVRLittleEndian]}) as pair:
        return case.ask(pair), pair.acceptor


def check(case: Case, context: Any, asce: Association) -> None:
    """The context is the one of the request, and knows the association and the request."""
    assert isinstance(context, RequestContext)
    assert context.association is asce
    assert context.sop_class == case.sop_class
    assert isinstance(context.request, Request)
    assert context.request.message_id == 1
    assert context == asce.accepted_contexts[context.id]
    peer = asce.called_ae_title if asce.is_requestor else asce.calling_ae_title
    assert peer == "OTHER"


def cases(function: Any) -> Any:
    return pytest.mark.parametrize(
        "case", CASES, ids=[f"{case.kind.__name__}.{case.name}" for case in CASES]
    )(function)


@cases
@pytest.mark.parametrize("form", FORMS)
def test_a_handler_is_given_to_the_service(case: Case, form: str) -> None:
    """It may return a value, a Deferred or a coroutine."""
    handler = Asked(lambda: FORMS[form](case.answer))
    status, asce = perform(case, case.kind(**{case.name: handler}), AE("NODE"))
    assert status == case.status
    ((context, *_),) = handler.arguments
    check(case, context, asce)


@cases
@pytest.mark.parametrize("form", FORMS)
def test_a_handler_is_a_method_of_a_subclass(case: Case, form: str) -> None:
    handler = Asked(lambda: FORMS[form](case.answer))
    ours = type("Ours", (case.kind,), {case.name: lambda self, *arguments: handler(*arguments)})
    status, asce = perform(case, ours(), AE("NODE"))
    assert status == case.status
    ((context, *_),) = handler.arguments
    check(case, context, asce)


@cases
@pytest.mark.parametrize("form", FORMS)
def test_without_a_handler_the_hook_of_the_ae_is_asked(case: Case, form: str) -> None:
    """With the arguments that the hook has always had; a context of it knows the request as well."""
    hook = Asked(lambda: FORMS[form](case.answer))
    ae = type("Node", (AE,), {case.hook: lambda self, *arguments: hook(*arguments)})("NODE")
    status, asce = perform(case, case.kind(), ae)
    assert status == case.status
    (arguments,) = hook.arguments
    if case.with_context:
        context, *arguments = arguments
        check(case, context, asce)
    expected = {"on_commitment_request": 2, "on_commitment_response": 3}.get(case.hook, case.own)
    assert len(arguments) == expected


@cases
def test_a_handler_is_something_that_can_be_called(case: Case) -> None:
    with pytest.raises(
        TypeError, match=f"{case.name} of {case.kind.__name__} is 7; expected a call"
    ):
        case.kind(**{case.name: 7})


def test_a_commitment_handler_knows_the_transaction_and_the_result() -> None:
    """The arguments that the hooks of netdicom2 have, and those that they lack."""
    request, reported = Asked(lambda: (None, [(CT, "1.2")], [])), Asked(lambda: None)
    scu = AE("SCU").add_scu(storage_commitment_scu).add_scp(StorageCommitment(on_report=reported))
    with connected(scu, AE("SCP").add_scp(StorageCommitment(on_request=request))) as pair:
        assert success_of(pair.requestor.get_scu(COMMITMENT)("1.9", [(CT, "1.2")])) == 0
        pair.advance(1)
    assert [each[1:] for each in request.arguments] == [("1.9", [(CT, "1.2")])]
    assert [each[1:] for each in reported.arguments] == [
        (CommitmentResult("1.9", ((CT, "1.2"),), ()),)
    ]


@pytest.mark.parametrize(
    ("kind", "hook", "arguments"),
    [
        (QueryRetrieveFind, "find_for", ("ds",)),
        (QueryRetrieveGet, "get_for", ("ds",)),
        (QueryRetrieveMove, "move_for", ("ds", "DEST")),
        (QueryRetrieveGet, "transcode", ("instance",)),
    ],
)
def test_the_hooks_of_0_1_are_asked_where_an_ae_has_them(
    kind: Any, hook: str, arguments: tuple[Any, ...]
) -> None:
    """They are asked before those of netdicom2."""
    asked = Asked(lambda: "answer")
    ae = type("Node", (AE,), {hook: lambda self, *arguments: asked(*arguments)})("NODE")
    asce = Association(ae, is_requestor=False, clock=None, timeouts=ae.timeouts)  # type: ignore[arg-type]
    ctx = PContextDef(1, FIND, uids.ExplicitVRLittleEndian)
    context = RequestContext.of(asce, ctx, Request(message_id=1))
    names = {"find_for": "on_find", "get_for": "on_get", "move_for": "on_move"}
    assert getattr(kind(), names.get(hook, "on_transcode"))(context, *arguments) == "answer"
    expected = (asce, *arguments) if hook == "transcode" else (asce, context, *arguments)
    assert asked.arguments == [expected]


def test_services_that_several_aes_share_ask_each_its_own() -> None:
    service = Verification()
    for title, status in (("ONE", 0xB001), ("OTHER", 0xB002)):
        ae = AE(title).add_scp(service)
        ae.on_receive_echo = lambda context, status=status: status  # type: ignore[method-assign]
        with connected(AE("SCU").add_scu(verification_scu), ae) as pair:
            assert success_of(scu(pair, uids.VERIFICATION_SOP_CLASS)()) == status
