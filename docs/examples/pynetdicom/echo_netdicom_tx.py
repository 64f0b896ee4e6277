"""Verify the connection: python echo_netdicom_tx.py PEER."""

import sys

from twisted.internet.task import react

from netdicom_tx import echo


async def main(reactor, peer):
    print(await echo(peer))


react(main, sys.argv[1:])
