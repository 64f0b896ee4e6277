"""Pages that stay up to date, by server-sent events.

A browser that shows a page asks ``/events?page=PATH`` for the parts of it that change. The parts are rendered every two
seconds, and sent when they differ from what was sent last. An event ``part`` has a JSON object with ``name`` and
``html``. Without JavaScript, a page shows the state at the time when it was loaded.

A stream must not hold up the node. There are at most :data:`STREAMS` of them, nothing is written to a reader that has
not read what was written before, and a reader that stays behind for :data:`BEHIND` seconds is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from werkzeug.exceptions import HTTPException
from zope.interface import implementer

from ..logs import Logger
from .site import Needs, Page, PageError, Visit, Web

__all__ = ["BEHIND", "STREAMS", "register"]

#: How many streams there are at most.
STREAMS: Final = 16
#: For how many seconds a reader may stay behind.
BEHIND: Final = 10.0
# Seconds between two looks.
_TICK: Final = 2.0
# Something is sent at least every so many seconds, so that no proxy closes the connection as idle.
_QUIET: Final = 15.0
# A stream ends after an hour; the browser asks for another one.
_LONGEST: Final = 3600.0
_RETRY: Final = 5000
_TYPE: Final = "text/event-stream; charset=utf-8"
# How many fields the query of a page may have.
_FIELDS: Final = 50


def register(web: Web) -> None:
    """Register the route."""
    streams = _Streams(web)
    web.at_end.append(streams.end)

    @web.route("/events", Needs.NO_LOGIN)
    def events(visit: Visit) -> Any:
        page, named, seen = _page(web, visit)
        if web.refuse(seen, page.needs) is not None:
            raise PageError(401, "Log in first.")
        if visit.request.method == b"HEAD":
            visit.request.setHeader("Content-Type", _TYPE)
            return b""
        return streams.open(_Stream(web, seen, page, named))


def _page(web: Web, visit: Visit) -> tuple[Page, Mapping[str, Any], Visit]:
    """The page that a stream is for, what its path names, and a visit with the query of the page.

    Raises:
        PageError: There is no such page.
    """
    path, _, query = visit.argument("page").partition("?")
    try:
        endpoint, named = web.klein.url_map.bind("").match(path, "GET")
    except HTTPException as error:
        raise PageError(404, "There is no such page.") from error
    page = web.pages.get(str(endpoint))
    if page is None or not page.parts:
        raise PageError(404, "This page does not change.")
    try:
        arguments = parse_qs(query.encode(), max_num_fields=_FIELDS)
    except ValueError as error:
        raise PageError(400, f"Expected a query of at most {_FIELDS} fields.") from error
    return page, named, Visit(web, visit.request, arguments)


@implementer(IPushProducer)
class _Stream:
    """A browser that follows a page."""

    def __init__(self, web: Web, visit: Visit, page: Page, named: Mapping[str, Any]) -> None:
        self.visit = visit
        self._web = web
        self._page = page
        self._named = named
        self._sent: dict[str, str] = {}
        self._version: object = None
        self._seconds = web.ae.clock.seconds
        self.began = self._wrote = self._seconds()
        self.is_behind = False
        self.behind_since = 0.0
        self.is_over = False
        #: Fires at the end of the response; is cancelled when the browser goes away.
        self.done: defer.Deferred[bytes] = defer.Deferred()

    def open(self) -> None:
        """Send the head of the response."""
        request = self.visit.request
        request.setHeader("Content-Type", _TYPE)
        # Tells nginx to pass on each event at once.
        request.setHeader("X-Accel-Buffering", "no")
        request.registerProducer(self, True)
        self._write(f"retry: {_RETRY}\n\n")

    async def look(self) -> None:
        """Send the parts that have changed."""
        if self._page.version is not None:
            version = await self._page.version()
            if version == self._version:
                return
            self._version = version
        values = await self._page.values(self.visit, **self._named)
        for name in self._page.parts:
            html = self.visit.render(f"parts/{name}.html", **values)
            if self._sent.get(name) != html and not self.is_over:
                self._sent[name] = html
                self._write(f"event: part\ndata: {json.dumps({'name': name, 'html': html})}\n\n")

    def stay_alive(self) -> None:
        """Send a comment when nothing was sent for a while."""
        if self._seconds() - self._wrote >= _QUIET:
            self._write(":\n\n")

    def _write(self, text: str) -> None:
        self._wrote = self._seconds()
        self.visit.request.write(text.encode())

    def end(self) -> None:
        """End the response."""
        if not self.is_over:
            self.is_over = True
            self.visit.request.unregisterProducer()
            self.done.callback(b"")

    def drop(self) -> None:
        """Close the connection, because the reader does not read."""
        self.visit.request.transport.abortConnection()

    # Called by the transport when it has too much to send, and when that has gone.

    def pauseProducing(self) -> None:
        if not self.is_behind:
            self.is_behind, self.behind_since = True, self._seconds()

    def resumeProducing(self) -> None:
        self.is_behind = False

    def stopProducing(self) -> None:
        self.is_over = True


class _Streams:
    """All streams, which are served one after the other."""

    _log = Logger()

    def __init__(self, web: Web) -> None:
        self._web = web
        self._streams: list[_Stream] = []
        self._next: IDelayedCall | None = None
        self._is_looking = False

    def open(self, stream: _Stream) -> defer.Deferred[bytes]:
        """Begin to serve a stream.

        Raises:
            PageError: There are too many.
        """
        if len(self._streams) >= STREAMS:
            raise PageError(
                503, "Too many pages are being followed. This one shows its last state."
            )
        self._streams.append(stream)

        def gone(_: object) -> None:
            stream.is_over = True
            self._streams.remove(stream)

        stream.visit.request.notifyFinish().addBoth(gone)
        stream.open()
        if self._next is None and not self._is_looking:
            self._next = self._web.ae.clock.callLater(0, self._look)
        return stream.done

    def _look(self) -> None:
        self._next = None
        self._is_looking = True
        defer.Deferred.fromCoroutine(self._serve_all()).addErrback(
            lambda failure: self._log.failure("the pages cannot be followed", failure)
        ).addBoth(self._again)

    def _again(self, _: object) -> None:
        self._is_looking = False
        if self._streams:
            self._next = self._web.ae.clock.callLater(_TICK, self._look)

    async def _serve_all(self) -> None:
        now = self._web.ae.clock.seconds()
        for stream in list(self._streams):
            if stream.is_over:
                continue
            if stream.is_behind:
                if now - stream.behind_since >= BEHIND:
                    stream.drop()
                continue
            if now - stream.began >= _LONGEST or not stream.visit.is_current():
                stream.end()
                continue
            try:
                await stream.look()
            except PageError:  # the study is gone, or the node is too busy
                stream.end()
                continue
            except Exception:  # whatever a database raises; the other streams go on
                self._log.failure("a page cannot be followed")
                stream.end()
                continue
            if not stream.is_over:
                stream.stay_alive()

    def end(self) -> None:
        """End all streams."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        for stream in list(self._streams):
            stream.end()
