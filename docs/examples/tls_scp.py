"""Verification over TLS, for peers whose certificate we trust: python tls_scp.py OURS CA [ENDPOINT]."""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from netdicom_tx import AE, TLSOptions, verification_scp


async def main(reactor, ours, authority, endpoint="tcp:2762:interface=127.0.0.1"):
    ae = AE("SECURE", reactor=reactor).add_scp(verification_scp)
    port = await ae.listen(endpoint, TLSOptions(certificate=ours, trust=authority))
    print("listening on", port.getHost(), flush=True)
    await Deferred()


react(main, sys.argv[1:])
