"""Performed procedure steps as the archive keeps them (PS3.4 Annex F), and what follows from them.

A step is a row. N-CREATE and N-SET are answered with Success when it is committed, together with the tasks that
follow from it:

===================  =============================================================================
``mpps``             the message, to each peer that steps are forwarded to, in order
``mpps-event``       the event of MPPS Notification (F.9), to each peer that watches
``availability``     an instance availability notification (Annex R) when the step has ended, as
                     soon as the archive has all instances that the step names
===================  =============================================================================

A peer that holds an association with MPPS Notification open gets the event on that association as well. The worklist
asks :meth:`ProcedureSteps.states` for the state of its steps.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from twisted.internet import defer

from ... import dsutils, statuses
from ...applicationentity import AE, RemoteAE
from ...asceprovider import Association
from ...dimsemessages import Response
from ...exceptions import ClassNotSupportedError, StatusError
from ...logs import Logger
from ...negotiation import PContextDef
from ...requests import status_of
from ...sopclass import NormalizedSCU
from ...sopclass.instance_availability import (
    INSTANCE_AVAILABILITY_NOTIFICATION_SOP_CLASS,
    Available,
    availability,
    instance_availability_scu,
)
from ...sopclass.procedure_step import (
    EVENTS,
    MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS,
    MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS,
    notify_procedure_step,
    report_procedure_step,
)
from ...sopclass.step_rules import IN_PROGRESS, state_of, updated
from ...uids import DEFAULT_TRANSFER_SYNTAXES, EXPLICIT_VR_LITTLE_ENDIAN
from ..index.database import Database
from ..index.index import IndexUnavailableError
from ..index.schema import big_integer, instance, metadata, series, study
from .commitment import expect_success, peer_of
from .outbound import GiveUpError, NotYetError, Task
from .runner import QueueRunner
from .worklist import StepKey

__all__ = ["ProcedureSteps", "procedure_step", "scheduled_step"]

FORWARD: Final = "mpps"
EVENT: Final = "mpps-event"
AVAILABILITY: Final = "availability"
#: Seconds between two checks whether the instances of an ended step have come, and seconds after which they stop.
LOOK_AGAIN: Final = 15.0
WAIT_FOR_INSTANCES: Final = 7 * 86400.0
# Values in one IN clause.
_BATCH: Final = 500
_UPDATED_EVENT: Final = 4
_EVENT_OF: Final = {name: number for number, name in EVENTS.items()}
_MAY_NO_LONGER_BE_UPDATED: Final = 0xA710

procedure_step = sa.Table(
    "procedure_step",
    metadata,
    sa.Column("uid", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    # Explicit VR little endian.
    sa.Column("data", sa.LargeBinary, nullable=False),
    # Seconds since 1970.
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("updated", sa.Double, nullable=False),
)
#: The scheduled steps that a performed step belongs to.
scheduled_step = sa.Table(
    "scheduled_step",
    metadata,
    sa.Column("id", big_integer, primary_key=True, autoincrement=True),
    sa.Column("procedure_step_uid", sa.Text, sa.ForeignKey(procedure_step.c.uid), nullable=False),
    sa.Column("study_instance_uid", sa.Text, nullable=False, index=True),
    sa.Column("step_id", sa.Text, nullable=False),
)
_P, _S = procedure_step.c, scheduled_step.c


class _Kept(NamedTuple):
    """The outcome of a transaction.

    Attributes:
        refusal: Why the transaction has changed nothing; None when it has.
        event: The event of MPPS Notification that follows.
    """

    refusal: StatusError | None
    event: int = 0


class ProcedureSteps:
    """The performed procedure steps of an archive.

    :meth:`create`, :meth:`change` and :meth:`get` do the work of the hooks ``on_mpps_create``, ``on_mpps_set`` and
    ``on_mpps_get`` of the AE.

    Args:
        ae: The AE that sends.
        database: The database that holds the steps.
        runner: Performs the tasks; the performers are registered with it.
        in_thread: Runs a blocking call off the reactor thread.
        peers: The addresses of the AE titles below.
        forward_to: The AE titles that steps are forwarded to.
        notify: The AE titles that get the events of MPPS Notification.
        available_to: The AE titles that get instance availability notifications.
        has_room: Whether the disk has more than its reserve.
    """

    _log = Logger()

    def __init__(
        self,
        ae: AE,
        database: Database,
        runner: QueueRunner,
        in_thread: Callable[..., defer.Deferred[Any]],
        peers: Mapping[str, RemoteAE],
        *,
        forward_to: Iterable[str] = (),
        notify: Iterable[str] = (),
        available_to: Iterable[str] = (),
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._ae = ae
        self._database = database
        self._runner = runner
        self._queue = runner.queue
        self._in_thread = in_thread
        self._peers = peers
        self.route(forward_to, notify, available_to)
        self.has_room = has_room
        #: Called with the UID and the event of each step that was changed here, for peers of other processes.
        self.on_event: Callable[[str, int], object] = _nothing
        runner.performers |= {
            FORWARD: self.forward,
            EVENT: self.tell,
            AVAILABILITY: self.announce,
        }

    def route(
        self, forward_to: Iterable[str], notify: Iterable[str], available_to: Iterable[str]
    ) -> None:
        """Let what happens to steps from now on go to these AE titles; see the class."""
        self._forward_to = tuple(forward_to)
        self._notify = tuple(notify)
        self._available_to = tuple(available_to)

    # -- hooks -------------------------------------------------------------------------------------

    async def create(self, uid: str, ds: Dataset) -> None:
        """Keep a step that begins.

        Raises:
            StatusError: 0x0111, the step exists already; 0x0110 or 0x0213, it cannot be kept.
        """
        await self._do(self._create, uid, ds)

    async def change(self, uid: str, modifications: Dataset) -> None:
        """Change a step.

        Raises:
            StatusError: 0x0112, there is no such step; the status with which
                :func:`~netdicom_tx.sopclass.step_rules.updated` refuses the change; 0x0110 or 0x0213, the change
                cannot be kept.
        """
        await self._do(self._change, uid, modifications)

    async def get(self, uid: str, tags: Collection[int] | None = None) -> Dataset:
        """Return a step with all of its attributes.

        Raises:
            StatusError: 0x0112, there is no such step.
        """
        found: Dataset | None = await self._in_thread(self.read, uid)
        if found is None:
            raise StatusError(statuses.NO_SUCH_SOP_INSTANCE)
        return found

    async def _do(self, call: Callable[[str, Dataset], _Kept], uid: str, ds: Dataset) -> None:
        if not self.has_room():
            raise StatusError(statuses.RESOURCE_LIMITATION, "out of resources: disk space")
        try:
            kept: _Kept = await self._in_thread(call, uid, ds)
        except IndexUnavailableError as error:
            self._log.error("procedure step {uid} is refused: {error}", uid=uid, error=error)
            raise StatusError(statuses.RESOURCE_LIMITATION, "the database refuses") from error
        except dsutils.DataSetError as error:
            raise StatusError(statuses.PROCESSING_FAILURE, str(error)) from error
        if kept.refusal is not None:
            raise kept.refusal
        self._runner.wake()
        self.tell_watchers(uid, kept.event)
        self.on_event(uid, kept.event)

    # -- the tables, in a thread -------------------------------------------------------------------

    def read(self, uid: str) -> Dataset | None:
        """Return a step; None when there is no such step. Blocks."""
        with self._database.reading() as connection:
            data = connection.scalar(sa.select(_P.data).where(_P.uid == uid))
        return None if data is None else dsutils.decode(data, EXPLICIT_VR_LITTLE_ENDIAN)

    def states(self, keys: Collection[StepKey]) -> dict[StepKey, str]:
        """Return the Scheduled Procedure Step Status of those steps that have begun. Blocks.

        A step that is being performed is STARTED. When several performed steps belong to one scheduled step, the last
        one counts.
        """
        found: dict[StepKey, str] = {}
        statement = (
            sa.select(_S.study_instance_uid, _S.step_id, _P.state)
            .join_from(scheduled_step, procedure_step)
            .order_by(_P.created, _S.id)
        )
        with self._database.reading() as connection:
            for part in _parts({study_uid for study_uid, _ in keys}):
                rows = connection.execute(statement.where(_S.study_instance_uid.in_(part)))
                for study_uid, step_id, state in rows:
                    if (study_uid, step_id) in keys:
                        found[study_uid, step_id] = "STARTED" if state == IN_PROGRESS else state
        return found

    def _create(self, uid: str, ds: Dataset) -> _Kept:
        data = dsutils.encode(ds, EXPLICIT_VR_LITTLE_ENDIAN)
        now = self._queue.time()
        row = {"uid": uid, "state": IN_PROGRESS, "data": data, "created": now, "updated": now}
        scheduled = [
            {"procedure_step_uid": uid, "study_instance_uid": key[0], "step_id": key[1]}
            for key in dict.fromkeys(_scheduled(ds))
        ]

        def call(connection: sa.Connection) -> _Kept:
            if connection.scalar(sa.select(_P.uid).where(_P.uid == uid)) is not None:
                return _Kept(StatusError(statuses.DUPLICATE_SOP_INSTANCE))
            connection.execute(procedure_step.insert(), row)
            for each in scheduled:
                connection.execute(scheduled_step.insert(), each)
            event = _EVENT_OF[IN_PROGRESS]
            self._owe(connection, uid, "create", data, event)
            return _Kept(None, event)

        return self._database.write(call).result()

    def _change(self, uid: str, modifications: Dataset) -> _Kept:
        data = dsutils.encode(modifications, EXPLICIT_VR_LITTLE_ENDIAN)
        now = self._queue.time()
        # When two requests end the step at once, the second waits here and finds the state that the first has set.
        wanted = sa.select(_P.data).where(_P.uid == uid).with_for_update()

        def call(connection: sa.Connection) -> _Kept:
            current = connection.scalar(wanted)
            if current is None:
                return _Kept(StatusError(statuses.NO_SUCH_SOP_INSTANCE))
            try:
                step = updated(
                    dsutils.decode(current, EXPLICIT_VR_LITTLE_ENDIAN),
                    dsutils.decode(data, EXPLICIT_VR_LITTLE_ENDIAN),
                )
            except StatusError as error:
                return _Kept(error)
            state = state_of(step)
            values = {
                "state": state,
                "data": dsutils.encode(step, EXPLICIT_VR_LITTLE_ENDIAN),
                "updated": now,
            }
            connection.execute(procedure_step.update().where(_P.uid == uid).values(values))
            event = _UPDATED_EVENT if state == IN_PROGRESS else _EVENT_OF[state]
            self._owe(connection, uid, "set", data, event)
            if state != IN_PROGRESS and any(_performed(step)):
                for title in self._available_to:
                    self._queue.put(connection, AVAILABILITY, title, {"uid": uid})
            return _Kept(None, event)

        return self._database.write(call).result()

    def _owe(
        self, connection: sa.Connection, uid: str, operation: str, data: bytes, event: int
    ) -> None:
        message = {
            "operation": operation,
            "uid": uid,
            "data": base64.b64encode(data).decode("ascii"),
        }
        for title in self._forward_to:
            self._queue.put(connection, FORWARD, title, message, chain=f"{title} {uid}")
        for title in self._notify:
            payload = {"uid": uid, "event": event}
            self._queue.put(connection, EVENT, title, payload, chain=f"{title} event {uid}")

    # -- sending -----------------------------------------------------------------------------------

    def tell_watchers(self, uid: str, event: int) -> None:
        """Report the event on the associations that peers hold open for it."""
        sop_class = MODALITY_PERFORMED_PROCEDURE_STEP_NOTIFICATION_SOP_CLASS
        # A peer on an association that we have requested gets its events from the queue.
        watching = [each for each in self._ae.associations if not each.is_requestor]
        for asce in watching:
            for ctx in asce.contexts_for(sop_class)[:1]:
                report_procedure_step(asce, ctx, uid, event).addErrback(
                    lambda failure: self._log.debug(
                        "an event was not taken: {error}", error=failure.value
                    )
                )

    async def forward(self, task: Task) -> None:
        """Forward an N-CREATE or N-SET.

        Raises:
            NetDICOMError: The peer does not have the message.
        """
        payload = task.payload
        uid, data = payload["uid"], base64.b64decode(payload["data"])
        ds = dsutils.decode(data, EXPLICIT_VR_LITTLE_ENDIAN)
        sop_class = MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS
        asce, ctx = await self._associate(task.destination, sop_class)
        async with asce:
            scu = NormalizedSCU(asce, ctx)
            if payload["operation"] == "create":
                response = await scu.n_create(uid, ds)
            else:
                response = await scu.n_set(uid, ds)
        if not _was_there_before(response):
            expect_success(status_of(response))

    async def tell(self, task: Task) -> None:
        """Report an event on an association of our own.

        Raises:
            NetDICOMError: The peer does not have the event.
        """
        remote = peer_of(self._peers, task.destination)
        uid, event = task.payload["uid"], task.payload["event"]
        expect_success(await notify_procedure_step(self._ae, remote, uid, event))

    async def announce(self, task: Task) -> None:
        """Notify a peer that the instances of a step have arrived, with one notice for each study.

        Raises:
            NotYetError: Some instances have not arrived.
            NetDICOMError: The peer does not have the notices.
        """
        notices: dict[str, Dataset] = await self._in_thread(self._notices, task)
        sop_class = INSTANCE_AVAILABILITY_NOTIFICATION_SOP_CLASS
        asce, ctx = await self._associate(task.destination, sop_class)
        async with asce:
            for uid, ds in notices.items():
                status = await instance_availability_scu(asce, ctx, ds, uid)
                # The peer has the notice from an earlier attempt, whose answer was lost.
                if status != statuses.DUPLICATE_SOP_INSTANCE:
                    expect_success(status)

    async def _associate(self, title: str, sop_class: str) -> tuple[Association, PContextDef]:
        asce = await self._ae.request_association(
            peer_of(self._peers, title), {sop_class: DEFAULT_TRANSFER_SYNTAXES}
        )
        for ctx in asce.contexts_for(sop_class):
            return asce, ctx
        asce.abort()
        raise ClassNotSupportedError(sop_class, asce.refusals(sop_class))

    def _notices(self, task: Task) -> dict[str, Dataset]:
        """Return the notices to be sent, by their UIDs; blocks.

        Raises:
            NotYetError: Some instances have not arrived.
            GiveUpError: They have not arrived for days, or there is no such step.
        """
        step_uid = task.payload["uid"]
        step = self.read(step_uid)
        if step is None:
            raise GiveUpError(f"there is no procedure step {step_uid}")
        wanted = dict.fromkeys(_performed(step))
        here = {row.sop_instance_uid: row for row in self._instances(wanted)}
        missing = len(wanted.keys() - here.keys())
        if missing:
            reason = f"{missing} of {len(wanted)} instances have not arrived"
            if self._queue.time() > task.created + WAIT_FOR_INSTANCES:
                raise GiveUpError(reason)
            raise NotYetError(reason, LOOK_AGAIN)
        studies: dict[str, dict[str, list[Available]]] = {}
        for row in here.values():
            of_study = studies.setdefault(row.study_instance_uid, {})
            of_study.setdefault(row.series_instance_uid, []).append(
                Available(row.sop_class_uid, row.sop_instance_uid, self._ae.ae_title)
            )
        return {
            # The UID is the same at the next attempt.
            str(generate_uid(entropy_srcs=[task.destination, step_uid, uid])): availability(
                uid, of_study, [step_uid]
            )
            for uid, of_study in studies.items()
        }

    def _instances(self, uids: Iterable[str]) -> Iterator[Any]:
        statement = sa.select(
            instance.c.sop_instance_uid,
            instance.c.sop_class_uid,
            series.c.series_instance_uid,
            study.c.study_instance_uid,
        ).select_from(
            instance.join(series, instance.c.parent_id == series.c.id).join(
                study, series.c.parent_id == study.c.id
            )
        )
        with self._database.reading() as connection:
            for part in _parts(uids):
                own = instance.c.sop_instance_uid.in_(part)
                yield from connection.execute(statement.where(own).order_by(instance.c.id))


def _nothing(uid: str, event: int) -> None:
    """Tell nobody."""


def _parts(values: Iterable[str]) -> Iterator[list[str]]:
    """Split values into lists that are short enough for an IN clause."""
    listed = list(values)
    for start in range(0, len(listed), _BATCH):
        yield listed[start : start + _BATCH]


def _scheduled(ds: Dataset) -> Iterator[StepKey]:
    for item in ds.get("ScheduledStepAttributesSequence") or ():
        yield str(item.StudyInstanceUID), str(item.get("ScheduledProcedureStepID") or "")


def _performed(step: Dataset) -> Iterator[str]:
    """The SOP Instance UIDs of the instances that a step has made."""
    for item in step.get("PerformedSeriesSequence") or ():
        for reference in chain(
            item.get("ReferencedImageSequence") or (),
            item.get("ReferencedNonImageCompositeSOPInstanceSequence") or (),
        ):
            yield str(reference.ReferencedSOPInstanceUID)


def _was_there_before(response: Response) -> bool:
    """Whether a peer says that it has the message from an earlier attempt, whose answer was lost."""
    return response.status == statuses.DUPLICATE_SOP_INSTANCE or (
        response.status == statuses.PROCESSING_FAILURE
        and response.error_id == _MAY_NO_LONGER_BE_UPDATED
    )
