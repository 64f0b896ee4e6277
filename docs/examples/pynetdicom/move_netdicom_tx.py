"""Have a study sent to another AE: python move_netdicom_tx.py PEER STUDY DESTINATION."""

import sys

from twisted.internet.task import react

from netdicom_tx import move


async def main(reactor, peer, study, destination):
    counts = await move(peer, "STUDY", StudyInstanceUID=study, to=destination)
    print(counts.completed, "sent,", counts.failed, "failed")


react(main, sys.argv[1:])
