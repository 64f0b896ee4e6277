"""Find the studies of a patient, and get them: python query.py ENDPOINT PATIENT_ID DIRECTORY."""

import shutil
import sys
from pathlib import Path

from pydicom.dataset import Dataset
from twisted.internet.task import react

from netdicom_tx import AE, RemoteAE, statuses, storage_scp
from netdicom_tx.sopclass import qr_find_scu, qr_get_scu
from netdicom_tx.uids import STUDY_ROOT_FIND_SOP_CLASS as FIND
from netdicom_tx.uids import STUDY_ROOT_GET_SOP_CLASS as GET


def identifier(**keys):
    ds = Dataset()
    ds.QueryRetrieveLevel = "STUDY"
    for keyword, value in keys.items():
        setattr(ds, keyword, value)
    return ds


class Receiver(AE):
    def on_receive_store(self, context, ds):
        return statuses.SUCCESS  # C-GET stores here; the reader below has the file afterwards


async def main(reactor, endpoint, patient_id, directory):
    ae = Receiver("QUERY", reactor=reactor).add_scu(qr_find_scu).add_scu(qr_get_scu)
    ae.add_scp(storage_scp)  # proposed with the SCP role, for what C-GET brings
    async with await ae.request_association(RemoteAE("ARCHIVE", endpoint)) as asce:
        studies = []
        keys = identifier(PatientID=patient_id, PatientName="", StudyInstanceUID="")
        async with asce.get_scu(FIND)(keys) as matches:
            async for match, status in matches:
                if match is None:
                    print("found:", status)
                else:
                    print(match.PatientName, match.StudyInstanceUID)
                    studies.append(match.StudyInstanceUID)
        for uid in studies:
            async with asce.get_scu(GET)(identifier(StudyInstanceUID=uid)) as instances:
                number = 0
                async for context, file in instances:
                    if context is None:
                        print("got:", file)  # the final status
                        break
                    number += 1
                    with Path(directory, f"{uid}.{number}.dcm").open("wb") as copy:
                        shutil.copyfileobj(file, copy)


react(main, sys.argv[1:])
