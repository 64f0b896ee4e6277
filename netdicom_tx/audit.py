"""Audit messages: who did what with whose data (PS3.15 A.5, the form of RFC 3881).

The functions of this module make a message for each kind of event; each returns the octets of its XML document, in
UTF-8. :mod:`netdicom_tx.audit_trails` takes them to a file or to a syslog server, and
:class:`~netdicom_tx.archive.auditing.Auditor` makes them of what an archive does.

=====================================  ======  ================================================================
event                                  code    clause of PS3.15
=====================================  ======  ================================================================
:func:`application_activity`           110100  A.5.3.1, with the type Application Start (110120) or Stop (110121)
:func:`begin_transferring`             110102  A.5.3.3
:func:`data_exported`                  110106  A.5.3.4
:func:`data_imported`                  110107  A.5.3.5
:func:`instances_accessed`             110103  A.5.3.6
:func:`instances_transferred`          110104  A.5.3.7
:func:`study_deleted`                  110105  A.5.3.8
:func:`query`                          110112  A.5.3.10
:func:`security_alert`                 110113  A.5.3.11, with the type Node Authentication (110126)
:func:`restricted_function`            110113  A.5.3.11, with the type Use of Restricted Function (110132)
:func:`user_authentication`            110114  A.5.3.12, with the type Login (110122) or Logout (110123)
=====================================  ======  ================================================================

A message names patients where its clause demands that, so an audit trail is as confidential as the archive.

The User ID of an application entity is its AE title, by which the log names it (A.5.2.1), and its Alternative User ID
is ``AETITLES=`` with that title (A.5.2.2). The User Name of the application that writes the trail has its process ID.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from ipaddress import ip_address
from typing import Final, NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

__all__ = [
    "Action",
    "AuditSource",
    "Outcome",
    "Participant",
    "Patient",
    "Study",
    "application_activity",
    "begin_transferring",
    "data_exported",
    "data_imported",
    "instances_accessed",
    "instances_transferred",
    "query",
    "restricted_function",
    "security_alert",
    "study_deleted",
    "user_authentication",
]


class _Code(NamedTuple):
    value: str
    scheme: str
    meaning: str


def _dcm(value: int, meaning: str) -> _Code:
    return _Code(str(value), "DCM", meaning)


# PS3.16 Annex D; the tests compare them with pydicom's dictionary.
_APPLICATION_ACTIVITY: Final = _dcm(110100, "Application Activity")
_BEGIN_TRANSFERRING: Final = _dcm(110102, "Begin Transferring DICOM Instances")
_INSTANCES_ACCESSED: Final = _dcm(110103, "DICOM Instances Accessed")
_INSTANCES_TRANSFERRED: Final = _dcm(110104, "DICOM Instances Transferred")
_STUDY_DELETED: Final = _dcm(110105, "DICOM Study Deleted")
_EXPORT: Final = _dcm(110106, "Export")
_IMPORT: Final = _dcm(110107, "Import")
_QUERY: Final = _dcm(110112, "Query")
_SECURITY_ALERT: Final = _dcm(110113, "Security Alert")
_USER_AUTHENTICATION: Final = _dcm(110114, "User Authentication")
_APPLICATION_START: Final = _dcm(110120, "Application Start")
_APPLICATION_STOP: Final = _dcm(110121, "Application Stop")
_LOGIN: Final = _dcm(110122, "Login")
_LOGOUT: Final = _dcm(110123, "Logout")
_NODE_AUTHENTICATION: Final = _dcm(110126, "Node Authentication")
_RESTRICTED_FUNCTION: Final = _dcm(110132, "Use of Restricted Function")
_APPLICATION: Final = _dcm(110150, "Application")
_DESTINATION: Final = _dcm(110152, "Destination Role ID")
_SOURCE: Final = _dcm(110153, "Source Role ID")
_DESTINATION_MEDIA: Final = _dcm(110154, "Destination Media")
_SOURCE_MEDIA: Final = _dcm(110155, "Source Media")
_STUDY_UID: Final = _dcm(110180, "Study Instance UID")
_SOP_CLASS_UID: Final = _dcm(110181, "SOP Class UID")
_NODE_ID: Final = _dcm(110182, "Node ID")
_URI: Final = _dcm(110037, "URI")
_PATIENT_NUMBER: Final = _Code("2", "RFC-3881", "Patient Number")

# Participant object types and roles of RFC 3881 5.5.1 and 5.5.2.
_PERSON, _SYSTEM_OBJECT = "1", "2"
_PATIENT_ROLE, _REPORT_ROLE, _SECURITY_RESOURCE = "1", "3", "13"
# "Application Server Process", RFC 3881 5.4.3.
_SERVER_PROCESS = "4"
# What XML 1.0 has no way to write.
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BREAKS: Final = re.compile("[\t\n\r]+")


class Outcome(IntEnum):
    """How an event has ended (RFC 3881 5.1.4)."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8


