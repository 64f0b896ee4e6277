"""The routes of the status page, and what guards each of them.

Every route says what a visitor :class:`Needs`, so that none is open by accident. A route runs in the reactor's thread
and does its work with files and databases in :meth:`Web.in_thread`, which are threads of the page alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from klein import Klein
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import LoginFailed
from twisted.cred.portal import Portal
from twisted.internet import defer
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from werkzeug.exceptions import HTTPException

from ..archive import ArchiveAE
from ..archive.index.index import IndexUnavailableError, SearchEndedError
from ..archive.snapshots import Snapshot
from ..archive.workers import Workers
from ..exceptions import LocalProtocolError
from ..identity import IUser, PasswordFile, UserRealm
from ..logs import Logger
from .accounts import Accounts
from .formats import FILTERS
from .security import HEADERS, Hosts, Sessions, cookie_name

__all__ = [
    "Needs",
    "Page",
    "PageError",
    "Visit",
    "Web",
    "WebOptions",
    "inside",
    "link",
]

_T = TypeVar("_T")
_HERE: Final = Path(__file__).parent

# How many calls may wait for the threads of the page; further ones are answered with 503.
_WAITING: Final = 32
# How many attempts to log in may be checked or wait, of all hosts and of one, and for how many seconds a failed one
# counts.
_ATTEMPTS: Final = 8
_ATTEMPTS_OF_HOST: Final = 4
_PENALTY: Final = 1.0
# For how many seconds a visitor waits for a page; an echo and a picture have shorter limits of their own.
_PATIENCE: Final = 30.0


class Needs(Enum):
    """What a visitor needs for a route.

    Attributes:
        NOTHING: The route is open to everybody, under every name of the host. It shows no patient data, and nothing
            that an attacker could use.
        NO_LOGIN: The route is open to everybody, but not to pages of other origins.
        LOGIN: The visitor has logged in, if the page has users. The route shows no patient data.
        PATIENTS: The visitor has logged in, or the operator has allowed that nobody logs in. The route shows patient
            data.
        OPERATOR: The same, and the visitor is one of the operators, if the page has such. The route changes something.
    """

    NOTHING = 0
    NO_LOGIN = 1
    LOGIN = 2
    PATIENTS = 3
    OPERATOR = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """The options of the status page.

    Attributes:
        listen: The Twisted endpoint that it is served at.
        users_file: The password file of its users; ``netdicom passwd`` writes it. None means that nobody logs in.
        operators: The users who may use the buttons; empty means all of them.
        allow_anonymous: Whether everybody who can reach the page may see patient data and use the buttons.
        hosts: The names under which the page is visited, apart from ``localhost`` and addresses.
        title: What the page is called; empty means the AE title.
        endpoints: Where the node serves peers, to be shown.
    """

    listen: str
    users_file: str | None = None
    operators: tuple[str, ...] = ()
    allow_anonymous: bool = False
    hosts: tuple[str, ...] = ()
    title: str = ""
    endpoints: tuple[str, ...] = ()


class PageError(Exception):
    """A request is refused; the visitor reads why.

    Args:
        code: The HTTP status.
        text: What was expected, and what to do.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Visit:
    """One request, and who makes it.

    Attributes:
        request: The request of :mod:`twisted.web`.
        user: The name of the visitor; None when nobody has logged in.
    """

    def __init__(self, web: Web, request: Any, arguments: Any = None) -> None:
        self.web = web
        self.request = request
        self._arguments = request.args if arguments is None else arguments
        value = (request.getCookie(web.cookie) or b"").decode("latin-1")
        self._value = value if web.sessions.is_value(value) else ""
        self.user = web.sessions.user(self._value) if self._value else None

    @property
    def may_see_patients(self) -> bool:
        """Whether the visitor may see patient data."""
        return self.user is not None or self.web.options.allow_anonymous

    @property
    def may_operate(self) -> bool:
        """Whether the visitor may use the buttons."""
        if self.user is None or self.web.accounts is None:
            return self.may_see_patients
        return self.web.accounts.may_operate(self.user)

    def is_current(self) -> bool:
        """Whether the visitor is still logged in as the same user."""
        return self.user is None or self.web.sessions.user(self._value) == self.user

    @property
    def token(self) -> str:
        """The token that each form has as ``token``; the visitor gets a cookie to go with it."""
        if not self._value:
            self._give_cookie()
        return self.web.sessions.token(self._value)

    def check_token(self) -> None:
        """Check that a form comes from a page of ours.

        Raises:
            PageError: It does not.
        """
        if not self._value or not self.web.sessions.is_token(self._value, self.argument("token")):
            raise PageError(403, "This form has expired. Go back, load the page again and repeat.")

    def log_in(self, user: str, password_hash: str) -> None:
        """Log the visitor in, under a new cookie, so that a cookie that somebody else has set is useless."""
        self._give_cookie()
        self.web.sessions.open(self._value, user, password_hash)
        self.user = user
        self.web.tell_login(user, self.host)

    def log_out(self) -> None:
        """Log the visitor out."""
        if self.user is not None:
            self.web.tell_logout(self.user, self.host)
        self.web.sessions.close(self._value)
        self.user = None
        self._give_cookie()

    @property
    def host(self) -> str:
        """The address that the visitor, or a reverse proxy, calls from."""
        return str(getattr(self.request.getClientAddress(), "host", "a local socket"))

    def _give_cookie(self) -> None:
        self._value = self.web.sessions.new_value()
        self.request.addCookie(
            self.web.cookie,
            self._value,
            path="/",
            httpOnly=True,
            secure=self.is_over_tls,
            sameSite="strict",
        )

    @property
    def is_over_tls(self) -> bool:
        """Whether the visitor speaks TLS, to the node or to a reverse proxy."""
        # A wrong value can only keep a cookie from being sent.
        return bool(self.request.isSecure()) or self.header("x-forwarded-proto") == "https"

    def header(self, name: str) -> str:
        """A header of the request; empty when there is none."""
        # Asked for octets, the request gives no text with halves of surrogate pairs.
        value: bytes | None = self.request.getHeader(name.encode())
        return "" if value is None else value.decode("latin-1")

    def argument(self, name: str, default: str = "") -> str:
        """A field of the query or of a form, without the spaces around it."""
        values = self._arguments.get(name.encode(), ())
        return values[0].decode("utf-8", "replace").strip() if values else default

    def number(self, name: str, default: int) -> int:
        """A field that is a whole number from 0 to a million; ``default`` when it is not."""
        text = self.argument(name)
        is_number = text.isascii() and text.isdecimal() and len(text) <= 6
        return int(text) if is_number else default

    def render(self, template: str, **values: Any) -> str:
        """A page, from a file in ``templates``."""
        found = self.web.templates.get_template(template)
        text = found.render(visit=self, web=self.web, **values)
        # A Specific Character Set that names a codec of Python can give half a surrogate pair.
        return text.encode("utf-8", "replace").decode("utf-8")

    def redirect(self, path: str) -> str:
        """Send the visitor to another page of ours, after a form."""
        self.request.setResponseCode(http.SEE_OTHER)
        self.request.setHeader("Location", path)
        return ""


