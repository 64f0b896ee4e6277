"""Have stored files committed: python commit_pynetdicom.py HOST PORT FILE..."""

import sys
import threading

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel as Commitment
from pynetdicom.sop_class import StorageCommitmentPushModelInstance as Instance

host, port, *paths = sys.argv[1:]
arrived = threading.Event()
reports = []


def take_report(event):
    reports.append(event.event_information)
    arrived.set()
    return 0x0000, None


request = Dataset()
request.TransactionUID = generate_uid()
request.ReferencedSOPSequence = []
for path in paths:
    header = dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID"])
    reference = Dataset()
    reference.ReferencedSOPClassUID = header.SOPClassUID
    reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
    request.ReferencedSOPSequence.append(reference)
ae = AE()
ae.add_requested_context(Commitment)
assoc = ae.associate(host, int(port), evt_handlers=[(evt.EVT_N_EVENT_REPORT, take_report)])
if not assoc.is_established:
    sys.exit("no association")
try:
    status, _ = assoc.send_n_action(request, 1, Commitment, Instance)
    if not status or status.Status != 0x0000:
        sys.exit("the peer refuses")
    if not arrived.wait(300):
        sys.exit("no report")
    for item in reports[0].get("ReferencedSOPSequence", []):
        print("committed", item.ReferencedSOPInstanceUID)
    for item in reports[0].get("FailedSOPSequence", []):
        print("failed", item.ReferencedSOPInstanceUID, f"0x{item.FailureReason:04X}")
finally:
    assoc.release()
