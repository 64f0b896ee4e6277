"""Receive files: python receive_netdicom_tx.py PORT DIRECTORY."""

import sys
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from netdicom_tx import AE, save_instance, storage_scp, verification_scp
from netdicom_tx.uids import ALL_TRANSFER_SYNTAXES


class Receiver(AE):
    def on_receive_store(self, context, ds):
        save_instance(ds, Path(sys.argv[2], f"{context.request.sop_instance_uid}.dcm"))
        return 0x0000


async def main(reactor, port, directory):
    ae = Receiver("RECEIVER").add_scp(verification_scp)
    ae.add_scp(storage_scp, transfer_syntaxes=ALL_TRANSFER_SYNTAXES)
    await ae.listen(f"tcp:{port}:interface=127.0.0.1")
    await Deferred()


react(main, sys.argv[1:])
