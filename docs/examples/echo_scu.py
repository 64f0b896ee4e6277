"""Ask a DICOM node whether it is there: python echo_scu.py [ENDPOINT]."""

import sys

from twisted.internet.task import react

from netdicom_tx import AE, RemoteAE, verification_scu
from netdicom_tx.uids import VERIFICATION_SOP_CLASS


async def main(reactor, endpoint="tcp:127.0.0.1:11112"):
    ae = AE("ECHOSCU", reactor=reactor).add_scu(verification_scu)
    async with await ae.request_association(RemoteAE("ARCHIVE", endpoint)) as asce:
        print(await asce.get_scu(VERIFICATION_SOP_CLASS)())


react(main, sys.argv[1:])
