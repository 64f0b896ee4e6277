"""Our SCU, as the tests use it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from netdicom_tx import AE, RemoteAE, storage_scu, verification_scu
from netdicom_tx.uids import VERIFICATION_SOP_CLASS

from ..node import Address
from ..part10 import data_set_bytes
from .peers import OUR_SCU
from .samples import Sample


async def echo(address: Address, calling: str = OUR_SCU) -> int:
    """The status of a C-ECHO."""
    ae = AE(calling).add_scu(verification_scu)
    remote = RemoteAE(address.ae_title, address.endpoint)
    async with await ae.request_association(remote) as asce:
        return int(await asce.get_scu(VERIFICATION_SOP_CLASS)())


async def store(address: Address, samples: Iterable[Sample]) -> Mapping[str, int]:
    """Store samples on one association; the status of each, by its file name."""
    samples = tuple(samples)
    contexts: dict[str, list[str]] = {}
    for sample in samples:
        syntaxes = contexts.setdefault(sample.sop_class, [])
        if sample.transfer_syntax not in syntaxes:
            syntaxes.append(sample.transfer_syntax)
    ae = AE(OUR_SCU).add_scu(storage_scu, contexts)
    remote = RemoteAE(address.ae_title, address.endpoint)
    statuses: dict[str, int] = {}
    async with await ae.request_association(remote, contexts) as asce:
        for sample in samples:
            status = await asce.get_scu(sample.sop_class)(sample.path)
            statuses[sample.path.name] = int(status)
    return statuses


def changed(samples: Iterable[Sample], kept: Mapping[str, Path]) -> list[str]:
    """The samples that are missing, or whose data set is another than in the file sent."""
    return [
        sample.path.name
        for sample in samples
        if sample.instance not in kept or data_set_bytes(kept[sample.instance]) != sample.sent
    ]
