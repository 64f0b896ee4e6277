"""Verify the connection to a DICOM node: python echo_scu.py [PEER]."""

import sys

from twisted.internet.task import react

from netdicom_tx import AE


async def main(reactor, peer="NETDICOM@127.0.0.1:11112"):
    async with AE("ECHOSCU", reactor=reactor).associate(peer) as asce:
        print(await asce.echo())


react(main, sys.argv[1:])
