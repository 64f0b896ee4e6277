"""A gateway that de-identifies what it receives and sends it on: python deidentify.py ARCHIVE SEED_FILE [ENDPOINT].

It needs dicognito: pip install dicognito
"""

import sys
from pathlib import Path
from threading import Lock

from dicognito.anonymizer import Anonymizer
from pydicom import dcmread
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.internet.threads import deferToThread

from netdicom_tx import (
    AE,
    AssociationPool,
    NetDICOMError,
    RemoteAE,
    StatusError,
    statuses,
    storage_scp,
    verification_scp,
)
from netdicom_tx.uids import ALL_TRANSFER_SYNTAXES


class Gateway(AE):
    archive: RemoteAE
    pool: AssociationPool
    anonymizer: Anonymizer
    lock = Lock()  # the anonymizer keeps what it has replaced by what

    async def on_receive_store(self, context, ds):
        instance = await deferToThread(self.deidentified, ds)
        contexts = {context.sop_class: [context.transfer_syntax]}
        try:
            async with self.pool.association(self.archive, contexts) as asce:
                return await asce.store(instance)  # the status of the archive is our answer
        except NetDICOMError as error:
            # The sender keeps the instance, and sends it again later.
            refused = statuses.C_STORE_OUT_OF_RESOURCES
            raise StatusError(refused, "the archive does not take it") from error

    def deidentified(self, file):
        ds = dcmread(file)
        with self.lock:
            self.anonymizer.anonymize(ds)
        return ds


async def main(reactor, archive, seed_file, endpoint="tcp:11113:interface=127.0.0.1"):
    ae = Gateway("DEIDENTIFY", reactor=reactor).add_scp(verification_scp)
    ae.add_scp(storage_scp, transfer_syntaxes=ALL_TRANSFER_SYNTAXES)
    ae.archive = RemoteAE.of(archive)
    ae.pool = AssociationPool(ae)
    # The same seed gives the same names and UIDs, also after a restart. Who has it can find out who is who.
    ae.anonymizer = Anonymizer(seed=Path(seed_file).read_text().strip())
    port = await ae.listen(endpoint)
    print("listening on", port.getHost(), flush=True)
    await Deferred()  # until the process is stopped


react(main, sys.argv[1:])
