"""An archive that prints what it keeps: python archive_hook.py DIRECTORY [ENDPOINT]."""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from netdicom_tx import StatusError, statuses, uids
from netdicom_tx.archive import ArchiveAE, FileStore, Index


class Ward(ArchiveAE):
    async def on_receive_store(self, context, ds):
        if context.sop_class == uids.EncapsulatedPDFStorage:
            raise StatusError(statuses.NOT_AUTHORIZED, "no PDF documents here")
        status = await super().on_receive_store(context, ds)
        if status == statuses.SUCCESS:
            print("kept", ds.sop_instance_uid, flush=True)
        return status


async def main(reactor, directory, endpoint="tcp:11112:interface=127.0.0.1"):
    store = FileStore(directory)
    index = Index(f"sqlite:///{store.root / 'index.db'}", root=store.root)
    ae = Ward("WARD", store, index, reactor=reactor)
    ae.start()
    reactor.addSystemEventTrigger("before", "shutdown", ae.pause)
    reactor.addSystemEventTrigger("after", "shutdown", ae.stop)
    port = await ae.listen(endpoint)
    print("listening on", port.getHost(), flush=True)
    await Deferred()  # until the process is stopped


react(main, sys.argv[1:])
