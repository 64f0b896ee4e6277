"""One call on an association of its own, for scripts: ``netdicom_tx.echo``, ``store``, ``find``, ``get``, ``move``.

Each function opens an association that proposes just what it needs, makes one call of
:mod:`netdicom_tx.verbs`, and releases the association. The association of a stream is opened when the
stream is first read, and released when the stream has been read to its end or is left::

    async def main(reactor):
        print(await netdicom_tx.echo("ARCHIVE@pacs.example:104"))
        for study in await netdicom_tx.find("ARCHIVE@pacs.example:104", PatientName="DOE*"):
            print(study.StudyInstanceUID)

Every function takes ``ae``: our AE title, or an :class:`~netdicom_tx.AE` if you need timeouts, TLS or a reactor.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.internet.interfaces import IStreamClientEndpoint

from . import statuses, uids
from .arguments import check_number, check_seconds, check_type, several
from .exceptions import LocalProtocolError, StatusError
from .pdu import check_ae_title
from .remoteae import RemoteAE
from .sopclass.keywords import identifier, unique
from .sopclass.sending import StoreResult, store_all
from .sopclass.storage import Instance, Source
from .statuses import Status
from .verbs import AE, Association, Progress, Retrieved, VerbStream, information_model

__all__ = ["OneShot", "StoreResults", "echo", "find", "get", "move", "store"]

Peer = str | RemoteAE | IStreamClientEndpoint
_Item = TypeVar("_Item")
_All = TypeVar("_All")

#: Our default AE title.
CALLING = "NETDICOM-SCU"


def _entity(ae: str | AE) -> AE:
    if isinstance(ae, str):
        return AE(ae)
    check_type("ae", ae, AE, "our AE title, or an AE")
    return ae


def echo(peer: Peer, *, ae: str | AE = CALLING) -> defer.Deferred[Status]:
    """Ask whether a peer is there and speaks DICOM (C-ECHO).

    Returns:
        Fires with the status. Fails as :meth:`AE.associate` and :meth:`Association.echo` say. Cancelling
        gives up the attempt, or aborts the association.

    Raises:
        TypeError, ValueError, LocalProtocolError: The address or another argument is wrong.
    """
    opening = _entity(ae).associate(peer, uids.VERIFICATION_SOP_CLASS)

    async def ask() -> Status:
        async with opening as asce:
            return await asce.echo()

    return defer.Deferred.fromCoroutine(ask())


class OneShot(Generic[_Item, _All]):
    """The stream of one call on an association of its own.

    ``async for`` reads it, and ``await`` returns the whole result: the list of data sets of a ``find``, or the final
    counts of a ``move``. Leaving an ``async with`` block early, or the loss of the last reference to the
    stream, ends the operation and the association.

    Cancelling a Deferred in which a reader waits gives up the attempt to connect, or aborts the association; the reader
    gets CancelledError.
    """

    def __init__(
        self,
        opening: Callable[[], defer.Deferred[Association]],
        call: Callable[[Association], VerbStream[_Item]],
        gather: Callable[[Any], Awaitable[_All]],
    ) -> None:
        self._opening = opening
        self._call = call
        self._gather = gather
        self._asce: Association | None = None
        self._stream: VerbStream[_Item] | None = None
        self._is_over = False
        self._is_read = False  # whether a caller waits for the next item, or for all

    @property
    def stream(self) -> VerbStream[_Item] | None:
        """The stream of the call, with its final response; None before the first item is asked for."""
        return self._stream

    async def _begin(self) -> VerbStream[_Item]:
        if self._stream is None:
            asce = self._asce = await self._opening()
            # A reader that drops the stream must not leave an association behind.
            weakref.finalize(self, asce.finish).atexit = False
            self._stream = self._call(asce)
        return self._stream

    def __aiter__(self) -> Self:
        return self

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Refuse a second reader, which would take items from the first, or open another association."""
        if self._is_read:
            raise LocalProtocolError("the stream is being read already")
        self._is_read = True
        try:
            yield
        finally:
            self._is_read = False

    async def __anext__(self) -> _Item:
        if self._is_over:
            raise StopAsyncIteration
        with self._reading():
            try:
                stream = await self._begin()
                return await anext(stream)
            except StopAsyncIteration:
                await self._end()
                raise
            except BaseException as error:
                await self._give_up(error)
                raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_over:
            return
        if error is not None:
            await self._give_up(error)
            return
        if self._stream is not None:
            await self._stream.__aexit__(kind, error, trace)
        await self._end()

    async def _give_up(self, error: BaseException) -> None:
        self._is_over = True
        if self._stream is not None:
            await self._stream.__aexit__(type(error), error, None)  # closes unread instances
        if self._asce is not None:
            self._asce.abort()

    async def _end(self) -> None:
        self._is_over = True
        asce, self._asce = self._asce, None
        if asce is not None and asce.is_open:
            await asce.release()

    async def _whole(self) -> _All:
        if self._is_over:
            raise LocalProtocolError("the stream has been read already; make the call again")
        with self._reading():
            async with self:
                return await self._gather(await self._begin())

    def __await__(self) -> Generator[Any, Any, _All]:
        return self._whole().__await__()


