"""DICOM beside a web application: an SCP that runs as long as the web server does, and an SCU for its requests."""

import asyncio
import json
from contextlib import asynccontextmanager
from urllib.parse import parse_qs

from twisted.internet import asyncioreactor, defer

from netdicom_tx import AE, NetDICOMError, verification_scp

ENDPOINT = "tcp:11112:interface=127.0.0.1"
GRACE = 10  # seconds that running operations have when the server stops


@asynccontextmanager
async def dicom(app):
    """Serve DICOM: FastAPI(lifespan=dicom) or Starlette(lifespan=dicom)."""
    loop = asyncio.get_running_loop()
    asyncioreactor.install(loop)  # before anything imports twisted.internet.reactor
    from twisted.internet import reactor

    reactor.startRunning(installSignalHandlers=False)  # the signals are the web server's
    ae = AE("WEB", reactor=reactor).add_scp(verification_scp)
    port = await ae.listen(ENDPOINT).asFuture(loop)
    try:
        yield {"ae": ae, "dicom_port": port.getHost().port}
    finally:
        # No new peers; then associations end when their operations have.
        await defer.maybeDeferred(port.stopListening).asFuture(loop)
        await ae.drain(GRACE).asFuture(loop)
        reactor.getThreadPool().stop()


async def echo(ae, peer):
    """Ask a peer whether it is there; an asyncio coroutine, for a view of any framework."""
    loop = asyncio.get_running_loop()

    async def ask():
        async with ae.associate(peer) as asce:
            return await asce.echo()

    return await defer.Deferred.fromCoroutine(ask()).asFuture(loop)


def with_lifespan(app, lifespan):
    """Give an ASGI application a lifespan: Django has none of its own."""

    async def wrapped(scope, receive, send):
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()  # lifespan.startup
        async with lifespan(app) as state:
            scope.get("state", {}).update(state)
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown
        await send({"type": "lifespan.shutdown.complete"})

    return wrapped


async def view(scope, receive, send):
    """A view without a framework: GET /?peer=AET@host:port."""
    (peer,) = parse_qs(scope["query_string"].decode())["peer"]
    try:
        answer = {"status": str(await echo(scope["state"]["ae"], peer))}
    except NetDICOMError as error:
        answer = {"error": str(error)}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


app = with_lifespan(view, dicom)
