"""Find the studies of a patient: python find_netdicom_tx.py PEER NAME."""

import sys

from twisted.internet.task import react

from netdicom_tx import find


async def main(reactor, peer, name):
    async for study in find(peer, "STUDY", PatientName=name):
        print(study.PatientName, study.StudyInstanceUID)


react(main, sys.argv[1:])