def find(
    peer: Peer,
    level: str = "STUDY",
    given: Dataset | None = None,
    /,
    *,
    ae: str | AE = CALLING,
    model: str | None = None,
    timeout: float | None = None,
    **keys: object,
) -> OneShot[Dataset, list[Dataset]]:
    """Query a peer for matching data sets (C-FIND); the arguments are those of :meth:`Association.find`.

    Returns:
        A stream of data sets; ``await`` returns the list.

    Raises:
        TypeError, ValueError, LocalProtocolError: The address, the level, a keyword or another argument is wrong.
    """
    identifier(level, given, keys)  # a mistake is raised here, not after the association is open
    entity, remote, model = _prepared(ae, peer, "find", level, model, timeout)

    return OneShot(
        lambda: entity.associate(remote, model),
        lambda asce: asce.find(level, given, model=model, timeout=timeout, **keys),
        lambda stream: stream,  # awaiting it gathers
    )


def get(
    peer: Peer,
    level: str = "STUDY",
    given: Dataset | None = None,
    /,
    *,
    into: str | os.PathLike[str] | None = None,
    ae: str | AE = CALLING,
    model: str | None = None,
    timeout: float | None = None,
    **keys: object,
) -> OneShot[Retrieved, list[Path]]:
    """Retrieve matching instances (C-GET); the arguments are those of :meth:`Association.get`.

    Args:
        into: The directory to which ``await`` writes each instance, under its SOP Instance UID; it is created if it
            does not exist.

    Returns:
        A stream of :class:`Retrieved`; ``await`` returns the list of the files in ``into``.

    Raises:
        TypeError, ValueError, LocalProtocolError: The address, the level, a keyword or another argument is wrong.
    """
    unique(identifier(level, given, keys))
    entity, remote, model = _prepared(ae, peer, "get", level, model, timeout)
    directory = None if into is None else Path(into)

    async def gather(instances: VerbStream[Retrieved]) -> list[Path]:
        if directory is None:
            raise LocalProtocolError(
                "get() without into= has nowhere to put the instances; read it with 'async for'"
            )
        directory.mkdir(parents=True, exist_ok=True)
        written = []
        async for instance in instances:
            if not uids.is_uid_like(instance.sop_instance_uid):
                raise StatusError(
                    statuses.INVALID_SOP_INSTANCE,
                    f"{instance.sop_instance_uid!r} is not a UID; its file has no name",
                )
            path = directory / f"{instance.sop_instance_uid}.dcm"
            instance.save(path)
            written.append(path)
        return written

    return OneShot(
        lambda: entity.associate(remote, model),
        lambda asce: asce.get(level, given, model=model, timeout=timeout, **keys),
        gather,
    )


def move(
    peer: Peer,
    level: str = "STUDY",
    given: Dataset | None = None,
    /,
    *,
    to: str,
    ae: str | AE = CALLING,
    model: str | None = None,
    timeout: float | None = None,
    **keys: object,
) -> OneShot[Progress, Progress]:
    """Have a peer send matching instances to a destination (C-MOVE); as :meth:`Association.move`.

    Returns:
        A stream of :class:`Progress`; ``await`` returns the final counts.

    Raises:
        TypeError, ValueError, LocalProtocolError: The address, the level, a keyword or another argument is wrong.
    """
    unique(identifier(level, given, keys))
    entity, remote, model = _prepared(ae, peer, "move", level, model, timeout)
    check_ae_title(to)

    return OneShot(
        lambda: entity.associate(remote, model),
        lambda asce: asce.move(level, given, to=to, model=model, timeout=timeout, **keys),
        lambda stream: stream,  # awaiting it gathers
    )


def _prepared(
    ae: str | AE,
    peer: Peer,
    operation: str,
    level: str,
    model: str | None,
    timeout: float | None,
) -> tuple[AE, RemoteAE, str]:
    if model is not None:
        uids.as_tuple("model", [model])
    if timeout is not None:
        check_seconds("timeout", timeout)
    return _entity(ae), RemoteAE.of(peer), model or information_model(operation, level)


class StoreResults:
    """The result for each instance of a :func:`store`, as soon as it is known; ``await`` returns the list.

    After a Deferred in which a reader waits is cancelled, no further instance is sent. Those under way are still
    answered, and then the associations are released; the reader gets CancelledError at once.
    """

    def __init__(self, results: AsyncGenerator[StoreResult, None]) -> None:
        self._results = results

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StoreResult:
        return await anext(self._results)

    async def aclose(self) -> None:
        """Send no further instance; the associations are released when those under way have been answered."""
        await self._results.aclose()

    async def _all(self) -> list[StoreResult]:
        return [each async for each in self._results]

    def __await__(self) -> Generator[Any, Any, list[StoreResult]]:
        return self._all().__await__()


def store(
    peer: Peer,
    files: Source | Instance | Iterable[Source | Instance],
    *,
    associations: int = 1,
    ae: str | AE = CALLING,
) -> StoreResults:
    """Store one instance or any number of them at a peer (C-STORE).

    Args:
        files: A path, an open file or a :class:`pydicom.Dataset`, or an iterable of them, which is consumed as
            the instances are sent.
        associations: How many associations may be open at the same time.

    Returns:
        A stream of :class:`~netdicom_tx.sopclass.StoreResult`, one for each instance; a failure of one never
        stops the others. ``await`` returns the list.

    Raises:
        TypeError, ValueError, LocalProtocolError: The address or another argument is wrong.
    """
    check_number("associations", associations, 1)
    single = isinstance(files, str | os.PathLike | Dataset | Instance) or hasattr(files, "read")
    sources = cast("Iterable[Source | Instance]", [files] if single else files)
    results = store_all(
        _entity(ae),
        RemoteAE.of(peer),
        several("files", sources, "paths, open files or data sets"),
        associations=associations,
    )
    return StoreResults(results)