class Action(StrEnum):
    """What an event does to its objects (A.5.2)."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"


@dataclass(frozen=True, slots=True)
class AuditSource:
    """The application that writes the audit trail.

    Attributes:
        ae_title: Its AE title, which is its user ID in messages.
        host: The name of its machine.
        process: The number of its process.
    """

    ae_title: str
    host: str
    process: int

    @property
    def name(self) -> str:
        """The Audit Source ID."""
        return f"{self.ae_title}@{self.host}"


@dataclass(frozen=True, slots=True)
class Participant:
    """An application entity that takes part in an event.

    Attributes:
        ae_title: Its AE title.
        address: Its IP address or host name; empty when it is not known.
        user: The user that it has named by user identity negotiation; empty for none.
        is_person: Whether it is a person, and ``ae_title`` a user name.
    """

    ae_title: str
    address: str = ""
    user: str = ""
    is_person: bool = False


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient: the ID, which may be empty, and the name as it is in the data set."""

    id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Study:
    """A study, or the part of it that an event is about.

    Attributes:
        instances: The number of instances for each SOP class.
    """

    uid: str
    patient: Patient = Patient()
    accession: str = ""
    instances: Mapping[str, int] = field(default_factory=dict)


# -- the messages ------------------------------------------------------------------------------------


def application_activity(source: AuditSource, *, is_start: bool) -> bytes:
    """The application starts or stops."""
    message = _message(
        _APPLICATION_ACTIVITY, "E", kinds=(_APPLICATION_START if is_start else _APPLICATION_STOP,)
    )
    _own(message, source, _APPLICATION, is_requestor=False)
    return _octets(message, source)


def begin_transferring(
    source: AuditSource,
    sender: Participant,
    receiver: Participant,
    study: Study,
    *,
    requestor: Participant,
) -> bytes:
    """The transfer of instances of one patient's study begins.

    Args:
        requestor: The participant that has asked for it; one of the two, or a third one.
    """
    message = _message(_BEGIN_TRANSFERRING, "E")
    _transfer(message, sender, receiver, requestor)
    return _octets(message, source, (_study(study), _patient(study.patient)))


def instances_transferred(
    source: AuditSource,
    sender: Participant,
    receiver: Participant,
    study: Study,
    *,
    requestor: Participant,
    action: Action = Action.READ,
    outcome: Outcome = Outcome.SUCCESS,
    reason: str = "",
) -> bytes:
    """Instances of one patient's study have been transferred.

    A message has one outcome: what has failed of a transfer has a message of its own (A.5.2).

    Args:
        requestor: The participant that has asked for it; one of the two, or a third one.
        action: CREATE when the receiver had none of these instances, READ when it had them or when that is not known,
            UPDATE when they differ from those that it had.
        reason: Why it has failed, in words.
    """
    message = _message(_INSTANCES_TRANSFERRED, action, outcome, reason)
    _transfer(message, sender, receiver, requestor)
    return _octets(message, source, (_study(study), _patient(study.patient)))


def _transfer(
    message: Element, sender: Participant, receiver: Participant, requestor: Participant
) -> None:
    """The participants of a transfer."""
    _participant(message, sender, _SOURCE, is_requestor=requestor == sender)
    _participant(message, receiver, _DESTINATION, is_requestor=requestor == receiver)
    if requestor not in (sender, receiver):
        _participant(message, requestor, None, is_requestor=True)


def instances_accessed(
    source: AuditSource, user: Participant, study: Study, action: Action
) -> bytes:
    """Instances of a study have been viewed, used, updated or deleted, but not all of them deleted."""
    message = _message(_INSTANCES_ACCESSED, action)
    _participant(message, user, None, is_requestor=True)
    return _octets(message, source, (_study(study), _patient(study.patient)))


def study_deleted(source: AuditSource, user: Participant, study: Study) -> bytes:
    """A study, or instances of it, have been deleted."""
    message = _message(_STUDY_DELETED, "D")
    _participant(message, user, None, is_requestor=True)
    return _octets(message, source, (_study(study), _patient(study.patient)))


def data_exported(source: AuditSource, user: Participant, uri: str, study: Study) -> bytes:
    """Instances of a study have been written to files outside of the archive.

    Args:
        user: The person who has called for it.
        uri: The directory or the file that they were written to.
    """
    message = _message(_EXPORT, Action.READ)
    return _transferred(message, source, user, uri, study, (_SOURCE, _DESTINATION_MEDIA))


