"""Storage service class (PS3.4 Annex B): C-STORE.

:func:`storage_scu` stores one instance on an association, and :class:`Storage` is the SCP.
:mod:`netdicom_tx.sopclass.sending` stores any number of instances.
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, ClassVar, NamedTuple, TypeAlias, cast

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from .. import statuses
from ..applicationentity import AE
from ..arguments import check_number, check_seconds
from ..asceprovider import Association
from ..dimsemessages import CStoreRQ, DataSource, Request
from ..encoding import (
    DataSetError,
    identity,
    is_data_set,
    is_deflated,
    is_implicit_vr,
    is_little_endian,
)
from ..exceptions import (
    ClassNotSupportedError,
    ConnectionLostError,
    EventHandlingError,
    LocalProtocolError,
    NetDICOMError,
    afresh,
)
from ..hooks import RequestContext
from ..negotiation import PContextDef
from ..part10 import read_file_meta
from ..reencoding import check_inferable, reencode
from ..requests import status_of
from ..statuses import Status
from ..uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    STORAGE_SOP_CLASSES,
    UNCOMPRESSED_TRANSFER_SYNTAXES,
    is_uid_like,
    name,
)
from .base import MessageDispatcherSCP, ae_of, settled, sop_classes

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = [
    "Arrival",
    "Instance",
    "MoveOriginator",
    "Source",
    "Storage",
    "check_request",
    "check_source",
    "reencoded",
    "save_instance",
    "storage_scp",
    "storage_scu",
    "store_instance",
]

# How many octets are read at once for a Part 10 header; most headers are smaller.
_HEADER_BUFFER = 1024
# How many octets of a re-encoded data set are kept in memory; a longer one goes to a temporary file.
_IN_MEMORY = 1 << 20
# The largest file that is re-encoded on the reactor thread, in octets: up to 8,000 elements, during which no other peer
# is served.
_AT_ONCE = 1 << 16
# How many times longer a deflated data set may be when it is inflated.
_INFLATION = 1000

Source: TypeAlias = "Dataset | str | os.PathLike[str] | BinaryIO"


class MoveOriginator(NamedTuple):
    """The C-MOVE on whose behalf an instance is stored (PS3.7 9.3.1.1)."""

    ae_title: str
    message_id: int


@dataclass(frozen=True, slots=True)
class Instance:
    """A SOP instance that can be sent.

    Attributes:
        sop_class_uid: The SOP class.
        sop_instance_uid: The SOP Instance UID.
        transfer_syntax: The transfer syntax of the data set. A :class:`pydicom.Dataset` that names none counts as
            explicit VR little endian.
        source: A data set, the path of a Part 10 file, or an open file at its data set.
        offset: How many octets precede the data set when ``source`` is a path; None reads the header to find out.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    source: Source
    offset: int | None = 0

    @classmethod
    def of(cls, source: Source) -> Instance:
        """Make an Instance of a file or a data set, which says which instance it is.

        Raises:
            DataSetError: The file is not a DICOM file, or the instance has no UIDs.
            OSError: The file cannot be read.
        """
        if is_data_set(source):
            return cls._of_data_set(source)
        if isinstance(source, str | os.PathLike):
            with open(source, "rb") as file:
                return cls._of_file(file, source)
        if hasattr(source, "read"):
            return cls._of_file(cast(BinaryIO, source), source)
        raise DataSetError(
            f"expected a Dataset, a path or an open binary file, got {type(source).__name__}"
        )

    @classmethod
    def _of_file(cls, file: BinaryIO, source: Source) -> Instance:
        begin = file.tell()
        meta = read_file_meta(file, is_lenient=True)
        start = begin + meta.offset
        file.seek(start)
        # The UIDs of the data set count (PS3.4 B.2.2); some writers leave other ones in the header.
        said = identity(file, meta.transfer_syntax) or ("", "")
        file.seek(start)
        return cls(
            said[0] or meta.sop_class_uid,
            said[1] or meta.sop_instance_uid,
            meta.transfer_syntax,
            source,
            start,
        )

    @classmethod
    def _of_data_set(cls, data_set: Dataset) -> Instance:
        sop_class, sop_instance = data_set.get("SOPClassUID"), data_set.get("SOPInstanceUID")
        if not sop_class or not sop_instance:
            raise DataSetError(
                "the data set has no SOP Class UID (0008,0016) or no SOP Instance UID (0008,0018)"
            )
        meta = getattr(data_set, "file_meta", None)
        syntax = str(meta.get("TransferSyntaxUID", "")) if meta is not None else ""
        return cls(str(sop_class), str(sop_instance), syntax or EXPLICIT_VR_LITTLE_ENDIAN, data_set)

    def encoded(self, transfer_syntax: str) -> DataSource:
        """The data set in a transfer syntax.

        A file that is already in this transfer syntax is not opened before it is read. Any other data set is
        re-encoded at constant memory, a large one to a temporary file.

        Raises:
            DataSetError: The data set cannot be re-encoded, or a receiver would misread it.
            OSError: The file cannot be read.
        """
        if is_data_set(self.source):
            return _encoded(self.source, self.transfer_syntax, transfer_syntax)
        source: object = self.source
        if isinstance(self.source, str | os.PathLike):
            # A file that is missing is a failure of this instance, not of the association.
            os.stat(self.source)
            source = _PathSource(self.source, self.offset)
        if transfer_syntax == self.transfer_syntax:
            return cast(BinaryIO, source)
        try:
            return reencoded(cast(BinaryIO, source), self.transfer_syntax, transfer_syntax)
        finally:
            if isinstance(source, _PathSource):
                source.close()

    def again(self, error: BaseException, failing: float) -> float | None:
        """After how many seconds :meth:`encoded` is called again when it has failed; None means never.

        Args:
            error: What it has raised.
            failing: How many seconds have passed since it failed first.
        """
        return None

    def takes_long(self, transfer_syntax: str) -> bool:
        """Whether :meth:`encoded` should be called in a thread, because it re-encodes a large file.

        Raises:
            OSError: The file cannot be found or examined.
        """
        if transfer_syntax == self.transfer_syntax or not isinstance(
            self.source, str | os.PathLike
        ):
            return False
        size = os.stat(self.source).st_size
        return size * (_INFLATION if is_deflated(self.transfer_syntax) else 1) > _AT_ONCE


