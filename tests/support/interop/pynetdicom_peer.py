"""pynetdicom as a peer that leaves the bytes alone; run as a program by the tests.

python pynetdicom_peer.py receive DIRECTORY           prints "listening on 127.0.0.1:PORT"
python pynetdicom_peer.py send PORT FILE...           prints a status for each file
python pynetdicom_peer.py answer NUMBER               has so many studies of one series each; prints
                                                      where it listens, too
"""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.events import Event
from pynetdicom.presentation import NonPatientObjectPresentationContexts
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)


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
    serve(ae, (evt.EVT_C_STORE, store))


def answer(number: int) -> None:
    """Answer C-FIND and C-ECHO until killed."""

    def find(event: Event) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        uids = [f"1.2.{each}" for each in range(number)]
        if asked.QueryRetrieveLevel == "SERIES":
            uids = [asked.StudyInstanceUID]
        for uid in uids:
            if event.is_cancelled:
                yield 0xFE00, None
                return
            match = Dataset()
            match.QueryRetrieveLevel, match.StudyInstanceUID = asked.QueryRetrieveLevel, uid
            match.SeriesInstanceUID = f"{uid}.1"
            yield 0xFF00, match

    ae = AE("PYNETDICOM")
    ae.add_supported_context(Verification)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    serve(ae, (evt.EVT_C_FIND, find))


def serve(ae: AE, handler: Any) -> None:
    """Listen at a free port, and say at which."""
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[handler])
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
    elif sys.argv[1] == "answer":
        answer(int(sys.argv[2]))
    else:
        send(int(sys.argv[2]), [Path(word) for word in sys.argv[3:]])
