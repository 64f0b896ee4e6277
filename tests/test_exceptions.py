"""The error tree: who is to blame, and whether an operator understands the sentence."""

import inspect

import pytest

from netdicom_tx import exceptions
from netdicom_tx.exceptions import (
    AbortReason,
    AbortSource,
    AssociationAbortedError,
    AssociationError,
    AssociationRejectedError,
    AssociationReleasedError,
    ClassNotSupportedError,
    ConnectionLostError,
    DCMTimeoutError,
    DIMSEProcessingError,
    EventHandlingError,
    LocalProtocolError,
    NetDICOMError,
    PDUProcessingError,
    ProtocolError,
    RemoteProtocolError,
    StatusError,
    printable,
)
from support.layouts import TABLES

EXAMPLES = [
    NetDICOMError("x"),
    ProtocolError("x"),
    LocalProtocolError("x"),
    RemoteProtocolError("x"),
    PDUProcessingError("x", AbortReason.UNRECOGNIZED_PDU),
    DIMSEProcessingError("x"),
    AssociationError("x"),
    AssociationRejectedError(1, 1, 7),
    AssociationAbortedError(2, 2),
    AssociationReleasedError(),
    ConnectionLostError(),
    ClassNotSupportedError("1.2", {}),
    DCMTimeoutError("response", 60),
    EventHandlingError("x"),
    StatusError(0xA700),
]


def tree() -> dict[str, str | None]:
    """Class -> parent, as the module's docstring draws it."""
    parents: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for line in (exceptions.__doc__ or "").splitlines():
        words = line.lstrip(" │├└─").split()
        if not words or not words[0].endswith("Error") or "``" in line:
            continue
        depth = line.index(words[0])
        path = [(d, n) for d, n in path if d < depth]
        parents[words[0]] = path[-1][1] if path else None
        path.append((depth, words[0]))
    return parents


def test_the_tree_is_the_one_that_is_drawn():
    """The docstring shows it; a class that moves must move there too."""
    classes = {
        name: cls.__base__.__name__
        for name, cls in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(cls, Exception)
    }
    classes["NetDICOMError"] = None
    assert tree() == classes
    assert {type(example).__name__ for example in EXAMPLES} == set(classes)


def test_all_names_are_offered():
    """What is not in ``__all__`` is not documented."""
    defined = {
        name
        for name, value in vars(exceptions).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == exceptions.__name__
    }
    assert set(exceptions.__all__) == defined


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_every_error_is_a_sentence_and_one_of_ours(error):
    """``except NetDICOMError`` catches all; the text is never empty."""
    assert isinstance(error, NetDICOMError)
    assert str(error)
    assert type(error).__doc__


@pytest.mark.parametrize("reason", AbortReason)
def test_a_fault_of_the_peer_carries_the_abort_reason(reason):
    """PS3.8 9.3.8: what the A-ABORT says."""
    assert PDUProcessingError("x", reason).abort_reason is reason
    assert DIMSEProcessingError("x", reason).abort_reason is reason
    assert PDUProcessingError("x").abort_reason is AbortReason.INVALID_PARAMETER_VALUE


def test_the_sources_of_an_abort_are_the_standards():
    """PS3.8 Table 9-26."""
    words = TABLES["values"]["abort_source"]
    assert {str(source.value): source.name for source in AbortSource} == {
        code: text.upper().replace("-", "_") for code, text in words.items()
    }


@pytest.mark.parametrize("source", TABLES["values"]["rj_reason"])
def test_a_rejection_is_told_in_the_words_of_the_standard(source):
    """PS3.8 Table 9-21: the meaning of a reason depends on the source."""
    values = TABLES["values"]
    for reason, words in values["rj_reason"][source].items():
        text = str(AssociationRejectedError(1, int(source), int(reason)))
        assert values["rj_source"][source].split(",")[0] in text
        for word in words.replace("-", " ").split():
            assert word.lower() in text.lower()
        assert "permanent" in text


def test_a_rejection_says_whether_trying_again_may_help():
    """PS3.8 Table 9-21: result 2 is transient."""
    error = AssociationRejectedError(2, 3, 2)
    assert (error.result, error.source, error.diagnostic) == (2, 3, 2)
    assert "transient" in str(error)
    assert "local limit exceeded" in str(error)
    assert "reserved" in str(AssociationRejectedError(9, 9, 9))


