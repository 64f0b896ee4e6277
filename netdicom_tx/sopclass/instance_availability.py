"""Instance availability notification (PS3.4 Annex R): which instances can be retrieved now, and from where.

An archive uses N-CREATE to notify others, such as a reading worklist, that the instances of a study are
available. :class:`InstanceAvailabilityNotification` receives such notices, :func:`instance_availability_scu`
sends them, and :func:`availability` makes their data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Final, NamedTuple

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid
from twisted.internet import defer

from .. import statuses
from ..asceprovider import Association
from ..dimsemessages import NCreateRQ, Response
from ..hooks import RequestContext
from ..negotiation import PContextDef
from ..requests import status_of
from ..statuses import Status
from .base import MessageDispatcherSCP, ae_hook, settled, sop_classes
from .normalized import NormalizedSCU
from .procedure_step import (
    MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS,
    Verdict,
    attribute_list,
)
from .step_rules import ProcedureStepError, Rule, check_types

__all__ = [
    "INSTANCE_AVAILABILITY_NOTIFICATION_SOP_CLASS",
    "Available",
    "InstanceAvailabilityNotification",
    "availability",
    "check_availability",
    "instance_availability_scu",
]

INSTANCE_AVAILABILITY_NOTIFICATION_SOP_CLASS: Final = "1.2.840.10008.5.1.4.33"

_STUDY, _SERIES_SEQUENCE, _SERIES, _SOP_SEQUENCE = 0x0020000D, 0x00081115, 0x0020000E, 0x00081199
_SOP_CLASS, _SOP_INSTANCE, _AVAILABILITY, _RETRIEVE = 0x00081150, 0x00081155, 0x00080056, 0x00080054


def _type_1(tag: int, *items: Rule) -> Rule:
    return Rule(tag, "1", "-", ".", items)


# PS3.4 Table R.3.2-1: everything except the steps is of type 1.
_RULES: Final = (
    _type_1(_STUDY),
    _type_1(
        _SERIES_SEQUENCE,
        _type_1(_SERIES),
        _type_1(
            _SOP_SEQUENCE, *map(_type_1, (_SOP_CLASS, _SOP_INSTANCE, _AVAILABILITY, _RETRIEVE))
        ),
    ),
)


class Available(NamedTuple):
    """An instance of a notice.

    Attributes:
        sop_class_uid: The SOP class.
        sop_instance_uid: The SOP Instance UID.
        retrieve_ae_title: The AE title that the instance can be retrieved from.
        availability: The availability, ``ONLINE``, ``NEARLINE``, ``OFFLINE`` or ``UNAVAILABLE`` (PS3.3 C.4.23.1.1).
    """

    sop_class_uid: str
    sop_instance_uid: str
    retrieve_ae_title: str
    availability: str = "ONLINE"


def availability(
    study_instance_uid: str,
    series: Mapping[str, Iterable[Available]],
    steps: Iterable[str] = (),
) -> Dataset:
    """The data set of a notice (PS3.4 Table R.3.2-1).

    Args:
        study_instance_uid: The Study Instance UID.
        series: The instances of each series, by Series Instance UID.
        steps: The SOP Instance UIDs of the performed procedure steps that the instances come from.
    """
    ds = Dataset()
    ds.StudyInstanceUID = study_instance_uid
    ds.ReferencedPerformedProcedureStepSequence = Sequence([_step(uid) for uid in steps])
    ds.ReferencedSeriesSequence = Sequence()
    for uid, instances in series.items():
        item = Dataset()
        item.SeriesInstanceUID = uid
        item.ReferencedSOPSequence = Sequence(map(_instance, instances))
        ds.ReferencedSeriesSequence.append(item)
    return ds


def _step(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS
    item.ReferencedSOPInstanceUID = uid
    # PS3.4 Table R.3.2-1, type 2.
    item.PerformedWorkitemCodeSequence = Sequence()
    return item


def _instance(available: Available) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = available.sop_class_uid
    item.ReferencedSOPInstanceUID = available.sop_instance_uid
    item.InstanceAvailability = available.availability
    item.RetrieveAETitle = available.retrieve_ae_title
    return item


def check_availability(ds: Dataset) -> None:
    """Check that a data set has all that a notice must have.

    Raises:
        ProcedureStepError: An attribute of type 1 is missing (0x0120), or has no value (0x0121).
    """
    check_types(ds, _RULES)


class InstanceAvailabilityNotification(MessageDispatcherSCP):
    """Receives notices of the availability of instances.

    Args:
        on_available: Handles a notice that is complete; see :meth:`on_available`.
    """

    sop_classes: ClassVar[tuple[str, ...]] = (INSTANCE_AVAILABILITY_NOTIFICATION_SOP_CLASS,)

    def __init__(
        self, *, on_available: Callable[[RequestContext, str, Dataset], Verdict] | None = None
    ) -> None:
        self._use(on_available=on_available)

    async def n_create(self, asce: Association, ctx: PContextDef, msg: NCreateRQ) -> Response:
        """Answer N-CREATE (PS3.4 R.3.2)."""
        ds = attribute_list(ctx, msg)
        uid = msg.affected_sop_instance_uid or str(generate_uid())
        try:
            check_availability(ds)
        except ProcedureStepError as error:
            return error.response(msg)
        verdict = await settled(self.on_available(RequestContext.of(asce, ctx, msg), uid, ds))
        return msg.response(
            statuses.SUCCESS if verdict is None else verdict, affected_sop_instance_uid=uid
        )

    def on_available(self, context: RequestContext, uid: str, ds: Dataset) -> Verdict:
        """Handle a notice.

        Args:
            context: The presentation context, the association and the request.
            uid: The SOP Instance UID of the notice; a new one when the peer sent none.
            ds: The notice: which instances of a study are available, and from where.

        Returns:
            None, which is Success, or the status; or a Deferred or coroutine of it. By default
            ``AE.on_instances_available(uid, ds)`` is asked, if the AE has that method.

        Raises:
            StatusError: The answer is its status, such as 0x0111 when the notice was received before.
            EventHandlingError: The answer is 0x0110, or the status that the error carries.
        """
        verdict: Verdict = ae_hook(context, "on_instances_available")(uid, ds)
        return verdict


@sop_classes([INSTANCE_AVAILABILITY_NOTIFICATION_SOP_CLASS])
def instance_availability_scu(
    asce: Association,
    ctx: PContextDef,
    ds: Dataset,
    uid: str | None = None,
    msg_id: int | None = None,
) -> defer.Deferred[Status]:
    """Send a notice.

    Args:
        asce: The association to send on.
        ctx: The context of the SOP class.
        ds: The notice, as :func:`availability` makes it.
        uid: The SOP Instance UID of the notice; None lets the peer assign one.
        msg_id: The message ID, 0 to 65535; None lets the association count.

    Returns:
        Fires with the status; fails and cancels as :meth:`Association.request` says.
    """
    return NormalizedSCU(asce, ctx).n_create(uid, ds, msg_id).addCallback(status_of)
