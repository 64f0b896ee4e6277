"""Each target of the fuzzer for a moment, with the same inputs every time; and what it has found so far."""

import time

import pytest

from fuzz.runner import attempt, run
from fuzz.targets import SYNTAXES, TARGETS, certificate_seeds, parts_of
from support.archive.data_sets import EXPLICIT, ct

INPUTS = 1000

DELIMITER = bytes.fromhex("feff0de000000000")
#: Inputs that broke the property of their target.
FOUND = {
    "a term of Specific Character Set with a NUL": (
        "identifiers",
        bytes(3) + EXPLICIT.element(0x00080005, "CS", b"ISO_IR\x00192"),
    ),
    "delimiters before something else, which took quadratic time": (
        "received",
        bytes(3) + ct("1.2.3.4", 2) + DELIMITER * (1 << 14) + b"\1\2\3\4\5\6\7\x08",
    ),
    "an empty element of an unknown VR": (
        "worklist-queries",
        bytes.fromhex("02000000100010584e000000000000000000"),
    ),
    "a value of 65535 octets, which cannot be padded": (
        "re-encoding",
        bytes([0, 2, 0]) + EXPLICIT.element(0x00100020, "LO", b"A" * 0xFFFF),
    ),
    "a certificate whose version only OpenSSL accepts": (
        "certificates",
        next(certificate_seeds()).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x12"),
    ),
    "nested JSON": ("worklist-json", b'{"00100010": ' * 20_000),
    "a carriage return in CSV": ("worklist-csv", b"PatientName\rPatientID\rA"),
    "an unknown VR in a procedure step": (
        "procedure-steps",
        bytes.fromhex("000000")
        + EXPLICIT.element(0x00400252, "CS", b"IN PROGRESS ").replace(b"CS", b"XX"),
    ),
    "a damaged sequence in a procedure step": (
        "procedure-steps",
        bytes(3) + EXPLICIT.element(0x00400340, "SQ", b"\xfe\xff\x00"),
    ),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_raises_only_what_it_documents(name: str) -> None:
    report = run(TARGETS[name], inputs=INPUTS)
    assert report.inputs == INPUTS
    assert [each.problem for each in report.findings] == []


@pytest.mark.parametrize("case", FOUND)
def test_what_was_found_stays_found(case: str) -> None:
    name, data = FOUND[case]
    started = time.process_time()
    _, problem = attempt(TARGETS[name], data)
    assert problem == ""
    # Those that took too long took minutes.
    assert time.process_time() - started < 30


def test_the_first_octets_choose_the_transfer_syntax() -> None:
    assert parts_of(b"").syntax == SYNTAXES[0]
    assert parts_of(bytes([7, 1, 0b11]) + b"rest") == (
        SYNTAXES[3],
        parts_of(b"\0\1").model,
        "rc",
        b"rest",
    )


def test_a_finding_is_reported() -> None:
    """The runner finds what it is there for."""
    broken = TARGETS["content"]
    report = run(type(broken)(_fails, (), lambda: [b"seed"]), inputs=200)
    (finding,) = report.findings
    assert "ZeroDivisionError" in finding.problem


def _fails(data: bytes) -> None:
    assert len(data) >= 0
    if data != b"seed":
        raise ZeroDivisionError