def test_an_abort_is_told_in_the_words_of_the_standard():
    """PS3.8 Table 9-26: the reason means something for the service-provider alone."""
    for code, words in TABLES["values"]["abort_reason"].items():
        text = str(AssociationAbortedError(2, int(code))).lower()
        assert "service-provider" in text
        assert all(word in text for word in words.lower().replace("-", " ").split())
    by_user = str(AssociationAbortedError(0, 6))
    assert "no reason given" in by_user
    assert "invalid" not in by_user
    assert "reserved" in str(AssociationAbortedError(2, 99))


def test_an_abort_says_which_side_it_was():
    """Blame first; and the detail that only this side knows."""
    error = AssociationAbortedError(2, 1, by_peer=False, detail="PDU type 09H")
    assert (error.source, error.reason_diag, error.by_peer) == (2, 1, False)
    assert str(error).startswith("association aborted by this side: unrecognized PDU")
    assert str(error).endswith(": PDU type 09H")
    assert "by the peer" in str(AssociationAbortedError(0))


def test_a_sop_class_without_context_says_what_the_peer_answered():
    """PS3.8 Table 9-18: the caller learns whether to propose another transfer syntax."""
    error = ClassNotSupportedError("1.2.3", {"1.2.840.10008.1.2.4.70": "not supported"}, "try x")
    assert error.sop_class == "1.2.3"
    assert error.answers == {"1.2.840.10008.1.2.4.70": "not supported"}
    assert "1.2.840.10008.1.2.4.70: not supported (try x)" in str(error)
    assert "was not proposed" in str(ClassNotSupportedError("1.2.3", {}))


def test_a_role_that_was_not_negotiated_is_named():
    """PS3.7 D.3.3.4: the class is accepted, so its transfer syntaxes are not what is wrong."""
    answers = {"1.2.840.10008.1.2": "accepted"}
    error = ClassNotSupportedError("1.2.3", answers, role="the SCU role of this side")
    assert str(error) == (
        "no usable presentation context for 1.2.3: it was negotiated without the SCU role of this side (PS3.7 D.3.3.4)"
    )
    assert (error.role, error.answers) == ("the SCU role of this side", answers)


def test_what_was_accepted_and_does_not_fit_is_not_called_unaccepted():
    """It was accepted for another role, or this side has no service for it."""
    error = ClassNotSupportedError("1.2.3", {"1.2.840.10008.1.2": "accepted"}, "add_scu")
    assert str(error) == (
        "no usable presentation context for 1.2.3: 1.2.840.10008.1.2: accepted (add_scu)"
    )
    refused = ClassNotSupportedError("1.2.3", {"1.2.840.10008.1.2": "not supported"})
    assert str(refused).startswith("no accepted presentation context for 1.2.3: ")


def test_a_timeout_names_its_timer():
    """The operator sees which setting to change."""
    error = DCMTimeoutError("response", 60.0)
    assert (error.timer, error.seconds) == ("response", 60.0)
    assert str(error) == "no answer within 60 s (timeout 'response')"


def test_a_handler_fails_with_a_status_or_leaves_it_to_the_service():
    """``StatusError`` has its status, ``EventHandlingError`` may have one."""
    assert (EventHandlingError("why").status, EventHandlingError("why").comment) == (None, "why")
    assert EventHandlingError("why", 0xC001).status == 0xC001
    assert "could not be handled" in str(EventHandlingError())
    assert (StatusError(0xA700, "full").status, StatusError(0xA700, "full").comment) == (
        0xA700,
        "full",
    )
    assert str(StatusError(0xA700)) == "status 0xA700"
    # The text for the operator is not sent to the peer.
    assert StatusError(0xA700).comment == ""


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain text", "plain text"),
        ("two\nlines\r\0", "two\\nlines\\r\\x00"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u2028b\u2029", "a\\u2028b\\u2029"),
        ("Größe", "Größe"),
        (7, "7"),
    ],
)
def test_text_of_a_peer_is_safe_in_a_log_line(text, safe):
    """An AE title with a line break would forge a log line, one with an escape a terminal."""
    assert printable(text) == safe


def test_text_of_a_peer_has_a_length():
    """What a peer says is cut before it fills a log."""
    assert printable("x" * 100) == "x" * 64
    assert printable("x" * 100, 3) == "xxx"
