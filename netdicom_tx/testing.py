"""Application entities joined in memory, without a port: for the tests of this package, and for yours.

The whole stack is real, from services to PDUs; only the transport is a pair of queues, and time
is a :class:`twisted.internet.task.Clock`. Octets are delivered by themselves, unless the receiver
has paused, so most tests need no pumping::

    with connected(scu, scp) as pair:
        assert success_of(pair.requestor.get_scu(VERIFICATION_SOP_CLASS)()) == SUCCESS

A :class:`Network` joins any number of application entities, for C-MOVE, a gateway or a pool::

    with Network(workstation, archive, viewer) as network:
        archive.destinations["VIEWER"] = network.remote(viewer)
        asce = success_of(workstation.request_association(network.remote(archive)))

What needs real threads or sockets (an archive, TLS) needs a real reactor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from twisted.internet import defer
from twisted.internet.address import IPv4Address
from twisted.internet.error import (
    CannotListenError,
    ConnectionRefusedError,
    UserError,
)
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IListeningPort,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IResolutionReceiver,
)
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from .applicationentity import AE, RemoteAE
from .asceprovider import Association
from .memory import PORT, Cut, MemoryTransport, Wire, join

__all__ = [
    "MemoryTransport",
    "Network",
    "Pair",
    "connected",
    "failure_of",
    "join",
    "success_of",
]

_T = TypeVar("_T")
# From here on are the ports that connections go out from.
_FIRST_FREE_PORT = 49152


@implementer(IReactorTime, IReactorTCP, IReactorPluggableNameResolver)
class Host:
    """A host of a network in memory, as the reactor of its application entity.

    It connects and listens by the same endpoint strings as a real one, so a program under test is configured as
    usual. Its own name, ``localhost`` and ``127.0.0.1`` all mean this host.
    """

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name
        self.ports: dict[int, _Port] = {}
        self.nameResolver: IHostnameResolver = _Resolver()

    def seconds(self) -> float:
        return float(self.network.clock.seconds())

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> IDelayedCall:
        return self.network.clock.callLater(delay, callable, *args, **kwargs)

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        return self.network.clock.getDelayedCalls()

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        old, self.nameResolver = self.nameResolver, resolver
        return old

    def addSystemEventTrigger(
        self, phase: str, eventType: str, callable: Callable[..., Any], *args: object
    ) -> object:
        """Remember nothing: a host in memory is never shut down."""
        return (phase, eventType, callable)

    def removeSystemEventTrigger(self, triggerID: object) -> None:
        """See :meth:`addSystemEventTrigger`."""

    def listenTCP(
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        number = port or self.network.free_port()
        if number in self.ports:
            raise CannotListenError(interface, number, OSError("the port is in use"))
        factory.doStart()
        self.ports[number] = _Port(self, number, factory)
        return self.ports[number]

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        connector = _Connector(self, host, port, factory)
        connector.connect()
        return connector


@implementer(IHostnameResolver)
class _Resolver:
    """Takes each name for an address."""

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        resolutionReceiver.addressResolved(IPv4Address("TCP", hostName, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


@implementer(IHostResolution)
class _Resolution:
    """The look-up of a name, which is over at once."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """There is nothing to cancel."""


@implementer(IListeningPort)
class _Port:
    """A port of a host that listens."""

    def __init__(self, host: Host, number: int, factory: Any) -> None:
        self._host = host
        self._number = number
        self.factory = factory

    def startListening(self) -> None:
        """It does so from the beginning."""

    def stopListening(self) -> defer.Deferred[None] | None:
        if self._host.ports.pop(self._number, None) is not None:
            self.factory.doStop()
        return None

    def getHost(self) -> IAddress:
        return IPv4Address("TCP", self._host.name, self._number)


@implementer(IConnector)
class _Connector:
    """An attempt to connect to a port of the network, for an endpoint."""

    def __init__(self, host: Host, name: str, port: int, factory: ClientFactory) -> None:
        self._host = host
        self._where = (name, port)
        self._factory = factory
        self._is_pending = False
        self._ends: tuple[MemoryTransport, MemoryTransport] | None = None

    def getDestination(self) -> IAddress:
        return IPv4Address("TCP", *self._where)

    def connect(self) -> None:
        self._is_pending = True
        self._factory.doStart()
        self._factory.startedConnecting(self)
        self._host.network.wire.do(self._attempt)

    def _attempt(self) -> None:
        if self._is_pending:
            self._is_pending = False
            network = self._host.network
            self._ends = network.connect(self._host, self._where, self._factory)
            if self._ends is None:
                self._factory.clientConnectionFailed(self, Failure(ConnectionRefusedError()))

    def stopConnecting(self) -> None:
        if self._is_pending:
            self._is_pending = False
            self._factory.clientConnectionFailed(self, Failure(UserError()))

    def disconnect(self) -> None:
        self.stopConnecting()
        if self._ends is not None:
            self._ends[0].loseConnection()


class _Entities(Factory):
    """Answers at the port of an AE, as the AE is at that moment."""

    noisy = False

    def __init__(self, ae: AE) -> None:
        self._ae = ae

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._ae.acceptor_factory().buildProtocol(addr)


class _Member(NamedTuple):
    """An AE on a network."""

    host: Host
    remote: RemoteAE
    reactor: Any  # the one that it had before


class Network:
    """Application entities joined in memory, with one clock.

    Each has a host of its own, listens there, and can be called by what :meth:`remote` gives. It may listen at other
    ports too, and be called by an endpoint string, ``"tcp:archive:104"``: the name of a host is the AE title in
    lower case.

    Use it in a ``with`` statement, or call :meth:`close`: that aborts what is still open, and gives the application
    entities the reactor back that they had before.

    Args:
        entities: The application entities, which may be followed by more with :meth:`add`.
        clock: The time of all; None makes one.
        cut: How each written segment is cut on its way, such as octet by octet.

    Attributes:
        clock: The time of all.
        connections: The ends of each connection that was made, the requestor's first.
    """

    def __init__(self, *entities: AE, clock: Clock | None = None, cut: Cut | None = None) -> None:
        self.clock = Clock() if clock is None else clock
        self.wire = Wire(self.clock, cut)
        self.connections: list[tuple[MemoryTransport, MemoryTransport]] = []
        self._members: dict[AE, _Member] = {}
        self._last_port = _FIRST_FREE_PORT - 1
        for ae in entities:
            self.add(ae)

    @staticmethod
    def of(*entities: AE) -> Network | None:
        """The network that application entities are on; None when they are on none.

        Raises:
            ValueError: They are on several.
        """
        found = {each._reactor.network for each in entities if isinstance(each._reactor, Host)}
        if len(found) > 1:
            raise ValueError("these application entities are on different networks; expected one")
        return next(iter(found), None)

    def __contains__(self, ae: AE) -> bool:
        return ae in self._members

    def add(self, ae: AE) -> RemoteAE:
        """Let an application entity be on this network, and return its address.

        Raises:
            ValueError: It is on another one.
        """
        if ae in self._members:
            return self._members[ae].remote
        if isinstance(ae._reactor, Host):
            raise ValueError(f"{ae.ae_title} is on another network; close that one before")
        taken = {each.host.name for each in self._members.values()}
        base = re.sub(r"[^a-z0-9]+", "-", ae.ae_title.lower()).strip("-") or "host"
        name = next(each for each in _names(base) if each not in taken)
        host = Host(self, name)
        host.listenTCP(PORT, _Entities(ae))
        remote = RemoteAE(ae.ae_title, f"tcp:{name}:{PORT}")
        self._members[ae] = _Member(host, remote, ae._reactor)
        ae._reactor = host
        return remote

    def remote(self, ae: AE) -> RemoteAE:
        """An application entity of this network, as one to call."""
        return self._members[ae].remote

    def remove(self, ae: AE) -> None:
        """Abort the associations of an application entity, and give it its own reactor back."""
        for asce in ae.associations:
            asce.abort()
        self.wire.run()
        ae._reactor = self._members.pop(ae).reactor

    def close(self) -> None:
        """Abort all associations, and give the application entities their own reactors back."""
        for ae in list(self._members):
            self.remove(ae)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def advance(self, seconds: float) -> None:
        """Let time pass for all, from one delayed call to the next, and deliver what that causes."""
        end = self.clock.seconds() + seconds
        while True:
            due = min((call.getTime() for call in self.clock.getDelayedCalls()), default=end)
            self.clock.advance(max(0, min(due, end) - self.clock.seconds()))
            self.wire.run()
            if due >= end:
                return

    def free_port(self) -> int:
        """The number of a port that nobody has on this network."""
        self._last_port += 1
        return self._last_port

    def connect(
        self, caller: Host, where: tuple[str, int], factory: ClientFactory
    ) -> tuple[MemoryTransport, MemoryTransport] | None:
        """Connect a host to a port; None when nobody listens there."""
        name, number = where
        hosts = {each.host.name: each.host for each in self._members.values()}
        host = caller if name in ("localhost", "127.0.0.1") else hosts.get(name)
        port = None if host is None else host.ports.get(number)
        if host is None or port is None:
            return None
        address = (caller.name, self.free_port())
        client = factory.buildProtocol(IPv4Address("TCP", *where))
        server = port.factory.buildProtocol(IPv4Address("TCP", *address))
        if client is None or server is None:
            return None
        ends = join(
            client,
            server,
            self.wire,
            client_address=address,
            server_address=(host.name, number),
        )
        self.connections.append(ends)
        return ends


def _names(base: str) -> Iterator[str]:
    """A name, and others for those who have the same."""
    yield base
    yield from (f"{base}-{number}" for number in count(2))


class Pair:
    """Two AEs and the association between them.

    Attributes:
        scu: The AE that asked.
        scp: The AE that was asked.
        network: The network that both are on.
        clock: The time of both; advance it to let timeouts pass.
        requestor: The association as ``scu`` holds it.
        acceptor: The same association as ``scp`` holds it.
        transports: The ends of the connection, the requestor's first.
    """

    requestor: Association
    acceptor: Association
    transports: tuple[MemoryTransport, MemoryTransport]

    def __init__(self, scu: AE, scp: AE, cut: Cut | None = None) -> None:
        self.scu, self.scp = scu, scp
        self.network = Network.of(scu, scp) or Network()
        self.clock, self.wire = self.network.clock, self.network.wire
        self._whole, self.wire.cut = self.wire.cut, cut or self.wire.cut
        self._added = [each for each in {scu, scp} if each not in self.network]
        for each in self._added:
            self.network.add(each)

    def remote(self) -> RemoteAE:
        """The acceptor, as an AE to call."""
        return self.network.remote(self.scp)

    def request_association(
        self, contexts: Mapping[str, Sequence[str]] | None = None, **options: Any
    ) -> defer.Deferred[Association]:
        """As :meth:`AE.request_association`, to the acceptor."""
        return self.scu.request_association(self.remote(), contexts, **options)

    def open(self, contexts: Mapping[str, Sequence[str]] | None = None, **options: Any) -> None:
        """Make the association between the two.

        Raises:
            AssociationError: It was refused.
        """
        before = len(self.network.connections)
        self.requestor = success_of(self.request_association(contexts, **options))
        self.transports = self.network.connections[before]
        caller = self.transports[0].getHost()
        (self.acceptor,) = (
            each
            for each in self.scp.associations
            if not each.is_requestor and each.peer_address == caller
        )

    def advance(self, seconds: float) -> None:
        """Let time pass at both ends, and deliver what that causes."""
        self.network.advance(seconds)

    def close(self) -> None:
        """Abort the association if it is open; give back the AEs that were on no network before."""
        if hasattr(self, "requestor"):
            self.requestor.abort()
            self.wire.run()
        for each in self._added:
            self.network.remove(each)
        self.wire.cut = self._whole


@contextmanager
def connected(
    scu: AE,
    scp: AE,
    contexts: Mapping[str, Sequence[str]] | None = None,
    *,
    cut: Cut | None = None,
    **options: Any,
) -> Iterator[Pair]:
    """An association between two AEs; it is aborted at the end of the block if it is still open.

    When one of them is on a :class:`Network` already, as in the block of another ``connected``, both are on that
    one, and have its clock.

    Args:
        scu: Requests it.
        scp: Accepts it.
        contexts: As for :meth:`AE.request_association`.
        cut: How each written segment is cut on its way, such as octet by octet, on the whole network.
        options: Of :meth:`AE.request_association`.

    Raises:
        AssociationError: It was refused.
    """
    pair = Pair(scu, scp, cut)
    try:
        pair.open(contexts, **options)
        yield pair
    finally:
        pair.close()


def success_of(deferred: defer.Deferred[_T]) -> _T:
    """The result of a Deferred that has fired.

    Raises:
        AssertionError: It has not fired.
        Exception: What it failed with.
    """
    results: list[_T | Failure] = []
    deferred.addBoth(results.append)
    if not results:
        raise AssertionError("the Deferred has not fired")
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


def failure_of(deferred: defer.Deferred[Any]) -> Exception:
    """What a Deferred has failed with.

    Raises:
        AssertionError: It has not fired, or it has succeeded.
    """
    results: list[Any] = []
    deferred.addBoth(results.append)
    if not results or not isinstance(results[0], Failure):
        raise AssertionError(f"expected a failure, got {results or 'nothing yet'}")
    error = results[0].value
    assert isinstance(error, Exception)
    return error
