"""Verify the connection: python echo_pynetdicom.py HOST PORT."""

import sys

from pynetdicom import AE
from pynetdicom.sop_class import Verification

ae = AE()
ae.add_requested_context(Verification)
assoc = ae.associate(sys.argv[1], int(sys.argv[2]))
if not assoc.is_established:
    sys.exit("no association")
status = assoc.send_c_echo()
assoc.release()
if not status:
    sys.exit("no answer")
print(f"0x{status.Status:04X}")
