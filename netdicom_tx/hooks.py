"""What an application entity is asked: the hooks of the seed API, to be overridden.

A hook may return a value, a Deferred or a coroutine of it. :class:`Hooks` also keeps who waits for what
comes on another association than the one it was asked on: instances of a C-MOVE, commitment reports.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Collection, Iterable
from typing import Any, BinaryIO, NamedTuple

from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime

from . import statuses
from .asceprovider import Association
from .dimsemessages import CStoreRQ, Request
from .dsutils import part10_header
from .exceptions import EventHandlingError
from .negotiation import PContextDef
from .pdu import AAssociateAC, AAssociateRQ
from .userdataitems import SOPClassExtendedNegotiation

__all__ = ["Arrival", "Hooks"]

_Status = int | Awaitable[int]
_Verdict = int | Awaitable[int | None] | None


class Arrival(NamedTuple):
    """An instance that a C-MOVE of ours brought to an AE of ours, and how we answered."""

    sop_class_uid: str
    sop_instance_uid: str
    status: int


class Hooks(ABC):
    """The base of :class:`~netdicom_tx.AE`."""

    @property
    @abstractmethod
    def clock(self) -> IReactorTime:
        """The time of all waits."""

    def __init__(self) -> None:
        self._arrivals: dict[tuple[str, int], list[Arrival]] = {}
        self._commitments: dict[str, defer.Deferred[Any]] = {}

    # -- associations ------------------------------------------------------------------------------

    def on_association_request(
        self, asce: Association, assoc: AAssociateRQ
    ) -> Awaitable[None] | None:
        """A peer asks for an association.

        Args:
            asce: With ``calling_ae_title``, ``called_ae_title`` and ``peer_address`` set.
            assoc: The whole request.

        Raises:
            AssociationRejectedError: To reject it.
        """
        return None

    def answer_extended(
        self, asce: Association, proposal: SOPClassExtendedNegotiation
    ) -> bytes | None:
        """What to answer to SOP class extended negotiation (PS3.7 D.3.3.5); None does not answer."""
        return None

    def on_association_response(self, response: AAssociateAC) -> None:  # noqa: B027  (a hook)
        """A peer has accepted an association that we requested."""

    def transcode(self, asce: Association, instance: Any) -> Any:
        """Another form of an instance, for a peer that does not take its transfer syntax (C-GET).

        Args:
            asce: On which it is to go; its ``accepted_contexts`` say what the peer takes.
            instance: An :class:`~netdicom_tx.sopclass.Instance`.

        Returns:
            An Instance, or None when there is no other form; or a Deferred or coroutine of it.
        """
        return None

    def get_file(
        self, asce: Association, context: PContextDef, command_set: Request
    ) -> tuple[BinaryIO, int]:
        """A file for the data set of a request whose service has ``store_in_file``.

        Args:
            context: On which it comes.
            command_set: The request, still without its data set.

        Returns:
            The file, at the position where the data set is to be written; and the position at
            which it is handed to the service. By default a temporary file that begins with the
            Part 10 header, handed over from its beginning. It is closed, and so deleted, when the
            operation is over.
        """
        file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        file.write(
            part10_header(
                command_set.sop_class_uid or context.sop_class,
                command_set.sop_instance_uid or "",
                context.supported_ts,
                source_ae_title=asce.calling_ae_title,
            )
        )
        return file, 0

    def on_receive_echo(self, context: PContextDef) -> _Status:
        """C-ECHO came; returns its status."""
        return statuses.SUCCESS

    def on_receive_store(self, context: PContextDef, ds: BinaryIO) -> _Status:
        """C-STORE came.

        Args:
            context: On which it came.
            ds: A Part 10 file, positioned at its beginning; closed when the operation is over.

        Returns:
            The status; Success promises that the instance is kept.

        Raises:
            EventHandlingError: Answered with 0xC000, or the status it carries.
        """
        raise EventHandlingError("on_receive_store is not implemented", statuses.PROCESSING_FAILURE)

    def on_receive_find(self, context: PContextDef, ds: Dataset) -> Any:
        """C-FIND came.

        Args:
            context: On which it came.
            ds: The identifier.

        Returns:
            An iterable or async iterable, or a Deferred or coroutine of one, of the matches: data
            sets, or (data set, status). The final response, Success unless an item says otherwise,
            is sent behind them. On C-CANCEL the iterator is closed and FE00 is sent.

        Raises:
            EventHandlingError: Answered with 0xC000, or the status it carries.
        """
        raise EventHandlingError("on_receive_find is not implemented", statuses.PROCESSING_FAILURE)

    def find_for(self, asce: Association, context: PContextDef, ds: Dataset) -> Any:
        """As :meth:`on_receive_find`, for an AE that must know who asks, or what was negotiated."""
        return self.on_receive_find(context, ds)

    def get_for(self, asce: Association, context: PContextDef, ds: Dataset) -> Any:
        """As :meth:`on_receive_get`; see :meth:`find_for`."""
        return self.on_receive_get(context, ds)

    def move_for(
        self, asce: Association, context: PContextDef, ds: Dataset, destination: str
    ) -> Any:
        """As :meth:`on_receive_move`; see :meth:`find_for`."""
        return self.on_receive_move(context, ds, destination)

    def on_receive_get(self, context: PContextDef, ds: Dataset) -> Any:
        """C-GET came.

        Args:
            context: On which it came.
            ds: The identifier.

        Returns:
            (number, instances), or a Deferred or coroutine of it: how many instances there are, and
            an iterable or async iterable of them, each a data set, a path, an open file or an
            :class:`~netdicom_tx.sopclass.Instance`.

        Raises:
            EventHandlingError: Answered with 0xC000, or the status it carries.
        """
        raise EventHandlingError("on_receive_get is not implemented", statuses.PROCESSING_FAILURE)

    def on_receive_move(self, context: PContextDef, ds: Dataset, destination: str) -> Any:
        """C-MOVE came.

        Args:
            context: On which it came.
            ds: The identifier.
            destination: The AE title to send to.

        Returns:
            (remote AE, number, instances), or a Deferred or coroutine of it: a :class:`RemoteAE`, or
            None when the destination is unknown, and what :meth:`on_receive_get` returns.

        Raises:
            EventHandlingError: Answered with 0xC000, or the status it carries.
        """
        raise EventHandlingError("on_receive_move is not implemented", statuses.PROCESSING_FAILURE)

    def on_commitment_request(self, remote_ae: str, uids: Iterable[tuple[str, str]]) -> Any:
        """A peer asks for the safekeeping of instances.

        Args:
            remote_ae: Its AE title.
            uids: (SOP class, SOP instance) of each.

        Returns:
            (remote AE, success, failure), or a Deferred or coroutine of it: a :class:`RemoteAE` to report
            to, or None; (SOP class, SOP instance) of what is kept; (SOP class, SOP instance, reason) of what
            is not. Either may be None when there is nothing of it.

        Raises:
            EventHandlingError: The request is answered with 0x0110, or the status it carries.
        """
        raise EventHandlingError("on_commitment_request is not implemented")

    def on_commitment_response(
        self,
        transaction_uid: str,
        success: Iterable[tuple[str, str]],
        failure: Iterable[tuple[str, str, int]],
    ) -> Any:
        """The report of a storage commitment came.

        Args:
            success: (SOP class, SOP instance) of what the peer keeps.
            failure: (SOP class, SOP instance, reason) of what it does not.

        Raises:
            EventHandlingError: The report is answered with 0x0110, or the status it carries.
        """
        raise EventHandlingError("on_commitment_response is not implemented")

    def on_mpps_create(self, uid: str, ds: Dataset) -> _Verdict:
        """N-CREATE of a modality performed procedure step came: a modality begins (PS3.4 F.7.2.1).

        Args:
            uid: SOP Instance UID of the step; one that we made, when the modality gave none.
            ds: Its attributes, with all that such a step must have, and IN PROGRESS.

        Returns:
            None, which is Success, or the status; Success promises that the step is kept.

        Raises:
            StatusError: Answered with its status; 0x0111 when there is a step of this UID.
            EventHandlingError: Answered with 0x0110, or the status it carries.
        """
        raise EventHandlingError("on_mpps_create is not implemented")

    def on_mpps_set(self, uid: str, modifications: Dataset) -> _Verdict:
        """N-SET of a modality performed procedure step came: it changes, or has ended (PS3.4 F.7.2.2).

        Args:
            uid: SOP Instance UID of the step, as the peer gives it.
            modifications: What is to change, unchecked: keep what
                :func:`~netdicom_tx.sopclass.procedure_step.updated` makes of it and of the step.

        Returns:
            None, which is Success, or the status.

        Raises:
            StatusError: Answered with its status; 0x0112 when there is no such step.
            ProcedureStepError: As ``updated`` raises it; its Error ID (A710 for a step that has ended)
                and its list of attributes are sent too.
            EventHandlingError: Answered with 0x0110, or the status it carries.
        """
        raise EventHandlingError("on_mpps_set is not implemented")

    def on_mpps_get(self, uid: str, tags: Collection[int] | None) -> Dataset | Awaitable[Dataset]:
        """N-GET of a modality performed procedure step came, by MPPS Retrieve (PS3.4 F.8.2.1).

        Args:
            uid: SOP Instance UID of the step, as the peer gives it.
            tags: Of the attributes that the peer wants; None means all.

        Returns:
            The step: all of it will do, what was not asked for is left out of the answer. An attribute that
            it does not have and that no step needs is answered by a warning, 0x0001.

        Raises:
            StatusError: Answered with its status; 0x0112 when there is no such step.
            EventHandlingError: Answered with 0x0110, or the status it carries.
        """
        raise EventHandlingError("on_mpps_get is not implemented")

    def on_mpps_event(self, uid: str, event: int) -> Awaitable[None] | None:
        """An SCP reports that a performed procedure step is not what it was (PS3.4 F.9.2).

        It comes on an association that we hold, or on one that the SCP has opened.

        Args:
            uid: SOP Instance UID of the step.
            event: Event Type ID, a key of :data:`~netdicom_tx.sopclass.procedure_step.EVENTS`; it has no more to say.

        Raises:
            EventHandlingError: Answered with 0x0110, or the status it carries.
        """
        raise EventHandlingError("on_mpps_event is not implemented")

    def on_instances_available(self, uid: str, ds: Dataset) -> _Verdict:
        """N-CREATE of an instance availability notification came (PS3.4 R.3.2).

        Args:
            uid: SOP Instance UID of the notice; one that we made, when the peer gave none.
            ds: Which instances of a study can be had, and from where; with all that a notice must have.

        Returns:
            None, which is Success, or the status.

        Raises:
            StatusError: Answered with its status; 0x0111 when the notice came before.
            EventHandlingError: Answered with 0x0110, or the status it carries.
        """
        raise EventHandlingError("on_instances_available is not implemented")

    # -- what storage commitment reports -----------------------------------------------------------

    def await_commitment(self, transaction_uid: str) -> defer.Deferred[Any]:
        """Fires with the result of a transaction when its report comes, on whatever association."""
        waiting: defer.Deferred[Any] = defer.Deferred(
            lambda _: self.forget_commitment(transaction_uid)
        )
        self._commitments[transaction_uid] = waiting
        return waiting

    def forget_commitment(self, transaction_uid: str) -> None:
        """Stop waiting; a report that comes now goes to :meth:`on_commitment_response`."""
        self._commitments.pop(transaction_uid, None)

    def commitment_came(self, transaction_uid: str, result: Any) -> bool:
        """Whether somebody waited for this report, and has it now."""
        waiting = self._commitments.pop(transaction_uid, None)
        if waiting is not None:
            # In the next turn: whoever waits may release the association, and the report is to be
            # answered before.
            self.clock.callLater(0, _fire, waiting, result)
        return waiting is not None

    # -- what C-MOVE brings ------------------------------------------------------------------------

    def watch_arrivals(self, originator: str, message_id: int) -> list[Arrival]:
        """Collect what is stored here on behalf of a C-MOVE of ours (PS3.7 9.3.1.1).

        Args:
            originator: The AE title that the C-MOVE came from.
            message_id: Of the C-MOVE-RQ.

        Returns:
            A list that grows with each C-STORE that names this C-MOVE.
        """
        return self._arrivals.setdefault((originator, message_id), [])

    def forget_arrivals(self, originator: str, message_id: int) -> None:
        """Stop collecting."""
        self._arrivals.pop((originator, message_id), None)

    def arrived(self, request: CStoreRQ, status: int) -> None:
        """A C-STORE was answered; the storage service tells."""
        if self._arrivals and request.move_originator_message_id is not None:
            watched = self._arrivals.get(
                (
                    request.move_originator_application_entity_title or "",
                    request.move_originator_message_id,
                )
            )
            if watched is not None:
                watched.append(
                    Arrival(
                        request.affected_sop_class_uid, request.affected_sop_instance_uid, status
                    )
                )


def _fire(waiting: defer.Deferred[Any], result: Any) -> None:
    if not waiting.called:
        waiting.callback(result)
