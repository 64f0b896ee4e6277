"""Read the worklist of a station: python worklist_netdicom_tx.py PEER STATION."""

import sys

from twisted.internet.task import react

from netdicom_tx import AE


async def main(reactor, peer, station):
    async with AE(station).associate(peer) as asce:
        async for item in asce.worklist(ScheduledStationAETitle=station):
            step = item.ScheduledProcedureStepSequence[0]
            print(item.AccessionNumber, item.PatientName, step.ScheduledProcedureStepStartDate)


react(main, sys.argv[1:])
