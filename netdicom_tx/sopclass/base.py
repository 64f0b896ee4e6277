"""What service classes are built from: declarations, dispatchers by message, and handlers.

**Declarations.** The attributes of a service tell negotiation and reception what they must know about it. The
decorators of this module set them on a function; a class simply has them.

=======================  ================================================================================
attribute                meaning
=======================  ================================================================================
``sop_classes``          the abstract syntaxes that the service is for
``operations``           the operations that it performs; every other one is answered with 0x0211
``store_in_file``        its data sets arrive in a file, which ``AE.get_file`` gives
``suboperations``        abstract syntaxes of the sub-operations that the SCP performs on the same association,
                         as C-GET stores (PS3.4 C.4.3). For an SCU service they are proposed with the SCP role,
                         where the AE serves them; for an SCP service we offer to be their SCU.
``command_sop_classes``  SOP classes that its commands may name besides that of their presentation context, for
                         a private meta SOP class; a command that names another one is answered with 0x0122
=======================  ================================================================================

**Handlers.** An SCP of this package is an instance of a class. Its methods for messages (``c_store``) do what the
standard demands; its handlers (``on_store``) make the decisions that belong to the program. There is one way to
customise a service: give it another handler, as an argument or as a method of a subclass::

    ae.add_scp(Storage(on_store=keep))

    class Ward(Storage):
        def on_store(self, context, ds): ...

A handler gets a :class:`~netdicom_tx.hooks.RequestContext` first: the presentation context, the association and the
request. It returns a value, a Deferred or a coroutine. A handler that is not given asks the hook of the AE, as
netdicom2's Service SOP Classes page describes for ``storage_scp``, ``qr_find_scp`` and so on.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableSequence
from typing import Any, ClassVar, Final, TypeVar, cast

from twisted.internet import defer
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool

from .. import statuses
from ..applicationentity import AE
from ..asceprovider import Association
from ..dimsemessages import Message, Request
from ..exceptions import EventHandlingError, StatusError
from ..hooks import RequestContext
from ..negotiation import PContextDef
from ..uids import as_tuple

__all__ = [
    "MessageDispatcher",
    "MessageDispatcherSCP",
    "MessageDispatcherSCU",
    "ae_hook",
    "ae_of",
    "answers",
    "settled",
    "sop_classes",
    "store_in_file",
    "suboperations",
    "taken_out",
]

_Service = TypeVar("_Service", bound=Callable[..., Any])
_T = TypeVar("_T")


def sop_classes(uids: Iterable[str]) -> Callable[[_Service], _Service]:
    """Set, or extend, the SOP classes that a service is for.

    The service gets a new tuple, so a list that it shares with others is not changed.
    """
    wanted = as_tuple("sop_classes", uids)

    def augment(service: _Service) -> _Service:
        existing = tuple(getattr(service, "sop_classes", ()))
        added = tuple(uid for uid in wanted if uid not in existing)
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


def suboperations(uids: Iterable[str]) -> Callable[[_Service], _Service]:
    """Name the abstract syntaxes of the sub-operations that the SCP performs on the same association.

    The module's table says what negotiation makes of it.
    """
    wanted = as_tuple("suboperations", uids)

    def mark(service: _Service) -> _Service:
        service.suboperations = wanted  # type: ignore[attr-defined]  # any callable
        return service

    return mark


async def settled(value: _T | Awaitable[_T]) -> _T:
    """What a handler returned, or what the Deferred or coroutine that it returned gives."""
    if inspect.isawaitable(value):
        result: _T = await value
        return result
    return value


#: The largest data set that is read on the reactor thread, in octets; that takes a few milliseconds at most.
AT_ONCE: Final = 1 << 14


def aside(asce: Association, msg: Request, read: Callable[[], _T]) -> _T | defer.Deferred[_T]:
    """Read the data set of a request; a large one is read in a thread of the reactor, where it delays no other peer.

    Args:
        asce: The association, whose AE has the reactor.
        msg: The request.
        read: Reads the data set and returns what the service needs of it.
    """
    data = msg.data_set
    is_small = data is None or (isinstance(data, bytes) and len(data) <= AT_ONCE)
    return read() if is_small else in_thread(asce, read)


# Two threads that compute are not faster than one, because only one has the interpreter; the reactor waits for both,
# and both need memory.
_COMPUTING: Final = defer.DeferredSemaphore(1)


def in_thread(asce: Association, work: Callable[[], _T]) -> _T | defer.Deferred[_T]:
    """Do what takes long in a thread of the reactor, or at once where the reactor has none.

    One work is done at a time. A long sequence should be read, or emptied, by :func:`taken_out`.

    Returns:
        The result, or a Deferred of it. Cancelling that drops the result; the next work begins when the thread has
        ended, whoever still waits for it.
    """
    reactor = asce.ae.reactor
    if not IReactorThreads.providedBy(reactor):
        return work()
    result: defer.Deferred[_T] = defer.Deferred(lambda _: None)

    def fire(outcome: Any) -> None:
        if not result.called:
            result.callback(outcome)

    def begin() -> defer.Deferred[None] | None:
        if result.called:
            return None
        doing = deferToThreadPool(reactor, reactor.getThreadPool(), _uncollected, work)
        return doing.addBoth(fire)

    _COMPUTING.run(begin)
    return result


def _uncollected(work: Callable[[], _T]) -> _T:
    # While it looks at hundreds of thousands of new objects, the collector keeps the interpreter for itself.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return work()
    finally:
        if was_enabled:
            gc.enable()


def taken_out(items: MutableSequence[_T]) -> Iterator[_T]:
    """Take the items out of a sequence, from the first to the last.

    A sequence of thousands of data sets that is freed as a whole holds up all threads for a tenth of a second or more.
    """
    items.reverse()
    while items:
        yield items.pop()


def ae_of(asce: Association) -> AE:
    """The application entity of an association, with its hooks.

    An association is typed with the part of an AE that it uses itself: :class:`~netdicom_tx.asceprovider.LocalAE`.
    """
    return cast(AE, asce.ae)


def ae_hook(context: RequestContext, name: str) -> Callable[..., Any]:
    """A hook that :class:`~netdicom_tx.AE` does not define, such as ``on_mpps_create``.

    Raises:
        EventHandlingError: The AE has no such method.
    """
    found: Callable[..., Any] | None = getattr(context.association.ae, name, None)
    if found is None:
        raise EventHandlingError(f"{name} is not implemented")
    return found


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
            StatusError: The service has no method for this operation; the status is 0x0211.
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
    """A service class user: called with a message, it calls the method for that message."""

    def __call__(
        self, asce: Association, ctx: PContextDef, msg: Message, *args: Any, **kwargs: Any
    ) -> Any:
        return self.get_method(msg)(asce, ctx, msg, *args, **kwargs)


class MessageDispatcherSCP(MessageDispatcher):
    """A service class provider: called with a request, it calls the method for that request.

    A method may return or yield whatever a service may (:mod:`netdicom_tx.operations`).
    """

    def __call__(self, asce: Association, ctx: PContextDef, msg: Request) -> Any:
        return self.get_method(msg)(asce, ctx, msg)

    def _use(self, **handlers: Callable[..., Any] | None) -> None:
        """Use these handlers in place of the methods with their names; None leaves the method."""
        for name, handler in handlers.items():
            if handler is None:
                continue
            if not callable(handler):
                raise TypeError(
                    f"{name} of {type(self).__name__} is {handler!r:.80}; expected a callable"
                )
            setattr(self, name, handler)
