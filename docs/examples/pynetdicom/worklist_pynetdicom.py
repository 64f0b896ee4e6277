"""Read the worklist of a station: python worklist_pynetdicom.py HOST PORT STATION."""

import sys

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import ModalityWorklistInformationFind as Worklist

step = Dataset()
step.ScheduledStationAETitle = sys.argv[3]
step.ScheduledProcedureStepStartDate = ""
keys = Dataset()
keys.PatientName = ""
keys.AccessionNumber = ""
keys.ScheduledProcedureStepSequence = [step]
ae = AE()
ae.add_requested_context(Worklist)
assoc = ae.associate(sys.argv[1], int(sys.argv[2]))
if not assoc.is_established:
    sys.exit("no association")
try:
    for status, item in assoc.send_c_find(keys, Worklist):
        if not status:
            sys.exit("no answer")
        if item is not None:
            step = item.ScheduledProcedureStepSequence[0]
            print(item.AccessionNumber, item.PatientName, step.ScheduledProcedureStepStartDate)
        elif status.Status != 0x0000:
            sys.exit(f"0x{status.Status:04X}")
finally:
    assoc.release()
