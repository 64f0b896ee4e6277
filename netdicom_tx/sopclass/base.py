"""What service classes are built from: two decorators and the dispatchers by message (the seed page)."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ClassVar, TypeVar

from .. import statuses
from ..asceprovider import Association
from ..dimsemessages import Message, Request
from ..exceptions import StatusError
from ..negotiation import PContextDef

__all__ = [
    "MessageDispatcher",
    "MessageDispatcherSCP",
    "MessageDispatcherSCU",
    "answers",
    "settled",
    "sop_classes",
    "store_in_file",
]

_Service = TypeVar("_Service", bound=Callable[..., Any])
_T = TypeVar("_T")


def sop_classes(uids: Iterable[str]) -> Callable[[_Service], _Service]:
    """Set, or extend, the SOP classes that a service is for.

    The service gets a new tuple: a list that it shares with others, by inheritance or otherwise,
    is not touched.
    """

    def augment(service: _Service) -> _Service:
        existing = tuple(getattr(service, "sop_classes", ()))
        added = tuple(uid for uid in uids if uid not in existing)
        service.sop_classes = (*existing, *added)  # type: ignore[attr-defined]  # any callable
        return service

    return augment


def answers(*operations: str) -> Callable[[_Service], _Service]:
    """Name the operations of a service, such as ``"C-STORE"``; the dispatcher refuses others (0x0211)."""

    def mark(service: _Service) -> _Service:
        service.operations = operations  # type: ignore[attr-defined]  # any callable
        return service

    return mark


def store_in_file(service: _Service) -> _Service:
    """Let the data sets of this service's requests arrive in a file, which ``AE.get_file`` gives."""
    service.store_in_file = True  # type: ignore[attr-defined]  # any callable
    return service


async def settled(value: _T | Awaitable[_T]) -> _T:
    """What a hook returned, or what the Deferred or coroutine that it returned gives."""
    if inspect.isawaitable(value):
        result: _T = await value
        return result
    return value


class MessageDispatcher:
    """Base of services with one method for each operation."""

    message_to_method: ClassVar[dict[int, str]] = {
        0x0001: "c_store",
        0x0020: "c_find",
        0x0010: "c_get",
        0x0021: "c_move",
        0x0030: "c_echo",
        0x0100: "n_event_report",
        0x0110: "n_get",
        0x0120: "n_set",
        0x0130: "n_action",
        0x0140: "n_create",
        0x0150: "n_delete",
    }

    def get_method(self, msg: Message) -> Callable[..., Any]:
        """The method for a message.

        Raises:
            StatusError: There is none: 0x0211, unrecognized operation.
        """
        name = self.message_to_method.get(msg.command_field)
        method = getattr(self, name, None) if name is not None else None
        if method is None:
            raise StatusError(
                statuses.UNRECOGNIZED_OPERATION,
                f"{type(self).__name__} has no {msg.OPERATION}",
            )
        found: Callable[..., Any] = method
        return found


class MessageDispatcherSCU(MessageDispatcher):
    """A service class user: called with a message, it passes all on to the method for it."""

    def __call__(
        self, asce: Association, ctx: PContextDef, msg: Message, *args: Any, **kwargs: Any
    ) -> Any:
        return self.get_method(msg)(asce, ctx, msg, *args, **kwargs)


class MessageDispatcherSCP(MessageDispatcher):
    """A service class provider: a request goes to the method for it.

    A method may return or yield whatever a service may (:mod:`netdicom_tx.operations`).
    """

    def __call__(self, asce: Association, ctx: PContextDef, msg: Request) -> Any:
        return self.get_method(msg)(asce, ctx, msg)