def check_source(argument: str, source: object) -> None:
    """Refuse an argument that cannot be the source of one instance.

    Raises:
        TypeError: The argument is not a data set, a path or an open file.
    """
    is_path = isinstance(source, str | os.PathLike)
    if not is_path and not is_data_set(source) and not hasattr(source, "read"):
        raise TypeError(
            f"{argument} is {source!r:.80}; expected a Dataset, a path or an open binary file"
        )


class _PathSource:
    """A file that is open only while it is being read, so that thousands can wait to be sent."""

    def __init__(self, path: str | os.PathLike[str], offset: int | None) -> None:
        self._path = path
        self._offset = offset
        self._file: BinaryIO | None = None

    def _open(self) -> BinaryIO:
        if self._file is None:
            # The data set is read in large pieces, so it needs no buffer.
            self._file = cast(BinaryIO, open(self._path, "rb", buffering=0))  # noqa: SIM115
            if self._offset is None:
                # The header is read in small pieces.
                buffered = io.BufferedReader(cast(io.RawIOBase, self._file), _HEADER_BUFFER)
                self._offset = read_file_meta(cast(BinaryIO, buffered), is_lenient=True).offset
                buffered.detach()
            self._file.seek(self._offset)
        return self._file

    def readinto(self, buffer: memoryview) -> int:
        count: int = self._open().readinto(buffer)  # type: ignore[attr-defined]  # a FileIO
        if not count:
            self.close()
        return count

    def read(self, size: int = -1) -> bytes:
        return self._open().read(size)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        self.close()  # the association has ended during a transfer whose caller has gone


# What a thread that re-encodes looks at, because its result may not be wanted any more.
_here = threading.local()


def reencoded(
    file: BinaryIO, source: str, target: str, leave_out: Callable[[int], bool] | None = None
) -> BinaryIO:
    """Re-encode a data set to a temporary file, which is in memory while it is small.

    Args:
        file: A file that is positioned at the data set.
        source: Its transfer syntax.
        target: The transfer syntax of the result.
        leave_out: As for :func:`~netdicom_tx.reencoding.reencode`.

    Raises:
        DataSetError: The data set is damaged or cannot be re-encoded, or a receiver would misread it.
        OSError: The file cannot be read, or the temporary file cannot be written.
        CancelledError: This runs in a thread of an operation that has been cancelled.
    """
    if leave_out is None and not {source, target} <= set(UNCOMPRESSED_TRANSFER_SYNTAXES):
        raise DataSetError(
            f"{name(source)} cannot be re-encoded to {name(target)}; expected uncompressed transfer syntaxes"
        )
    result = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - the caller closes it
    given_up: threading.Event | None = getattr(_here, "given_up", None)

    def check() -> None:
        if given_up is not None and given_up.is_set():
            raise defer.CancelledError("nobody waits for the re-encoded data set any more")

    def read(size: int) -> bytes:
        check()
        return file.read(size)

    def write(octets: bytes) -> None:
        check()
        result.write(octets)

    try:
        reencode(read, write, source, target, leave_out)
    except BaseException:
        result.close()
        raise
    result.seek(0)
    return cast(BinaryIO, result)


