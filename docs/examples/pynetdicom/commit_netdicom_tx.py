"""Have stored files committed: python commit_netdicom_tx.py PEER FILE..."""

import sys

from twisted.internet.task import react

from netdicom_tx import AE


async def main(reactor, peer, *paths):
    async with AE("MODALITY").associate(peer) as asce:
        report = await asce.commit(paths)
    for _, uid in report.committed:
        print("committed", uid)
    for _, uid, reason in report.failed:
        print("failed", uid, f"0x{reason:04X}")


react(main, sys.argv[1:])
