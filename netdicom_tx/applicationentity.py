"""Application entities, which request associations and accept them.

:class:`AE` holds the configuration, two dispatchers (one for each role) and the live associations. It
knows no service: a program registers services with :meth:`AE.add_scp` and :meth:`AE.add_scu`. The hooks that a
program overrides are in :mod:`netdicom_tx.hooks`, and the peers that it calls are described by
:mod:`netdicom_tx.remoteae`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

from twisted.internet import defer
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.python.failure import Failure

from . import negotiation, statuses, uids
from .access import (
    Access,
    Caller,
    Denied,
    Network,
    Permission,
    Profile,
    needed_for,
    restricted,
)
from .admission import Admission, accept_in_turns
from .arguments import check_number, check_seconds, check_type, many
from .asceprovider import Association
from .associations import Associations
from .budget import LIMIT as MEMORY_LIMIT
from .budget import MemoryBudget
from .dimsemessages import Request, Response
from .dispatch import Dispatcher, Service
from .dulprovider import (
    RECEIVE_LIMIT,
    DULAcceptorFactory,
    DULRequestorFactory,
    Timeouts,
)
from .endpoints import server_endpoint
from .exceptions import (
    AssociationRejectedError,
    ConnectionLostError,
    DCMTimeoutError,
    LocalProtocolError,
    NetDICOMError,
    StatusError,
    printable,
)
from .hooks import Hooks, RequestContext
from .identity import Identities, NotAuthenticatedError, User, kind_of
from .logs import Logger
from .negotiation import NO_WINDOW, Offer, PContextDef, Window
from .opening import Verdict
from .part10 import read_file_meta
from .pdu import AAssociateRJ, AAssociateRQ, PresentationContextRQ, check_ae_title
from .quirks import NO_QUIRKS, Quirks
from .refusals import Refusal, Refusals, rejected
from .remoteae import RemoteAE
from .service import AEService
from .tls import TLSOptions
from .userdataitems import (
    AsynchronousOperationsWindow,
    RoleSelection,
    SOPClassExtendedNegotiation,
    UserDataItem,
    UserIdentity,
    UserIdentityResponse,
)

__all__ = ["AE", "AEService", "RemoteAE"]

_AE = TypeVar("_AE", bound="AE")
#: What presentation contexts are made of; see :func:`~netdicom_tx.negotiation.plan_contexts`.
Contexts = Mapping[str, Sequence[str]] | Iterable[tuple[str, Sequence[str]]]


def _default_reactor() -> Any:  # the reactor has many interfaces, and no type that has them all
    from twisted.internet import reactor

    return reactor


class AE(Hooks):
    """An application entity.

    Args:
        ae_title: The AE title, 1 to 16 characters; spaces around it are dropped.
        supported_ts: The transfer syntaxes of services that name none, in the order of preference.
        max_pdu_length: The largest P-DATA-TF that we accept, in octets; 0 means no limit.
        reactor: The reactor; None means the default one, which is imported when it is needed.
        timeouts: How long each wait on an association of this AE may take.
        max_associations: How many associations peers may have open with us at the same time; None means any
            number. At the limit, an association on which nothing happens is aborted for the next one. If every
            association is in use, the next one is rejected (transient, local limit exceeded).
        max_associations_per_host: How many associations one host may have open; the loopback interface is exempt.
        max_associations_per_title: How many associations may be open with one calling AE title.
        window: How many simultaneous operations we propose or grant (PS3.7 D.3.3.3).
        called_ae_titles: The AE titles under which we serve. None means any title; some peers call every archive
            ``ANY-SCP``.
        calling_ae_titles: The AE titles of the peers that we serve; None means any peer.
        move_associations: How many associations to its destination a C-MOVE that we perform opens at the same time.
        move_associations_per_peer: How many associations all C-MOVEs together open to one destination at the same time;
            further ones wait.
        memory_limit: How many octets all associations together may hold in memory; None means any number. Above that,
            the peers that hold most must wait, and new associations are rejected (transient, local limit exceeded).
        access: The rules for which peer may do what; None allows everything to everybody. The attribute may be
            changed at any time, and the new rules hold for the next association and the next operation.
        identities: Checks the users of peers (PS3.7 D.3.3.7); None checks none. It may be changed at any time, too.

    Raises:
        TypeError, ValueError, LocalProtocolError: An argument is wrong.
    """

    #: The class of the associations of this AE, of either side.
    association_class: ClassVar[type[Association]] = Association
    _log = Logger()

    def __init__(
        self,
        ae_title: str,
        supported_ts: Sequence[str] = uids.DEFAULT_TRANSFER_SYNTAXES,
        max_pdu_length: int = RECEIVE_LIMIT,
        *,
        reactor: Any = None,
        timeouts: Timeouts | None = None,
        max_associations: int | None = None,
        max_associations_per_host: int | None = None,
        max_associations_per_title: int | None = None,
        window: Window = NO_WINDOW,
        called_ae_titles: Iterable[str] | None = None,
        calling_ae_titles: Iterable[str] | None = None,
        move_associations: int = 1,
        move_associations_per_peer: int = 8,
        memory_limit: int | None = MEMORY_LIMIT,
        access: Access | None = None,
        identities: Identities | None = None,
    ) -> None:
        self.ae_title = check_ae_title(ae_title)
        check_number("max_pdu_length", max_pdu_length, 0, unit="octets")
        check_type(
            "timeouts", timeouts or Timeouts(), Timeouts, "Timeouts, such as Timeouts(response=30)"
        )
        check_type("window", window, Window, "a Window, such as Window(8, 8)")
        check_number("move_associations", move_associations, 1)
        check_number("move_associations_per_peer", move_associations_per_peer, 1)
        self.supported_ts = uids.as_tuple("supported_ts", supported_ts)
        self.max_pdu_length = max_pdu_length
        self.timeouts = timeouts or Timeouts()
        self._admission = Admission(
            *(max_associations, max_associations_per_host, max_associations_per_title),
            lambda: self.clock,
        )
        self._memory = MemoryBudget(memory_limit, lambda: self.clock)
        self.window = window
        #: What is agreed on with peers that call with these AE titles, whatever this AE would negotiate.
        self.quirks: Mapping[str, Quirks] = {}
        #: The networks of proxies and balancers in front. What only echoes from there has no line in the log.
        self.proxies: Sequence[Network] = ()
        self.called_ae_titles = _titles("called_ae_titles", called_ae_titles)
        self.calling_ae_titles = _titles("calling_ae_titles", calling_ae_titles)
        self.move_associations = move_associations
        self.move_associations_per_peer = move_associations_per_peer
        self.access = access
        self.identities = identities
        self.supported_scp = Dispatcher(_is_registered)
        self.supported_scu = Dispatcher(_is_registered)
        self._reactor = reactor
        self._live = Associations(lambda: self.clock)
        self._refusals = Refusals(lambda: self.clock)
        # For each association that a peer has asked for: the associations of the same listener.
        self._listeners: dict[Association, Associations] = {}

    @property
    def max_associations(self) -> int | None:
        """How many associations peers may have open at the same time; may be changed at any time."""
        return self._admission.total

    @max_associations.setter
    def max_associations(self, number: int | None) -> None:
        self._admission.total = number

    @property
    def max_associations_per_host(self) -> int | None:
        """How many associations one host may have open; may be changed at any time."""
        return self._admission.per_host

    @max_associations_per_host.setter
    def max_associations_per_host(self, number: int | None) -> None:
        self._admission.per_host = number

    @property
    def max_associations_per_title(self) -> int | None:
        """How many associations may be open with one calling AE title; may be changed at any time."""
        return self._admission.per_title

    @max_associations_per_title.setter
    def max_associations_per_title(self, number: int | None) -> None:
        self._admission.per_title = number

    def octets_came(self, octets: int) -> None:
        """Octets came on an association."""
        self._memory.received(octets)
        self._admission.received(octets)

    @property
    def memory(self) -> MemoryBudget:
        """The account of what the associations hold in memory."""
        return self._memory

    @property
    def reactor(self) -> Any:
        """The reactor that connects, listens and keeps time."""
        if self._reactor is None:
            self._reactor = _default_reactor()
        return self._reactor

    @property
    def clock(self) -> IReactorTime:
        clock: IReactorTime = self.reactor
        return clock

    @property
    def associations(self) -> frozenset[Association]:
        """The live associations, of both roles."""
        return frozenset(self._live)

    def about(self) -> str:
        """The text that is added to the log line of an opened port; empty by default, for subclasses."""
        return ""

    # -- services --------------------------------------------------------------------------------

    def add_scp(
        self: _AE,
        service: Service,
        sop_classes: Iterable[str] | None = None,
        transfer_syntaxes: Sequence[str] | None = None,
    ) -> _AE:
        """Serve SOP classes.

        Args:
            service: A callable ``(asce, ctx, msg)``; :mod:`netdicom_tx.operations` says what it may return.
            sop_classes: The SOP classes; None means the service's own.
            transfer_syntaxes: The transfer syntaxes; None means those of the AE.

        Returns:
            This AE, so that calls can be chained.

        Raises:
            TypeError: An argument is not of the kind that is expected.
            ValueError: The service names no SOP classes, or one of them has a service already.
        """
        self.supported_scp.register(service, sop_classes, transfer_syntaxes or self.supported_ts)
        return self

    def add_scu(
        self: _AE,
        service: Service,
        sop_classes: Iterable[str] | None = None,
        transfer_syntaxes: Sequence[str] | None = None,
    ) -> _AE:
        """Use SOP classes that peers serve; the arguments are those of :meth:`add_scp`.

        :meth:`request_association` proposes the SOP classes. :meth:`Association.get_scu` gives the service, a
        callable ``(asce, ctx, *args, **kwargs)``, bound to the association and its context.
        """
        self.supported_scu.register(service, sop_classes, transfer_syntaxes or self.supported_ts)
        return self

    # -- requestor -------------------------------------------------------------------------------

    def request_association(
        self,
        remote_ae: RemoteAE,
        contexts: Contexts | None = None,
        *,
        for_files: Iterable[str | os.PathLike[str]] | None = None,
        roles: Iterable[RoleSelection] = (),
        user_items: Iterable[UserDataItem] = (),
    ) -> defer.Deferred[Association]:
        """Open an association.

        Args:
            remote_ae: The application entity to call.
            contexts: The transfer syntaxes to propose for each abstract syntax, as a mapping, or as pairs that
                become one context each. None means the contexts of all services registered with :meth:`add_scu`,
                and those that their sub-operations need: the storage classes that C-GET brings and this AE
                serves, as many as there is room for.
            for_files: Part 10 files to be stored. One context is proposed for each of their SOP classes and
                transfer syntaxes. More than 128 contexts need :func:`~netdicom_tx.sopclass.store_all`.
            roles: Role selection (PS3.7 D.3.3.4). Without it we are SCU, and SCP of what the sub-operations of
                a proposed service need.
            user_items: Further user information, such as extended negotiation.

        Returns:
            Fires with the established association. Fails with AssociationRejectedError,
            AssociationAbortedError, ConnectionLostError or DCMTimeoutError. Fails with OSError or DataSetError
            when a file of ``for_files`` cannot be read, and with LocalProtocolError when the files need more
            contexts than an association can hold. Cancelling it gives up the connection attempt or aborts the
            association, and the Deferred fails with CancelledError.

        Raises:
            TypeError, ValueError, LocalProtocolError: An argument is wrong, there is nothing to propose, or the
                contexts are more than an association can hold.
        """
        check_type(
            "remote_ae", remote_ae, RemoteAE, "a RemoteAE, such as RemoteAE.of('PACS@host:104')"
        )
        asked = many("roles", roles, RoleSelection, "RoleSelection items")
        more = many("user_items", user_items, UserDataItem, "user data items")
        endpoint = remote_ae.connector(self.reactor)
        if for_files is None:
            planned = self._plan(contexts)
        else:
            paths = many("for_files", for_files, (str, os.PathLike), "paths")
            try:
                planned = negotiation.plan_contexts(_contexts_of(paths))
            except (NetDICOMError, OSError) as error:
                return defer.fail(error)
        planned = self._for(remote_ae, planned)
        request = self._proposal(remote_ae, planned, asked or self._roles(planned), more)
        asce = self.association_class(
            self,
            is_requestor=True,
            clock=self.clock,
            timeouts=self.timeouts,
            remote_ae=remote_ae,
        )
        asce.request_pdu = request
        asce.calling_ae_title = self.ae_title
        asce.called_ae_title = remote_ae.ae_title
        connecting = self._associate(asce, remote_ae, request, endpoint)
        return defer.Deferred.fromCoroutine(connecting)

    async def _associate(
        self,
        asce: Association,
        remote_ae: RemoteAE,
        request: AAssociateRQ,
        endpoint: IStreamClientEndpoint,
    ) -> Association:
        timeouts = self.timeouts
        established = asce.established()
        factory = DULRequestorFactory(request, asce, clock=self.clock, timeouts=timeouts)
        connecting = endpoint.connect(factory)
        connecting.addTimeout(timeouts.connect, self.clock, _connect_timed_out)
        try:
            await connecting
        except BaseException as error:
            # An endpoint that wraps another one may fail although it has a transport.
            established.addErrback(lambda _: None)
            asce.abort()
            if isinstance(error, DCMTimeoutError | defer.CancelledError):
                raise
            if isinstance(error, ConnectingCancelledError):
                # Twisted's own error for a cancelled attempt is not a CancelledError.
                raise defer.CancelledError from error
            raise ConnectionLostError(
                f"no connection to {remote_ae.ae_title} at {_where(remote_ae)}: "
                f"{Failure().getErrorMessage()}"
            ) from error
        return await established

    def _plan(self, contexts: Contexts | None) -> tuple[PresentationContextRQ, ...]:
        if contexts is not None:
            return negotiation.plan_contexts(contexts)
        planned = negotiation.plan_contexts(
            {uid: entry.transfer_syntaxes for uid, entry in self.supported_scu}
        )
        own = {context.abstract_syntax for context in planned}
        suboperations = self._suboperations(planned) - own
        brought = [
            (uid, registration.transfer_syntaxes)
            for uid, registration in self.supported_scp
            if uid in suboperations
        ]
        if brought:
            room = negotiation.MAXIMUM_CONTEXTS - len(planned)
            planned = negotiation.plan_contexts(
                [(context.abstract_syntax, context.transfer_syntaxes) for context in planned]
                + negotiation.contexts_to_receive(brought, room)
            )
        return planned

    def _suboperations(self, planned: Iterable[PresentationContextRQ]) -> frozenset[str]:
        """The abstract syntaxes in which the SCPs of the planned contexts may send us sub-operations."""
        found = (self.supported_scu.find(context.abstract_syntax) for context in planned)
        return frozenset().union(*(each.suboperations for each in found if each is not None))

    def _roles(self, planned: Iterable[PresentationContextRQ]) -> tuple[RoleSelection, ...]:
        """The roles for sub-operations: with C-GET, we are SCP of storage (PS3.4 C.4.3)."""
        proposed = dict.fromkeys(context.abstract_syntax for context in planned)
        suboperations = self._suboperations(planned)
        return tuple(
            RoleSelection(uid, self.supported_scu.find(uid) is not None, True)
            for uid in proposed
            if uid in suboperations and self.supported_scp.find(uid) is not None
        )

    def _for(
        self, remote: RemoteAE, planned: tuple[PresentationContextRQ, ...]
    ) -> tuple[PresentationContextRQ, ...]:
        """The contexts that this peer may be asked for."""
        found = remote.quirks.proposed(planned)
        if not found:
            raise LocalProtocolError(
                f"nothing can be proposed to {remote.ae_title}: it takes only "
                f"{', '.join(map(uids.name, remote.quirks.transfer_syntaxes))}"
            )
        return found

    def quirks_of(self, asce: Association) -> Quirks:
        """What is agreed on with the peer of an association, whatever this AE would negotiate."""
        if asce.remote_ae is not None:
            return asce.remote_ae.quirks
        return self.quirks.get(asce.peer_title, NO_QUIRKS) if self.quirks else NO_QUIRKS

    def _proposal(
        self,
        remote: RemoteAE,
        contexts: tuple[PresentationContextRQ, ...],
        roles: tuple[RoleSelection, ...],
        more: tuple[UserDataItem, ...],
    ) -> AAssociateRQ:
        window: tuple[UserDataItem, ...] = ()
        own = remote.quirks.window_or(self.window)
        if own != NO_WINDOW:
            window = (AsynchronousOperationsWindow(own.invoked, own.performed),)
        identity = (remote.identity,) if remote.identity is not None else ()
        return AAssociateRQ(
            called_ae_title=remote.ae_title,
            calling_ae_title=self.ae_title,
            presentation_contexts=contexts,
            user_information=(
                *negotiation.identification(remote.quirks.limit(self.max_pdu_length)),
                *window,
                *roles,
                *more,
                *identity,
            ),
        )

    # -- acceptor --------------------------------------------------------------------------------

    def acceptor_factory(self, associations: Associations | None = None) -> DULAcceptorFactory:
        """A Twisted factory whose connections are associations with this AE.

        Args:
            associations: A set that these associations are added to, so that they can be ended separately.
        """

        def accept() -> Association:
            asce = self.association_class(
                self, is_requestor=False, clock=self.clock, timeouts=self.timeouts
            )
            if associations is not None:
                self._listeners[asce] = associations
            return asce

        return DULAcceptorFactory(
            accept,
            clock=self.clock,
            receive_limit=self.max_pdu_length,
            timeouts=self.timeouts,
        )

    def listen(
        self,
        endpoint: str | IStreamServerEndpoint,
        tls: TLSOptions | None = None,
        *,
        associations: Associations | None = None,
    ) -> defer.Deferred[IListeningPort]:
        """Serve at an endpoint.

        New associations are accepted again after :meth:`drain`.

        Args:
            endpoint: A Twisted server endpoint, or its string: ``"tcp:11112:interface=127.0.0.1"``.
            tls: How TLS is served over the endpoint; None serves without TLS.
            associations: As for :meth:`acceptor_factory`.

        Returns:
            Fires with the listening port. Its ``stopListening`` closes the port; live associations continue.
            Fails with CannotListenError. Cancelling it gives up the attempt.

        Raises:
            TypeError, LocalProtocolError: The endpoint is wrong.
        """
        plain = self._server_endpoint(endpoint)
        if tls is not None:
            check_type("tls", tls, TLSOptions, "TLSOptions")
        self._live.is_draining = False
        wrapped = plain if tls is None else tls.wrap_server(plain)
        return wrapped.listen(self.acceptor_factory(associations)).addCallback(accept_in_turns)

    def _server_endpoint(self, endpoint: str | IStreamServerEndpoint) -> IStreamServerEndpoint:
        if isinstance(endpoint, str):
            return server_endpoint(self.reactor, endpoint)
        if not hasattr(endpoint, "listen"):
            raise TypeError(
                f"endpoint is {endpoint!r:.80}; expected an endpoint, or its string such as 'tcp:11112'"
            )
        other: IStreamServerEndpoint = endpoint
        return other

    def as_service(self, *endpoints: str | IStreamServerEndpoint, grace: float = 10) -> AEService:
        """A Twisted service that listens at the endpoints while it runs.

        Args:
            endpoints: Twisted server endpoints, or their strings.
            grace: How many seconds running operations have to end when the service stops.

        Raises:
            TypeError, ValueError, LocalProtocolError: An argument is wrong.
        """
        if not endpoints:
            raise ValueError("a service needs an endpoint, such as 'tcp:11112'")
        check_seconds("grace", grace, zero=True)
        return AEService(self, [self._server_endpoint(each) for each in endpoints], grace)

    def serve(
        self, *endpoints: str | IStreamServerEndpoint, grace: float = 10
    ) -> defer.Deferred[None]:
        """Serve at endpoints until the Deferred is cancelled or the reactor stops.

        Args:
            endpoints: As for :meth:`listen`.
            grace: How many seconds running operations have to end when serving stops.

        Returns:
            A Deferred that does not fire by itself. Cancelling it stops serving, as :class:`AEService` does.

        Raises:
            CannotListenError: A port cannot be opened.
        """
        service = self.as_service(*endpoints, grace=grace)
        service.startService()
        trigger = self.reactor.addSystemEventTrigger("before", "shutdown", service.stopService)

        def stop(_: defer.Deferred[None]) -> None:
            self.reactor.removeSystemEventTrigger(trigger)
            service.stopService()

        return defer.Deferred(stop)

    def drain(self, grace: float) -> defer.Deferred[None]:
        """Accept no new association, let operations end, then end all associations of both roles.

        Idle associations are released at once, and others when their running operations are done. A peer that does
        not answer A-RELEASE-RQ within a second is sent A-ABORT, and so are all peers after ``grace`` seconds. A
        service that stops ends only its own associations in this way.

        Returns:
            Fires when no association is left. Cancelling it aborts all associations.

        Raises:
            TypeError, ValueError: ``grace`` is not a number of seconds.
        """
        check_seconds("grace", grace, zero=True)
        return self._live.drain(grace).addBoth(self._told)

    def _told(self, result: Any) -> Any:  # the outcome of a Deferred, which is passed on
        self._refusals.catch_up(at_end=True)
        return result

    def association_opened(self, asce: Association) -> None:
        """The transport of an association is open."""
        self._refusals.catch_up()
        self._live.add(asce)
        self._memory.add(asce)
        if not asce.is_requestor:
            self._admission.opened(asce)
        if asce in self._listeners:
            self._listeners[asce].add(asce)
        self._tell(self.on_association_begun, asce)

    def association_accepted(self, asce: Association) -> None:
        """An association is established."""
        self._tell(self.on_association_accepted, asce)

    def association_refused(self, asce: Association, refusal: Refusal) -> None:
        """A peer is refused something, which the log says once a minute for each host and kind."""
        self._refusals.tell(asce.peer_address, refusal, asce.peer_title)

    def connection_refused(self, address: IAddress | None, refusal: Refusal) -> None:
        """A connection is refused before it could become an association; the log says it as for an association."""
        self._refusals.tell(address, refusal)

    def finish_work(self, asce: Association) -> defer.Deferred[Any] | None:
        """End what is still done behind the answers to a peer that wants to release; None when there is nothing."""
        return None

    def operation_performed(
        self,
        asce: Association,
        ctx: PContextDef,
        msg: Request,
        response: Response | None,
        seconds: float,
    ) -> None:
        """An operation for a peer has ended after so many seconds, with this last response if one could be sent."""

    def association_closed(self, asce: Association) -> None:
        """The transport of an association is gone; its slot is free."""
        self._live.discard(asce)
        self._memory.discard(asce)
        self._admission.closed(asce)
        listener = self._listeners.pop(asce, None)
        if listener is not None:
            listener.discard(asce)
        self._tell(self.on_association_ended, asce, asce.summary)

    def _tell(self, hook: Callable[..., Any], *arguments: object) -> None:
        """Call a hook that only watches; an exception in it is logged and changes nothing."""
        try:
            waiting = hook(*arguments)
        except Exception:
            self._hook_failed(hook, Failure())
            return
        if waiting is not None:  # a Deferred, a coroutine, or a value that nobody asked for
            defer.maybeDeferred(lambda: waiting).addErrback(partial(self._hook_failed, hook))

    def _hook_failed(self, hook: Callable[..., Any], failure: Failure) -> None:
        self._log.failure("{hook} failed", failure, hook=getattr(hook, "__name__", hook))

    def offer(self, abstract_syntax: str) -> Offer | None:
        """What this AE offers for a presentation context that a peer proposes; None when it has no service."""
        as_scp = self.supported_scp.find(abstract_syntax)
        as_scu = self.supported_scu.find(abstract_syntax)
        # An SCP of C-GET stores at its requestor (PS3.4 C.4.3), in the transfer syntax of each instance.
        brings = abstract_syntax in self.supported_scp.suboperations
        if as_scp is None and as_scu is None and not brings:
            return None
        either = as_scp or as_scu
        return Offer(
            either.transfer_syntaxes if either is not None else uids.ALL_TRANSFER_SYNTAXES,
            as_scp is not None,
            as_scu is not None or brings,
        )

    def offers_to(self, asce: Association) -> Callable[[str], Offer | None]:
        """What gives, for an abstract syntax, that part of :meth:`offer` which this peer may use."""
        quirks = self.quirks_of(asce)
        if self.access is None and quirks is NO_QUIRKS:
            return self.offer
        if self.access is None:
            return lambda uid: None if (found := self.offer(uid)) is None else quirks.offered(found)
        verdict = self.access.judge(asce.caller)
        # The rules may have changed while the hook was asked.
        profile = verdict if isinstance(verdict, Profile) else Profile(frozenset())

        def offer_to(abstract_syntax: str) -> Offer | None:
            offer = self.offer(abstract_syntax)
            if offer is None:
                return None
            return quirks.offered(restricted(offer, self._needed(abstract_syntax), profile))

        return offer_to

    def _needed(self, abstract_syntax: str) -> Permission:
        registration = self.supported_scp.find(abstract_syntax)
        operations = getattr(registration and registration.service, "operations", None) or ()
        return needed_for(abstract_syntax, operations)

    def authorize(
        self, asce: Association, ctx: PContextDef, msg: Request
    ) -> Awaitable[None] | None:
        """Check that a peer may have an operation performed.

        Returns:
            None when it may, or an awaitable of that when :meth:`on_authorize` takes its time.

        Raises:
            StatusError: It may not; the status is 0x0124.
        """
        if asce.is_requestor:
            return None  # what comes here was asked for: C-GET's sub-operations, event reports
        asks_hook = self._overrides("on_authorize")
        if self.access is None and not asks_hook:
            return None
        permission = needed_for(ctx.sop_class, (msg.OPERATION,))
        destination = getattr(msg, "move_destination", None)
        if self.access is not None and not self.access.may(asce.caller, permission, destination):
            raise self._not_authorized(asce, msg, permission, destination)
        if not asks_hook:
            return None
        return self._ask_policy(asce, ctx, msg, permission, destination)

    def _overrides(self, hook: str) -> bool:
        """Whether a program has a hook of its own; without one, nothing waits for it."""
        own = getattr(self, hook)
        return getattr(own, "__func__", own) is not getattr(Hooks, hook)

    async def _ask_policy(
        self,
        asce: Association,
        ctx: PContextDef,
        msg: Request,
        permission: Permission,
        destination: str | None,
    ) -> None:
        verdict = self.on_authorize(RequestContext.of(asce, ctx, msg), permission, destination)
        if inspect.isawaitable(verdict):
            verdict = await verdict
        check_type("the verdict of on_authorize", verdict, bool, "True or False")
        if not verdict:
            raise self._not_authorized(asce, msg, permission, destination)

    def _not_authorized(
        self, asce: Association, msg: Request, permission: Permission, destination: str | None
    ) -> StatusError:
        """Log that an operation is refused, and give the answer.

        PS3.4 Table C.4-2 has 0x0124 for C-MOVE, too. 0xA801 would say that the destination is unknown, and whoever
        looks for the fault would look in the wrong place.
        """
        to = f" to {printable(destination)}" if destination is not None else ""
        may = f"{permission}{to}"
        self.association_refused(
            asce,
            Refusal(
                f"not authorized, {permission}",
                f"{msg.OPERATION}{to} is not allowed for it",
                advice=f"allow it {may!r} in the configuration, if it may do this",
                verb="answered 0x0124 (not authorized) to",
            ),
        )
        return StatusError(statuses.NOT_AUTHORIZED, f"{msg.OPERATION}{to} is not allowed")

    def answer_extended(
        self, asce: Association, proposal: SOPClassExtendedNegotiation
    ) -> bytes | None:
        """Answer SOP class extended negotiation (PS3.7 D.3.3.5) by the ``on_extended`` of the SOP class's service.

        Returns:
            The application information of the answer; None leaves the item unanswered. So does a handler that
            fails, which is logged.
        """
        registration = self.supported_scp.find(proposal.sop_class_uid)
        handler = (
            None if registration is None else getattr(registration.service, "on_extended", None)
        )
        if handler is None:
            return None
        try:
            answer: bytes | None = handler(asce, proposal)
            if answer is not None:
                check_type("the answer", answer, bytes, "bytes, or None for no answer")
        except (
            Exception
        ):  # a mistake of the handler costs the peer the option, but not the association
            self._log.failure(
                "on_extended failed for {sop_class}; the proposal is not answered",
                sop_class=proposal.sop_class_uid,
            )
            return None
        return answer

    def reject_reason(self, asce: Association, request: AAssociateRQ) -> AAssociateRJ | None:
        """Why this request is rejected before the hook is asked, or None."""
        asce.caller = self._caller(asce)
        listener = self._listeners.get(asce)
        if self._live.is_draining or (listener is not None and listener.is_draining):
            return AAssociateRJ(2, 3, 1)
        rejection = negotiation.reject_reason(
            request,
            called_ae_titles=self.called_ae_titles,
            calling_ae_titles=self.calling_ae_titles,
        )
        if (
            rejection is None
            and self.access is not None
            and isinstance(self.access.judge(asce.caller), Denied)
        ):
            return AAssociateRJ(1, 1, 3)
        if rejection is None and (self._memory.is_overdrawn or not self._admission.asks(asce)):
            return AAssociateRJ(2, 3, 2)
        return rejection

    def check_user(self, asce: Association, request: AAssociateRQ) -> Verdict:
        """Check the user identity of a request.

        Returns:
            None when there is nothing to check, or an awaitable of the answer to the identity.

        Raises:
            NotAuthenticatedError: The user has to be known, and is not.
        """
        identity = request.user_item(UserIdentity)
        profile = self.access.judge(asce.caller) if self.access is not None else None
        is_required = isinstance(profile, Profile) and profile.require_identity
        if identity is None:
            if is_required:
                raise NotAuthenticatedError.because(
                    "missing",
                    "the association request has no user identity",
                    "the identity of its user",
                    "let the peer send one, or do not require it from this peer",
                )
            return None
        if self.identities is None and not self._overrides("on_user_identity") and not is_required:
            return None  # PS3.7 D.3.3.7.2: an acceptor without this service does not answer the identity
        return self._check_user(asce, identity, is_required)

    async def _check_user(
        self, asce: Association, identity: UserIdentity, is_required: bool
    ) -> UserIdentityResponse | None:
        what = kind_of(identity)
        try:
            if self.identities is not None and self.identities.checks(identity):
                is_checked = True
                user = await self.identities.check(identity)
            else:
                found = self.on_user_identity(asce, identity)
                user = await found if inspect.isawaitable(found) else found
                is_checked = is_required
        except (AssociationRejectedError, defer.CancelledError):
            raise
        except Exception as error:
            # What a checker meets, such as a file that is gone, must not let anybody in.
            self._log.failure("the user identity of {peer} cannot be checked", peer=asce.peer_title)
            raise AssociationRejectedError(2, 1, 1) from error
        if user is not None:
            check_type("the user", user, User, "a User")
            asce.user = user
            return UserIdentityResponse(user.response)
        if not is_checked:
            return None
        raise NotAuthenticatedError.because(
            "wrong",
            f"{what} came that is not accepted",
            "the identity of a user who is known here",
            "correct it at the peer, or set a new password with netdicom passwd",
        )

    def _caller(self, asce: Association) -> Caller:
        """Who asks, as far as the rules look at it."""
        return Caller(
            asce.calling_ae_title,
            str(getattr(asce.peer_address, "host", None) or ""),
            asce.peer_certificate,
        )

    def explain(self, asce: Association, request: AAssociateRQ, rejection: AAssociateRJ) -> Refusal:
        """Say why a request is rejected, in the words of an operator."""
        if self.access is not None and (rejection.source, rejection.reason) == (1, 3):
            verdict = self.access.judge(asce.caller)
            if isinstance(verdict, Denied):
                return Refusal(verdict.kind, verdict.came, verdict.expected, verdict.advice)
        if self._memory.is_overdrawn and (rejection.source, rejection.reason) == (3, 2):
            return Refusal(
                "memory",
                f"all associations together hold {self._memory.total >> 20} MiB in memory",
                f"at most {(self._memory.limit or 0) >> 20} MiB",
                "let the peer try again later, or raise memory_limit",
            )
        admission = self._admission
        per_host = "" if admission.per_host is None else f", {admission.per_host} for each host"
        return rejected(
            request,
            rejection,
            words=str(
                AssociationRejectedError(rejection.result, rejection.source, rejection.reason)
            ),
            called=self.called_ae_titles,
            limit=f"at most {admission.total}{per_host}",
        )


def _titles(argument: str, titles: Iterable[str] | None) -> frozenset[str] | None:
    """Check a list of AE titles.

    Raises:
        TypeError: The argument is one string, which would be taken for a list of characters.
        LocalProtocolError: An item is not an AE title.
    """
    if isinstance(titles, str):
        raise TypeError(f"{argument} is a list of AE titles, such as [{titles!r}], not a string")
    return None if titles is None else frozenset(map(check_ae_title, titles))


def _contexts_of(
    paths: Iterable[str | os.PathLike[str]],
) -> list[tuple[str, tuple[str, ...]]]:
    """The presentation contexts that Part 10 files need."""
    metas = []
    for path in paths:
        with open(path, "rb") as file:
            metas.append(read_file_meta(file, is_lenient=True))
    return negotiation.contexts_for_instances(
        (meta.sop_class_uid, meta.transfer_syntax) for meta in metas
    )


def _is_registered(uid: str) -> bool:
    return uids.name(uid) != uid


def _connect_timed_out(result: object, seconds: float) -> object:
    """The outcome of a connection attempt that was cancelled because its time was up."""
    return Failure(DCMTimeoutError("connect", seconds)) if isinstance(result, Failure) else result


def _where(remote: RemoteAE) -> str:
    return remote.endpoint if isinstance(remote.endpoint, str) else repr(remote.endpoint)
