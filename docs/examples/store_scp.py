"""Receive images and sort them by patient: python store_scp.py DIRECTORY [ENDPOINT]."""

import hashlib
import sys
from pathlib import Path

from pydicom import dcmread
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.internet.threads import deferToThread

from netdicom_tx import AE, save_instance, statuses, storage_scp, verification_scp
from netdicom_tx.uids import ALL_TRANSFER_SYNTAXES


class Sorter(AE):
    directory: Path

    async def on_receive_store(self, context, ds):
        await deferToThread(self.keep, ds)
        return statuses.SUCCESS

    def keep(self, file):
        header = dcmread(file, stop_before_pixels=True)
        # Never use text from a peer as a path; use a digest of it.
        names = str(header.get("PatientID", "")), str(header.SOPInstanceUID)
        patient, instance = (hashlib.sha256(name.encode()).hexdigest()[:32] for name in names)
        (self.directory / patient).mkdir(parents=True, exist_ok=True)
        save_instance(file, self.directory / patient / f"{instance}.dcm")


async def main(reactor, directory, endpoint="tcp:11112:interface=127.0.0.1"):
    ae = Sorter("SORTER", reactor=reactor).add_scp(verification_scp)
    ae.add_scp(storage_scp, transfer_syntaxes=ALL_TRANSFER_SYNTAXES)
    ae.directory = Path(directory)
    port = await ae.listen(endpoint)
    print("listening on", port.getHost(), flush=True)
    await Deferred()  # until the process is stopped


react(main, sys.argv[1:])