_Handler = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Page:
    """A page that follows what happens while it is open.

    Attributes:
        needs: What a visitor needs for it.
        template: The file in ``templates``.
        parts: Those of its parts that change: files in ``templates/parts``.
        values: Gives the values for all of them; gets a :class:`Visit` and what the path names.
        version: Gives a value that changes when the parts may have changed; None means that they always may.
    """

    needs: Needs
    template: str
    parts: tuple[str, ...]
    values: _Handler
    version: Callable[[], Awaitable[object]] | None


class Web:
    """The routes of the status page, and what they share.

    Args:
        ae: The node.
        options: How the page is served.
        threads: How many threads work for the page; with 0 all work is done in the reactor's thread, which suits a
            test without a reactor.
    """

    _log = Logger()

    def __init__(self, ae: ArchiveAE, options: WebOptions, *, threads: int) -> None:
        self.ae = ae
        self.options = options
        self.title = options.title or ae.ae_title
        self.cookie = cookie_name(ae.ae_title, options.listen)
        #: Who may log in; None when nobody has to.
        self.accounts: Accounts | None = None
        self.sessions = Sessions(
            lambda: ae.clock.seconds(),
            lambda user: None if self.accounts is None else self.accounts.hash_of(user),
        )
        self.hosts = Hosts(options.hosts)
        self.threads = Workers("netdicom-web", threads)
        self._waiting = 0
        self._attempts: Counter[str] = Counter()  # by host
        self._portal: Portal | None = None
        if options.users_file is not None:
            self._portal = Portal(UserRealm(), [PasswordFile(options.users_file, self.threads.run)])
            self.accounts = Accounts(options.users_file, options.operators)
        self.templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self.templates.filters.update(FILTERS)
        self.templates.globals.update(link=link)
        self.klein = Klein()
        #: The pages that are followed, by the endpoint of their route.
        self.pages: dict[str, Page] = {}
        #: Tells what the node is doing; all pages take their figures from it.
        self.observe: Callable[[], Awaitable[Snapshot]] = ae.observations.current
        #: Called once when the page is no longer served, such as to end streams.
        self.at_end: list[Callable[[], None]] = []

    @property
    def has_users(self) -> bool:
        """Whether visitors log in."""
        return self._portal is not None

    def in_thread(self, call: Callable[..., _T], *arguments: Any) -> defer.Deferred[_T]:
        """Run blocking work in a thread of the page.

        Raises:
            PageError: Too much work waits already.
        """
        if self._waiting >= _WAITING:
            raise PageError(503, "The node is busy. Try again in a moment.")
        self._waiting += 1

        def done(result: Any) -> Any:
            self._waiting -= 1
            return result

        return self.threads.run(call, *arguments).addBoth(done)

    def prepare(self) -> None:
        """Compile the templates in a thread, because the first visit would otherwise hold up the reactor."""

        def compile_all() -> None:
            for name in self.templates.list_templates():
                self.templates.get_template(name)

        self.threads.run(compile_all).addErrback(
            lambda failure: self._log.failure("the templates cannot be compiled", failure)
        )

    # -- routes ------------------------------------------------------------------------------------

    def route(
        self, path: str, needs: Needs, *, methods: tuple[str, ...] = ("GET",), **options: Any
    ) -> Callable[[_Handler], _Handler]:
        """Register a route.

        The function gets a :class:`Visit`, and what the path names. It returns text (HTML unless it sets another
        Content-Type), octets, or an awaitable of these. It is called for a POST only if the form has the token of the
        visitor.

        Args:
            path: The path, as Klein writes it: ``/studies/<uid>``.
            needs: What the visitor needs.
            methods: The HTTP methods.
            options: Further arguments of ``Klein.route``.
        """

        def register(handler: _Handler) -> _Handler:
            async def guarded(request: Any, **values: Any) -> Any:
                visit = Visit(self, request)
                try:
                    refused = self.refuse(visit, needs)
                    if refused is not None:
                        return refused
                    result = await self._result(handler(visit, **values))
                except PageError as error:
                    return self.error(visit, error.code, str(error))
                except defer.CancelledError:
                    raise
                except (IndexUnavailableError, SearchEndedError) as error:
                    said = f"The database gives no answer: {error}."
                    return self.error(visit, 503, said)
                except Exception:
                    self._log.failure("{path} cannot be shown", path=path)
                    return self.error(
                        visit, 500, "This page cannot be shown. The log of the node says why."
                    )
                return result

            guarded.__name__ = f"{'_'.join(methods)} {path}"
            self.klein.route(path, methods=list(methods), endpoint=guarded.__name__, **options)(
                guarded
            )
            return handler

        return register

    async def _result(self, result: Any) -> Any:
        """The result of a handler. A coroutine that takes too long is given up; a stream may last.

        Raises:
            PageError: It takes too long.
        """
        if isinstance(result, Coroutine):
            result = defer.Deferred.fromCoroutine(result).addTimeout(_PATIENCE, self.ae.clock)
        try:
            return await result if isinstance(result, Awaitable) else result
        except defer.TimeoutError as error:
            raise PageError(
                503, f"The node has no answer after {_PATIENCE:g} seconds. Try again in a moment."
            ) from error

    def page(
        self,
        path: str,
        needs: Needs,
        template: str,
        parts: tuple[str, ...] = (),
        version: Callable[[], Awaitable[object]] | None = None,
    ) -> Callable[[_Handler], _Handler]:
        """Register a page; the function gives the values for its template.

        Args:
            path: As for :meth:`route`, as are ``needs``.
            template: As for :class:`Page`, as are ``parts`` and ``version``.
        """

        def register(handler: _Handler) -> _Handler:
            async def show(visit: Visit, **named: Any) -> str:
                return visit.render(template, **await handler(visit, **named))

            self.route(path, needs)(show)
            self.pages[f"GET {path}"] = Page(needs, template, parts, handler, version)
            return handler

        return register

    def refuse(self, visit: Visit, needs: Needs) -> Any:
        """Why a visitor may not use a route: a page, or None.

        Raises:
            PageError: The visitor may not use it, and there is no page to go to.
        """
        if needs is not Needs.NOTHING and not self.hosts.knows(visit.header("host")):
            raise PageError(
                421,
                f"This page is not served under the name {visit.header('host')!r:.100}. Use an address, or name "
                "the host in the configuration: hosts in [http], or --http-host.",
            )
        if visit.request.method == b"POST":
            self._check_origin(visit)
            visit.check_token()
        is_for_users = needs in (Needs.LOGIN, Needs.PATIENTS, Needs.OPERATOR)
        if is_for_users and self.has_users and visit.user is None:
            if visit.request.method != b"GET" or visit.header("accept") == "text/event-stream":
                raise PageError(401, "Log in first.")
            there = visit.request.uri.decode("latin-1")
            return visit.redirect("/login" if there == "/" else f"/login?next={quote(there, '')}")
        if needs in (Needs.PATIENTS, Needs.OPERATOR) and not visit.may_see_patients:
            raise PageError(
                403,
                "Patient data and the buttons are for users who have logged in. Name a password file in the "
                "configuration: users_file in [http], or --http-users. With allow_anonymous, or --http-anonymous, "
                "everybody who can reach the page may see and use them.",
            )
        if needs is Needs.OPERATOR and not visit.may_operate:
            raise PageError(
                403,
                f"{visit.user} may look, and only operators may use the buttons. Name them in the configuration: "
                "operators in [http], or --http-operator.",
            )
        return None

    def _check_origin(self, visit: Visit) -> None:
        """Check what the browser says of the page that a form comes from.

        Raises:
            PageError: The form comes from another origin.
        """
        site = visit.header("sec-fetch-site")
        origin = visit.header("origin")
        is_ours = not origin or _place_of(origin) == visit.header("host")
        if site not in ("", "same-origin", "none") or not is_ours:
            raise PageError(403, "This form does not come from a page of this node.")

    def error(self, visit: Visit, code: int, text: str) -> str:
        """A page that says why a request is refused."""
        visit.request.setResponseCode(code)
        return visit.render("error.html", code=code, text=text)

    # -- logins ------------------------------------------------------------------------------------

    async def check_password(self, user: str, password: str, host: str) -> str | None:
        """The hash of a password when it is right, else None; a wrong one takes a second longer.

        Raises:
            PageError: Too many attempts are being checked, or too many of this host, which must not lock out others.
        """
        assert self._portal is not None  # otherwise there is no form
        assert self.accounts is not None
        if self._attempts.total() >= _ATTEMPTS or self._attempts[host] >= _ATTEMPTS_OF_HOST:
            raise PageError(429, "Too many attempts to log in. Try again in a moment.")
        self._attempts[host] += 1
        # When the password changes meanwhile, the session has the former one and is worth nothing.
        password_hash = self.accounts.hash_of(user)
        try:
            await self._portal.login(
                UsernamePassword(user.encode(), password.encode()), None, IUser
            )
        except (LoginFailed, LocalProtocolError) as error:
            self._log.warn(
                "status page: a login from {host} is refused: {why}",
                host=host,
                why=str(error) or "wrong user or password",
            )
            if self.ae.auditor is not None:
                self.ae.auditor.visitor(user, host, is_accepted=False)
            await deferLater(self.ae.clock, _PENALTY)
            return None
        finally:
            self._attempts[host] -= 1
            if not self._attempts[host]:
                del self._attempts[host]
        return password_hash

    # -- who has done what -------------------------------------------------------------------------

    def tell_login(self, user: str, host: str) -> None:
        """Log and audit that a visitor has logged in."""
        self._log.info("status page: {user} has logged in from {host}", user=user, host=host)
        if self.ae.auditor is not None:
            self.ae.auditor.visitor(user, host)

    def tell_logout(self, user: str, host: str) -> None:
        """Log and audit that a visitor has logged out."""
        self._log.info("status page: {user} has logged out", user=user)
        if self.ae.auditor is not None:
            self.ae.auditor.visitor(user, host, is_logout=True)

    def tell_use(self, visit: Visit, what: str) -> None:
        """Log and audit that a button was used.

        Args:
            what: What has happened, in words that come behind the name of the visitor and a colon.
        """
        self._log.info(
            "status page: {user} at {host}: {what}",
            user=visit.user or "a visitor",
            host=visit.host,
            what=what,
            event="button",
        )
        if self.ae.auditor is not None:
            self.ae.auditor.operated(visit.user or "", visit.host, what)

    def resource(self) -> Resource:
        """The root of all routes, for a site of :mod:`twisted.web`."""
        return _Root(self)


