"""Modality performed procedure step (PS3.4 Annex F): what a modality has done, told while it does it.

=============================  ======================  ====================================================
SOP class                      operation               handler
=============================  ======================  ====================================================
MPPS (F.7)                     N-CREATE                ``on_create(context, uid, ds)``
MPPS (F.7)                     N-SET                   ``on_set(context, uid, modifications)``
MPPS Retrieve (F.8)            N-GET                   ``on_get(context, uid, tags)``
MPPS Notification (F.9)        N-EVENT-REPORT          ``on_event(context, uid, event)``, of the SCU
=============================  ======================  ====================================================

:class:`ModalityPerformedProcedureStep` is the service of all incoming messages;
:func:`procedure_step_scu` and the functions that it binds send them. What a step may be created with,
and how it may change, are the pure functions :func:`check_create` and :func:`updated`: who keeps steps
calls them where it keeps them, so that of two final N-SETs at once only one finds the step IN PROGRESS.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from copy import deepcopy
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Final, NamedTuple

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
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
from ..uids import EXPLICIT_VR_LITTLE_ENDIAN
from ..userdataitems import RoleSelection
from .base import MessageDispatcherSCP, ae_hook, settled, sop_classes
from .normalized import NormalizedSCU, data_set_of

__all__ = [
    "COMPLETED",
    "DISCONTINUED",
    "EVENTS",
    "IN_PROGRESS",
    "MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS",
    "MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS",
    "MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS",
    "ModalityPerformedProcedureStep",
    "ProcedureStepError",
    "ProcedureStepSCU",
    "check_create",
    "mpps_create_scu",
    "mpps_get_scu",
    "mpps_set_scu",
    "notify_procedure_step",
    "procedure_step_scu",
    "report_procedure_step",
    "updated",
]

MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS: Final = "1.2.840.10008.3.1.2.3.3"
MODALITY_PERFORMED_PROCEDURE_STEP_RETRIEVE_SOP_CLASS: Final = "1.2.840.10008.3.1.2.3.4"
MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS: Final = "1.2.840.10008.3.1.2.3.5"

IN_PROGRESS: Final = "IN PROGRESS"
COMPLETED: Final = "COMPLETED"
DISCONTINUED: Final = "DISCONTINUED"
_STATES: Final = (IN_PROGRESS, COMPLETED, DISCONTINUED)

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

_STATUS, _CHARACTER_SET = 0x00400252, 0x00080005
# PS3.4 Table F.7.2-2.
_MAY_NO_LONGER_BE_UPDATED: Final = 0xA710
_NO_UPDATE: Final = "Performed Procedure Step Object may no longer be updated"

# Attribute, what the SCP demands of it in N-CREATE, in N-SET (-: not allowed), and of the step in a
# final state, of PS3.4 Table F.7.2-1; sequences are followed by their items. What is not here is optional.
_TABLE = """
    0008,0005     1C 1C .  SpecificCharacterSet
    0040,0270     1  -  .  ScheduledStepAttributesSequence
    >0020,000D    1  -  .  StudyInstanceUID
    >0008,1110    2  -  .  ReferencedStudySequence
    >>0008,1150   1  -  .  ReferencedSOPClassUID
    >>0008,1155   1  -  .  ReferencedSOPInstanceUID
    >0008,0050    2  -  .  AccessionNumber
    >0040,1001    2  -  .  RequestedProcedureID
    >0032,1060    2  -  .  RequestedProcedureDescription
    >0040,0009    2  -  .  ScheduledProcedureStepID
    >0040,0007    2  -  .  ScheduledProcedureStepDescription
    >0040,0008    2  -  .  ScheduledProtocolCodeSequence
    0010,0010     2  -  .  PatientName
    0010,0020     2  -  .  PatientID
    0010,0021     3  -  .  IssuerOfPatientID
    0010,0024     3  -  .  IssuerOfPatientIDQualifiersSequence
    0010,1002     3  -  .  OtherPatientIDsSequence
    0010,0030     2  -  .  PatientBirthDate
    0010,0040     2  -  .  PatientSex
    0008,1120     2  -  .  ReferencedPatientSequence
    >0008,1150    1  -  .  ReferencedSOPClassUID
    >0008,1155    1  -  .  ReferencedSOPInstanceUID
    0038,0010     3  -  .  AdmissionID
    0038,0014     3  -  .  IssuerOfAdmissionIDSequence
    0038,0060     3  -  .  ServiceEpisodeID
    0038,0064     3  -  .  IssuerOfServiceEpisodeIDSequence
    0038,0062     3  -  .  ServiceEpisodeDescription
    0040,0253     1  -  .  PerformedProcedureStepID
    0040,0241     1  -  .  PerformedStationAETitle
    0040,0242     2  -  .  PerformedStationName
    0040,0243     2  -  .  PerformedLocation
    0040,0244     1  -  .  PerformedProcedureStepStartDate
    0040,0245     1  -  .  PerformedProcedureStepStartTime
    0040,0252     1  1  .  PerformedProcedureStepStatus
    0040,0254     2  2  .  PerformedProcedureStepDescription
    0040,0255     2  2  .  PerformedProcedureTypeDescription
    0008,1032     2  2  .  ProcedureCodeSequence
    0040,1012     3  3  .  ReasonForPerformedProcedureCodeSequence
    0040,0250     2  1  1  PerformedProcedureStepEndDate
    0040,0251     2  1  1  PerformedProcedureStepEndTime
    0040,0280     3  3  .  CommentsOnThePerformedProcedureStep
    0040,0281     3  3  .  PerformedProcedureStepDiscontinuationReasonCodeSequence
    0008,0060     1  -  .  Modality
    0020,0010     2  -  .  StudyID
    0040,0260     2  2  .  PerformedProtocolCodeSequence
    0040,0340     2  1  1  PerformedSeriesSequence
    >0008,1050    2  2  2  PerformingPhysicianName
    >0018,1030    1  1  1  ProtocolName
    >0008,1070    2  2  2  OperatorsName
    >0020,000E    1  1  1  SeriesInstanceUID
    >0008,103E    2  2  2  SeriesDescription
    >0008,0054    2  2  2  RetrieveAETitle
    >0008,1140    2  2  .  ReferencedImageSequence
    >>0008,1150   1  1  .  ReferencedSOPClassUID
    >>0008,1155   1  1  .  ReferencedSOPInstanceUID
    >0040,0220    2  2  .  ReferencedNonImageCompositeSOPInstanceSequence
    >>0008,1150   1  1  .  ReferencedSOPClassUID
    >>0008,1155   1  1  .  ReferencedSOPInstanceUID
