"""An archive with its workflow services, as a program, in the place of ``twistd dicom`` with the same options.

python workflow_node.py --storage DIRECTORY [--peer AET@host:port] [--worklist DIRECTORY]
    [--forward AET] [--notify AET] [--announce AET]

Prints "listening on 127.0.0.1:PORT"; ends in order on SIGTERM.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.logger import globalLogBeginner, textFileLogObserver

from netdicom_tx import RemoteAE
from netdicom_tx.archive import ArchiveAE, FileStore, Index
from netdicom_tx.archive.workflow import Workflow
from netdicom_tx.asceprovider import Association
from netdicom_tx.negotiation import PContextDef
from netdicom_tx.uids import MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS


class WorkflowAE(ArchiveAE):
    """An archive that is also the worklist and keeps procedure steps."""

    def __init__(self, title: str, store: FileStore, index: Index, **options: Any) -> None:
        super().__init__(title, store, index, peers=options["peers"])
        peers = options.pop("peers")
        owner = f"{title} {store.root}"
        self.workflow = Workflow(self, index, self.in_thread, peers, owner=owner, **options)

    def find_for(self, asce: Association, context: PContextDef, ds: Dataset) -> Any:
        if context.sop_class == MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS:
            return self.workflow.worklist.find(context, ds)
        return super().find_for(asce, context, ds)

    def on_mpps_create(self, uid: str, ds: Dataset) -> Any:
        return self.workflow.steps.create(uid, ds)

    def on_mpps_set(self, uid: str, ds: Dataset) -> Any:
        return self.workflow.steps.change(uid, ds)

    def on_mpps_get(self, uid: str, tags: Any) -> Any:
        return self.workflow.steps.get(uid, tags)


def peer(text: str) -> tuple[str, RemoteAE]:
    """``AET@host:port``."""
    title, _, address = text.partition("@")
    return title, RemoteAE(title, f"tcp:{address}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--aet", default="NETDICOM")
    parser.add_argument("--storage", type=Path, required=True)
    parser.add_argument("--peer", type=peer, action="append", default=[])
    for name in ("worklist", "forward", "notify", "announce"):
        parser.add_argument(f"--{name}", action="append", default=[])
    options = parser.parse_args()
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    store = FileStore(options.storage)
    ae = WorkflowAE(
        options.aet,
        store,
        Index(f"sqlite:///{store.root / 'index.db'}", root=store.root),
        peers=dict(options.peer),
        worklist_directories=options.worklist,
        forward_to=options.forward,
        notify=options.notify,
        available_to=options.announce,
    )
    loop: Any = reactor
    service = ae.as_service("tcp:0:interface=127.0.0.1")

    def start() -> None:
        ae.start()
        ae.workflow.start(loop)
        service.startService()

    async def stop() -> None:
        await service.stopService()
        await ae.workflow.stop()
        ae.stop()

    loop.callWhenRunning(start)
    loop.addSystemEventTrigger("before", "shutdown", lambda: ensureDeferred(stop()))
    loop.run()


if __name__ == "__main__":
    main()
