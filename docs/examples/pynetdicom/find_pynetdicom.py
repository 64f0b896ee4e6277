"""Find the studies of a patient: python find_pynetdicom.py HOST PORT NAME."""

import sys

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Find

keys = Dataset()
keys.QueryRetrieveLevel = "STUDY"
keys.PatientName = sys.argv[3]
keys.StudyInstanceUID = ""
ae = AE()
ae.add_requested_context(Find)
assoc = ae.associate(sys.argv[1], int(sys.argv[2]))
if not assoc.is_established:
    sys.exit("no association")
try:
    for status, study in assoc.send_c_find(keys, Find):
        if not status:
            sys.exit("no answer")
        if study is not None:
            print(study.PatientName, study.StudyInstanceUID)
        elif status.Status != 0x0000:
            sys.exit(f"0x{status.Status:04X}")
finally:
    assoc.release()
