"""Report that a procedure step begins and ends: python perform_pynetdicom.py HOST PORT."""

import sys

from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.sop_class import ModalityPerformedProcedureStep as Step
from step import begun, ended

uid = generate_uid()
ae = AE()
ae.add_requested_context(Step)
assoc = ae.associate(sys.argv[1], int(sys.argv[2]))
if not assoc.is_established:
    sys.exit("no association")
try:
    status, _ = assoc.send_n_create(begun, Step, uid)
    if not status:
        sys.exit("no answer")
    print(f"0x{status.Status:04X}")
    status, _ = assoc.send_n_set(ended, Step, uid)
    if not status:
        sys.exit("no answer")
    print(f"0x{status.Status:04X}")
finally:
    assoc.release()
