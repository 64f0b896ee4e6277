"""Retrieve a study into a directory: python get_pynetdicom.py HOST PORT STUDY DIRECTORY."""

import sys
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import AE, StoragePresentationContexts, build_role, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as Get

host, port, study, directory = sys.argv[1:]


def keep(event):
    uid = event.request.AffectedSOPInstanceUID
    if not uid.is_valid:  # a path made of what a peer sends must not lead elsewhere
        return 0xA900
    path = Path(directory, f"{uid}.dcm")
    path.write_bytes(event.encoded_dataset())
    print(path)
    return 0x0000


keys = Dataset()
keys.QueryRetrieveLevel = "STUDY"
keys.StudyInstanceUID = study
ae = AE()
ae.add_requested_context(Get)
roles = []
for context in StoragePresentationContexts[:127]:
    ae.add_requested_context(context.abstract_syntax)
    roles.append(build_role(context.abstract_syntax, scp_role=True))
Path(directory).mkdir(exist_ok=True)
assoc = ae.associate(host, int(port), ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, keep)])
if not assoc.is_established:
    sys.exit("no association")
try:
    for status, _ in assoc.send_c_get(keys, Get):
        if not status:
            sys.exit("no answer")
    if status.Status not in (0xB000, 0x0000):
        sys.exit(f"0x{status.Status:04X}")
finally:
    assoc.release()
