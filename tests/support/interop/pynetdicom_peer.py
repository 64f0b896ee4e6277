"""pynetdicom as a peer that leaves the bytes alone; run as a program by the tests.

python pynetdicom_peer.py receive DIRECTORY           prints "listening on 127.0.0.1:PORT"
python pynetdicom_peer.py send PORT FILE...           prints a status for each file
"""

import sys
import threading
from pathlib import Path

from pydicom.filereader import read_file_meta_info
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.events import Event
from pynetdicom.presentation import NonPatientObjectPresentationContexts
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]


def receive(directory: Path) -> None:
    """Write each data set as it comes, in every storage class and transfer syntax, until killed."""
    directory.mkdir(parents=True, exist_ok=True)

    def store(event: Event) -> int:
        path = directory / f"{event.file_meta.MediaStorageSOPInstanceUID}.dcm"
        path.write_bytes(event.encoded_dataset())
        return 0x0000

    ae = AE("PYNETDICOM")
    ae.add_supported_context(Verification)
    for context in AllStoragePresentationContexts + NonPatientObjectPresentationContexts:
        assert context.abstract_syntax is not None
        ae.add_supported_context(context.abstract_syntax, AllTransferSyntaxes)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    host, port = server.server_address[:2]
    print(f"listening on {host}:{port}", flush=True)
    threading.Event().wait()


def send(port: int, paths: list[Path]) -> None:
    """Send files without decoding them, on one association."""
    _config.STORE_SEND_CHUNKED_DATASET = True
    ae = AE("PYNETDICOM")
    wanted: dict[tuple[str, str], None] = {}
    for path in paths:
        meta = read_file_meta_info(path)
        wanted[meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID] = None
    for sop_class, transfer_syntax in wanted:
        ae.add_requested_context(sop_class, transfer_syntax)
    association = ae.associate("127.0.0.1", port, ae_title="ANY-SCP")
    try:
        for path in paths:
            status = association.send_c_store(path).get("Status")
            print(path.name, "none" if status is None else f"0x{status:04X}", flush=True)
    finally:
        association.release()


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(Path(sys.argv[2]))
    else:
        send(int(sys.argv[2]), [Path(word) for word in sys.argv[3:]])
