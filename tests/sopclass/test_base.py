"""What service classes are built from: decorators, and dispatchers by message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydicom.dataset import Dataset

from netdicom_tx import AE, Association, PContextDef, StatusError
from netdicom_tx.dimsemessages import MESSAGE_TYPE, CCancelRQ, Message, Request, UnknownRQ
from netdicom_tx.sopclass import (
    MessageDispatcher,
    MessageDispatcherSCP,
    MessageDispatcherSCU,
    sop_classes,
    store_in_file,
)
from netdicom_tx.sopclass.base import answers
from netdicom_tx.testing import success_of
from support.doubles import (
    CT,
    FIND,
    IMPLICIT,
    MR,
    VERIFICATION,
    Node,
    echo_rq,
    find_rq,
    message,
    store_rq,
)
from support.doubles import logged_failures as logged_failures


def test_sop_classes_are_set_and_extended():
    @sop_classes([MR])
    @sop_classes([CT])
    def service() -> None: ...

    assert service.sop_classes == (CT, MR)  # type: ignore[attr-defined]


def test_a_sop_class_is_named_once():
    @sop_classes([CT, MR])
    @sop_classes([CT])
    def service() -> None: ...

    assert service.sop_classes == (CT, MR)  # type: ignore[attr-defined]


def test_a_list_that_is_shared_is_not_touched():
    shared = [CT]

    class Base:
        sop_classes = shared

    @sop_classes([MR])
    class Derived(Base):
        pass

    assert Derived.sop_classes == (CT, MR)
    assert shared == [CT]
    assert Base.sop_classes is shared


def test_a_service_says_how_it_wants_its_data_sets():
    @store_in_file
    def service() -> None: ...

    assert service.store_in_file  # type: ignore[attr-defined]


def test_a_service_names_its_operations():
    """PS3.7 C.5.23: another operation is refused, 0211, and the service does not see it."""

    @answers("C-ECHO")
    def service(asce: Association, ctx: PContextDef, msg: Request) -> int:
        return 0

    node = Node(AE("NODE").add_scp(service, [VERIFICATION]))
    peer = node.associate()
    peer.send(find_rq(1), echo_rq(2))
    assert peer.statuses() == [0x0211, 0]


# -- dispatchers -----------------------------------------------------------------------------------------

METHODS = {
    "C-STORE": "c_store",
    "C-FIND": "c_find",
    "C-GET": "c_get",
    "C-MOVE": "c_move",
    "C-ECHO": "c_echo",
    "N-EVENT-REPORT": "n_event_report",
    "N-GET": "n_get",
    "N-SET": "n_set",
    "N-ACTION": "n_action",
    "N-CREATE": "n_create",
    "N-DELETE": "n_delete",
}
REQUESTS = [
    kind for kind in MESSAGE_TYPE.values() if issubclass(kind, Request) and kind is not CCancelRQ
]


class Everything(MessageDispatcher):
    """Has a method for each operation, which says its own name."""


for each in METHODS.values():
    setattr(Everything, each, lambda self, name=each: name)


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.__name__)
def test_a_message_goes_to_the_method_of_its_operation(kind: type[Message]):
    """netdicom2's Service SOP Classes page: c_store, c_find, ..."""
    message = object.__new__(kind)
    assert Everything().get_method(message)() == METHODS[kind.OPERATION]


def test_the_operations_are_all_there_are():
    assert sorted(kind.OPERATION for kind in REQUESTS) == sorted(METHODS)
    assert sorted(MessageDispatcher.message_to_method) == sorted(
        kind.COMMAND_FIELD for kind in REQUESTS
    )


@pytest.mark.parametrize(
    "message", [echo_rq(), UnknownRQ(request_field=0x0666, message_id=1)], ids=["known", "unknown"]
)
def test_an_operation_without_a_method_is_not_recognized(message: Message):
    with pytest.raises(StatusError, match="MessageDispatcher has no") as caught:
        MessageDispatcher().get_method(message)
    assert caught.value.status == 0x0211


def test_a_provider_answers_by_its_methods():
    class Provider(MessageDispatcherSCP):
        def c_store(self, asce: Association, ctx: PContextDef, msg: Request) -> int:
            return 0xB000

        def c_find(self, asce: Association, ctx: PContextDef, msg: Request) -> Iterator[Dataset]:
            yield Dataset()

    node = Node(AE("NODE").add_scp(Provider(), [CT, FIND]))
    peer = node.associate({CT: [IMPLICIT], FIND: [IMPLICIT]})
    peer.send(store_rq(1), echo_rq(2))
    stored, refused = peer.messages()
    assert (stored.status, refused.status) == (0xB000, 0x0211)
    assert refused.error_comment == "Provider has no C-ECHO"
    peer.send(message(find_rq(3), 3))
    assert [part[1][5] & 1 for part in peer.take()] == [1, 0, 1], "Pending, its data set, Success"


def test_a_user_sends_by_its_methods():
    class User(MessageDispatcherSCU):
        def c_echo(
            self, asce: Association, ctx: PContextDef, msg: Message, *args: Any, **kwargs: Any
        ) -> Any:
            return asce.peer_title, ctx.id, msg, args, kwargs

    from support.doubles import calling

    _, asce = calling(ae=AE("CALLER").add_scu(User(), [VERIFICATION]))
    asked = echo_rq()
    assert asce.get_scu(VERIFICATION)(asked, 1, two=2) == ("PEER", 1, asked, (1,), {"two": 2})
    with pytest.raises(StatusError):
        asce.get_scu(VERIFICATION)(find_rq())


def test_a_user_may_return_a_deferred():
    class User(MessageDispatcherSCU):
        def c_echo(self, asce: Association, ctx: PContextDef, msg: Request) -> Any:
            return asce.request(msg, ctx)

    from support.doubles import calling

    caller, asce = calling(ae=AE("CALLER").add_scu(User(), [VERIFICATION]))
    answer = asce.get_scu(VERIFICATION)(echo_rq(None))
    caller.peer.send(echo_rq(1).response(0))
    assert success_of(answer).status == 0
