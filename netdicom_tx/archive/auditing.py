"""The audit trail of an archive: messages of what its peers do (PS3.15 A.5).

=================================================  ===========================================================
what happens                                       the message, which is written when it has ended
=================================================  ===========================================================
the node starts or stops                           Application Activity
instances are stored                               DICOM Instances Transferred, one for each study and association
C-GET, C-MOVE                                      DICOM Instances Transferred, one for each study
C-FIND, also for worklists                         Query, with the identifier
a user is accepted or refused                      User Authentication
a peer is refused: its titles, host, certificate,  Security Alert
or what it asks for
=================================================  ===========================================================
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from twisted.internet import defer
from twisted.logger import Logger

from ..asceprovider import Association
from ..audit import (
    Outcome,
    Participant,
    Patient,
    Source,
    Study,
    application_activity,
    instances_transferred,
    query,
    security_alert,
    user_authentication,
)
from ..audit_trails import Trail
from ..dimsemessages import CMoveRQ, Request, Response
from ..encoding import coding_of
from ..negotiation import PContextDef
from ..refusals import Refusal
from ..streams import status_of
from .encoded.walk import Walked
from .index.record import KeptHeader

__all__ = ["Auditor", "StudyRow", "this_process"]

# Kinds of refusals that say nothing of who the peer is: what is no DICOM, is malformed, or finds no place.
_NO_ALERTS: Final = frozenset(
    {"HTTP", "not DICOM", "order", "cut off", "length", "PDU", "role", "context name", "contexts"}
    | {"SOP class", "full", "memory", "half open", "gives way", "silence", "not serving"}
)
# How the kinds begin that refuse a user.
_USER: Final = "user identity"


class StudyRow(NamedTuple):
    """A study as the index has it, with a SOP class and the number of its instances that were asked for."""

    study_instance_uid: str
    patient_id: str
    patient_name: str
    accession_number: str
    sop_class_uid: str
    instances: int


def this_process(ae_title: str) -> Source:
    """The source of the messages of this process."""
    return Source(ae_title, socket.gethostname(), os.getpid())


class Auditor:
    """Writes the audit trail of one archive.

    Args:
        source: The archive.
        trails: Where the messages go.
    """

    _log = Logger()

    def __init__(self, source: Source, trails: Sequence[Trail]) -> None:
        self._source = source
        self._own = Participant(source.ae_title, source.host)
        self._trails = trails
        # The studies of which instances have come, by association and Study Instance UID.
        self._arrived: dict[Association, dict[str, tuple[Study, Counter[str]]]] = {}
        # The instances that a retrieve has found, by association and message ID.
        self._selected: dict[tuple[Association, int | None], list[str]] = {}
        self._last: set[defer.Deferred[Any]] = set()

    def start(self) -> None:
        """Open the trails, and write that the node starts.

        Raises:
            OSError: The file of a trail cannot be opened.
        """
        for each in self._trails:
            each.start()
        self._write(application_activity(self._source, is_start=True))

    async def stop(self) -> None:
        """Write what associations have brought that are not over, and that the node stops; close the trails."""
        for asce in list(self._arrived):
            self.ended(asce)
        for waiting in list(self._last):
            await waiting
        self._write(application_activity(self._source, is_start=False))
        await defer.gatherResults([each.stop() for each in self._trails])

    def _write(self, message: bytes) -> None:
        for each in self._trails:
            each.write(message)

    @staticmethod
    def _peer(asce: Association) -> Participant:
        title = asce.called_ae_title if asce.is_requestor else asce.calling_ae_title
        user = "" if asce.user is None else asce.user.name
        return Participant(title, str(getattr(asce.peer_address, "host", None) or ""), user)

    # -- associations --------------------------------------------------------------------------------

    def accepted(self, asce: Association) -> None:
        """An association is established."""
        if asce.user is not None and not asce.is_requestor:
            self._write(user_authentication(self._source, self._peer(asce), is_accepted=True))

    def refused(self, asce: Association, refusal: Refusal) -> None:
        """A peer is refused something."""
        if refusal.is_noise or refusal.kind in _NO_ALERTS:
            return
        peer = self._peer(asce)
        if refusal.kind.startswith(_USER):
            self._write(user_authentication(self._source, peer, is_accepted=False))
        else:
            self._write(security_alert(self._source, peer, str(refusal)))

    def ended(self, asce: Association) -> None:
        """An association is over: write what it has brought."""
        peer = self._peer(asce)
        for study, classes in self._arrived.pop(asce, {}).values():
            self._write(
                instances_transferred(
                    *(self._source, peer, self._own),
                    Study(study.uid, study.patient, study.accession, classes),
                    requestor=peer,
                    is_new=True,
                )
            )
        for key in [each for each in self._selected if each[0] is asce]:
            del self._selected[key]

    # -- operations ----------------------------------------------------------------------------------

    def arrived(self, asce: Association, walked: Walked, transfer_syntax: str) -> None:
        """An instance has been kept."""
        header = KeptHeader(walked.header, walked.elements, coding_of(transfer_syntax))
        uid = header.text(0x0020000D, "UI")
        studies = self._arrived.setdefault(asce, {})
        if uid not in studies:
            patient = Patient(header.text(0x00100020, "LO"), header.text(0x00100010, "PN"))
            studies[uid] = Study(uid, patient, header.text(0x00080050, "SH")), Counter()
        studies[uid][1][walked.sop_class_uid] += 1

    def selected(
        self, asce: Association, request: Request, sop_instance_uids: Iterable[str]
    ) -> None:
        """A retrieve has found its instances."""
        self._selected[asce, request.message_id] = list(sop_instance_uids)

    def performed(
        self,
        asce: Association,
        ctx: PContextDef,
        request: Request,
        response: Response | None,
        studies_of: Callable[[Sequence[str]], defer.Deferred[list[StudyRow]]],
    ) -> None:
        """An operation has ended.

        Args:
            response: The final response; None when none could be sent.
            studies_of: Looks up the studies of instances.
        """
        is_failed = response is None or status_of(response).is_failure
        outcome = Outcome.MINOR_FAILURE if is_failed else Outcome.SUCCESS
        if request.OPERATION == "C-FIND" and isinstance(request.data_set, bytes):
            self._write(
                query(
                    *(self._source, self._peer(asce), self._own),
                    *(request.sop_class_uid or ctx.sop_class, request.data_set, ctx.supported_ts),
                    outcome=outcome,
                )
            )
        found = self._selected.pop((asce, request.message_id), None)
        if not found:
            return
        peer = self._peer(asce)
        receiver = Participant(request.move_destination) if isinstance(request, CMoveRQ) else peer
        failed = getattr(response, "number_of_failed_suboperations", None) or 0
        if failed or is_failed:
            outcome = Outcome.MINOR_FAILURE
        reason = f"{failed} of {len(found)} instances have failed" if failed else ""

        def write(rows: list[StudyRow]) -> None:
            for study in _studies(rows):
                self._write(
                    instances_transferred(
                        *(self._source, self._own, receiver, study),
                        requestor=peer,
                        outcome=outcome,
                        reason=reason,
                    )
                )

        looking = studies_of(found)
        self._last.add(looking)
        looking.addCallback(write).addErrback(self._cannot_tell)
        looking.addBoth(lambda _: self._last.discard(looking))

    def _cannot_tell(self, failure: Any) -> None:
        self._log.error(
            "the audit trail lacks a retrieve, because its studies cannot be looked up: {error}",
            error=failure.getErrorMessage(),
        )


def _studies(rows: Iterable[StudyRow]) -> list[Study]:
    found: dict[str, tuple[StudyRow, Counter[str]]] = {}
    for row in rows:
        _, classes = found.setdefault(row.study_instance_uid, (row, Counter()))
        classes[row.sop_class_uid] += row.instances
    return [
        Study(uid, Patient(row.patient_id, row.patient_name), row.accession_number, classes)
        for uid, (row, classes) in found.items()
    ]