"""


class Rule(NamedTuple):
    """A row of the table.

    Attributes:
        create: The type in N-CREATE.
        modify: The type in N-SET; ``-`` means not allowed.
        final: The type in a final state; ``.`` means that of N-CREATE.
        items: The rules of the items of a sequence.
    """

    tag: int
    create: str
    modify: str
    final: str
    items: tuple[Rule, ...]


def _read(lines: list[str], depth: int = 0) -> Iterator[Rule]:
    """The rules at one depth; takes what it reads from the front of the list."""
    while lines and lines[0].count(">") == depth:
        tag, create, modify, final, _ = lines.pop(0).lstrip(">").split()
        items = tuple(_read(lines, depth + 1))
        yield Rule(int(tag.replace(",", ""), 16), create, modify, final, items)


#: The attributes of a step, by tag.
RULES: Final = {rule.tag: rule for rule in _read(_TABLE.split("\n    ")[1:])}


class ProcedureStepError(StatusError):
    """A request about a step is refused.

    Args:
        attributes: Tags, for the Attribute Identifier List (0000,1005).
        error_id: For (0000,0903).
    """

    def __init__(
        self,
        status: int,
        comment: str = "",
        attributes: Iterable[int] = (),
        error_id: int | None = None,
    ) -> None:
        super().__init__(status, comment)
        self.attributes = tuple(attributes)
        self.error_id = error_id

    def response(self, msg: Request) -> Response:
        """The answer to the request."""
        assert self.status is not None
        return msg.response(
            self.status,
            error_comment=self.comment,
            error_id=self.error_id,
            attribute_identifier_list=self.attributes or None,
        )


# -- the rules ------------------------------------------------------------------------------------


def state_of(ds: Dataset) -> str:
    """The value of Performed Procedure Step Status; empty when there is none."""
    return str(ds.get("PerformedProcedureStepStatus", "") or "").strip()


def check_create(ds: Dataset) -> None:
    """Whether a step may be created with these attributes (PS3.4 F.7.2.1).

    Attributes of type 2 may be absent: many modalities leave out what they have no value for.

    Raises:
        ProcedureStepError: 0x0106, its status is not IN PROGRESS, or as :func:`check_types` says.
    """
    check_types(ds, RULES.values())
    state = state_of(ds)
    if state != IN_PROGRESS:
        raise ProcedureStepError(
            statuses.INVALID_ATTRIBUTE_VALUE,
            f"a step is created IN PROGRESS, not {state}",
            [_STATUS],
        )


def check_types(ds: Dataset, rules: Iterable[Rule]) -> None:
    """Whether a data set has what N-CREATE demands.

    Raises:
        ProcedureStepError: 0x0106, what should be a sequence is none, or the reverse, or a UID is several;
            0x0120, an attribute of type 1 is missing; 0x0121, it has no value.
    """
    _check_form(ds, rules)
    absent, empty = _lacks(ds, rules, "create")
    if absent:
        raise _incomplete(statuses.MISSING_ATTRIBUTE, absent)
    if empty:
        raise _incomplete(statuses.MISSING_ATTRIBUTE_VALUE, empty)


def updated(current: Dataset, modifications: Dataset) -> Dataset:
    """A step after an N-SET (PS3.4 F.7.2.2).

    An attribute that may not be set is taken where it says again what the step says. Optional attributes
    need not have been created. Text without a Specific Character Set of its own is in that of the step.

    Returns:
        A new data set; the arguments are not changed.

    Raises:
        ProcedureStepError: 0x0110 with Error ID A710, the step is in a final state; 0x0105, an attribute
            may not be set; 0x0106, the status is none, or as :func:`check_types` says; 0x0121, what a
            sequence or a final state needs is missing.
    """
    if state_of(current) != IN_PROGRESS:
        raise ProcedureStepError(
            statuses.PROCESSING_FAILURE, _NO_UPDATE, error_id=_MAY_NO_LONGER_BE_UPDATED
        )
    modifications = _in_character_set_of(current, modifications)
    _check_form(modifications, RULES.values())
    refused = [
        tag
        for tag, rule in RULES.items()
        if rule.modify == "-" and tag in modifications and modifications[tag] != current.get(tag)
    ]
    if refused:
        raise ProcedureStepError(
            statuses.NO_SUCH_ATTRIBUTE, f"may not be set: {_names(refused)}", refused
        )
    if _STATUS in modifications and state_of(modifications) not in _STATES:
        raise ProcedureStepError(
            statuses.INVALID_ATTRIBUTE_VALUE,
            f"expected one of {', '.join(_STATES)}",
            [_STATUS],
        )
    lacking: list[int] = []
    for tag, rule in RULES.items():
        if rule.items and tag in modifications:
            for item in _items(modifications[tag]):
                lacking += chain(*_lacks(item, rule.items, "modify"))
    result = _merged(current, modifications)
    if state_of(result) != IN_PROGRESS:
        lacking += chain(*_lacks(result, RULES.values(), "final"))
    if lacking:
        # PS3.7 10.1.3.1.9 has no 0x0120 for N-SET.
        raise _incomplete(statuses.MISSING_ATTRIBUTE_VALUE, lacking)
    return result


def selected(ds: Dataset, tags: Iterable[int] | None) -> tuple[Dataset, tuple[int, ...]]:
    """What N-GET answers (PS3.4 F.8.2.1).

    Args:
        ds: All attributes of the step.
        tags: None asks for all.

    Returns:
        The attributes; those of Table F.7.2-1 that the step has no value for are empty. And the tags of
        those that are not supported.
    """
    found = Dataset()
    if tags is None:
        found.update(ds)
        return found, ()
    unsupported = []
    for tag in dict.fromkeys(tags):
        if tag in ds:
            found[tag] = ds[tag]
        elif tag in RULES:
            found.add_new(tag, dictionary_VR(tag), None)
        else:
            unsupported.append(tag)
    if _CHARACTER_SET in ds:
        found[_CHARACTER_SET] = ds[_CHARACTER_SET]
    return found, tuple(unsupported)


def _check_form(ds: Dataset, rules: Iterable[Rule]) -> None:
    wrong = list(_misshapen(ds, rules))
    if wrong:
        raise ProcedureStepError(
            statuses.INVALID_ATTRIBUTE_VALUE, f"not as PS3.6 has it: {_names(wrong)}", wrong
        )


def _misshapen(ds: Dataset, rules: Iterable[Rule]) -> Iterator[int]:
    """The tags of what cannot be read as what it is: a value in the place of items, or several UIDs."""
    for rule in rules:
        element: DataElement | None = ds.get(rule.tag, None)
        if element is None:
            continue
        is_shaped = (element.VR == "SQ") == (dictionary_VR(rule.tag) == "SQ")
        if not is_shaped or (element.VR == "UI" and element.VM > 1):
            yield rule.tag
        for item in _items(element):
            yield from _misshapen(item, rule.items)


def _items(element: DataElement | None) -> Iterable[Dataset]:
    if element is None or element.VR != "SQ":
        return ()
    items: Iterable[Dataset] = element.value or ()
    return items


def _lacks(ds: Dataset, rules: Iterable[Rule], column: str) -> tuple[list[int], list[int]]:
    """The tags of type 1 attributes that are absent, and of those without a value."""
    absent, empty = [], []
    for rule in rules:
        element: DataElement | None = ds.get(rule.tag, None)
        if getattr(rule, column) == "1":
            if element is None:
                absent.append(rule.tag)
            elif element.is_empty or not str(element.value).strip():
                empty.append(rule.tag)
        if rule.items:
            for item in _items(element):
                more = _lacks(item, rule.items, column)
                absent += more[0]
                empty += more[1]
    return absent, empty


def _names(tags: Iterable[int]) -> str:
    return ", ".join(keyword_for_tag(tag) or f"{tag:08X}" for tag in dict.fromkeys(tags))


def _incomplete(status: Status, tags: list[int]) -> ProcedureStepError:
    word = "missing" if status == statuses.MISSING_ATTRIBUTE else "without a value"
    return ProcedureStepError(status, f"{word}: {_names(tags)}", dict.fromkeys(tags))


def _in_character_set_of(current: Dataset, modifications: Dataset) -> Dataset:
    """The modifications, their text read in the character set of the step if they name none."""
    if _CHARACTER_SET in modifications or not current.get("SpecificCharacterSet"):
        return modifications
    said = Dataset()
    said[_CHARACTER_SET] = current[_CHARACTER_SET]
    octets = [dsutils.encode(each, EXPLICIT_VR_LITTLE_ENDIAN) for each in (said, modifications)]
    return dsutils.decode(b"".join(octets), EXPLICIT_VR_LITTLE_ENDIAN)


def _merged(current: Dataset, modifications: Dataset) -> Dataset:
    result, news = deepcopy(current), deepcopy(modifications)
    one, other = (each.get("SpecificCharacterSet") for each in (result, news))
    if one != other:
        # Each is Unicode before the two get one character set that holds both.
        result.decode()
        news.decode()
        news.SpecificCharacterSet = "ISO_IR 192"
    result.update(news)
    return result


# -- SCP ------------------------------------------------------------------------------------------


class ModalityPerformedProcedureStep(MessageDispatcherSCP):
    """The three SOP classes of performed procedure steps, for the requests of both sides.

    As SCP it asks ``on_create``, ``on_set`` and ``on_get``. What is created has passed :func:`check_create`; what
    is set has yet to pass :func:`updated`. As SCU of MPPS Notification (``add_scu(ModalityPerformedProcedureStep(),
    [uids.ModalityPerformedProcedureStepNotification])``) it passes events on to ``on_event``.

    Args:
        on_create: Keeps a step that begins; see :meth:`on_create`.
        on_set: Changes a step; see :meth:`on_set`.
        on_get: Gives a step; see :meth:`on_get`.
        on_event: Takes an event of a step of the peer; see :meth:`on_event`.
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
            # PS3.7 10.1.5.1.4: then the SCP gives it one.
            uid = str(generate_uid())
        elif not uids.is_uid_like(uid):
            raise StatusError(statuses.INVALID_SOP_INSTANCE, "the SOP Instance UID is none")
        ds = attribute_list(ctx, msg)
        check_create(ds)
        verdict = await settled(self.on_create(RequestContext.of(asce, ctx, msg), uid, ds))
        return msg.response(
            statuses.SUCCESS if verdict is None else verdict, affected_sop_instance_uid=uid
        )

    async def n_set(self, asce: Association, ctx: PContextDef, msg: NSetRQ) -> int:
        """Answer N-SET (PS3.4 F.7.2.2)."""
        context, modifications = RequestContext.of(asce, ctx, msg), attribute_list(ctx, msg)
        verdict = await settled(self.on_set(context, msg.requested_sop_instance_uid, modifications))
        return statuses.SUCCESS if verdict is None else int(verdict)

    async def n_get(self, asce: Association, ctx: PContextDef, msg: NGetRQ) -> Response:
        """Answer N-GET (PS3.4 F.8.2.1)."""
        # PS3.7 10.1.2.1.5: without a list all is asked for; that of pynetdicom is empty then.
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
            uid: The SOP Instance UID of the step; we made it when the modality gave none.
            ds: Its attributes: all that such a step must have, with the status IN PROGRESS.

        Returns:
            None, which is Success, or the status; or a Deferred or coroutine of it. Success promises that the
            step is kept. By default ``AE.on_mpps_create(uid, ds)`` is asked, where there is such a method.

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
            uid: The SOP Instance UID of the step, as the peer gives it.
            modifications: What is to change, unchecked: keep what :func:`updated` makes of it and of the step.

        Returns:
            None, which is Success, or the status; or a Deferred or coroutine of it. By default
            ``AE.on_mpps_set(uid, modifications)`` is asked, where there is such a method.

        Raises:
            StatusError: The answer is its status, such as 0x0112 when there is no such step.
            ProcedureStepError: As :func:`updated` raises it; its Error ID (A710 for a step that has ended)
                and its list of attributes are sent too.
            EventHandlingError: The answer is 0x0110, or the status that the error carries.
        """
        verdict: Verdict = ae_hook(context, "on_mpps_set")(uid, modifications)
        return verdict

    def on_get(self, context: RequestContext, uid: str, tags: Collection[int] | None) -> _Step:
        """Give a step to a peer that asks by MPPS Retrieve (PS3.4 F.8.2.1).

        Args:
            context: The presentation context, the association and the request.
            uid: The SOP Instance UID of the step, as the peer gives it.
            tags: The attributes that the peer wants; None means all.

        Returns:
            The step, or a Deferred or coroutine of it. The whole step will do: what was not asked for is left
            out of the answer. An attribute that it does not have and that no step needs is answered by a
            warning, 0x0001. By default ``AE.on_mpps_get(uid, tags)`` is asked, where there is such a method.

        Raises:
            StatusError: The answer is its status, such as 0x0112 when there is no such step.
            EventHandlingError: The answer is 0x0110, or the status that the error carries.
        """
        step: _Step = ae_hook(context, "on_mpps_get")(uid, tags)
        return step

    def on_event(self, context: RequestContext, uid: str, event: int) -> Awaitable[None] | None:
        """Take an event: an SCP reports that a performed procedure step has changed (PS3.4 F.9.2).

        It comes on an association that we hold, or on one that the SCP has opened.

        Args:
            context: The presentation context, the association and the request.
            uid: The SOP Instance UID of the step.
            event: The Event Type ID, a key of :data:`EVENTS`.

        Returns:
            None, or a Deferred or coroutine of it. By default ``AE.on_mpps_event(uid, event)`` is asked, where
            there is such a method.

        Raises:
            EventHandlingError: The answer is 0x0110, or the status that the error carries.
        """
        done: Awaitable[None] | None = ae_hook(context, "on_mpps_event")(uid, event)
        return done


def attribute_list(ctx: PContextDef, msg: Request) -> Dataset:
    """The data set of an N-CREATE or N-SET; an empty one when it has none.

    Raises:
        StatusError: 0x0110, it cannot be read.
    """
    ds = data_set_of(ctx, msg)
    return Dataset() if ds is None else ds


# -- SCU ------------------------------------------------------------------------------------------


def mpps_create_scu(
    asce: Association, ctx: PContextDef, uid: str, ds: Dataset, msg_id: int | None = None
) -> defer.Deferred[Status]:
    """Begin a step.

    Args:
        uid: SOP Instance UID of the step, new.
        ds: Its attributes, the status IN PROGRESS among them.
        msg_id: Message ID, 0 to 65535; None lets the association count.

    Returns:
        Fires with the status; fails and cancels as :meth:`Association.request` says.
    """
    return NormalizedSCU(asce, ctx).n_create(uid, ds, msg_id).addCallback(status_of)


def mpps_set_scu(
    asce: Association, ctx: PContextDef, uid: str, ds: Dataset, msg_id: int | None = None
) -> defer.Deferred[Status]:
    """Change a step, or end it by the status COMPLETED or DISCONTINUED; as :func:`mpps_create_scu`.

    Args:
        ds: What changes; a sequence with all its items.
    """
    return NormalizedSCU(asce, ctx).n_set(uid, ds, msg_id).addCallback(status_of)


async def mpps_get_scu(
    asce: Association,
    ctx: PContextDef,
    uid: str,
    tags: Iterable[int] | None = None,
    msg_id: int | None = None,
) -> tuple[Status, Dataset | None]:
    """Look at a step, by MPPS Retrieve.

    Args:
        tags: Of the attributes; None asks for all.

    Returns:
        The status, and the attributes when there are any.

    Raises:
        DataSetError: They cannot be read.
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
    """Report an event on an association on which we are SCP of MPPS Notification.

    Args:
        event: A key of :data:`EVENTS`.

    Returns:
        Fires with the status; fails and cancels as :meth:`Association.request` says.
    """
    reported = NormalizedSCU(asce, ctx).n_event_report(uid, event, None, msg_id)
    return reported.addCallback(status_of)


async def notify_procedure_step(ae: AE, remote: RemoteAE, uid: str, event: int) -> Status:
    """Report an event on an association of our own, as SCP by role selection.

    Raises:
        NetDICOMError: The association cannot be had, or ends.
    """
    sop_class = MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS
    asce = await ae.request_association(
        remote,
        {sop_class: uids.DEFAULT_TRANSFER_SYNTAXES},
        roles=[RoleSelection(sop_class, scu_role=False, scp_role=True)],
    )
    async with asce:
        return await report_procedure_step(asce, asce.context_as_scp(sop_class), uid, event)
