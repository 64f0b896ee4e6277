"""The results of the calls on an association: streams of one kind of item, and replies.

The streams are built on those of :mod:`netdicom_tx.sopclass`, whose items are pairs with the final status last. Here
the final response is an attribute of the stream, and a failure is raised at the end.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Generator
from io import BytesIO
from types import TracebackType
from typing import Any, BinaryIO, Generic, NamedTuple, Self, TypeVar

import pydicom
from pydicom.dataset import Dataset
from twisted.internet import defer

from . import dsutils, statuses
from .dimsemessages import Response
from .exceptions import LocalProtocolError, StatusError
from .negotiation import PContextDef
from .sopclass.storage import save_instance
from .statuses import Status
from .streams import ResponseStream

__all__ = [
    "Matches",
    "Moves",
    "Progress",
    "Reply",
    "Retrieval",
    "Retrieved",
    "VerbStream",
]

_Item = TypeVar("_Item")


class VerbStream(ABC, Generic[_Item]):
    """The items that one call brings, one after another.

    Read it with ``async for``. Inside ``async with``, leaving early sends C-CANCEL; so does
    :meth:`cancel`, and so does the loss of the last reference to the stream. If the operation fails, the reader gets a
    StatusError after the last item; FE00 without a C-CANCEL of this side is a failure, too.

    Cancelling a Deferred in which a reader waits for the next item sends C-CANCEL. The reader gets CancelledError, and
    unread items are dropped.
    """

    def __init__(self, responses: ResponseStream[Any]) -> None:
        self._responses = responses
        self._is_over = False  # a reader has had all there is

    @property
    def final(self) -> Response | None:
        """The final response, with its status and counters; None before it has come."""
        return self._responses.final

    @property
    def done(self) -> defer.Deferred[Status]:
        """Fires with the final status, whatever it is; as :attr:`ResponseStream.done`."""
        return self._responses.done

    def cancel(self) -> None:
        """Send C-CANCEL-RQ, once; a peer that cancels the operation ends it with FE00."""
        self._responses.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Item:
        try:
            while (item := self._pick(await anext(self._responses))) is None:
                pass
        except BaseException:  # the end, too
            self._is_over = True
            raise
        return item

    async def _all(self) -> list[_Item]:
        """All items that have not been read yet.

        Raises:
            LocalProtocolError: The stream has been read to its end; items are not kept.
        """
        if self._is_over:
            raise LocalProtocolError("the stream has been read already; make the call again")
        self._is_over = True
        async with self:
            return [each async for each in self]

    @abstractmethod
    def _pick(self, item: Any) -> _Item | None:
        """Convert an item of the stream below for the reader; None when it is not for the reader."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._responses.__aexit__(kind, error, trace)


def check(status: Status, responses: ResponseStream[Any]) -> None:
    """Raise StatusError if items may be missing: the final status is a failure, or FE00 without a C-CANCEL."""
    is_unasked = status == statuses.CANCEL and not responses.is_cancelled
    if status.is_failure or is_unasked:
        words, _, _ = str(status).rpartition(" (")
        raise StatusError(int(status), status.comment or words)


class Matches(VerbStream[Dataset]):
    """The data sets that match a query; ``await`` returns the list of all, once."""

    def _pick(self, item: tuple[Dataset | None, Status]) -> Dataset | None:
        data_set, status = item
        if not status.is_pending:
            check(status, self._responses)
        return data_set

    def __await__(self) -> Generator[Any, Any, list[Dataset]]:
        return self._all().__await__()


class Progress(NamedTuple):
    """How far a C-MOVE is: its status, and the numbers of its sub-operations (PS3.4 C.4.2.1.6).

    Attributes:
        status: Pending, or the final status.
        remaining: How many instances are still to be sent; 0 at the end.
    """

    status: Status
    remaining: int
    completed: int
    failed: int
    warning: int


class Moves(VerbStream[Progress]):
    """The progress of a C-MOVE, with the final counts last; ``await`` returns the final counts, once."""

    def _pick(self, item: tuple[Status, Response]) -> Progress:
        status, response = item
        check(status, self._responses)
        return Progress(
            status,
            getattr(response, "number_of_remaining_suboperations", None) or 0,
            getattr(response, "number_of_completed_suboperations", None) or 0,
            getattr(response, "number_of_failed_suboperations", None) or 0,
            getattr(response, "number_of_warning_suboperations", None) or 0,
        )

    async def _last(self) -> Progress:
        *_, last = await self._all()
        return last

    def __await__(self) -> Generator[Any, Any, Progress]:
        return self._last().__await__()


class Retrieved:
    """One instance that a C-GET has brought.

    Attributes:
        file: The Part 10 file, open at its beginning. The stream closes it when the next item is asked for, and when
            an ``async with`` block of the stream ends. After a plain ``break`` the reader has to close the file.
        sop_class_uid: The SOP class, as the instance's C-STORE named it.
        sop_instance_uid: The SOP Instance UID.
        transfer_syntax: The transfer syntax of the data set.
    """

    def __init__(self, context: PContextDef, file: BinaryIO) -> None:
        meta = dsutils.read_file_meta(file)
        file.seek(0)
        self.file = file
        self.sop_class_uid = meta.sop_class_uid
        self.sop_instance_uid = meta.sop_instance_uid
        self.transfer_syntax = context.supported_ts

    def __repr__(self) -> str:
        return f"<Retrieved {self.sop_instance_uid}>"

    def dataset(self) -> Dataset:
        """Read the whole instance into memory."""
        self.file.seek(0)
        return pydicom.dcmread(self.file)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file under a path; see :func:`~netdicom_tx.sopclass.storage.save_instance`."""
        save_instance(self.file, path)


class Retrieval(VerbStream[Retrieved]):
    """The instances that a C-GET brings, as they arrive.

    The counts of completed and failed sub-operations are in :attr:`final`.
    """

    def _pick(self, item: tuple[PContextDef | None, Any]) -> Retrieved | None:
        context, brought = item
        if context is None:
            check(brought, self._responses)
            return None
        if isinstance(brought, Dataset):
            brought = _as_file(brought)
        return Retrieved(context, brought)


def _as_file(data_set: Dataset) -> BinaryIO:
    """The Part 10 file of a data set that a storage service of the AE has taken in memory."""
    file = BytesIO()
    data_set.save_as(file, enforce_file_format=True)
    file.seek(0)
    return file


class Reply(NamedTuple):
    """The answer to a DIMSE-N request.

    Attributes:
        status: The status of the response.
        data_set: The attributes, event reply or action reply; None when the response has no data set.
        response: The message, with its other fields, such as ``affected_sop_instance_uid``.
    """

    status: Status
    data_set: Dataset | None
    response: Response
