"""C-ECHO over TLS, with a certificate of our own: python tls_scu.py ENDPOINT OURS CA NAME."""

import sys

from twisted.internet.task import react

from netdicom_tx import AE, RemoteAE, TLSOptions, verification_scu
from netdicom_tx.uids import VERIFICATION_SOP_CLASS


async def main(reactor, endpoint, ours, authority, name):
    ae = AE("ECHOSCU", reactor=reactor).add_scu(verification_scu)
    tls = TLSOptions(certificate=ours, trust=authority, server_name=name)
    async with await ae.request_association(RemoteAE("SECURE", endpoint, tls=tls)) as asce:
        print(await asce.get_scu(VERIFICATION_SOP_CLASS)())


react(main, sys.argv[1:])
