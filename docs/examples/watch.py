"""An SCP that writes a line about each association when it ends: python watch.py [ENDPOINT]."""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from netdicom_tx import AE, verification_scp


class Watched(AE):
    def on_association_accepted(self, asce):
        print("accepted", asce.calling_ae_title, "at", asce.peer_address.host, flush=True)

    def on_association_ended(self, asce, summary):
        print(
            "ended",
            asce.peer_title,
            f"after {summary.duration:.1f} s:",
            dict(summary.performed),
            f"{summary.octets_received} bytes in, {summary.octets_sent} bytes out,",
            summary.reason,
            flush=True,
        )


async def main(reactor, endpoint="tcp:11112:interface=127.0.0.1"):
    port = await Watched("WATCHED", reactor=reactor).add_scp(verification_scp).listen(endpoint)
    print("listening on", port.getHost(), flush=True)
    await Deferred()  # until the process is stopped


react(main, sys.argv[1:])