def data_imported(source: AuditSource, user: Participant, uri: str, study: Study) -> bytes:
    """Instances of a study have been taken from files outside of the archive.

    Args:
        user: The person who has called for it.
        uri: The directory or the file that they were read from.
    """
    message = _message(_IMPORT, Action.CREATE)
    return _transferred(message, source, user, uri, study, (_DESTINATION, _SOURCE_MEDIA))


def query(
    source: AuditSource,
    requestor: Participant,
    responder: Participant,
    sop_class_uid: str,
    identifier: bytes,
    transfer_syntax: str,
    *,
    outcome: Outcome = Outcome.SUCCESS,
) -> bytes:
    """A query has been performed.

    Args:
        sop_class_uid: The SOP class of the query.
        identifier: The encoded identifier of the request.
        transfer_syntax: Its transfer syntax.
    """
    message = _message(_QUERY, "E", outcome)
    _participant(message, requestor, _SOURCE, is_requestor=True)
    _participant(message, responder, _DESTINATION, is_requestor=False)
    queried = _object(
        _SYSTEM_OBJECT, _REPORT_ROLE, _SOP_CLASS_UID, sop_class_uid, asked=b64encode(identifier)
    )
    # A.5.3.10: the transfer syntax tells how to read the query; the values of details are in base 64 (RFC 3881).
    detail = {"type": "TransferSyntax", "value": b64encode(transfer_syntax.encode()).decode()}
    SubElement(queried, "ParticipantObjectDetail", detail)
    return _octets(message, source, (queried,))


def security_alert(source: AuditSource, peer: Participant, reason: str) -> bytes:
    """A peer has been refused: its certificate, its AE titles, its host, or what it has asked for."""
    node = peer.address or peer.ae_title or "unknown"
    refused = Outcome.MINOR_FAILURE
    return _alert(source, peer, reason, _NODE_AUTHENTICATION, refused, node=node, name="peer")


def restricted_function(source: AuditSource, user: Participant, what: str) -> bytes:
    """An operator has changed something of the application itself, without a study that it is about.

    Args:
        what: What was changed, in words.
    """
    node = source.name
    return _alert(
        source, user, what, _RESTRICTED_FUNCTION, Outcome.SUCCESS, node=node, name="application"
    )


def user_authentication(
    source: AuditSource, peer: Participant, *, is_accepted: bool, is_logout: bool = False
) -> bytes:
    """A user has been accepted or refused, or has logged out.

    Args:
        peer: The user; without a user, the application entity that has named none.
    """
    outcome = Outcome.SUCCESS if is_accepted else Outcome.MINOR_FAILURE
    kind = _LOGOUT if is_logout else _LOGIN
    message = _message(_USER_AUTHENTICATION, "E", outcome, kinds=(kind,))
    person = Participant(peer.user or peer.ae_title, peer.address, is_person=bool(peer.user))
    _participant(message, person, None, is_requestor=True)
    _own(message, source, None, is_requestor=False)
    return _octets(message, source)


def _alert(
    source: AuditSource,
    who: Participant,
    text: str,
    kind: _Code,
    outcome: Outcome,
    *,
    node: str,
    name: str,
) -> bytes:
    message = _message(_SECURITY_ALERT, "E", outcome, text, kinds=(kind,))
    _own(message, source, None, is_requestor=True)
    _participant(message, who, None, is_requestor=False)
    subject = _object(_SYSTEM_OBJECT, _SECURITY_RESOURCE, _NODE_ID, node, name=name)
    detail = {"type": "Alert Description", "value": b64encode(_clean(text).encode()).decode()}
    SubElement(subject, "ParticipantObjectDetail", detail)
    return _octets(message, source, (subject,))


# -- their parts (A.5.1) -------------------------------------------------------------------------------