def _encoded(data_set: Dataset, source: str, target: str) -> bytes:
    """A data set, encoded in another transfer syntax than its own."""
    from .. import dsutils

    if is_little_endian(source) != is_little_endian(target):
        # pydicom does not swap the octets of pixel data.
        own = io.BytesIO(dsutils.encode(data_set, source))
        with reencoded(own, source, target) as result:
            return result.read()
    if is_implicit_vr(target):
        _check_inferable(data_set)
    return dsutils.encode(data_set, target)


def _check_inferable(data_set: Dataset) -> None:
    """Refuse elements that a receiver of implicit VR would misread (PS3.5 A.1)."""
    from pydicom.dataelem import RawDataElement

    for tag in data_set.keys():  # noqa: SIM118 - iterating would convert the elements
        element = data_set.get_item(tag)
        is_empty = not element.length if isinstance(element, RawDataElement) else element.is_empty
        if element.VR is None or is_empty:
            continue
        check_inferable(tag, element.VR)
        if element.VR == "SQ":
            for item in data_set[tag].value:
                _check_inferable(item)


@sop_classes([])
def storage_scu(
    asce: Association,
    ctx: PContextDef,
    dataset: Source,
    msg_id: int | None = None,
) -> defer.Deferred[Status]:
    """Store an instance at the peer.

    A file whose transfer syntax was accepted is streamed as it is, and never decoded. When
    only another uncompressed transfer syntax was accepted, the data set is re-encoded, a large one in a
    thread and by way of a temporary file. A data set that the peer would misread then is not sent. The
    instance is sent on the context of its SOP class whose transfer syntax fits best.

    Args:
        asce: The association to store on.
        ctx: The context that is preferred among those that fit.
        dataset: A data set, the path of a Part 10 file, or an open file, which is read from its position
            and left open.
        msg_id: The message ID, 0 to 65535; None lets the association count.

    Returns:
        Fires with the status. Fails with ClassNotSupportedError when no accepted context fits,
        with DataSetError or OSError when the instance cannot be read, and otherwise as
        :meth:`Association.request` says. Cancelling does not stop the transfer.

    Raises:
        TypeError, ValueError: An argument is wrong.
    """
    check_source("dataset", dataset)
    try:
        return store_instance(asce, Instance.of(dataset), msg_id=msg_id, ctx=ctx)
    except (OSError, DataSetError) as error:
        return defer.fail(error)


