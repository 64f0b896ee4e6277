"""The audit trail of an archive: messages of what its peers do (PS3.15 A.5).

=================================================  ===========================================================
what happens                                       the message, which is written when it has ended
=================================================  ===========================================================
the node starts or stops                           Application Activity
instances are stored                               DICOM Instances Transferred, one for each study and association
C-GET, C-MOVE                                      Begin Transferring DICOM Instances and, at the end, DICOM
                                                   Instances Transferred, one for each study; what has failed has
                                                   messages of its own
C-FIND, also for worklists                         Query, with the identifier
a study is deleted, by a person or a rule          DICOM Study Deleted
a part of a study is deleted                       DICOM Instances Accessed, with the action Delete
files are imported                                 Data Import, one for each study
studies are exported, or files are backed up       Data Export, one for each study
a user is accepted or refused, also one of the     User Authentication
status page, or logs out there
a button of the status page is used                Security Alert, with the type Use of Restricted Function
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

from ..asceprovider import Association
from ..audit import (
    Action,
    AuditSource,
    Outcome,
    Participant,
    Patient,
    Study,
    application_activity,
    begin_transferring,
    data_exported,
    data_imported,
    instances_accessed,
    instances_transferred,
    query,
    restricted_function,
    security_alert,
    study_deleted,
    user_authentication,
)
from ..audit_trails import Trail
from ..dimsemessages import CMoveRQ, Request, Response
from ..dsutils import decode
from ..encoding import DataSetError, coding_of
from ..logs import Logger
from ..negotiation import PContextDef
from ..refusals import Refusal
from ..streams import status_of
from ..userdataitems import UserIdentity, UserIdentityType
from .encoded.walk import Walked
from .index.record import KeptHeader

__all__ = ["Auditor", "StudyRow", "this_process"]

# Refusals for reasons other than who the peer is: it does not speak DICOM, sent malformed octets, or the node is full.
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


_Look = Callable[[Sequence[str]], defer.Deferred[list[StudyRow]]]


class _Retrieve(NamedTuple):
    """A C-GET or C-MOVE that is being performed.

    Attributes:
        found: The instances that it asks for.
        look: Looks up the studies of instances.
        telling: Fires when its first messages are written; the last ones follow.
    """

    request: Request
    found: list[str]
    look: _Look
    telling: defer.Deferred[None]


def this_process(ae_title: str) -> AuditSource:
    """The source of the messages of this process."""
    return AuditSource(ae_title, socket.gethostname(), os.getpid())


class Auditor:
    """Writes the audit trail of one archive.

    Args:
        source: The archive.
        trails: Where the messages go.
    """

    _log = Logger()

    def __init__(self, source: AuditSource, trails: Sequence[Trail]) -> None:
        self._source = source
        self._own = Participant(source.ae_title, source.host)
        self._trails = trails
        # The studies that instances came for, by association, then by what they were to us and Study Instance UID.
        self._arrived: dict[Association, dict[tuple[Action, str], tuple[Study, Counter[str]]]] = {}
        # By association and message ID.
        self._retrieves: dict[tuple[Association, int | None], _Retrieve] = {}
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
        for asce in {*self._arrived, *(asce for asce, _ in self._retrieves)}:
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
            claimed = Participant(peer.ae_title, peer.address, _claimed(asce))
            self._write(user_authentication(self._source, claimed, is_accepted=False))
        else:
            self._write(security_alert(self._source, peer, str(refusal)))

    def ended(self, asce: Association) -> None:
        """An association is over: write what it has brought."""
        peer = self._peer(asce)
        for (action, _), (study, classes) in self._arrived.pop(asce, {}).items():
            self._write(
                instances_transferred(
                    *(self._source, peer, self._own),
                    Study(study.uid, study.patient, study.accession, classes),
                    requestor=peer,
                    action=action,
                )
            )
        for key in [each for each in self._retrieves if each[0] is asce]:
            retrieve = self._retrieves.pop(key)
            self._finish(
                *(asce, retrieve, [], retrieve.found),
                "the association has ended before the retrieve; some of these instances may have been sent",
            )

    # -- the status page -----------------------------------------------------------------------------

    def visitor(
        self, user: str, host: str, *, is_accepted: bool = True, is_logout: bool = False
    ) -> None:
        """A visitor of the status page has logged in or out, or could not."""
        who = Participant("", host, user)
        self._write(
            user_authentication(self._source, who, is_accepted=is_accepted, is_logout=is_logout)
        )

    def operated(self, user: str, host: str, what: str) -> None:
        """A button of the status page was used.

        Args:
            user: The name of the visitor; empty when nobody has to log in.
            what: What has happened, in words.
        """
        who = Participant(user or "a visitor of the status page", host, is_person=True)
        self._write(restricted_function(self._source, who, what))

    # -- operations ----------------------------------------------------------------------------------

    def arrived(
        self,
        asce: Association,
        walked: Walked,
        transfer_syntax: str,
        action: Action = Action.CREATE,
    ) -> None:
        """An instance has come.

        Args:
            action: READ when the same one was here already, UPDATE when another one was.
        """
        header = KeptHeader(walked.header, walked.elements, coding_of(transfer_syntax))
        uid = header.text(0x0020000D, "UI")
        studies = self._arrived.setdefault(asce, {})
        if (action, uid) not in studies:
            patient = Patient(header.text(0x00100020, "LO"), header.text(0x00100010, "PN"))
            study = Study(uid, patient, header.text(0x00080050, "SH"))
            studies[action, uid] = study, Counter()
        studies[action, uid][1][walked.sop_class_uid] += 1

    def deleted(self, studies: Sequence[tuple[StudyRow, bool]], user: str) -> None:
        """Studies, or parts of them, have been deleted.

        Args:
            studies: What was deleted, each with whether nothing is left of the study.
            user: The name of the person who asked for it; empty for a rule of the archive.
        """
        who = Participant(user, is_person=True) if user else self._own
        whole = {row.study_instance_uid for row, is_whole in studies if is_whole}
        for study in _studies(row for row, _ in studies):
            if study.uid in whole:
                self._write(study_deleted(self._source, who, study))
            else:
                self._write(instances_accessed(self._source, who, study, Action.DELETE))

    def imported(self, rows: Iterable[StudyRow], user: str, uri: str) -> None:
        """Instances have been taken from files; as the index has them now.

        Args:
            user: The name of the person who asked for it.
            uri: The directory or the file that they come from.
        """
        for study in _studies(rows):
            self._write(data_imported(self._source, Participant(user, is_person=True), uri, study))

    def exported(self, rows: Iterable[StudyRow], user: str, uri: str) -> None:
        """Instances have been written to files; see :meth:`imported`."""
        for study in _studies(rows):
            self._write(data_exported(self._source, Participant(user, is_person=True), uri, study))

    def selected(
        self,
        asce: Association,
        request: Request,
        sop_instance_uids: Iterable[str],
        studies_of: _Look,
    ) -> None:
        """A retrieve has found its instances, and begins to send them.

        Args:
            studies_of: Looks up the studies of instances.
        """
        found = list(sop_instance_uids)
        if not found:
            return
        sender, receiver, peer = self._way(asce, request)

        def begin(rows: list[StudyRow]) -> None:
            for study in _studies(rows):
                self._write(
                    begin_transferring(self._source, sender, receiver, study, requestor=peer)
                )

        telling = studies_of(found).addCallback(begin).addErrback(self._cannot_tell)
        self._last.add(telling)
        key = asce, request.message_id
        self._retrieves[key] = _Retrieve(request, found, studies_of, telling)

    def _way(
        self, asce: Association, request: Request
    ) -> tuple[Participant, Participant, Participant]:
        """Who sends, who receives, and who has asked for it."""
        peer = self._peer(asce)
        receiver = Participant(request.move_destination) if isinstance(request, CMoveRQ) else peer
        return self._own, receiver, peer

    def performed(
        self,
        asce: Association,
        ctx: PContextDef,
        request: Request,
        response: Response | None,
    ) -> None:
        """An operation has ended.

        Args:
            response: The last response; None when none could be sent.
        """
        status = None if response is None else status_of(response)
        is_failed = status is None or status.is_failure
        outcome = Outcome.MINOR_FAILURE if is_failed else Outcome.SUCCESS
        if request.OPERATION == "C-FIND" and isinstance(request.data_set, bytes):
            self._write(
                query(
                    *(self._source, self._peer(asce), self._own),
                    *(request.sop_class_uid or ctx.sop_class, request.data_set, ctx.supported_ts),
                    outcome=outcome,
                )
            )
        retrieve = self._retrieves.pop((asce, request.message_id), None)
        if retrieve is None:
            return
        if response is None or status is None or status.is_failure or status.is_pending:
            self._finish(asce, retrieve, [], retrieve.found, "the retrieve has failed")
        elif status.is_cancel:
            sent = getattr(response, "number_of_completed_suboperations", None) or 0
            reason = f"cancelled; {sent} of these instances were sent"
            self._finish(asce, retrieve, [], retrieve.found, reason)
        else:
            lost = _failed(response, ctx.supported_ts)
            kept = [uid for uid in retrieve.found if uid not in lost]
            failed = [uid for uid in retrieve.found if uid in lost]
            self._finish(asce, retrieve, kept, failed, "these instances could not be sent")

    def _finish(
        self,
        asce: Association,
        retrieve: _Retrieve,
        kept: list[str],
        failed: list[str],
        reason: str,
    ) -> None:
        """Write what has become of a retrieve, after the messages of its beginning."""
        sender, receiver, peer = self._way(asce, retrieve.request)

        async def finish() -> None:
            for uids, outcome, why in (
                (kept, Outcome.SUCCESS, ""),
                (failed, Outcome.MINOR_FAILURE, reason),
            ):
                for study in _studies(await retrieve.look(uids) if uids else ()):
                    self._write(
                        instances_transferred(
                            *(self._source, sender, receiver, study),
                            requestor=peer,
                            outcome=outcome,
                            reason=why,
                        )
                    )

        telling = retrieve.telling
        telling.addCallback(lambda _: defer.Deferred.fromCoroutine(finish()))
        telling.addErrback(self._cannot_tell)
        telling.addCallback(lambda _: self._last.discard(telling))

    def _cannot_tell(self, failure: Any) -> None:
        self._log.error(
            "the audit trail lacks a retrieve, because its studies cannot be looked up: {error}",
            error=failure.getErrorMessage(),
        )


def _claimed(asce: Association) -> str:
    """The user name that a peer has sent; empty when it has sent none, or a ticket or token."""
    request = asce.request_pdu
    identity = None if request is None else request.user_item(UserIdentity)
    named = (UserIdentityType.USERNAME, UserIdentityType.USERNAME_PASSCODE)
    if identity is None or identity.identity_type not in named:
        return ""
    return identity.primary.decode("utf-8", "replace")


def _failed(response: Response, transfer_syntax: str) -> frozenset[str]:
    """The instances that a retrieve could not send (PS3.4 C.4.2.1.4.2, C.4.3.1.3.2)."""
    if not isinstance(response.data_set, bytes):
        return frozenset()
    try:
        listed = decode(response.data_set, transfer_syntax).get("FailedSOPInstanceUIDList") or ()
    except DataSetError:
        return frozenset()
    return frozenset([listed] if isinstance(listed, str) else map(str, listed))


def _studies(rows: Iterable[StudyRow]) -> list[Study]:
    found: dict[str, tuple[StudyRow, Counter[str]]] = {}
    for row in rows:
        _, classes = found.setdefault(row.study_instance_uid, (row, Counter()))
        classes[row.sop_class_uid] += row.instances
    return [
        Study(uid, Patient(row.patient_id, row.patient_name), row.accession_number, classes)
        for uid, (row, classes) in found.items()
    ]