def _message(
    what: _Code,
    action: str,
    outcome: Outcome = Outcome.SUCCESS,
    reason: str = "",
    *,
    kinds: Sequence[_Code] = (),
) -> Element:
    message = Element("AuditMessage")
    event = SubElement(
        message,
        "EventIdentification",
        EventActionCode=action,
        EventDateTime=datetime.now(UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=str(int(outcome)),
    )
    _code(event, "EventID", what)
    for kind in kinds:
        _code(event, "EventTypeCode", kind)
    if said := _clean(reason):
        SubElement(event, "EventOutcomeDescription").text = said
    return message


def _code(parent: Element, name: str, code: _Code) -> None:
    attributes = {
        "csd-code": code.value,
        "codeSystemName": code.scheme,
        "originalText": code.meaning,
    }
    SubElement(parent, name, attributes)


def _participant(
    message: Element, who: Participant, role: _Code | None, *, is_requestor: bool
) -> None:
    attributes = {
        "UserID": _clean(who.ae_title) or "unknown",
        "UserIsRequestor": "true" if is_requestor else "false",
    }
    if who.ae_title and not who.is_person:
        attributes["AlternativeUserID"] = f"AETITLES={_clean(who.ae_title)}"
    if user := _clean(who.user):
        attributes["UserName"] = user
    if address := _clean(who.address):
        attributes["NetworkAccessPointID"] = address
        # RFC 3881 5.3.4: 1 is a machine name, 2 an IP address.
        attributes["NetworkAccessPointTypeCode"] = "2" if _is_ip(address) else "1"
    made = SubElement(message, "ActiveParticipant", attributes)
    if role is not None:
        _code(made, "RoleIDCode", role)


def _own(message: Element, source: AuditSource, role: _Code | None, *, is_requestor: bool) -> None:
    attributes = {
        "UserID": source.ae_title,
        "AlternativeUserID": f"AETITLES={source.ae_title}",
        # A.5.2.3: the name of the process.
        "UserName": f"netdicom_tx[{source.process}]",
        "UserIsRequestor": "true" if is_requestor else "false",
        "NetworkAccessPointID": source.host,
        "NetworkAccessPointTypeCode": "1",
    }
    made = SubElement(message, "ActiveParticipant", attributes)
    if role is not None:
        _code(made, "RoleIDCode", role)


def _transferred(
    message: Element,
    source: AuditSource,
    user: Participant,
    uri: str,
    study: Study,
    roles: tuple[_Code, _Code],
) -> bytes:
    """Complete the message of an export or an import.

    Args:
        roles: That of the person and the archive, which are on one side, and that of the files.
    """
    side, files = roles
    _participant(message, user, side, is_requestor=True)
    _own(message, source, side, is_requestor=False)
    _media(message, uri, files)
    return _octets(message, source, (_study(study), _patient(study.patient)))


def _media(message: Element, uri: str, role: _Code) -> None:
    """What files are written to or read from (A.5.3.4, A.5.3.5; CID 405 for its type)."""
    attributes = {"UserID": _clean(uri), "UserIsRequestor": "false"}
    made = SubElement(message, "ActiveParticipant", attributes)
    _code(made, "RoleIDCode", role)
    _code(SubElement(made, "MediaIdentifier"), "MediaType", _URI)


def _is_ip(address: str) -> bool:
    try:
        ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return True


def _object(
    kind: str, role: str, id_kind: _Code, value: str, *, name: str = "", asked: bytes | None = None
) -> Element:
    made = Element(
        "ParticipantObjectIdentification",
        ParticipantObjectID=_clean(value),
        ParticipantObjectTypeCode=kind,
        ParticipantObjectTypeCodeRole=role,
    )
    _code(made, "ParticipantObjectIDTypeCode", id_kind)
    # The schema wants one of the two.
    if asked is None:
        SubElement(made, "ParticipantObjectName").text = _clean(name)
    else:
        SubElement(made, "ParticipantObjectQuery").text = asked.decode("ascii")
    return made


def _patient(patient: Patient) -> Element:
    return _object(_PERSON, _PATIENT_ROLE, _PATIENT_NUMBER, patient.id, name=patient.name)


def _study(study: Study) -> Element:
    made = _object(_SYSTEM_OBJECT, _REPORT_ROLE, _STUDY_UID, study.uid, name="study")
    # The rest is inside of the description (A.5.1.1, DICOMObjectDescriptionContents; PS3.17 WW.1 has an example).
    description = Element("ParticipantObjectDescription")
    if accession := _clean(study.accession):
        SubElement(description, "Accession", Number=accession)
    for sop_class, count in study.instances.items():
        SubElement(description, "SOPClass", UID=_clean(sop_class), NumberOfInstances=str(count))
    if len(description):
        made.append(description)
    return made


def _clean(text: str) -> str:
    """The text on one line, without characters that XML cannot have, such as the escape of a character set."""
    return _BREAKS.sub(" ", _NOT_XML.sub("", text)).strip()


def _octets(message: Element, source: AuditSource, objects: Collection[Element] = ()) -> bytes:
    attributes = {"AuditSourceID": source.name}
    made = SubElement(message, "AuditSourceIdentification", attributes)
    SubElement(made, "AuditSourceTypeCode", {"csd-code": _SERVER_PROCESS})
    message.extend(objects)
    octets: bytes = tostring(message, "utf-8", xml_declaration=True)
    return octets.replace(b"\n", b"")
