"""Report that a procedure step begins and ends: python perform_netdicom_tx.py PEER."""

import sys

from pydicom.uid import generate_uid
from step import begun, ended
from twisted.internet.task import react

from netdicom_tx import AE
from netdicom_tx.uids import ModalityPerformedProcedureStep as Step


async def main(reactor, peer):
    uid = generate_uid()
    async with AE("CT1").associate(peer) as asce:
        print((await asce.n_create(Step, begun, uid)).status)
        print((await asce.n_set(Step, uid, ended)).status)


react(main, sys.argv[1:])
