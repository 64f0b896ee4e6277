"""Have a study sent to another AE: python move_pynetdicom.py HOST PORT STUDY DESTINATION."""

import sys

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as Move

host, port, study, destination = sys.argv[1:]
keys = Dataset()
keys.QueryRetrieveLevel = "STUDY"
keys.StudyInstanceUID = study
ae = AE()
ae.add_requested_context(Move)
assoc = ae.associate(host, int(port))
if not assoc.is_established:
    sys.exit("no association")
try:
    for status, _ in assoc.send_c_move(keys, destination, Move):
        if not status:
            sys.exit("no answer")
        if status.Status not in (0xFF00, 0xB000, 0x0000):
            sys.exit(f"0x{status.Status:04X} {status.get('ErrorComment', '')}")
    print(
        status.NumberOfCompletedSuboperations, "sent,", status.NumberOfFailedSuboperations, "failed"
    )
finally:
    assoc.release()
