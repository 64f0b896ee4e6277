"""A browser in memory, which speaks HTTP with the site of the status page."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport

from netdicom_tx.web.server import WebService

HOST = "127.0.0.1:8042"
#: A text that would do something if it were not shown as text.
ATTACK = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>&{{ 7*7 }}"""


@dataclass
class Answer:
    """A response.

    Attributes:
        code: Its status.
        headers: Its headers, with names in lower case.
        body: Its octets; of a stream, those that have come so far.
        transport: Where further octets arrive.
    """

    code: int
    headers: dict[str, str]
    body: bytes
    transport: StringTransport = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8")

    def shows(self) -> str:
        """What a reader sees: the text between the tags, with plain single spaces and plain dashes."""
        words = unescape(re.sub(r"<[^>]*>", " ", self.text)).split()
        return " ".join(words).replace("\N{NARROW NO-BREAK SPACE}", " ").replace("\N{EN DASH}", "-")


class Browser:
    """Visits the page, and keeps its cookie.

    Args:
        service: The page; its port need not be open.
    """

    def __init__(self, service: WebService) -> None:
        self.service = service
        self.cookie = ""
        self.token = ""

    def send(self, octets: bytes) -> StringTransport:
        """Send octets on a new connection."""
        peer = IPv4Address("TCP", "192.0.2.7", 50000)
        transport = StringTransport(peerAddress=peer)
        protocol: Any = self.service.factory.buildProtocol(peer)
        protocol.makeConnection(transport)
        protocol.dataReceived(octets)
        return transport

    def ask(self, method: str, path: str, body: bytes = b"", /, **headers: str) -> Answer:
        """Send a request; headers are named with underscores, and ``host=""`` leaves out that header."""
        headers = {"host": HOST, **headers}
        if self.cookie:
            headers.setdefault("cookie", self.cookie)
        if body:
            headers.setdefault("content_length", str(len(body)))
            headers.setdefault("content_type", "application/x-www-form-urlencoded")
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value]
        answer = read("\r\n".join([*lines, "", ""]).encode(), body, self)
        found = re.search(r'name="token" value="([0-9a-f]+)"', answer.body.decode("latin-1"))
        self.token = found[1] if found is not None else self.token
        return answer

    def get(self, path: str, /, **headers: str) -> Answer:
        """Visit a page."""
        return self.ask("GET", path, b"", **headers)

    def post(self, path: str, *, token: str | None = None, **fields: str) -> Answer:
        """Send a form, with the token of the last page that had one."""
        fields["token"] = self.token if token is None else token
        return self.ask("POST", path, urlencode(fields).encode())

    def log_in(self, user: str, password: str) -> Answer:
        """Fill in the form."""
        self.get("/login")
        return self.post("/login", user=user, password=password)


def read(head: bytes, body: bytes, browser: Browser) -> Answer:
    """Send a request, and read the response to it."""
    transport = browser.send(head + body)
    octets = transport.value()
    top, _, rest = octets.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    if "set-cookie" in headers:
        browser.cookie = headers["set-cookie"].partition(";")[0]
    if headers.get("transfer-encoding") == "chunked":
        rest = unchunked(rest)
    return Answer(int(first.split()[1]), headers, rest, transport)


def unchunked(octets: bytes) -> bytes:
    """The octets of a chunked body, as far as they have come."""
    found = b""
    while octets:
        size, _, octets = octets.partition(b"\r\n")
        length = int(size, 16)
        found, octets = found + octets[:length], octets[length + 2 :]
    return found


# -- what a page is made of --------------------------------------------------------------------------


class Outline(HTMLParser):
    """What is checked of a page: headings, labels, ids, and tags that are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.refers: list[str] = []
        self.headings: list[str] = []
        self.unlabelled: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.events: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        values = dict(attrs)
        self.events += [name for name in values if name.startswith("on") or name == "style"]
        if "id" in values:
            self.ids.append(values["id"])
        self.refers += [
            values[name] for name in ("aria-labelledby", "for") if values.get(name) is not None
        ]
        if tag == "script":
            self.scripts.append(values)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(tag)
        if (
            tag == "input"
            and values.get("type") not in ("hidden", "checkbox")
            and "id" not in values
        ):
            self.unlabelled.append(str(values))
        if tag == "img" and "alt" not in values:
            self.unlabelled.append(str(values))
        if tag not in ("meta", "link", "input", "img", "line", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(text: str) -> None:
    """A page is well formed, and has what a reader without eyes, or without a mouse, needs."""
    outline = Outline(text)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert set(outline.refers) <= set(outline.ids)
    assert outline.headings.count("h1") == 1
    assert outline.unlabelled == []
    assert outline.events == []
    assert all(set(each) == {"src", "defer"} for each in outline.scripts)
    assert '<html lang="en">' in text
    assert "<main" in text