def store_instance(
    asce: Association,
    instance: Instance,
    *,
    msg_id: int | None = None,
    ctx: PContextDef | None = None,
    originator: MoveOriginator | None = None,
    timeout: float | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> defer.Deferred[Status]:
    """Store an instance whose header has been read. In all other respects this is :func:`storage_scu`.

    Args:
        asce: The association to store on.
        instance: The instance.
        msg_id: The message ID, 0 to 65535; None lets the association count.
        ctx: The context that is preferred among those that fit.
        originator: The C-MOVE of which this is a sub-operation, if any.
        timeout: Seconds to the response; None means ``timeouts.response``.
        is_wanted: Asked before an instance that could not be read is read again; if not, this fails with
            CancelledError.
    """
    if msg_id is not None:
        check_number("msg_id", msg_id, 0, most=0xFFFF)
    if timeout is not None:
        check_seconds("timeout", timeout)

    def send(source: DataSource) -> defer.Deferred[Status]:
        request = CStoreRQ(
            affected_sop_class_uid=instance.sop_class_uid,
            affected_sop_instance_uid=instance.sop_instance_uid,
            message_id=msg_id,
            data_set=source,
            move_originator_application_entity_title=originator.ae_title if originator else None,
            move_originator_message_id=originator.message_id if originator else None,
        )
        try:
            sent = asce.request(request, fitting, timeout=timeout).addCallback(status_of)
        except LocalProtocolError:  # a UID of the instance cannot be sent
            sent = defer.fail()
        if source is not instance.source and not isinstance(source, bytes | memoryview):
            sent.addBoth(_close, source)
        return sent

    try:
        fitting = _context(asce, ctx, instance.sop_class_uid, instance.transfer_syntax)
        if instance.takes_long(fitting.supported_ts):
            preparing = _Preparing(asce, instance, fitting.supported_ts, is_wanted)
            return preparing.begin().addCallback(send)
        prepared = instance.encoded(fitting.supported_ts)
    except (OSError, DataSetError, ClassNotSupportedError) as error:
        return defer.fail(error)
    return send(prepared)


def _close(result: object, source: BinaryIO) -> object:
    # A transfer whose Deferred was cancelled continues to the end of the file.
    if not (isinstance(result, Failure) and result.check(defer.CancelledError)):
        source.close()
    return result


class _Preparing:
    """Makes an instance ready in a thread of the reactor, which serves others in the meantime.

    What fails is done again while the instance asks for that, and no thread waits until then.

    Attributes:
        done: Fires with the data set, which the receiver closes. Cancelling it ends the work.
    """

    def __init__(
        self,
        asce: Association,
        instance: Instance,
        transfer_syntax: str,
        is_wanted: Callable[[], bool],
    ) -> None:
        self.done: defer.Deferred[DataSource] = defer.Deferred(self._give_up)
        self._asce = asce
        self._instance = instance
        self._transfer_syntax = transfer_syntax
        self._is_wanted = is_wanted
        self._given_up = threading.Event()
        self._failing_since: float | None = None
        self._later: IDelayedCall | None = None

    def begin(self) -> defer.Deferred[DataSource]:
        """Begin; without threads it is done when this returns."""
        reactor = self._asce.ae.reactor
        if IReactorThreads.providedBy(reactor):
            work = deferToThreadPool(reactor, reactor.getThreadPool(), self._work)
        else:
            work = defer.execute(self._work)
        work.addCallbacks(self._prepared, self._failed)
        return self.done

    def _work(self) -> DataSource:
        _here.given_up = self._given_up
        try:
            return self._instance.encoded(self._transfer_syntax)
        finally:
            _here.given_up = None

    def _prepared(self, source: DataSource) -> None:
        if not self.done.called:
            self.done.callback(source)
        elif not isinstance(source, bytes | memoryview):
            source.close()

    def _failed(self, failure: Failure) -> None:
        if self.done.called:
            return
        clock, error = self._asce.clock, failure.value
        assert error is not None  # only a Failure of a string has none
        now = clock.seconds()
        if self._failing_since is None:
            self._failing_since = now
        pause = self._instance.again(error, now - self._failing_since)
        if pause is None:
            self.done.errback(failure)
        else:
            self._later = clock.callLater(pause, self._again)

    def _again(self) -> None:
        self._later = None
        if not self._asce.is_open:
            self.done.errback(_not_sent(self._asce))
        elif not self._is_wanted():
            self.done.errback(defer.CancelledError())
        else:
            self.begin()

    def _give_up(self, _: object) -> None:
        self._given_up.set()
        if self._later is not None:
            self._later.cancel()


def _not_sent(asce: Association) -> NetDICOMError:
    """The error of an association that has ended before an instance could be sent."""
    error = afresh(asce.error or ConnectionLostError())
    error.is_unsent = True
    return error


def _context(
    asce: Association, ctx: PContextDef | None, sop_class: str, transfer_syntax: str
) -> PContextDef:
    """The accepted context for an instance: one in its transfer syntax, or in one to which it can be re-encoded."""
    accepted = asce.contexts_for(sop_class)
    usable = [each for each in accepted if each.as_scu]
    if accepted and not usable:
        hint = "" if asce.is_requestor else "C-GET needs it: let the peer propose role selection"
        raise ClassNotSupportedError(
            sop_class, asce.refusals(sop_class), hint, role=asce.role_of_scu
        )
    if ctx is not None and ctx in usable:
        usable.insert(0, ctx)
    for each in usable:
        if each.supported_ts == transfer_syntax:
            return each
    if transfer_syntax in UNCOMPRESSED_TRANSFER_SYNTAXES:
        for other in UNCOMPRESSED_TRANSFER_SYNTAXES:
            for each in usable:
                if each.supported_ts == other:
                    return each
    raise _no_context(asce, sop_class, transfer_syntax)


def _no_context(asce: Association, sop_class: str, transfer_syntax: str) -> ClassNotSupportedError:
    """The error of an instance that no accepted context takes, with what can be done about it."""
    answers = asce.refusals(sop_class)
    hint = f"the instance is in {name(transfer_syntax)}"
    if not asce.is_requestor and transfer_syntax not in answers:
        hint += ", which the peer has not proposed: let it propose this transfer syntax"
    elif transfer_syntax not in answers:
        hint += "; name the files when the association is opened: associate(peer, files=[...])"
    return ClassNotSupportedError(sop_class, answers, hint)


# -- SCP ------------------------------------------------------------------------------------------


class Arrival(NamedTuple):
    """An instance that one of our AEs has received because of our own C-MOVE, and the status of our answer."""

    sop_class_uid: str
    sop_instance_uid: str
    status: int


def save_instance(file: BinaryIO, path: str | os.PathLike[str]) -> None:
    """Write a copy of an open file to a path, at which an incomplete file is never seen.

    The file is read from its beginning and stays open. The copy is written beside its path and renamed, so an
    earlier file of that name is replaced only by a whole one. It may run in a thread, and several copies may be
    written under one path at the same time: the last one stays.

    Raises:
        OSError: The copy cannot be written.
    """
    target = os.fspath(path)
    # Each copy has a name of its own, because a peer that was cut off may send the instance again while this copy is
    # being written.
    temporary = f"{target}.{secrets.token_hex(4)}.part"
    file.seek(0)
    try:
        with open(temporary, "xb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def check_request(msg: Request) -> Status | None:
    """Why a C-STORE-RQ is refused before its instance is kept; None when it is not refused (PS3.7 9.1.1).

    Raises:
        EventHandlingError: The request has no data set.
    """
    if msg.data_set is None:
        raise EventHandlingError("C-STORE-RQ without a data set")
    if not is_uid_like(msg.sop_instance_uid or ""):
        return Status(
            statuses.C_STORE_DATA_SET_DOES_NOT_MATCH,
            "C-STORE",
            "Affected SOP Instance UID is not a UID",
        )
    return None


class Storage(MessageDispatcherSCP):
    """Storage, as SCP: the file of an instance goes to a handler, whose status is the answer.

    The handler does not see a request whose SOP Instance UID is not a UID (0xA900).

    Args:
        on_store: Keeps an instance, as :meth:`AE.on_receive_store` does; without it that hook is asked.
    """

    sop_classes: ClassVar[tuple[str, ...]] = STORAGE_SOP_CLASSES
    operations: ClassVar[tuple[str, ...]] = ("C-STORE",)
    store_in_file: ClassVar[bool] = True

    def __init__(
        self, *, on_store: Callable[[RequestContext, BinaryIO], int | Awaitable[int]] | None = None
    ) -> None:
        self._use(on_store=on_store)
        self._watched: dict[tuple[AE, str, int], list[Arrival]] = {}

    def c_store(self, asce: Association, ctx: PContextDef, msg: CStoreRQ) -> int | Awaitable[int]:
        """Answer C-STORE (PS3.4 B.2)."""
        refusal = check_request(msg)
        if refusal is not None:
            return refusal
        assert msg.data_set is not None
        assert not isinstance(msg.data_set, bytes)
        answer = self.on_store(RequestContext.of(asce, ctx, msg), msg.data_set)
        if self._watched and msg.move_originator_message_id is not None:
            return self._noted(ae_of(asce), msg, answer)
        return answer

    def on_store(self, context: RequestContext, ds: BinaryIO) -> int | Awaitable[int]:
        """Keep an instance; see :meth:`AE.on_receive_store`."""
        hooks = ae_of(context.association)
        return hooks.on_receive_store(context, ds)

    # -- what a C-MOVE of ours brings ----------------------------------------------------------------

    def watch_arrivals(
        self, ae: AE, originator: str, message_id: int, arrivals: list[Arrival]
    ) -> None:
        """Note the instances that an AE receives because of our own C-MOVE (PS3.7 9.3.1.1).

        Args:
            ae: The AE that the instances are sent to.
            originator: The AE title that the C-MOVE came from.
            message_id: The message ID of the C-MOVE-RQ.
            arrivals: The list to append to, one entry for each C-STORE that names this C-MOVE.
        """
        self._watched[ae, originator, message_id] = arrivals

    def forget_arrivals(self, ae: AE, originator: str, message_id: int) -> None:
        """Stop noting the instances of a C-MOVE."""
        self._watched.pop((ae, originator, message_id), None)

    async def _noted(self, ae: AE, msg: CStoreRQ, answer: int | Awaitable[int]) -> int:
        status = await settled(answer)
        originator = msg.move_originator_application_entity_title or ""
        watched = self._watched.get((ae, originator, msg.move_originator_message_id or 0))
        if watched is not None:
            watched.append(
                Arrival(msg.affected_sop_class_uid, msg.affected_sop_instance_uid, status)
            )
        return status


#: Gives the file of an instance to ``AE.on_receive_store``, whose status is the answer.
storage_scp = Storage()
