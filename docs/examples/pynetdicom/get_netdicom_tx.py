"""Retrieve a study into a directory: python get_netdicom_tx.py PEER STUDY DIRECTORY."""

import sys

from twisted.internet.task import react

from netdicom_tx import get


async def main(reactor, peer, study, directory):
    for path in await get(peer, "STUDY", StudyInstanceUID=study, into=directory):
        print(path)


react(main, sys.argv[1:])
