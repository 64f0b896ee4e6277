"""DIMSE statuses: integers that know their category and their words.

The sources are PS3.7 Annex C for the general codes and the classes of codes, and PS3.4 for the
codes of a service. The meaning of a service's code depends on the operation, so a
:class:`Status` may carry the operation that it answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = [
    "ATTRIBUTE_LIST_WARNING",
    "ATTRIBUTE_VALUE_OUT_OF_RANGE",
    "CANCEL",
    "CLASS_INSTANCE_CONFLICT",
    "C_FIND_IDENTIFIER_DOES_NOT_MATCH",
    "C_FIND_OUT_OF_RESOURCES",
    "C_FIND_PENDING_WARNING",
    "C_FIND_UNABLE_TO_PROCESS",
    "C_GET_IDENTIFIER_DOES_NOT_MATCH",
    "C_GET_OUT_OF_RESOURCES_MATCHES",
    "C_GET_OUT_OF_RESOURCES_SUBOPERATIONS",
    "C_GET_UNABLE_TO_PROCESS",
    "C_GET_WARNING",
    "C_MOVE_DESTINATION_UNKNOWN",
    "C_MOVE_IDENTIFIER_DOES_NOT_MATCH",
    "C_MOVE_OUT_OF_RESOURCES_MATCHES",
    "C_MOVE_OUT_OF_RESOURCES_SUBOPERATIONS",
    "C_MOVE_UNABLE_TO_PROCESS",
    "C_MOVE_WARNING",
    "C_STORE_CANNOT_UNDERSTAND",
    "C_STORE_DATA_SET_DOES_NOT_MATCH",
    "C_STORE_ELEMENTS_COERCED",
    "C_STORE_ELEMENTS_DISCARDED",
    "C_STORE_OUT_OF_RESOURCES",
    "C_STORE_WARNING_DOES_NOT_MATCH",
    "DUPLICATE_INVOCATION",
    "DUPLICATE_SOP_INSTANCE",
    "INVALID_ARGUMENT_VALUE",
    "INVALID_ATTRIBUTE_VALUE",
    "INVALID_SOP_INSTANCE",
    "MISSING_ATTRIBUTE",
    "MISSING_ATTRIBUTE_VALUE",
    "MISTYPED_ARGUMENT",
    "NOT_AUTHORIZED",
    "NO_SUCH_ACTION_TYPE",
    "NO_SUCH_ARGUMENT",
    "NO_SUCH_ATTRIBUTE",
    "NO_SUCH_EVENT_TYPE",
    "NO_SUCH_SOP_CLASS",
    "NO_SUCH_SOP_INSTANCE",
    "PENDING",
    "PROCESSING_FAILURE",
    "RESOURCE_LIMITATION",
    "SOP_CLASS_NOT_SUPPORTED",
    "SUCCESS",
    "UNRECOGNIZED_OPERATION",
    "Status",
    "add_status",
    "of_operation",
]

# Only these have Pending responses and can be cancelled (PS3.7 9.1); an empty string stands for any operation.
_WITH_MANY_RESPONSES = ("", "C-FIND", "C-GET", "C-MOVE")
# Statuses that are not a failure where they belong.
_OF_OTHER_OPERATIONS = (0x0001, 0x0107, 0x0116, 0xFE00, 0xFF00, 0xFF01)

# PS3.7 Annex C.
_GENERAL: dict[int, str] = {
    0x0000: "Success",
    0x0001: "Warning: requested optional attributes are not supported",
    0x0105: "No such attribute",
    0x0106: "Invalid attribute value",
    0x0107: "Attribute list warning",
    0x0110: "Processing failure",
    0x0111: "Duplicate SOP instance",
    0x0112: "No such SOP instance",
    0x0113: "No such event type",
    0x0114: "No such argument",
    0x0115: "Invalid argument value",
    0x0116: "Attribute value out of range",
    0x0117: "Invalid SOP instance",
    0x0118: "No such SOP class",
    0x0119: "Class-instance conflict",
    0x0120: "Missing attribute",
    0x0121: "Missing attribute value",
    0x0122: "Refused: SOP class not supported",
    0x0123: "No such action type",
    0x0124: "Refused: not authorized",
    0x0210: "Duplicate invocation",
    0x0211: "Unrecognized operation",
    0x0212: "Mistyped argument",
    0x0213: "Resource limitation",
    0xFE00: "Cancel",
    0xFF00: "Pending",
    0xFF01: "Pending: one or more optional keys are not supported",
}

# PS3.4 Tables B.2-1, C.4-1, C.4-2, C.4-3: (operation, first code, last code, words). A narrower
# row stands before a wider one.
_SPECIFIC: list[tuple[str, int, int, str]] = [
    ("C-STORE", 0xA700, 0xA7FF, "Refused: out of resources"),
    ("C-STORE", 0xA900, 0xA9FF, "Error: data set does not match SOP class"),
    ("C-STORE", 0xB000, 0xB000, "Warning: coercion of data elements"),
    ("C-STORE", 0xB006, 0xB006, "Warning: elements discarded"),
    ("C-STORE", 0xB007, 0xB007, "Warning: data set does not match SOP class"),
    ("C-STORE", 0xC000, 0xCFFF, "Error: cannot understand"),
    ("C-FIND", 0xA700, 0xA700, "Refused: out of resources"),
    ("C-FIND", 0xA900, 0xA900, "Error: identifier does not match SOP class"),
    ("C-FIND", 0xC000, 0xCFFF, "Failed: unable to process"),
    ("C-MOVE", 0xA701, 0xA701, "Refused: out of resources, unable to calculate number of matches"),
    ("C-MOVE", 0xA702, 0xA702, "Refused: out of resources, unable to perform sub-operations"),
    ("C-MOVE", 0xA801, 0xA801, "Refused: move destination unknown"),
    ("C-MOVE", 0xA900, 0xA900, "Error: identifier does not match SOP class"),
    ("C-MOVE", 0xB000, 0xB000, "Warning: sub-operations complete, one or more failures"),
    ("C-MOVE", 0xC000, 0xCFFF, "Failed: unable to process"),
    ("C-GET", 0xA701, 0xA701, "Refused: out of resources, unable to calculate number of matches"),
    ("C-GET", 0xA702, 0xA702, "Refused: out of resources, unable to perform sub-operations"),
    ("C-GET", 0xA900, 0xA900, "Error: identifier does not match SOP class"),
    ("C-GET", 0xB000, 0xB000, "Warning: sub-operations complete, one or more failures"),
    ("C-GET", 0xC000, 0xCFFF, "Failed: unable to process"),
    # PS3.3 C.14.1.1: a Failure Reason of storage commitment; the others are in PS3.7 Annex C.
    ("N-EVENT-REPORT", 0x0131, 0x0131, "Duplicate transaction UID"),
]


def of_operation(operation: str | None) -> Iterator[tuple[str, str]]:
    """The statuses of an operation that PS3.4 defines, or those of PS3.7 Annex C, with their words.

    Args:
        operation: The operation, such as ``"C-STORE"``; None means those that every operation may have.

    Yields:
        The status in hexadecimal, such as ``"A900"`` or ``"C000 to CFFF"``, and what it means.
    """
    if operation is None:
        yield from ((f"{code:04X}", words) for code, words in _GENERAL.items())
        return
    for command, first, last, words in _SPECIFIC:
        if command == operation:
            code = f"{first:04X}" if first == last else f"{first:04X} to {last:04X}"
            yield code, words


def add_status(code: int, words: str, *, end: int | None = None, command: str = "") -> None:
    """Give words to a status, or to a range of them, of a private service.

    Args:
        code: The status, or the first one of the range.
        words: The meaning of the status.
        end: The last status of the range.
        command: The operation that it answers, such as ``"N-ACTION"``; an empty string means any
            operation.
    """
    _SPECIFIC.insert(0, (command, code, code if end is None else end, words))


class Status(int):
    """A DIMSE status, 0x0000 to 0xFFFF, which compares and hashes like its number.

    Args:
        value: The code.
        command: The operation that it answers, such as ``"C-STORE"``, which decides its words.
        comment: The Error Comment (0000,0902) that came with it or goes with it.
    """

    command: str
    comment: str

    def __new__(cls, value: int, command: str = "", comment: str = "") -> Status:
        if not 0 <= value <= 0xFFFF:
            raise ValueError(f"a status is 0x0000 to 0xFFFF, not {value:#x}")
        self = super().__new__(cls, value)
        self.command = command
        self.comment = comment
        return self

    @property
    def is_success(self) -> bool:
        return self == 0x0000

    @property
    def is_pending(self) -> bool:
        """Whether more responses follow; only C-FIND, C-GET and C-MOVE have such a status (PS3.7 9.1)."""
        return self in (0xFF00, 0xFF01) and self._may_have_many

    @property
    def is_cancel(self) -> bool:
        """Whether the operation was cancelled, which only C-FIND, C-GET and C-MOVE can be (PS3.7 9.3)."""
        return self == 0xFE00 and self._may_have_many

    @property
    def _may_have_many(self) -> bool:
        return self.command in _WITH_MANY_RESPONSES

    @property
    def is_warning(self) -> bool:
        """Whether it is 0001, 0107, 0116 or Bxxx (PS3.7 C.4); C-STORE has only Bxxx (PS3.4 Table B.2-1)."""
        is_general = self in (0x0001, 0x0107, 0x0116) and self.command != "C-STORE"
        return is_general or 0xB000 <= self <= 0xBFFF

    @property
    def is_failure(self) -> bool:
        """Whether it has none of the other kinds; a code that its operation does not define is a failure, too."""
        return not (self.is_success or self.is_warning or self.is_pending or self.is_cancel)

    @property
    def category(self) -> str:
        """``"Success"``, ``"Warning"``, ``"Failure"``, ``"Cancel"`` or ``"Pending"``."""
        for word in ("Success", "Warning", "Pending", "Cancel"):
            if getattr(self, f"is_{word.lower()}"):
                return word
        return "Failure"

    @property
    def meaning(self) -> str:
        """The words of the standard for this code, in the operation that it answers."""
        for command, first, last, words in _SPECIFIC:
            if first <= self <= last and command in ("", self.command):
                return words
        if self.is_failure and self in _OF_OTHER_OPERATIONS:
            return f"Failure: not a status of {self.command}"
        return _GENERAL.get(int(self), self.category)

    def __str__(self) -> str:
        return f"{self.meaning} (0x{int(self):04X})" + (f": {self.comment}" if self.comment else "")

    def __repr__(self) -> str:
        return f"<Status 0x{int(self):04X} {self.meaning}>"

    def __format__(self, spec: str) -> str:
        return format(int(self), spec) if spec else str(self)


SUCCESS: Final = Status(0x0000)
PENDING: Final = Status(0xFF00)
CANCEL: Final = Status(0xFE00)

NO_SUCH_ATTRIBUTE: Final = Status(0x0105)
INVALID_ATTRIBUTE_VALUE: Final = Status(0x0106)
ATTRIBUTE_LIST_WARNING: Final = Status(0x0107)
PROCESSING_FAILURE: Final = Status(0x0110)
DUPLICATE_SOP_INSTANCE: Final = Status(0x0111)
NO_SUCH_SOP_INSTANCE: Final = Status(0x0112)
NO_SUCH_EVENT_TYPE: Final = Status(0x0113)
NO_SUCH_ARGUMENT: Final = Status(0x0114)
INVALID_ARGUMENT_VALUE: Final = Status(0x0115)
ATTRIBUTE_VALUE_OUT_OF_RANGE: Final = Status(0x0116)
INVALID_SOP_INSTANCE: Final = Status(0x0117)
NO_SUCH_SOP_CLASS: Final = Status(0x0118)
CLASS_INSTANCE_CONFLICT: Final = Status(0x0119)
MISSING_ATTRIBUTE: Final = Status(0x0120)
MISSING_ATTRIBUTE_VALUE: Final = Status(0x0121)
SOP_CLASS_NOT_SUPPORTED: Final = Status(0x0122)
NO_SUCH_ACTION_TYPE: Final = Status(0x0123)
NOT_AUTHORIZED: Final = Status(0x0124)
DUPLICATE_INVOCATION: Final = Status(0x0210)
UNRECOGNIZED_OPERATION: Final = Status(0x0211)
MISTYPED_ARGUMENT: Final = Status(0x0212)
RESOURCE_LIMITATION: Final = Status(0x0213)

C_STORE_OUT_OF_RESOURCES: Final = Status(0xA700, "C-STORE")
C_STORE_DATA_SET_DOES_NOT_MATCH: Final = Status(0xA900, "C-STORE")
C_STORE_CANNOT_UNDERSTAND: Final = Status(0xC000, "C-STORE")
C_STORE_ELEMENTS_COERCED: Final = Status(0xB000, "C-STORE")
C_STORE_ELEMENTS_DISCARDED: Final = Status(0xB006, "C-STORE")
C_STORE_WARNING_DOES_NOT_MATCH: Final = Status(0xB007, "C-STORE")

C_FIND_OUT_OF_RESOURCES: Final = Status(0xA700, "C-FIND")
C_FIND_IDENTIFIER_DOES_NOT_MATCH: Final = Status(0xA900, "C-FIND")
C_FIND_UNABLE_TO_PROCESS: Final = Status(0xC000, "C-FIND")
C_FIND_PENDING_WARNING: Final = Status(0xFF01, "C-FIND")

C_GET_OUT_OF_RESOURCES_MATCHES: Final = Status(0xA701, "C-GET")
C_GET_OUT_OF_RESOURCES_SUBOPERATIONS: Final = Status(0xA702, "C-GET")
C_GET_IDENTIFIER_DOES_NOT_MATCH: Final = Status(0xA900, "C-GET")
C_GET_UNABLE_TO_PROCESS: Final = Status(0xC000, "C-GET")
C_GET_WARNING: Final = Status(0xB000, "C-GET")

C_MOVE_OUT_OF_RESOURCES_MATCHES: Final = Status(0xA701, "C-MOVE")
C_MOVE_OUT_OF_RESOURCES_SUBOPERATIONS: Final = Status(0xA702, "C-MOVE")
C_MOVE_DESTINATION_UNKNOWN: Final = Status(0xA801, "C-MOVE")
C_MOVE_IDENTIFIER_DOES_NOT_MATCH: Final = Status(0xA900, "C-MOVE")
C_MOVE_UNABLE_TO_PROCESS: Final = Status(0xC000, "C-MOVE")
C_MOVE_WARNING: Final = Status(0xB000, "C-MOVE")
