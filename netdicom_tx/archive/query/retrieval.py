"""C-FIND, C-MOVE and C-GET of the node: the index is searched in threads, and files are sent as they are kept.

The services with their sub-operations, counters and cancellation are in
:mod:`netdicom_tx.sopclass.query_retrieve`. This module provides the matches and instances that they ask for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from twisted.internet import defer, task

from ... import statuses, uids
from ...applicationentity import RemoteAE
from ...asceprovider import Association
from ...dimsemessages import DataSource
from ...exceptions import StatusError
from ...hooks import RequestContext
from ...logs import Logger, Trouble
from ...sopclass import Instance
from ...sopclass.storage import reencoded
from ...uids import COMPRESSED_TRANSFER_SYNTAXES, EXPLICIT_VR_LITTLE_ENDIAN
from ...userdataitems import SOPClassExtendedNegotiation
from ..index.entries import InstanceRef
from ..index.index import IndexUnavailableError
from ..index.watch import SearchEndedError, Watches
from ..store.checked import KeptInstance, checked, read_kept, read_path
from ..workers import Workers
from .identifiers import InformationModel, QueryOptions
from .search import Search

__all__ = ["Retrieval", "refusing"]

_log = Logger()
_COMPRESSED = frozenset(COMPRESSED_TRANSFER_SYNTAXES)
# Attributes that Composite Instance Retrieve Without Bulk Data leaves out (PS3.4 Z.1.3), and those of repeating groups
# by their element numbers.
_BULK = frozenset(
    (0x7FE00010, 0x7FE00008, 0x7FE00009, 0x00287FE0, 0x56000020, 0x00420011, 0x54001010)
)
_BULK_OF_GROUP = {0x5000: (0x200C, 0x3000), 0x6000: (0x3000,)}


class Retrieval:
    """The hooks of an archive for queries and retrieve requests.

    Args:
        search: The search of the index.
        readers: The threads in which the search runs.
        peers: The peers that C-MOVE may send to, by AE title.
        ae_title: The AE title that is answered as Retrieve AE Title.
        watches: Watch over the searches; None means watches of its own.
    """

    def __init__(
        self,
        search: Search,
        readers: Workers,
        peers: Mapping[str, RemoteAE],
        ae_title: str,
        watches: Watches | None = None,
    ) -> None:
        self._search = search
        self._readers = readers
        self._peers = peers
        self._ae_title = ae_title
        self._watches = watches or Watches()
        self._trouble = Trouble(_log)
        #: Called with the request and the instances that it asks for, before they are sent.
        self.on_selected: Callable[[RequestContext, list[InstanceRef]], object] = _nothing
        #: Called with the request before its instances are looked up.
        self.on_begin: Callable[[RequestContext], object] = _nothing

    @staticmethod
    def answer_extended(asce: Association, proposal: SOPClassExtendedNegotiation) -> bytes | None:
        """Answer with those proposed options that the node supports too, for classes that have any (PS3.4 C.5)."""
        try:
            InformationModel.of(proposal.sop_class_uid)
        except KeyError:
            return None
        return QueryOptions.answer(proposal.application_information)

    @staticmethod
    def _options(context: RequestContext) -> QueryOptions:
        return QueryOptions.of(context.association.extended.get(context.sop_class, b""))

    # -- C-FIND --------------------------------------------------------------------------------------

    async def find(
        self, context: RequestContext, identifier: Dataset
    ) -> AsyncIterator[tuple[bytes, int]]:
        """The encoded matches with their Pending status. The next page is read while one is being sent."""
        with (
            refusing(statuses.C_FIND_OUT_OF_RESOURCES, self._trouble),
            self._watches.watching() as watch,
        ):
            pages = await self._readers.run(
                lambda: self._search.find_pages(
                    identifier,
                    model=InformationModel.of(context.sop_class),
                    options=self._options(context),
                    transfer_syntax=context.supported_ts,
                    retrieve_ae_title=self._ae_title,
                    watch=watch,
                )
            )
            following = self._readers.run(next, pages, None)
            try:
                while (page := await following) is not None:
                    following = self._readers.run(next, pages, None)
                    for each in page:
                        yield each, pages.status
            finally:
                following.addErrback(lambda _: None)
                following.cancel()
                pages.close()

    # -- C-MOVE and C-GET ------------------------------------------------------------------------------

    async def move(
        self, context: RequestContext, identifier: Dataset, destination: str
    ) -> tuple[RemoteAE | None, int, Any]:
        """The destination, the number of matching instances, and the instances (PS3.4 C.4.2.3.1)."""
        remote = self._peers.get(destination)
        if remote is None:
            _log.warn(
                "C-MOVE from {peer} to {destination!r} is refused: the destination is not a peer of this node; "
                "add it with --peer",
                peer=context.association.peer_title,
                destination=destination,
            )
            return None, 0, ()
        found = await self._matches(context, identifier)
        return remote, len(found), list(KeptInstance.of_refs(found))

    async def get(self, context: RequestContext, identifier: Dataset) -> tuple[int, Iterator[Any]]:
        """The number of matching instances, and the instances (PS3.4 C.4.3.3.1)."""
        found = await self._matches(context, identifier)
        if context.sop_class == uids.WITHOUT_BULK_DATA_GET_SOP_CLASS:
            return len(found), _WithoutBulkData.of_refs(found)
        return len(found), KeptInstance.of_refs(found)

    async def _matches(self, context: RequestContext, identifier: Dataset) -> list[InstanceRef]:
        self.on_begin(context)
        with refusing(statuses.Status(0xA701), self._trouble), self._watches.watching() as watch:
            found = await self._readers.run(
                self._search.matches,
                identifier,
                InformationModel.of(context.sop_class),
                self._options(context),
                watch,
            )
        self.on_selected(context, found)
        return found

    def transcode(
        self, asce: Association, instance: Instance
    ) -> defer.Deferred[Instance | None] | None:
        """Decompress an instance for a peer that accepts it only uncompressed, if pydicom can (extra ``pixel``).

        Returns:
            None when the peer does not accept it uncompressed either. Otherwise fires with the decompressed
            instance, or with None when it cannot be decompressed.
        """
        if instance.transfer_syntax not in _COMPRESSED:
            return None
        if not any(
            ctx.as_scu and ctx.supported_ts in uids.UNCOMPRESSED_TRANSFER_SYNTAXES
            for ctx in asce.contexts_for(instance.sop_class_uid)
        ):
            return None
        return defer.Deferred.fromCoroutine(self._decompressed(asce, instance))

    async def _decompressed(self, asce: Association, instance: Instance) -> Instance | None:
        clock = asce.clock
        began = clock.seconds()
        while True:
            try:
                return await self._readers.run(_decompressed, instance)
            except Exception as error:  # decoders document no closed set of errors
                pause = instance.again(error, clock.seconds() - began)
                if pause is None or not asce.is_open:
                    _log.warn(
                        "{uid} cannot be decompressed: {error}",
                        uid=instance.sop_instance_uid,
                        error=error,
                    )
                    return None
            await task.deferLater(clock, pause)


def _nothing(*_: object) -> None:
    """Do nothing."""


def _decompressed(instance: Instance) -> Instance:
    """Decompress an instance, in a thread; it fails when there is no decoder, or the pixel data is damaged."""
    if isinstance(instance, KeptInstance) and instance.ref is not None:
        data_set = read_kept(instance.ref)
    else:
        data_set = read_path(str(instance.source))
    data_set.decompress()
    return Instance(
        instance.sop_class_uid, instance.sop_instance_uid, EXPLICIT_VR_LITTLE_ENDIAN, data_set
    )


@dataclass(frozen=True, slots=True)
class _WithoutBulkData(KeptInstance):
    """An instance of the store without pixels, waveforms, documents and other bulk data."""

    @classmethod
    def of_ref(
        cls, ref: InstanceRef, ahead: Callable[[], object] | None = None
    ) -> _WithoutBulkData:
        """The instance that the index names."""
        syntax = ref.transfer_syntax
        if syntax in _COMPRESSED:
            syntax = EXPLICIT_VR_LITTLE_ENDIAN
        return cls(ref.sop_class_uid, ref.sop_instance_uid, syntax, ref.path, None, ref, ahead)

    def encoded(self, transfer_syntax: str) -> DataSource:
        """The data set, as :meth:`Instance.encoded` gives it."""
        assert self.ref is not None  # of_ref() has made it
        if self.ahead is not None:
            self.ahead()
        with checked(self.ref) as (file, meta):
            return reencoded(file, meta.transfer_syntax, transfer_syntax, _is_bulk)

    def takes_long(self, transfer_syntax: str) -> bool:
        """True: every file is read."""
        return True


def _is_bulk(tag: int) -> bool:
    if tag in _BULK:
        return True
    group, element = tag >> 16, tag & 0xFFFF
    return group % 2 == 0 and element in _BULK_OF_GROUP.get(group & 0xFF00, ())


@contextmanager
def refusing(status: statuses.Status, trouble: Trouble) -> Iterator[None]:
    """Turn an error that stops a search into the status "out of resources" of the service.

    Args:
        trouble: Logs that the index does not answer, and that it does again.
    """
    try:
        yield
        trouble.over("the index answers again; {count} requests were refused")
    except IndexUnavailableError as error:
        trouble.met(type(error), "the index does not answer: {error}", error=error)
        raise StatusError(status, "out of resources: the index does not answer") from error
    except SearchEndedError as error:
        _log.warn("a search has ended without its answer: {error}", error=error)
        raise StatusError(status, str(error)) from error
