"""One rule for wrong arguments: what no peer and no moment could make right is raised in the call itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.internet.task import Clock

import netdicom_tx
from netdicom_tx import (
    AE,
    AssociationPool,
    PContextDef,
    RemoteAE,
    Window,
    storage_scp,
    uids,
    verification_scu,
)
from netdicom_tx.arguments import check_number, check_seconds, check_type, many, several
from netdicom_tx.dimsemessages import CEchoRQ
from netdicom_tx.dsutils import DataSetError
from netdicom_tx.exceptions import (
    AssociationAbortedError,
    ClassNotSupportedError,
    LocalProtocolError,
)
from netdicom_tx.sopclass import (
    Instance,
    NormalizedSCU,
    QueryRetrieveFind,
    QueryRetrieveGet,
    QueryRetrieveMove,
    Storage,
    StorageCommitment,
    Verification,
    modality_work_list_scu,
    mpps_create_scu,
    mpps_set_scu,
    qr_find_scu,
    qr_get_scu,
    qr_move_scu,
    storage_commitment_scu,
    storage_scu,
)
from netdicom_tx.sopclass.storage import store_instance
from netdicom_tx.testing import failure_of, success_of
from netdicom_tx.userdataitems import RoleSelection
from support.doubles import CT, EXPLICIT, calling, context, echo_rq, find_rq, store_rq

WRONG = (TypeError, ValueError, LocalProtocolError)


# -- the checks -----------------------------------------------------------------------------------------


def test_a_class_is_asked_for_in_words():
    check_type("window", Window(1, 1), Window)
    with pytest.raises(TypeError, match=r"^window is 8; expected a Window$"):
        check_type("window", 8, Window)
    with pytest.raises(TypeError, match=r"^ae is 8; expected an AE$"):
        check_type("ae", 8, AE)
    with pytest.raises(
        TypeError, match=r"^window is 8; expected a Window, such as Window\(8, 8\)$"
    ):
        check_type("window", 8, Window, "a Window, such as Window(8, 8)")


@pytest.mark.parametrize("value", ["3", 3.0, None, True])
def test_a_number_is_an_int(value: Any):
    with pytest.raises(TypeError, match=r"^limit is .*; expected a whole number, 1 or greater$"):
        check_number("limit", value, 1)


def test_a_number_has_a_least_value():
    check_number("limit", 1, 1)
    with pytest.raises(
        ValueError, match="limit is 0; expected a whole number, 1 or greater, of octets"
    ):
        check_number("limit", 0, 1, unit="octets")


@pytest.mark.parametrize("value", ["3", None, True, [3]])
def test_seconds_are_a_number(value: Any):
    with pytest.raises(TypeError, match=r"^idle is .*; expected seconds as a number"):
        check_seconds("idle", value)


@pytest.mark.parametrize("value", [0, -1, math.inf, -math.inf, math.nan])
def test_seconds_are_greater_than_0_and_finite(value: float):
    with pytest.raises(
        ValueError, match=r"^idle is .*; expected seconds greater than 0 and finite"
    ):
        check_seconds("idle", value)


def test_0_seconds_may_be_allowed():
    check_seconds("idle", 0, zero=True)
    check_seconds("idle", 0.5)
    with pytest.raises(ValueError, match="expected seconds of 0 or greater and finite"):
        check_seconds("idle", -1, zero=True)


@pytest.mark.parametrize("value", ["A", b"A", 5, None])
def test_a_list_is_no_single_item(value: Any):
    with pytest.raises(TypeError, match=r"^titles is .*; expected a list of AE titles$"):
        many("titles", value, str, "AE titles")


def test_a_list_is_copied_and_its_items_are_looked_at():
    assert many("titles", iter(["A", "B"]), str, "AE titles") == ("A", "B")
    with pytest.raises(TypeError, match=r"^titles holds 5; expected AE titles$"):
        many("titles", ["A", 5], str, "AE titles")
    with pytest.raises(TypeError, match=r"^roles is RoleSelection\("):
        many("roles", RoleSelection(CT, True, True), RoleSelection, "roles")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["A", b"A", Path("A"), BytesIO(), Dataset(), {}, 5, None])
def test_a_list_of_files_is_no_single_one(value: Any):
    with pytest.raises(TypeError, match=r"^files is .*; expected a list of files$"):
        several("files", value, "files")


def test_a_list_of_files_is_not_consumed():
    files = iter(["a.dcm"])
    assert several("files", files, "files") is files
    assert list(files) == ["a.dcm"]


# -- application entities ----------------------------------------------------------------------------------


FIND, GET, MOVE, WORKLIST, COMMITMENT = (
    uids.STUDY_ROOT_FIND_SOP_CLASS,
    uids.STUDY_ROOT_GET_SOP_CLASS,
    uids.STUDY_ROOT_MOVE_SOP_CLASS,
    uids.MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS,
    uids.STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS,
)
STUDY = Dataset()
STUDY.QueryRetrieveLevel, STUDY.StudyInstanceUID = "STUDY", "1.2"
IMAGE = str(get_testdata_file("CT_small.dcm"))
REMOTE = RemoteAE("PEER", "tcp:127.0.0.1:104")
ROLE = RoleSelection(CT, True, True)


PEER = "PEER@127.0.0.1:104"


def entity() -> Any:
    return AE("ME", reactor=Clock()).add_scu(verification_scu)


def opening(*arguments: Any, **options: Any) -> Callable[[], Any]:
    return lambda: entity().request_association(*(arguments or (REMOTE,)), **options)


CALLS: dict[str, Callable[[], Any]] = {
    "title": lambda: AE(b"ME"),  # type: ignore[arg-type]
    "maximum length": lambda: AE("ME", max_pdu_length="1"),  # type: ignore[arg-type]
    "negative length": lambda: AE("ME", max_pdu_length=-1),
    "limit": lambda: AE("ME", max_associations=1.5),  # type: ignore[arg-type]
    "timeouts": lambda: AE("ME", timeouts=30),  # type: ignore[arg-type]
    "window": lambda: AE("ME", window=(8, 8)),  # type: ignore[arg-type]
    "no lane": lambda: AE("ME", move_associations=0),
    "no lane to a peer": lambda: AE("ME", move_associations_per_peer=0),
    "address": lambda: RemoteAE("PEER", 104),  # type: ignore[arg-type]
    "identity": lambda: RemoteAE("PEER", "tcp:h:104", "me"),  # type: ignore[arg-type]
    "tls": lambda: RemoteAE("PEER", "tcp:h:104", tls=True),  # type: ignore[arg-type]
    "peer": opening("PEER@127.0.0.1:104"),
    "endpoint": opening(RemoteAE("PEER", "tcp:127.0.0.1")),
    "contexts": opening(REMOTE, CT),
    "a list of UIDs": opening(REMOTE, [CT]),
    "a number": opening(REMOTE, 5),
    "no contexts": opening(REMOTE, {}),
    "a syntax without its list": opening(REMOTE, {CT: EXPLICIT}),
    "no syntaxes": opening(REMOTE, {CT: []}),
    "no UID": opening(REMOTE, {"CT": [EXPLICIT]}),
    "no UID of a syntax": opening(REMOTE, [(CT, ["explicit"])]),
    "too many": opening(REMOTE, [(CT, [EXPLICIT])] * 129),
    "one file": opening(for_files="image.dcm"),
    "no file": opening(for_files=[5]),
    "one role": opening(roles=ROLE),
    "no role": opening(roles=["scp"]),
    "no item": opening(user_items=["identity"]),
    "listener": lambda: entity().listen(11112),
    "listener's string": lambda: entity().listen("tcp"),
    "service nowhere": lambda: entity().as_service(),
    "service": lambda: entity().as_service("tcp"),
    "grace": lambda: entity().as_service("tcp:11112", grace="long"),
    "for ever": lambda: entity().drain(math.inf),
    "pool's limit": lambda: AssociationPool(entity(), limit=0),
    "pool's attempts": lambda: AssociationPool(entity(), attempts="3"),  # type: ignore[arg-type]
    "pool's idle": lambda: AssociationPool(entity(), idle=math.inf),
    "pool's backoff": lambda: AssociationPool(entity(), backoff=-1),
    "service class": lambda: entity().add_scp(type(storage_scp)),
    "associate": lambda: entity().associate(104),
    "associate with nothing": lambda: entity().associate(REMOTE, lambda: None),
    "associate's files": lambda: entity().associate(REMOTE, files=IMAGE),
    "associate's file": lambda: entity().associate(REMOTE, files=[5]),
    "associate's contexts": lambda: entity().associate(REMOTE, contexts=CT),
    "associate's contexts and services": lambda: entity().associate(
        REMOTE, CT, contexts={CT: [EXPLICIT]}
    ),
    "associate's role": lambda: entity().associate(REMOTE, CT, roles=ROLE),
    "associate's items": lambda: entity().associate(REMOTE, CT, user_items=["identity"]),
    "associate's service": lambda: entity().associate(REMOTE, "CT"),
    "listener's TLS": lambda: entity().listen("tcp:0", True),
    "window's number": lambda: Window("8"),  # type: ignore[arg-type]
    "window's size": lambda: Window(65536, 1),
    "the pool's AE": lambda: AssociationPool("ME"),  # type: ignore[arg-type]
    "storage's handler": lambda: Storage(on_store="keep"),  # type: ignore[arg-type]
    "find's handler": lambda: QueryRetrieveFind(on_find=5),  # type: ignore[arg-type]
    "move's handler": lambda: QueryRetrieveMove(on_move=5),  # type: ignore[arg-type]
    "get's handler": lambda: QueryRetrieveGet(on_get=5),  # type: ignore[arg-type]
    "echo's handler": lambda: Verification(on_echo=0),  # type: ignore[arg-type]
    "commitment's handler": lambda: StorageCommitment(on_request=5),  # type: ignore[arg-type]
    "our title": lambda: netdicom_tx.echo(PEER, ae=5),  # type: ignore[arg-type]
    "echo's peer": lambda: netdicom_tx.echo("nowhere"),
    "one-shot find's peer": lambda: netdicom_tx.find(5),  # type: ignore[arg-type]
    "one-shot find's level": lambda: netdicom_tx.find(PEER, "SERIE"),
    "one-shot find's model": lambda: netdicom_tx.find(PEER, model="Study Root"),
    "one-shot get's directory": lambda: netdicom_tx.get(
        PEER,
        StudyInstanceUID="1.2",
        into=5,  # type: ignore[arg-type]
    ),
    "one-shot get's keys": lambda: netdicom_tx.get(PEER),
    "one-shot move's destination": lambda: netdicom_tx.move(
        PEER,
        StudyInstanceUID="1.2",
        to=5,  # type: ignore[arg-type]
    ),
    "one-shot store's files": lambda: netdicom_tx.store(PEER, 5),  # type: ignore[arg-type]
    "one-shot store's bytes": lambda: netdicom_tx.store(PEER, b"image.dcm"),  # type: ignore[arg-type]
    "one-shot store's associations": lambda: netdicom_tx.store(PEER, IMAGE, associations=0),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_told_in_the_call_itself(name: str):
    with pytest.raises(WRONG) as told:
        CALLS[name]()
    assert len(str(told.value).split()) > 4, "it says what is expected"


@pytest.mark.parametrize(
    ("path", "error"),
    [("/nowhere/image.dcm", OSError), (str(get_testdata_file("README.txt")), DataSetError)],
)
def test_what_a_file_does_fails_the_deferred(path: str, error: type[Exception]):
    assert isinstance(failure_of(opening(for_files=[path])()), error)


# -- requests -------------------------------------------------------------------------------------------


CONTEXTS = {
    uid: [EXPLICIT]
    for uid in (
        uids.VERIFICATION_SOP_CLASS,
        CT,
        FIND,
        GET,
        MOVE,
        WORKLIST,
        COMMITMENT,
        uids.ModalityPerformedProcedureStep,
    )
}
STEP = uids.ModalityPerformedProcedureStep
#: Values that are no timeout, and those that are no message ID.
NO_SECONDS: list[Any] = [0, -1, math.nan, math.inf, "3", True, [3]]
NO_MESSAGE_ID: list[Any] = [-1, 65536, "1", 1.0, True]
#: Requests, by what takes them; each is called with the association and options.
TIMED: dict[str, Callable[..., Any]] = {
    "request": lambda asce, **options: asce.request(echo_rq(None), context(asce), **options),
    "request_many": lambda asce, **options: asce.request_many(
        find_rq(), context(asce, FIND), list, **options
    ),
    "store": lambda asce, **options: asce.store(IMAGE, **options),
    "find": lambda asce, **options: asce.find(**options),
    "worklist": lambda asce, **options: asce.worklist(**options),
    "get": lambda asce, **options: asce.get(StudyInstanceUID="1.2", **options),
    "move": lambda asce, **options: asce.move(StudyInstanceUID="1.2", to="ME", **options),
    "commit": lambda asce, **options: asce.commit([(CT, "1.2")], **options),
    "qr_find_scu": lambda asce, **options: qr_find_scu(asce, context(asce, FIND), STUDY, **options),
    "qr_get_scu": lambda asce, **options: qr_get_scu(asce, context(asce, GET), STUDY, **options),
    "qr_move_scu": lambda asce, **options: qr_move_scu(
        asce, context(asce, MOVE), STUDY, "ME", **options
    ),
    "modality_work_list_scu": lambda asce, **options: modality_work_list_scu(
        asce, context(asce, WORKLIST), STUDY, **options
    ),
    "one-shot find": lambda asce, **options: netdicom_tx.find(PEER, **options),
    "one-shot get": lambda asce, **options: netdicom_tx.get(
        PEER, StudyInstanceUID="1.2", **options
    ),
    "one-shot move": lambda asce, **options: netdicom_tx.move(
        PEER, StudyInstanceUID="1.2", to="ME", **options
    ),
}
NUMBERED: dict[str, Callable[..., Any]] = {
    "request": lambda asce, number: asce.request(echo_rq(number), context(asce)),
    "request_many": lambda asce, number: asce.request_many(
        find_rq(number), context(asce, FIND), list
    ),
    "verification_scu": lambda asce, number: verification_scu(asce, context(asce), number),
    "storage_scu": lambda asce, number: storage_scu(asce, context(asce, CT), IMAGE, number),
    "qr_find_scu": lambda asce, number: qr_find_scu(asce, context(asce, FIND), STUDY, number),
    "qr_get_scu": lambda asce, number: qr_get_scu(asce, context(asce, GET), STUDY, number),
    "qr_move_scu": lambda asce, number: qr_move_scu(asce, context(asce, MOVE), STUDY, "ME", number),
    "modality_work_list_scu": lambda asce, number: modality_work_list_scu(
        asce, context(asce, WORKLIST), STUDY, number
    ),
    "storage_commitment_scu": lambda asce, number: storage_commitment_scu(
        asce, context(asce, COMMITMENT), "1.2", [(CT, "1.2")], number
    ),
    "mpps_create_scu": lambda asce, number: mpps_create_scu(
        asce, context(asce, STEP), "1.2", STUDY, number
    ),
    "mpps_set_scu": lambda asce, number: mpps_set_scu(
        asce, context(asce, STEP), "1.2", STUDY, number
    ),
    **{
        f"NormalizedSCU.{name}": lambda asce, number, name=name, arguments=arguments: getattr(
            NormalizedSCU(asce, context(asce, STEP)), name
        )(*arguments, msg_id=number)
        for name, arguments in {
            "n_create": ("1.2", None),
            "n_set": ("1.2", STUDY),
            "n_get": ("1.2", [0x00100010]),
            "n_action": ("1.2", 1),
            "n_delete": ("1.2",),
        }.items()
    },
}
#: What else may be wrong with a request.
REQUESTS: dict[str, Callable[[Any], Any]] = {
    "no request": lambda asce: asce.request(5, context(asce)),
    "a response": lambda asce: asce.request(echo_rq().response(0), context(asce)),
    "the ID of a context": lambda asce: asce.request(echo_rq(None), 1),
    "another context": lambda asce: asce.request(echo_rq(None), PContextDef(99, CT, EXPLICIT)),
    "an element": lambda asce: asce.request(CEchoRQ(affected_sop_class_uid=5), context(asce)),
    "a data set": lambda asce: asce.request(store_rq(None, STUDY), context(asce, CT)),
    "text for a data set": lambda asce: asce.request(store_rq(None, "text"), context(asce, CT)),
    "no converter": lambda asce: asce.request_many(find_rq(), context(asce, FIND), None),
    "no stream": lambda asce: asce.request_many(find_rq(), context(asce, FIND), list, kind=list),
    "no high water": lambda asce: asce.request_many(
        find_rq(), context(asce, FIND), list, high_water=-1
    ),
    "a request as response": lambda asce: asce.send(echo_rq(1), context(asce)),
    "no context": lambda asce: asce.send(echo_rq(1).response(0), "1"),
    "store's source": lambda asce: asce.store(5),
    "storage_scu's source": lambda asce: storage_scu(asce, context(asce, CT), None),
    "find's level": lambda asce: asce.find(5),
    "find's identifier": lambda asce: asce.find("STUDY", {"PatientName": "DOE"}),
    "find's keyword": lambda asce: asce.find(Patient="DOE"),
    "find's model": lambda asce: asce.find(model="1.2.3"),
    "worklist's identifier": lambda asce: asce.worklist("CT"),
    "get without a key": lambda asce: asce.get(),
    "move's destination": lambda asce: asce.move(StudyInstanceUID="1.2", to=5),
    "move's long destination": lambda asce: asce.move(StudyInstanceUID="1.2", to="A" * 17),
    "qr_find_scu's identifier": lambda asce: qr_find_scu(asce, context(asce, FIND), "DOE*"),
    "qr_move_scu's destination": lambda asce: qr_move_scu(asce, context(asce, MOVE), STUDY, None),
    "commit's file": lambda asce: asce.commit(IMAGE),
    "commit's items": lambda asce: asce.commit([5]),
    "commit's UIDs": lambda asce: asce.commit([("CT", "image")]),
    "storage_commitment_scu's UIDs": lambda asce: storage_commitment_scu(
        asce, context(asce, COMMITMENT), "1.2", "1.2.3"
    ),
    "a SOP class": lambda asce: asce.n_create("1.2.3"),
    "attributes to create": lambda asce: asce.n_create(STEP, {"PatientName": "DOE"}),
    "attributes to set": lambda asce: asce.n_set(STEP, "1.2", 5),
    "one keyword": lambda asce: asce.n_get(STEP, "1.2", "PatientName"),
    "no keyword": lambda asce: asce.n_get(STEP, "1.2", ["Patient"]),
    "tags": lambda asce: NormalizedSCU(asce, context(asce, STEP)).n_get("1.2", "PatientName"),
    "an instance": lambda asce: asce.n_get(STEP, 5),
    "an action": lambda asce: asce.n_action(STEP, "1.2", "print"),
    "no role": lambda asce: NormalizedSCU(asce, context(asce, STEP)).n_event_report("1.2", 1),
}


def outstanding() -> Any:
    return calling(CONTEXTS)[1]


@pytest.mark.parametrize("value", NO_SECONDS)
@pytest.mark.parametrize("name", TIMED)
def test_what_is_no_timeout_is_told_in_the_call_itself(name: str, value: Any):
    """0 is not "the default", and infinity is not "no timeout"."""
    asce = outstanding()
    with pytest.raises((TypeError, ValueError), match=r"timeout is .*; expected seconds"):
        TIMED[name](asce, timeout=value)
    assert not asce.operations


@pytest.mark.parametrize("value", NO_MESSAGE_ID)
@pytest.mark.parametrize("name", NUMBERED)
def test_what_is_no_message_id_is_told_in_the_call_itself(name: str, value: Any):
    asce = outstanding()
    with pytest.raises((TypeError, ValueError), match="expected a whole number, 0 to 65535"):
        NUMBERED[name](asce, value)
    assert not asce.operations


@pytest.mark.parametrize("name", [*TIMED, *NUMBERED])
def test_the_same_calls_with_right_arguments_are_made(name: str):
    asce = outstanding()
    made = TIMED[name](asce, timeout=5) if name in TIMED else NUMBERED[name](asce, 7)
    assert bool(asce.operations) != name.startswith("one-shot")
    if isinstance(made, defer.Deferred):
        made.addErrback(lambda _: None)
    asce.abort()


@pytest.mark.parametrize("is_over", [False, True])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_wrong_request_is_told_in_the_call_itself(name: str, is_over: bool):
    """Also on an association that is over."""
    asce = outstanding()
    if is_over:
        asce.abort()
    with pytest.raises((*WRONG, ClassNotSupportedError)) as told:
        REQUESTS[name](asce)
    assert len(str(told.value).split()) > 4, "it says what is expected"
    assert not asce.operations


def test_a_wrong_argument_costs_no_message_id_and_no_window():
    caller, asce = calling(CONTEXTS)
    for call in REQUESTS.values():
        with pytest.raises(Exception):  # noqa: B017, PT011 - each of the table
            call(asce)
    answer = asce.echo()
    (asked,) = caller.peer.messages()
    caller.peer.send(asked.response(0))
    assert success_of(answer) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda asce: asce.echo(),
        lambda asce: asce.store(IMAGE),
        lambda asce: asce.n_delete(STEP, "1.2"),
        lambda asce: defer.Deferred.fromCoroutine(anext(asce.find())),
    ],
)
def test_an_association_that_is_over_fails_the_deferred(call: Any):
    """No caller can know that in time."""
    asce = outstanding()
    asce.abort()
    assert isinstance(failure_of(call(asce)), AssociationAbortedError)


def test_a_message_id_that_is_in_use_fails_the_deferred():
    asce = outstanding()
    first = asce.request(echo_rq(7), context(asce))
    second = failure_of(asce.request(echo_rq(7), context(asce)))
    assert str(second) == "message ID 7 is in use"
    first.addErrback(lambda _: None)
    asce.abort()


def test_an_instance_whose_uid_cannot_be_sent_fails_its_own_deferred():
    """One bad file among many is not a wrong argument."""
    asce = outstanding()
    instance = Instance(CT, "1.2.\N{GREEK SMALL LETTER BETA}", EXPLICIT, BytesIO(b"x"))
    error = failure_of(store_instance(asce, instance))
    assert isinstance(error, LocalProtocolError)
    assert not asce.operations


@pytest.mark.parametrize("path", ["/nowhere/image.dcm", str(get_testdata_file("README.txt"))])
@pytest.mark.parametrize(
    "call",
    [
        lambda path: entity().associate(REMOTE, files=[path]),
        lambda path: outstanding().store(path),
        lambda path: outstanding().commit([path]),
    ],
)
def test_a_file_that_cannot_be_read_fails_the_deferred(call: Any, path: str):
    assert isinstance(failure_of(call(path)), (OSError, DataSetError))
