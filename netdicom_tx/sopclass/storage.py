"""Storage service class (PS3.4 Annex B): C-STORE."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from typing import BinaryIO, cast

from pydicom.dataset import Dataset
from twisted.internet import defer

from .. import dsutils, statuses
from ..asceprovider import Association
from ..dimsemessages import CStoreRQ, DataSource, Request
from ..exceptions import ClassNotSupportedError, EventHandlingError, LocalProtocolError
from ..negotiation import PContextDef
from ..statuses import Status
from ..uids import EXPLICIT_VR_LITTLE_ENDIAN, STORAGE_SOP_CLASSES, is_uid_like, name
from .base import sop_classes, store_in_file
from .verification import status_of

__all__ = ["storage_scp", "storage_scu"]

# Re-encoding between these changes no value and touches no pixel (PS3.5 Annex A.1, A.2, A.3, A.5).
_PLAIN = frozenset(
    {
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.2",
    }
)


@sop_classes([])
def storage_scu(
    asce: Association,
    ctx: PContextDef,
    dataset: Dataset | str | os.PathLike[str] | BinaryIO,
    msg_id: int | None = None,
) -> defer.Deferred[Status]:
    """Store an instance at the peer.

    A file whose transfer syntax was accepted goes out as it is, streamed and never decoded. Where
    only another uncompressed transfer syntax was accepted, the data set is read and re-encoded in
    memory. It goes out on the context of ``ctx``'s SOP class whose transfer syntax fits best.

    Args:
        dataset: A data set; the path of a Part 10 file; or an open one, read from its position
            and left open.
        msg_id: Message ID, 0 to 65535; None lets the association count.

    Returns:
        Fires with the status. Fails with ClassNotSupportedError when no accepted context fits,
        with DataSetError or OSError when the instance cannot be read, and else as
        :meth:`Association.request` says. Cancelling does not stop the transfer.
    """
    try:
        return _store(asce, ctx, dataset, msg_id)
    except (OSError, dsutils.DataSetError, ClassNotSupportedError, LocalProtocolError) as error:
        return defer.fail(error)


def _store(
    asce: Association,
    ctx: PContextDef,
    dataset: Dataset | str | os.PathLike[str] | BinaryIO,
    msg_id: int | None,
) -> defer.Deferred[Status]:
    if isinstance(dataset, Dataset):
        return _store_data_set(asce, ctx, dataset, msg_id)
    if isinstance(dataset, str | os.PathLike):
        file: BinaryIO = open(dataset, "rb")  # noqa: SIM115 - closed when the response is there
        try:
            sent = _store_file(asce, ctx, file, msg_id)
        except BaseException:
            file.close()
            raise

        def close(result: object) -> object:
            file.close()
            return result

        return sent.addBoth(close)
    if not hasattr(dataset, "read"):
        raise dsutils.DataSetError(
            f"expected a Dataset, a path or an open binary file, got {type(dataset).__name__}"
        )
    return _store_file(asce, ctx, cast(BinaryIO, dataset), msg_id)


def _store_file(
    asce: Association, ctx: PContextDef, file: BinaryIO, msg_id: int | None
) -> defer.Deferred[Status]:
    meta = dsutils.read_file_meta(file)
    fitting = _context(asce, ctx, meta.sop_class_uid, meta.transfer_syntax)
    source: DataSource = file
    if fitting.supported_ts != meta.transfer_syntax:
        plain = dsutils.decode(file, meta.transfer_syntax)
        source = _encode(plain, meta.transfer_syntax, fitting.supported_ts)
    return _send(asce, fitting, meta.sop_class_uid, meta.sop_instance_uid, source, msg_id)


def _store_data_set(
    asce: Association, ctx: PContextDef, data_set: Dataset, msg_id: int | None
) -> defer.Deferred[Status]:
    sop_class, sop_instance = data_set.get("SOPClassUID"), data_set.get("SOPInstanceUID")
    if not sop_class or not sop_instance:
        raise dsutils.DataSetError(
            "the data set has no SOP Class UID (0008,0016) or no SOP Instance UID (0008,0018)"
        )
    meta = getattr(data_set, "file_meta", None)
    syntax = str(meta.get("TransferSyntaxUID", "")) if meta is not None else ""
    fitting = _context(asce, ctx, str(sop_class), syntax or EXPLICIT_VR_LITTLE_ENDIAN)
    encoded = _encode(data_set, syntax, fitting.supported_ts)
    return _send(asce, fitting, str(sop_class), str(sop_instance), encoded, msg_id)


def _encode(data_set: Dataset, source: str, target: str) -> bytes:
    if (
        source
        and source != target
        and dsutils.is_little_endian(source) != (dsutils.is_little_endian(target))
    ):
        raise dsutils.DataSetError(
            f"re-encoding from {name(source)} to {name(target)} would have to swap pixel data"
        )
    return dsutils.encode(data_set, target)


def _context(
    asce: Association, ctx: PContextDef, sop_class: str, transfer_syntax: str
) -> PContextDef:
    """The accepted context for an instance: its own transfer syntax, or one to re-encode to."""
    usable = [each for each in asce.contexts_for(sop_class) if each.as_scu]
    if ctx in usable:
        usable.insert(0, ctx)
    for each in usable:
        if each.supported_ts == transfer_syntax:
            return each
    if transfer_syntax in _PLAIN:
        little = dsutils.is_little_endian(transfer_syntax)
        for each in usable:
            if each.supported_ts in _PLAIN and (
                dsutils.is_little_endian(each.supported_ts) == little
            ):
                return each
    raise ClassNotSupportedError(
        sop_class, asce.refusals(sop_class), f"the instance is in {name(transfer_syntax)}"
    )


def _send(
    asce: Association,
    ctx: PContextDef,
    sop_class: str,
    sop_instance: str,
    source: DataSource,
    msg_id: int | None,
) -> defer.Deferred[Status]:
    request = CStoreRQ(
        affected_sop_class_uid=sop_class,
        affected_sop_instance_uid=sop_instance,
        message_id=msg_id,
        data_set=source,
    )
    return asce.request(request, ctx).addCallback(status_of)


@store_in_file
@sop_classes(STORAGE_SOP_CLASSES)
def storage_scp(asce: Association, ctx: PContextDef, msg: Request) -> int | Awaitable[int]:
    """Keep an instance: its file goes to ``AE.on_receive_store``, whose status is the answer.

    A request whose SOP class is not the one of its context is refused with 0x0122, a SOP Instance
    UID that is none with 0xA900, and the hook does not see them.
    """
    if msg.data_set is None:
        raise EventHandlingError("C-STORE-RQ without a data set")
    if msg.sop_class_uid != ctx.sop_class:
        return Status(
            statuses.SOP_CLASS_NOT_SUPPORTED,
            "C-STORE",
            "Affected SOP Class UID is not that of the presentation context",
        )
    if not is_uid_like(msg.sop_instance_uid or ""):
        return Status(
            statuses.C_STORE_DATA_SET_DOES_NOT_MATCH,
            "C-STORE",
            "Affected SOP Instance UID is no UID",
        )
    assert not isinstance(msg.data_set, bytes)
    return asce.ae.on_receive_store(ctx, msg.data_set)
