"""C-ECHO over TLS, with our own certificate: python tls_scu.py ENDPOINT OURS CA NAME."""

import sys

from twisted.internet.task import react

from netdicom_tx import AE, RemoteAE, TLSOptions


async def main(reactor, endpoint, ours, authority, name):
    tls = TLSOptions(certificate=ours, trust=authority, server_name=name)
    remote = RemoteAE("SECURE", endpoint, tls=tls)
    async with AE("ECHOSCU", reactor=reactor).associate(remote) as asce:
        print(await asce.echo())


react(main, sys.argv[1:])
