"""Receive files: python receive_pynetdicom.py PORT DIRECTORY."""

import sys
from pathlib import Path

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

port, directory = sys.argv[1:]


def keep(event):
    uid = event.request.AffectedSOPInstanceUID
    if not uid.is_valid:  # a path made of what a peer sends must not lead elsewhere
        return 0xA900
    path = Path(directory, f"{uid}.dcm")
    path.write_bytes(event.encoded_dataset())
    return 0x0000


ae = AE()
ae.add_supported_context(Verification)
for context in AllStoragePresentationContexts:
    ae.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
ae.start_server(("127.0.0.1", int(port)), evt_handlers=[(evt.EVT_C_STORE, keep)])
