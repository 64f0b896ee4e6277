"""The schema of audit messages (PS3.15 A.5.1), written down anew as a table and checked against documents."""

import base64
import re
from collections.abc import Mapping
from typing import NamedTuple
from xml.etree.ElementTree import Element, fromstring

_CODE = {"csd-code": r"\S+", "codeSystemName": r".+", "originalText": r".+", "displayName?": r".*"}
_BASE64 = "base 64"


class Rule(NamedTuple):
    """What an element may have.

    Attributes:
        attributes: Each attribute with the form of its value; a question mark means that it may be absent.
        children: The elements in their order, each with how often it may be there; ``a|b`` is a choice.
        text: The form of its text.
    """

    attributes: Mapping[str, str]
    children: Mapping[str, str]
    text: str = ""


SCHEMA = {
    "AuditMessage": Rule(
        {},
        {
            "EventIdentification": "1",
            "ActiveParticipant": "+",
            "AuditSourceIdentification": "1",
            "ParticipantObjectIdentification": "*",
        },
    ),
    "EventIdentification": Rule(
        {
            "EventActionCode?": "[CRUDE]",
            "EventDateTime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
            "EventOutcomeIndicator": "0|4|8|12",
        },
        {"EventID": "1", "EventTypeCode": "*", "EventOutcomeDescription": "?"},
    ),
    "EventID": Rule(_CODE, {}),
    "EventTypeCode": Rule(_CODE, {}),
    "EventOutcomeDescription": Rule({}, {}, ".+"),
    "ActiveParticipant": Rule(
        {
            "UserID": ".+",
            "AlternativeUserID?": ".+",
            "UserName?": ".+",
            "UserIsRequestor": "true|false",
            "NetworkAccessPointID?": ".+",
            "NetworkAccessPointTypeCode?": "[1-5]",
        },
        {"RoleIDCode": "*", "MediaIdentifier": "?"},
    ),
    "RoleIDCode": Rule(_CODE, {}),
    "MediaIdentifier": Rule({}, {"MediaType": "1"}),
    "MediaType": Rule(_CODE, {}),
    "AuditSourceIdentification": Rule(
        {"AuditSourceID": ".+", "AuditEnterpriseSiteID?": ".+"}, {"AuditSourceTypeCode": "*"}
    ),
    "AuditSourceTypeCode": Rule({"csd-code": "[1-9]"}, {}),
    "ParticipantObjectIdentification": Rule(
        {
            "ParticipantObjectID": ".*",
            "ParticipantObjectTypeCode?": "[1-4]",
            "ParticipantObjectTypeCodeRole?": "[1-9]|1[0-9]|2[0-6]",
            "ParticipantObjectDataLifeCycle?": "[1-9]|1[0-5]",
            "ParticipantObjectSensitivity?": ".+",
        },
        {
            "ParticipantObjectIDTypeCode": "1",
            "ParticipantObjectName|ParticipantObjectQuery": "1",
            "ParticipantObjectDetail": "*",
            "ParticipantObjectDescription": "*",
        },
    ),
    "ParticipantObjectIDTypeCode": Rule(_CODE, {}),
    "ParticipantObjectName": Rule({}, {}, ".*"),
    "ParticipantObjectQuery": Rule({}, {}, _BASE64),
    "ParticipantObjectDetail": Rule({"type": ".+", "value": _BASE64}, {}),
    "ParticipantObjectDescription": Rule(
        {},
        {
            "MPPS": "*",
            "Accession": "*",
            "SOPClass": "*",
            "ParticipantObjectContainsStudy": "?",
            "Encrypted": "?",
            "Anonymized": "?",
        },
    ),
    "Accession": Rule({"Number": ".+"}, {}),
    "SOPClass": Rule({"UID?": "[0-9.]+", "NumberOfInstances": "[0-9]+"}, {"Instance": "*"}),
}
_HOW_OFTEN = {"1": (1, 1), "?": (0, 1), "*": (0, 1 << 30), "+": (1, 1 << 30)}


def checked(octets: bytes) -> Element:
    """Parse a message, and check it against the schema.

    Raises:
        AssertionError: It does not conform.
    """
    message = fromstring(octets)
    assert message.tag == "AuditMessage"
    _check(message)
    return message


def _check(element: Element) -> None:
    rule = SCHEMA[element.tag]
    left = dict(element.attrib)
    for name, form in rule.attributes.items():
        value = left.pop(name.rstrip("?"), None)
        if value is None:
            assert name.endswith("?"), f"{element.tag} lacks {name}"
            continue
        _check_value(f"{element.tag} {name}", value, form)
    assert not left, f"{element.tag} has {left}"
    children = list(element)
    for names, how_often in rule.children.items():
        least, most = _HOW_OFTEN[how_often]
        count = 0
        while children and children[0].tag in names.split("|"):
            _check(children.pop(0))
            count += 1
        assert least <= count <= most, f"{element.tag} has {count} of {names}"
    assert not children, f"{element.tag} has {children[0].tag} in a wrong place"
    if rule.text:
        _check_value(element.tag, element.text or "", rule.text)
    else:
        assert not (element.text or "").strip()


def _check_value(what: str, value: str, form: str) -> None:
    if form is _BASE64:
        base64.b64decode(value, validate=True)
    else:
        assert re.fullmatch(form, value, re.DOTALL), f"{what} is {value!r}; expected {form}"
