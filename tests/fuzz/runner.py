"""A fuzzer without coverage: mutations of seeds by a random number generator, the same for the same seed.

It runs where atheris is not installed, and in the test suite, because its inputs do not depend on the machine.
Inputs that end in a new way, by the words of the error, become seeds, too.
"""

from __future__ import annotations

import resource
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from .targets import LARGEST, Target

#: Processor seconds that an input may take; those of an input of 64 KiB are about 0.1 on a desktop machine.
SECONDS: Final = 10.0
#: By how many octets the resident memory may grow while a target runs.
MEMORY: Final = 384 << 20
_POOL: Final = 400  # seeds that are kept
_NUMBERS: Final = (0, 1, 2, 3, 4, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
_LONG_NUMBERS: Final = (
    *_NUMBERS,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFF0,
    0xFFFFFFFE,
    0xFFFFFFFF,
)
#: What parsers look for.
_WORDS: Final = (
    *(b"*", b"?", b"\\", b"^", b"=", b"-", b" ", b"\0", b"\n", b'"', b",", b"{", b"[", b"1" * 70),
    *(b"\x1b$B", b"\x1b(B", b"\x1b$)C", b"\x1b-A", b"ISO 2022 IR 87", b"ISO_IR 192", b"ISO_IR 100"),
    *(
        b"GB18030",
        b"\xff\xff\xff\xff",
        b"\xfe\xff\x00\xe0",
        b"\xfe\xff\xdd\xe0",
        b"\xfe\xff\x0d\xe0",
    ),
    *(b"\xff\xfe\xe0\x00", b"\xff\xfe\xe0\xdd", b"\x08\x00\x05\x00", b"\x08\x00\x18\x00"),
    *(
        b"\x02\x00\x00\x00UL\x04\x00",
        b"\x02\x00\x10\x00UI",
        b"SQ\0\0",
        b"UN\0\0",
        b"OB\0\0",
        b"PN",
        b"DA",
    ),
    *(b"20260101", b"-20260101", b"99999999", b"235960.999999", b"+1400", b"STUDY ", b"IMAGE "),
    *(
        b"\xcc\x81" * 20,
        b"\xcc\xa3\xcc\x81" * 20,
        b"\xf0\x9f\x92\x80",
        b"\xed\xa0\x80",
        b"\xc3\x28",
    ),
    b"1.2.840.10008.1.2.1.99",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that breaks the property of its target."""

    data: bytes
    problem: str


@dataclass(slots=True)
class Report:
    """What a run has found.

    Attributes:
        inputs: How many inputs were parsed.
        ends: How many different ways there were in which they ended.
        slowest: The most processor seconds of an input.
        slowest_input: That input.
        grown: By how many octets the peak of the resident memory has grown.
        findings: The first inputs of each kind that break the property.
    """

    inputs: int = 0
    ends: int = 0
    slowest: float = 0.0
    slowest_input: bytes = b""
    grown: int = 0
    findings: tuple[Finding, ...] = ()


def run(
    target: Target, *, seed: int = 1, inputs: int | None = None, seconds: float | None = None
) -> Report:
    """Run a target on its seeds and their mutations.

    Args:
        seed: Of the random number generator.
        inputs: How many inputs; None has no limit.
        seconds: After how many seconds to end; None has no limit.
    """
    random = Random(seed)
    pool = list(target.seeds())
    report, ends, findings = Report(), set[str](), dict[str, Finding]()
    before, end = _resident(), None if seconds is None else time.monotonic() + seconds
    for data in _inputs(random, pool):
        if (inputs is not None and report.inputs >= inputs) or (end and time.monotonic() > end):
            break
        report.inputs += 1
        started = time.process_time()
        word, problem = attempt(target, data)
        used = time.process_time() - started
        if used > report.slowest:
            report.slowest, report.slowest_input = used, data
        if problem:
            findings.setdefault(word, Finding(data, problem))
        elif used > SECONDS:
            findings.setdefault("slow", Finding(data, f"took {used:.1f} s"))
        if word not in ends:
            ends.add(word)
            if len(pool) < _POOL:
                pool.append(data)
    report.ends, report.grown = len(ends), _resident() - before
    report.findings = tuple(findings.values())
    return report


def attempt(target: Target, data: bytes) -> tuple[str, str]:
    """Parse one input.

    Returns:
        A word for how it ended, and what is wrong about that; empty if nothing is.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of pydicom about odd values
            target.parse(data)
    except target.errors as error:
        return _word(error), ""
    except Exception as error:  # this is what is looked for
        return _word(error), "".join(traceback.format_exception(error)[-4:])
    return "whole", ""


def _word(error: Exception) -> str:
    """The kind of an error and the line that has raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"


def _resident() -> int:
    """The most octets that were resident so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _inputs(random: Random, pool: list[bytes]) -> Iterator[bytes]:
    yield from tuple(pool)
    while True:
        data = bytearray(random.choice(pool))
        for _ in range(1 << random.randrange(4)):
            _mutate(random, data, pool)
        yield bytes(data[:LARGEST])


def _mutate(random: Random, data: bytearray, pool: list[bytes]) -> None:
    at = random.randrange(len(data) + 1)
    match random.randrange(10):
        case 0 if data:
            data[at % len(data)] ^= 1 << random.randrange(8)
        case 1 if data:
            data[at % len(data)] = random.randrange(256)
        case 2:
            data[at:at] = random.randbytes(random.randrange(1, 9))
        case 3:
            del data[at : at + random.randrange(1, 33)]
        case 4:
            other = random.choice(pool)
            start = random.randrange(len(other) + 1)
            data[at:] = other[start:]
        case 5:
            data[at:at] = random.choice(_WORDS)
        case 6:
            order: str = random.choice(("little", "big"))
            number = random.choice(_NUMBERS)
            data[at : at + 2] = number.to_bytes(2, order)  # type: ignore[arg-type]
        case 7:
            order = random.choice(("little", "big"))
            number = random.choice(_LONG_NUMBERS)
            data[at : at + 4] = number.to_bytes(4, order)  # type: ignore[arg-type]
        case 8:
            del data[at:]
        case _:
            piece = bytes(data[at : at + random.randrange(1, 65)])
            times = random.choice((1, 2, 16, 256, 4096))
            data[at:at] = (piece * times)[: LARGEST - len(data)] if len(data) < LARGEST else b""
