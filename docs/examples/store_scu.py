"""Send DICOM files to a node: python store_scu.py ENDPOINT FILE..."""

import sys

from twisted.internet.task import react

from netdicom_tx import AE, RemoteAE
from netdicom_tx.sopclass import store_all


async def main(reactor, endpoint, *paths):
    ae = AE("STORESCU", reactor=reactor)
    async for result in store_all(ae, RemoteAE("ARCHIVE", endpoint), paths):
        print(result.source, result.error or result.status)


react(main, sys.argv[1:])
