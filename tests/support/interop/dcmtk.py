"""DCMTK's senders, and what they make of a data set before they send it.

``storescu`` and ``dcmsend`` (and Orthanc, which is built on DCMTK) parse a file and encode it
again: group lengths and trailing padding go, sequences change the form of their length, deflated
data is deflated anew. So for about a quarter of our samples what they put on the wire is not what
is in the file. :func:`as_sent` asks DCMTK itself: the same files to ``storescp +B``, which writes
"data exactly as read".
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from ..node import Address
from ..processes import program, succeed
from .peers import StoreSCP
from .samples import COLOR_PALETTE_STORAGE, Sample

# By default storescu proposes the uncompressed transfer syntaxes. Each other needs its option, and
# those that are not here have none.
_PROPOSE = {
    "1.2.840.10008.1.2": "--propose-implicit",
    "1.2.840.10008.1.2.1": "--propose-little",
    "1.2.840.10008.1.2.2": "--propose-big",
    "1.2.840.10008.1.2.1.99": "--propose-deflated",
    "1.2.840.10008.1.2.4.50": "--propose-jpeg8",
    "1.2.840.10008.1.2.4.51": "--propose-jpeg12",
    "1.2.840.10008.1.2.4.70": "--propose-lossless",
    "1.2.840.10008.1.2.4.80": "--propose-jls-lossless",
    "1.2.840.10008.1.2.4.81": "--propose-jls-lossy",
    "1.2.840.10008.1.2.4.90": "--propose-j2k-lossless",
    "1.2.840.10008.1.2.4.91": "--propose-j2k-lossy",
    "1.2.840.10008.1.2.5": "--propose-rle",
}


def sendable(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """The samples that DCMTK sends."""
    return tuple(
        sample
        for sample in samples
        if sample.conforms and sample.sop_class != COLOR_PALETTE_STORAGE
    )


def storescu(address: Address, samples: Iterable[Sample], *options: str, **environment: str) -> str:
    """Send samples with ``storescu``, one association for each transfer syntax; what it printed."""
    groups: dict[str, list[Path]] = {}
    for sample in samples:
        groups.setdefault(_PROPOSE[sample.transfer_syntax], []).append(sample.path)
    return "".join(
        succeed(
            program("storescu"),
            *("--verbose", "--required", propose, *options, *address.arguments),
            *paths,
            **environment,
        )
        for propose, paths in groups.items()
    )


def received(
    send: Callable[[Address], object], directory: Path, accepting: str = "--accept-all"
) -> dict[str, Path]:
    """By SOP Instance UID, the files that a bit-preserving ``storescp`` has after a transfer."""
    judge = StoreSCP(directory, "--bit-preserving", accepting, TCP_NODELAY="1")
    try:
        send(judge.address)
        return judge.instances()
    finally:
        judge.close()


def as_sent(samples: Iterable[Sample], directory: Path) -> tuple[Sample, ...]:
    """The samples that DCMTK sends, in the form in which it sends them."""
    samples = sendable(samples)
    files = received(lambda to: storescu(to, samples, TCP_NODELAY="1"), directory)
    return tuple(replace(sample, path=files[sample.instance]) for sample in samples)
