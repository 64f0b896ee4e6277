"""pynetdicom as a peer that leaves the bytes alone; run as a program by the tests.

python pynetdicom_peer.py receive DIRECTORY           prints "listening on 127.0.0.1:PORT"
python pynetdicom_peer.py send PORT FILE...           prints a status for each file
python pynetdicom_peer.py get PORT DIRECTORY FILE...  retrieves the instances of files; prints the final
                                                      status
python pynetdicom_peer.py answer NUMBER               has so many studies of one series each; prints
                                                      where it listens, too
"""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, _config, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import NonPatientObjectPresentationContexts
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    CompositeInstanceRootRetrieveGet,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)


def keep(event: Event, directory: Path) -> int:
    """Write a data set as it has come."""
    path = directory / f"{event.file_meta.MediaStorageSOPInstanceUID}.dcm"
    path.write_bytes(event.encoded_dataset())
    return 0x0000


def receive(directory: Path) -> None:
    """Write each data set as it comes, in every storage class and transfer syntax, until killed."""
    directory.mkdir(parents=True, exist_ok=True)
    ae = AE("PYNETDICOM")
    ae.add_supported_context(Verification)
    for context in AllStoragePresentationContexts + NonPatientObjectPresentationContexts:
        assert context.abstract_syntax is not None
        ae.add_supported_context(context.abstract_syntax, AllTransferSyntaxes)
    serve(ae, (evt.EVT_C_STORE, keep, [directory]))


def answer(number: int) -> None:
    """Answer C-FIND and C-ECHO until killed."""
    # What takes a fifth of the time: texts for the log, which nobody reads.
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False

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
    """Listen at a free port, and say at which; the tests have timeouts of their own."""
    ae.dimse_timeout = ae.network_timeout = None
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[handler])
    assert server is not None
    host, port = server.server_address[:2]
    print(f"listening on {host}:{port}", flush=True)
    threading.Event().wait()


def propose(ae: AE, paths: list[Path]) -> list[FileMetaDataset]:
    """Propose a context for each SOP class and transfer syntax of files; their File Meta Information."""
    metas = [read_file_meta_info(path) for path in paths]
    for each in dict.fromkeys((m.MediaStorageSOPClassUID, m.TransferSyntaxUID) for m in metas):
        ae.add_requested_context(*each)
    return metas


def one_request_after_another(association: Association) -> None:
    """Let a request wait until pynetdicom's own thread has taken note of the end of the one before.

    That thread rests during a request. When the next request begins before it is awake, it does not
    rest, and takes the response for a request of the peer.
    """
    wake = association._reactor_checkpoint.set

    def wake_and_wait() -> None:
        wake()
        while association._is_paused and association.is_alive():
            time.sleep(0.001)

    association._reactor_checkpoint.set = wake_and_wait  # type: ignore[method-assign]


def send(port: int, paths: list[Path]) -> None:
    """Send files without decoding them, on one association."""
    _config.STORE_SEND_CHUNKED_DATASET = True
    ae = AE("PYNETDICOM")
    propose(ae, paths)
    association = ae.associate("127.0.0.1", port, ae_title="ANY-SCP")
    one_request_after_another(association)
    try:
        for path in paths:
            status = association.send_c_store(path).get("Status")
            print(path.name, "none" if status is None else f"0x{status:04X}", flush=True)
    finally:
        association.release()


def get(port: int, directory: Path, paths: list[Path]) -> None:
    """Retrieve instances by their UIDs (PS3.4 Annex Y), in the transfer syntaxes of their files."""
    directory.mkdir(parents=True, exist_ok=True)
    ae = AE("PYNETDICOM")
    ae.add_requested_context(CompositeInstanceRootRetrieveGet)
    metas = propose(ae, paths)
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.SOPInstanceUID = [meta.MediaStorageSOPInstanceUID for meta in metas]
    classes = sorted({str(meta.MediaStorageSOPClassUID) for meta in metas})
    association = ae.associate(
        "127.0.0.1",
        port,
        ae_title="ANY-SCP",
        ext_neg=[build_role(UID(each), scp_role=True) for each in classes],
        evt_handlers=[(evt.EVT_C_STORE, keep, [directory])],
    )
    try:
        *_, (final, _) = association.send_c_get(query, CompositeInstanceRootRetrieveGet)
        print(f"0x{final.Status:04X}", flush=True)
    finally:
        association.release()


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(Path(sys.argv[2]))
    elif sys.argv[1] == "answer":
        answer(int(sys.argv[2]))
    elif sys.argv[1] == "get":
        get(int(sys.argv[2]), Path(sys.argv[3]), [Path(word) for word in sys.argv[4:]])
    else:
        send(int(sys.argv[2]), [Path(word) for word in sys.argv[3:]])
