"""Three lines and an exit code for each way in which a conversation fails."""

import pytest
from twisted.internet import error as internet

from netdicom_tx.commands.common.failures import (
    CommandError,
    ExitCode,
    Problem,
    StatusFailure,
    bad_input,
    explain,
)
from netdicom_tx.exceptions import (
    AssociationAbortedError,
    AssociationRejectedError,
    AssociationReleasedError,
    ClassNotSupportedError,
    ConnectionLostError,
    DCMTimeoutError,
    LocalProtocolError,
    PDUProcessingError,
)
from netdicom_tx.statuses import Status
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN, STUDY_ROOT_FIND_SOP_CLASS


def because(cause: Exception) -> ConnectionLostError:
    error = ConnectionLostError("no connection")
    error.__cause__ = cause
    return error


class SSLError(Exception):
    """As pyOpenSSL's, by its name."""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (because(internet.ConnectionRefusedError()), 3, "nobody listens"),
        (because(internet.DNSLookupError("x")), 3, "host name is unknown"),
        (because(internet.NoRouteError()), 3, "cannot be reached"),
        (because(internet.TimeoutError()), 7, "did not answer in time"),
        (because(SSLError()), 9, "no TLS connection"),
        (ConnectionLostError("lost: [('SSL routines', '', 'alert')]"), 9, "no TLS connection"),
        (ConnectionLostError(), 6, "connection with ARCHIVE@h:104 was lost"),
        (AssociationRejectedError(1, 1, 7), 4, "called AE title not recognized"),
        (AssociationRejectedError(2, 3, 2), 4, "local limit exceeded"),
        (AssociationRejectedError(9, 9, 9), 4, "reserved reason"),
        (
            ClassNotSupportedError(
                STUDY_ROOT_FIND_SOP_CLASS, {EXPLICIT_VR_LITTLE_ENDIAN: "not supported"}
            ),
            5,
            "Study Root Query/Retrieve",
        ),
        (AssociationAbortedError(0, 0), 6, "ended the association"),
        (AssociationAbortedError(2, 2, by_peer=False), 6, "had to be aborted"),
        (AssociationAbortedError(2, 1, by_peer=False), 6, "does not speak DICOM"),
        (AssociationReleasedError(), 6, "ended the association"),
        (PDUProcessingError("PDU type 0x47"), 6, "broke the protocol"),
        (DCMTimeoutError("connect", 30), 7, "did not answer in time"),
        (DCMTimeoutError("response", 60), 7, "did not answer in time"),
        (StatusFailure("C-FIND", Status(0xA700, "C-FIND", "disk full")), 8, "C-FIND"),
        (StatusFailure("C-MOVE", Status(0xA801, "C-MOVE")), 8, "C-MOVE"),
        (StatusFailure("C-FIND", Status(0xA9FF, "C-FIND")), 8, "C-FIND"),
        (LocalProtocolError("an association needs a context"), 2, "cannot be done"),
        (FileNotFoundError(2, "No such file", "x.dcm"), 2, "x.dcm"),
        (bad_input("bad"), 2, "bad"),
    ],
)
def test_each_failure_has_its_code_and_its_three_lines(
    error: Exception, code: int, words: str
) -> None:
    problem = explain(error, "ARCHIVE@h:104", "US", "ARCHIVE")
    assert problem.code == code
    assert words in problem.what
    if not isinstance(error, CommandError):
        lines = str(problem).splitlines()
        assert [line[:7] for line in lines] == ["error: ", "       ", "hint:  "]
        assert all(line[7:].strip() for line in lines)


def test_a_rejection_has_the_numbers_and_the_titles() -> None:
    """PS3.8 9.3.4; what an administrator asks first."""
    problem = explain(AssociationRejectedError(1, 1, 7), "A@h:1", "US", "ARCHIVE")
    assert "result 1 permanent, source 1 service-user, reason 7" in problem.evidence
    assert 'we called it "ARCHIVE", and ourselves "US"' in problem.evidence
    assert "-aec" in problem.hint


def test_a_refused_context_is_told_in_names() -> None:
    error = ClassNotSupportedError(
        STUDY_ROOT_FIND_SOP_CLASS, {EXPLICIT_VR_LITTLE_ENDIAN: "abstract syntax not supported"}
    )
    assert explain(error, "p", "u", "c").evidence == (
        "Explicit VR Little Endian: abstract syntax not supported"
    )


def test_a_role_that_was_not_negotiated_is_not_called_a_refused_context() -> None:
    error = ClassNotSupportedError(
        STUDY_ROOT_FIND_SOP_CLASS,
        {EXPLICIT_VR_LITTLE_ENDIAN: "accepted"},
        role="the SCU role of this side",
    )
    problem = explain(error, "PACS", "u", "c")
    assert problem.what.startswith("PACS accepted Study Root Query/Retrieve")
    assert problem.what.endswith(", but not the SCU role of this side")
    assert problem.code == ExitCode.NO_CONTEXT


def test_a_refused_service_may_be_refused_to_the_title_alone() -> None:
    """A node rejects contexts of services that it does not allow to a peer."""
    error = ClassNotSupportedError(
        STUDY_ROOT_FIND_SOP_CLASS, {EXPLICIT_VR_LITTLE_ENDIAN: "rejected by the user"}
    )
    problem = explain(error, "PACS", "u", "c")
    assert problem.code == ExitCode.NO_CONTEXT
    assert "or not to our AE title (-aet)" in problem.hint


@pytest.mark.parametrize("timer", ["connect", "associate", "response"])
def test_a_timeout_names_the_option_that_lengthens_it(timer: str) -> None:
    option = {"connect": "-to", "associate": "-ta", "response": "-td"}[timer]
    assert option in explain(DCMTimeoutError(timer, 1), "p", "u", "c").hint


def test_a_fault_of_the_program_is_not_explained_away() -> None:
    with pytest.raises(ZeroDivisionError):
        explain(ZeroDivisionError(), "p", "u", "c")


def test_a_problem_is_said_in_json_too() -> None:
    problem = Problem(ExitCode.TIMEOUT, "what", "evidence", "hint")
    assert problem.as_json() == {
        "code": 7,
        "what": "what",
        "evidence": "evidence",
        "hint": "hint",
    }
