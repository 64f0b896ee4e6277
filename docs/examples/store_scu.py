"""Send DICOM files to a node: python store_scu.py PEER FILE..."""

import sys

from twisted.internet.task import react

from netdicom_tx import store


async def main(reactor, peer, *paths):
    async for result in store(peer, paths):
        print(result.source, result.error or result.status)


react(main, sys.argv[1:])
