"""An archive that keeps a second copy of each file: python archive_store.py DIRECTORY SECOND [ENDPOINT]."""

import os
import shutil
import sys
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from netdicom_tx.archive import ArchiveAE, FileStore, Index


class Mirrored(FileStore):
    def __init__(self, root, second):
        super().__init__(root)
        self.second = Path(second)

    def keep(self, spool, **options):  # runs in a thread
        kept = super().keep(spool, **options)
        copy = self.second / kept.path.name
        part = copy.with_suffix(f".{spool.path.name}")  # no other spool has this name
        with kept.path.open("rb") as source, part.open("wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        part.rename(copy)
        folder = os.open(self.second, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return kept


async def main(reactor, directory, second, endpoint="tcp:11112:interface=127.0.0.1"):
    store = Mirrored(directory, second)
    index = Index(f"sqlite:///{store.root / 'index.db'}", root=store.root)
    ae = ArchiveAE("MIRRORED", store, index, reactor=reactor)
    ae.start()
    reactor.addSystemEventTrigger("before", "shutdown", ae.pause)
    reactor.addSystemEventTrigger("after", "shutdown", ae.stop)
    port = await ae.listen(endpoint)
    print("listening on", port.getHost(), flush=True)
    await Deferred()


react(main, sys.argv[1:])
