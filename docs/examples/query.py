"""Find the studies of a patient, and retrieve them: python query.py PEER PATIENT_ID DIRECTORY."""

import sys
from pathlib import Path

from twisted.internet.task import react

from netdicom_tx import AE


async def main(reactor, peer, patient_id, directory):
    async with AE("QUERY", reactor=reactor).associate(peer) as asce:
        studies = await asce.find("STUDY", PatientID=patient_id, PatientName="")
        for study in studies:
            print("found", study.PatientName, study.StudyInstanceUID)
        for study in studies:
            async with asce.get("STUDY", StudyInstanceUID=study.StudyInstanceUID) as instances:
                async for instance in instances:
                    instance.save(Path(directory, f"{instance.sop_instance_uid}.dcm"))
                    print("saved", instance.sop_instance_uid)


react(main, sys.argv[1:])
