"""Modality performed procedure step (PS3.4 Annex F): a modality reports the procedure step that it performs.

=============================  ======================  ====================================================
SOP class                      operation               handler
=============================  ======================  ====================================================
MPPS (F.7)                     N-CREATE                ``on_create(context, uid, ds)``
MPPS (F.7)                     N-SET                   ``on_set(context, uid, modifications)``
MPPS Retrieve (F.8)            N-GET                   ``on_get(context, uid, tags)``
MPPS Notification (F.9)        N-EVENT-REPORT          ``on_event(context, uid, event)``, at the SCU
=============================  ======================  ====================================================

:class:`ModalityPerformedProcedureStep` is the service for the incoming messages of both sides;
:func:`procedure_step_scu` and the functions that it binds send them. :mod:`netdicom_tx.sopclass.step_rules` says what a
step must have, and how it may change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial
from typing import Any, ClassVar, Final

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from twisted.internet import defer

from .. import dsutils, statuses, uids
from ..applicationentity import AE, RemoteAE
from ..asceprovider import Association
from ..dimsemessages import Message, NCreateRQ, NEventReportRQ, NGetRQ, NSetRQ, Request, Response
from ..exceptions import StatusError
from ..hooks import RequestContext
from ..negotiation import PContextDef
from ..requests import status_of
from ..statuses import Status
from ..userdataitems import RoleSelection
from .base import MessageDispatcherSCP, ae_hook, aside, settled, sop_classes
from .normalized import NormalizedSCU, data_set_of
from .step_rules import COMPLETED as COMPLETED
from .step_rules import DISCONTINUED as DISCONTINUED
from .step_rules import IN_PROGRESS as IN_PROGRESS
from .step_rules import RULES as RULES
from .step_rules import ProcedureStepError as ProcedureStepError
from .step_rules import check_create as check_create
from .step_rules import selected
from .step_rules import updated as updated

__all__ = [
    "EVENTS",
    "MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS",
    "MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS",
    "MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS",
    "ModalityPerformedProcedureStep",
    "ProcedureStepSCU",
    "Verdict",
    "attribute_list",
    "mpps_create_scu",
    "mpps_get_scu",
    "mpps_set_scu",
    "notify_procedure_step",
    "procedure_step_scu",
    "report_procedure_step",
]

MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS: Final = "1.2.840.10008.3.1.2.3.3"
MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS: Final = "1.2.840.10008.3.1.2.3.4"
MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS: Final = "1.2.840.10008.3.1.2.3.5"

#: The events of MPPS Notification (PS3.4 Table F.9.1-1); the first three are changes of state.
EVENTS: Final = {
    1: IN_PROGRESS,
    2: COMPLETED,
    3: DISCONTINUED,
    4: "UPDATED",
    5: "DELETED",
}

#: What a handler returns: None, which is Success, or the status.
Verdict = int | Awaitable[int | None] | None
_Step = Dataset | Awaitable[Dataset]


# -- SCP ------------------------------------------------------------------------------------------


class ModalityPerformedProcedureStep(MessageDispatcherSCP):
    """The three SOP classes of performed procedure steps, for the requests of both sides.

    As SCP it asks ``on_create``, ``on_set`` and ``on_get``. A step that is created has passed
    :func:`~netdicom_tx.sopclass.step_rules.check_create`; a modification has yet to pass
    :func:`~netdicom_tx.sopclass.step_rules.updated`. As SCU of MPPS Notification it passes events on to
    ``on_event``::

        add_scu(ModalityPerformedProcedureStep(), [uids.ModalityPerformedProcedureStepNotification])

    Args:
        on_create: Keeps a step that begins; see :meth:`on_create`.
        on_set: Changes a step; see :meth:`on_set`.
        on_get: Returns a step; see :meth:`on_get`.
        on_event: Handles an event of a step of the peer; see :meth:`on_event`.
    """

    sop_classes: ClassVar[tuple[str, ...]] = (
        MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS,
        MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS,
        MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS,
    )
    _requests: ClassVar[dict[str, tuple[type[Message], ...]]] = {
        MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS: (NCreateRQ, NSetRQ),
        MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS: (NGetRQ,),
        MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS: (NEventReportRQ,),
    }

    def __init__(
        self,
        *,
        on_create: Callable[[RequestContext, str, Dataset], Verdict] | None = None,
        on_set: Callable[[RequestContext, str, Dataset], Verdict] | None = None,
        on_get: Callable[[RequestContext, str, Collection[int] | None], _Step] | None = None,
        on_event: Callable[[RequestContext, str, int], Awaitable[None] | None] | None = None,
    ) -> None:
        self._use(on_create=on_create, on_set=on_set, on_get=on_get, on_event=on_event)

    async def __call__(self, asce: Association, ctx: PContextDef, msg: Request) -> Any:
        if not isinstance(msg, self._requests.get(ctx.sop_class, ())):
            raise StatusError(
                statuses.UNRECOGNIZED_OPERATION,
                f"{uids.name(ctx.sop_class)} has no {msg.OPERATION}",
            )
        try:
            return await self.get_method(msg)(asce, ctx, msg)
        except ProcedureStepError as error:
            return error.response(msg)

    # -- messages ----------------------------------------------------------------------------------

    async def n_create(self, asce: Association, ctx: PContextDef, msg: NCreateRQ) -> Response:
        """Answer N-CREATE (PS3.4 F.7.2.1)."""
        uid = msg.affected_sop_instance_uid
        if uid is None:
            # PS3.7 10.1.5.1.4: without a UID in the request, the SCP assigns one.
            uid = str(generate_uid())
        elif not uids.is_uid_like(uid):
            raise StatusError(statuses.INVALID_SOP_INSTANCE, "the SOP Instance UID is not a UID")
        ds = await settled(aside(asce, msg, lambda: _creation(ctx, msg)))
        verdict = await settled(self.on_create(RequestContext.of(asce, ctx, msg), uid, ds))
        return msg.response(
            statuses.SUCCESS if verdict is None else verdict, affected_sop_instance_uid=uid
        )

    async def n_set(self, asce: Association, ctx: PContextDef, msg: NSetRQ) -> int:
        """Answer N-SET (PS3.4 F.7.2.2)."""
        context = RequestContext.of(asce, ctx, msg)
        modifications = await settled(aside(asce, msg, lambda: attribute_list(ctx, msg)))
        verdict = await settled(self.on_set(context, msg.requested_sop_instance_uid, modifications))
        return statuses.SUCCESS if verdict is None else int(verdict)

    async def n_get(self, asce: Association, ctx: PContextDef, msg: NGetRQ) -> Response:
        """Answer N-GET (PS3.4 F.8.2.1)."""
        # PS3.7 10.1.2.1.5: a request without a list asks for all attributes. pynetdicom sends an empty list for that.
        tags = msg.attribute_identifier_list or None
        context = RequestContext.of(asce, ctx, msg)
        ds = await settled(self.on_get(context, msg.requested_sop_instance_uid, tags))
        found, unsupported = selected(ds, tags)
        return msg.response(
            # PS3.4 Table F.8.2-2: requested optional attributes are not supported.
            0x0001 if unsupported else statuses.SUCCESS,
            dsutils.encode(found, ctx.supported_ts),
            attribute_identifier_list=unsupported or None,
        )

    async def n_event_report(
        self, asce: Association, ctx: PContextDef, msg: NEventReportRQ
    ) -> Response:
        """Answer N-EVENT-REPORT (PS3.4 F.9.2)."""
        if msg.event_type_id not in EVENTS:
            raise StatusError(
                statuses.NO_SUCH_EVENT_TYPE, f"event type {msg.event_type_id}; expected 1 to 5"
            )
        context = RequestContext.of(asce, ctx, msg)
        await settled(self.on_event(context, msg.affected_sop_instance_uid, msg.event_type_id))
        return msg.response(statuses.SUCCESS, event_type_id=msg.event_type_id)

    # -- handlers ----------------------------------------------------------------------------------

    def on_create(self, context: RequestContext, uid: str, ds: Dataset) -> Verdict:
        """Keep a step that a modality begins (PS3.4 F.7.2.1).

        Args:
            context: The presentation context, the association and the request.
            uid: The SOP Instance UID of the step; a new one when the modality sent none.
            ds: The attributes: all that a new step must have, with the status IN PROGRESS.

        Returns:
            None, which is Success, or the status; or a Deferred or coroutine of it. Success promises that the
            step is kept. By default ``AE.on_mpps_create(uid, ds)`` is asked, if the AE has that method.

        Raises:
            StatusError: The answer is its status, such as 0x0111 when there is a step with this UID.
            EventHandlingError: The answer is 0x0110, or the status that the error carries.
        """
        verdict: Verdict = ae_hook(context, "on_mpps_create")(uid, ds)
        return verdict

    def on_set(self, context: RequestContext, uid: str, modifications: Dataset) -> Verdict:
        """Change a step, or end it (PS3.4 F.7.2.2).

        Args:
            context: The presentation context, the association and the request.
            uid: The SOP Instance UID of the step, as the peer sent it.
            modifications: The changes, not yet checked. Pass them with the step to
                :func:`~netdicom_tx.sopclass.step_rules.updated`, and keep what it returns.

        Returns:
            None, which is Success, or the status; or a Deferred or coroutine of it. By default
            ``AE.on_mpps_set(uid, modifications)`` is asked, if the AE has that method.

        Raises:
            StatusError: The answer is its status, such as 0x0112 when there is no such step.
            ProcedureStepError: As :func:`~netdicom_tx.sopclass.step_rules.updated` raises it; its Error ID
                (A710 for a step that has ended) and its list of attributes are sent too.
            EventHandlingError: The answer is 0x0110, or the status that the error carries.
        """
        verdict: Verdict = ae_hook(context, "on_mpps_set")(uid, modifications)
        return verdict

    def on_get(self, context: RequestContext, uid: str, tags: Collection[int] | None) -> _Step:
        """Return a step to a peer that asks by MPPS Retrieve (PS3.4 F.8.2.1).

        Args:
            context: The presentation context, the association and the request.
            uid: The SOP Instance UID of the step, as the peer sent it.
            tags: The tags of the attributes that the peer asks for; None means all.

        Returns:
            The whole step, or a Deferred or coroutine of it; the answer has only the attributes that the peer
            asked for. An attribute that the step does not have and that no step needs is answered with the
            warning 0x0001. By default ``AE.on_mpps_get(uid, tags)`` is asked, if the AE has that method.

        Raises:
            StatusError: The answer is its status, such as 0x0112 when there is no such step.
            EventHandlingError: The answer is 0x0110, or the status that the error carries.
        """
        step: _Step = ae_hook(context, "on_mpps_get")(uid, tags)
        return step

    def on_event(self, context: RequestContext, uid: str, event: int) -> Awaitable[None] | None:
        """Handle an event: an SCP reports that a performed procedure step has changed (PS3.4 F.9.2).

        It comes on an association that we hold, or on one that the SCP has opened.

        Args:
            context: The presentation context, the association and the request.
            uid: The SOP Instance UID of the step.
            event: The Event Type ID, a key of :data:`EVENTS`.

        Returns:
            None, or a Deferred or coroutine of it. By default ``AE.on_mpps_event(uid, event)`` is asked, if
            the AE has that method.

        Raises:
            EventHandlingError: The answer is 0x0110, or the status that the error carries.
        """
        done: Awaitable[None] | None = ae_hook(context, "on_mpps_event")(uid, event)
        return done


def _creation(ctx: PContextDef, msg: Request) -> Dataset:
    """Read and check the attributes of a new step.

    Raises:
        StatusError: They cannot be read, or are not those of a new step.
    """
    ds = attribute_list(ctx, msg)
    check_create(ds)
    return ds


def attribute_list(ctx: PContextDef, msg: Request) -> Dataset:
    """The data set of an N-CREATE or N-SET; an empty one when the request has no data set.

    Raises:
        StatusError: The data set cannot be read; the status is 0x0110.
    """
    ds = data_set_of(ctx, msg)
    return Dataset() if ds is None else ds


# -- SCU ------------------------------------------------------------------------------------------


def mpps_create_scu(
    asce: Association, ctx: PContextDef, uid: str, ds: Dataset, msg_id: int | None = None
) -> defer.Deferred[Status]:
    """Begin a step.

    Args:
        asce: The association to ask on.
        ctx: The context of MPPS.
        uid: The SOP Instance UID of the step, which must be new.
        ds: The attributes, with the status IN PROGRESS.
        msg_id: The message ID, 0 to 65535; None lets the association count.

    Returns:
        Fires with the status; fails and cancels as :meth:`Association.request` says.
    """
    return NormalizedSCU(asce, ctx).n_create(uid, ds, msg_id).addCallback(status_of)


def mpps_set_scu(
    asce: Association, ctx: PContextDef, uid: str, ds: Dataset, msg_id: int | None = None
) -> defer.Deferred[Status]:
    """Change a step, or end it by the status COMPLETED or DISCONTINUED; see :func:`mpps_create_scu`.

    Args:
        asce: The association to ask on.
        ctx: The context of MPPS.
        uid: The SOP Instance UID of the step.
        ds: The attributes that change. A sequence replaces the former one, so it needs all of its items.
        msg_id: The message ID, 0 to 65535; None lets the association count.

    Returns:
        Fires with the status; fails and cancels as :meth:`Association.request` says.
    """
    return NormalizedSCU(asce, ctx).n_set(uid, ds, msg_id).addCallback(status_of)


async def mpps_get_scu(
    asce: Association,
    ctx: PContextDef,
    uid: str,
    tags: Iterable[int] | None = None,
    msg_id: int | None = None,
) -> tuple[Status, Dataset | None]:
    """Read a step by MPPS Retrieve.

    Args:
        asce: The association to ask on.
        ctx: The context of MPPS Retrieve.
        uid: The SOP Instance UID of the step.
        tags: The tags of the attributes; None asks for all.
        msg_id: The message ID, 0 to 65535; None lets the association count.

    Returns:
        The status, and the attributes if the response has any.

    Raises:
        DataSetError: The attributes cannot be read.
    """
    scu = NormalizedSCU(asce, ctx)
    response = await scu.n_get(uid, tags, msg_id)
    return status_of(response), scu.data_set(response)


class ProcedureStepSCU:
    """:func:`mpps_create_scu`, :func:`mpps_set_scu` and :func:`mpps_get_scu` on one context."""

    def __init__(self, asce: Association, ctx: PContextDef) -> None:
        self.create = partial(mpps_create_scu, asce, ctx)
        self.set = partial(mpps_set_scu, asce, ctx)
        self.get = partial(mpps_get_scu, asce, ctx)


@sop_classes(
    [
        MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS,
        MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS,
    ]
)
def procedure_step_scu(asce: Association, ctx: PContextDef) -> ProcedureStepSCU:
    """The SCU service of performed procedure steps.

    ::

        step = asce.get_scu(MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS)()
        status = await step.create(uid, attributes)
    """
    return ProcedureStepSCU(asce, ctx)


def report_procedure_step(
    asce: Association, ctx: PContextDef, uid: str, event: int, msg_id: int | None = None
) -> defer.Deferred[Status]:
    """Report an event on an association on which this side is SCP of MPPS Notification.

    Args:
        asce: The association to report on.
        ctx: The context of MPPS Notification.
        uid: The SOP Instance UID of the step.
        event: The Event Type ID, a key of :data:`EVENTS`.
        msg_id: The message ID, 0 to 65535; None lets the association count.

    Returns:
        Fires with the status; fails and cancels as :meth:`Association.request` says.
    """
    reported = NormalizedSCU(asce, ctx).n_event_report(uid, event, None, msg_id)
    return reported.addCallback(status_of)


async def notify_procedure_step(ae: AE, remote: RemoteAE, uid: str, event: int) -> Status:
    """Report an event on a new association, as SCP by role selection.

    Raises:
        NetDICOMError: The association cannot be opened, or ends.
    """
    sop_class = MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS
    asce = await ae.request_association(
        remote,
        {sop_class: uids.DEFAULT_TRANSFER_SYNTAXES},
        roles=[RoleSelection(sop_class, scu_role=False, scp_role=True)],
    )
    async with asce:
        return await report_procedure_step(asce, asce.context_as_scp(sop_class), uid, event)