class _Root(Resource):
    """Checks the form of a request, and sets the headers of every response."""

    isLeaf = True

    def __init__(self, web: Web) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._web = web
        self._routes = web.klein.resource()
        web.klein.handle_errors(HTTPException)(self._not_found)

    def _not_found(self, request: Any, failure: Failure) -> Any:
        error: Any = failure.value
        if not 400 <= (error.code or 0) < 500:  # a redirect of werkzeug
            request.setResponseCode(404)
            return b"Not found\n"
        if error.code == 405:
            # RFC 9110 15.5.6: the answer tells what is allowed.
            request.setHeader("Allow", ", ".join(sorted(error.valid_methods or ())))
        text = {404: "There is no such page.", 405: "This page cannot be used in that way."}
        return self._web.error(
            Visit(self._web, request), error.code, text.get(error.code, error.name)
        )

    def render(self, request: Any) -> Any:
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        request.setHeader("Server", "netdicom_tx")
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        try:
            request.path.decode("ascii")
            b"/".join(request.postpath).decode("utf-8")
            host = (request.getHeader(b"host") or b"").decode("ascii")
        except UnicodeDecodeError:
            host = ""
        if not host or any(each in host for each in "/\\@?# "):
            request.setResponseCode(400)
            request.setHeader("Content-Type", "text/plain")
            return b"Expected a path and a Host header as in RFC 9110.\n"
        return self._routes.render(request)


def _place_of(origin: str) -> str | None:
    """The host and the port of an origin; None when it is not one."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def link(path: str, **arguments: Any) -> str:
    """A path with a query, without the arguments that are empty."""
    query = urlencode({name: value for name, value in arguments.items() if value not in ("", None)})
    return f"{path}?{query}" if query else path


def inside(path: str) -> str:
    """A path of this page to go to; ``/`` when it could be another site."""
    is_ours = path.startswith("/") and path.isprintable() and not {"\\"}.intersection(path)
    return path if is_ours and not path.startswith("//") else "/"
