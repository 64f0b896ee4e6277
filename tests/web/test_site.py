"""Who gets in, and what every response has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from netdicom_tx.passwords import write_password
from netdicom_tx.remoteae import RemoteAE
from netdicom_tx.web.security import HEADERS, Hosts, Sessions
from netdicom_tx.web.site import Needs, inside, link
from support.archive.archives import Archive
from support.doubles import LoggedFailures
from support.doubles import logged_failures as noted_failures  # noqa: F401 - a fixture
from support.doubles import logged_lines as noted_lines  # noqa: F401 - a fixture
from support.web import Browser

Make = Callable[..., Browser]


@pytest.mark.parametrize("path", ["/", "/login", "/nowhere", "/static/page.css", "/static/nowhere"])
def test_every_response_has_the_headers(page: Make, path: str) -> None:
    headers = page().get(path).headers
    for name, value in HEADERS.items():
        if (name, path) != ("Cache-Control", "/static/page.css"):
            assert headers[name.lower()] == value
    assert "twisted" not in headers["server"].lower()


def test_pages_are_not_kept_by_caches(page: Make) -> None:
    assert page().get("/").headers["cache-control"] == "no-store"


def test_a_page_has_neither_scripts_nor_styles_in_itself(page: Make, users: str) -> None:
    """The Content-Security-Policy would stop them."""
    for text in (page().get("/").text, page(users_file=users).get("/login").text):
        assert "style=" not in text
        assert "<style" not in text
        assert "onclick" not in text
        assert text.count("<script") == text.count('<script src="/static/')


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "127.0.0.1:8042", "[::1]:8042", "10.1.2.3"]
)
def test_a_host_that_no_other_origin_can_have_is_known(host: str) -> None:
    """DNS rebinding works with names only."""
    assert Hosts().knows(host)


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example", "1.2.3.4.evil", "[::1", "a b"]
)
def test_another_host_is_not_known(host: str) -> None:
    assert not Hosts().knows(host)
    assert not Hosts(["pacs.example"]).knows(host)


def test_the_name_of_a_reverse_proxy_is_known_when_it_is_configured(page: Make) -> None:
    assert page().get("/", host="pacs.example").code == 421
    assert page(hosts=("pacs.example",)).get("/", host="PACS.example:443").code == 200


@pytest.mark.parametrize("host", ["", "evil/x", "a@b", "\u00fc"])
def test_a_request_without_a_proper_host_is_refused(page: Make, host: str) -> None:
    assert page().get("/", host=host).code == 400


@pytest.mark.parametrize("path", ["/%ff", "/static/%c3%28"])
def test_a_path_that_is_not_utf_8_is_refused(page: Make, path: str) -> None:
    assert page().get(path).code == 400


def test_a_page_with_users_asks_for_a_login(page: Make, users: str) -> None:
    browser = page(users_file=users)
    answer = browser.get("/?name=DOE")
    assert (answer.code, answer.headers["location"]) == (303, "/login?next=%2F%3Fname%3DDOE")
    assert browser.get("/").headers["location"] == "/login"


def test_a_user_with_the_password_gets_in(page: Make, users: str) -> None:
    browser = page(users_file=users)
    answer = browser.log_in("anna", "secret")
    assert (answer.code, answer.headers["location"]) == (303, "/")
    assert browser.get("/").code == 200
    assert browser.get("/login").code == 303


def test_the_cookie_is_for_this_page_alone(page: Make, users: str) -> None:
    browser = page(users_file=users)
    flags = {
        each.strip().lower() for each in browser.get("/login").headers["set-cookie"].split(";")[1:]
    }
    assert {"httponly", "samesite=strict", "path=/"} <= flags
    assert "secure" not in flags
    browser = page(users_file=users)
    assert (
        "secure" in browser.get("/login", x_forwarded_proto="https").headers["set-cookie"].lower()
    )


def test_a_login_gives_a_new_cookie(page: Make, users: str) -> None:
    """Otherwise whoever has set the cookie would be logged in, too (session fixation)."""
    browser = page(users_file=users)
    browser.get("/login")
    before = browser.cookie
    browser.post("/login", user="anna", password="secret")
    assert browser.cookie != before
    browser.cookie = before
    assert browser.get("/").code == 303


@pytest.mark.parametrize(("user", "password"), [("anna", "wrong"), ("bert", "secret"), ("", "")])
def test_wrong_credentials_are_refused(
    page: Make, node: Archive, users: str, user: str, password: str
) -> None:
    """A second later, which is what an attempt costs."""
    browser = page(users_file=users)
    clock = node.ae.clock
    assert isinstance(clock, Clock)
    browser.get("/login")
    octets = f"token={browser.token}&user={user}&password={password}".encode()
    transport = browser.send(
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nCookie: %b\r\nContent-Length: %d\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\n%b"
        % (browser.cookie.encode(), len(octets), octets)
    )
    assert transport.value() == b""
    clock.advance(1)
    assert transport.value().startswith(b"HTTP/1.1 401 ")
    assert b"Wrong user or password" in transport.value()
    assert browser.get("/").code == 303


def test_attempts_to_log_in_are_bounded(page: Make, users: str) -> None:
    """Each costs 32 MiB and 0.2 seconds of a thread."""
    browser = page(users_file=users)
    web = browser.service.web
    browser.get("/login")
    web._attempts["192.0.2.1"] = 8
    assert browser.post("/login", user="anna", password="secret").code == 429


def test_a_host_cannot_lock_out_others(page: Make, users: str) -> None:
    """Whoever guesses passwords from one host takes half of the places."""
    browser = page(users_file=users)
    attempts = browser.service.web._attempts
    browser.get("/login")
    attempts["192.0.2.7"] = 4  # the browser's
    assert browser.post("/login", user="anna", password="secret").code == 429
    del attempts["192.0.2.7"]
    attempts["192.0.2.1"] = 4
    assert browser.post("/login", user="anna", password="secret").code == 303
    assert attempts == {"192.0.2.1": 4}


def test_a_user_who_logs_out_is_out(page: Make, users: str) -> None:
    browser = page(users_file=users)
    browser.log_in("anna", "secret")
    browser.get("/")
    cookie = browser.cookie
    assert browser.post("/logout").code == 303
    browser.cookie = cookie
    assert browser.get("/").code == 303


@pytest.mark.parametrize("token", ["", "0" * 64, "\u00fc"])
def test_a_form_without_its_token_is_refused(page: Make, users: str, token: str) -> None:
    """A page of another origin does not know it (CSRF)."""
    browser = page(users_file=users)
    browser.get("/login")
    assert browser.post("/login", token=token, user="anna", password="secret").code == 403


def test_a_token_belongs_to_one_visitor(page: Make, users: str) -> None:
    browser = page(users_file=users)
    browser.get("/login")
    other = Browser(browser.service)
    other.get("/login")
    assert browser.post("/login", token=other.token, user="anna", password="secret").code == 403
    browser.cookie = ""
    assert browser.post("/login", user="anna", password="secret").code == 403


@pytest.mark.parametrize(
    "header",
    [
        *({"origin": each} for each in ("http://evil.example", "null", "http://[", "http://[x]")),
        {"sec_fetch_site": "cross-site"},
    ],
)
def test_a_form_of_another_origin_is_refused(
    page: Make, users: str, header: dict[str, str]
) -> None:
    browser = page(users_file=users)
    browser.log_in("anna", "secret")
    browser.get("/")
    body = f"token={browser.token}".encode()
    assert browser.ask("POST", "/logout", body, **header).code == 403
    same = {"origin": "http://127.0.0.1:8042", "sec_fetch_site": "same-origin"}
    assert browser.ask("POST", "/logout", body, **same).code == 303


@pytest.mark.parametrize(
    "head", ["GET /metrics _ Authorization: Basic \xff", "POST /login _ Origin: http://\xff"]
)
def test_a_header_with_any_octets_is_refused(page: Make, users: str, head: str) -> None:
    request = head.replace("_", "HTTP/1.1\r\nHost: localhost\r\n") + "\r\n\r\n"
    answer = page(users_file=users).send(request.replace("\n ", "\n").encode("latin-1")).value()
    assert answer.split()[1] in (b"401", b"403")


@pytest.fixture
def own_users(tmp_path: Path) -> Path:
    """A password file with ``anna`` and ``bert``, which a test may change."""
    path = tmp_path / "users"
    for user in ("anna", "bert"):
        write_password(path, user, "secret")
    return path


def test_a_session_ends_when_the_password_changes(page: Make, own_users: Path) -> None:
    """Other sessions go on, and so does this one when the user logs in with the new password."""
    first = page(users_file=str(own_users))
    second = Browser(first.service)
    first.log_in("anna", "secret")
    second.log_in("bert", "secret")
    assert (first.get("/").code, second.get("/").code) == (200, 200)
    write_password(own_users, "anna", "another")
    assert (first.get("/").code, second.get("/").code) == (303, 200)
    assert first.log_in("anna", "another").code == 303
    assert first.get("/").code == 200


def test_a_session_ends_when_its_user_is_removed(page: Make, own_users: Path) -> None:
    browser = page(users_file=str(own_users))
    browser.log_in("anna", "secret")
    (line,) = (each for each in own_users.read_text().splitlines() if each.startswith("bert:"))
    own_users.write_text(f"{line}\n")
    assert browser.get("/").code == 303


def test_nobody_gets_in_while_the_password_file_cannot_be_read(
    page: Make, own_users: Path, failures: LoggedFailures
) -> None:
    """It may be written just now, so sessions go on when it is there again."""
    browser = page(users_file=str(own_users))
    browser.log_in("anna", "secret")
    text = own_users.read_text()
    for wrong in ("nonsense\n", None):
        own_users.unlink() if wrong is None else own_users.write_text(wrong)
        assert browser.get("/").code == 303
        assert browser.get("/").code == 303
    (said,) = failures.texts()
    assert "nobody can use it" in said
    own_users.write_text(text)
    assert browser.get("/").code == 200


def test_a_login_with_a_password_that_changes_meanwhile_is_worth_nothing(
    page: Make, own_users: Path
) -> None:
    browser = page(users_file=str(own_users))
    portal: Any = browser.service.web._portal
    login = portal.login

    def meanwhile(*arguments: Any) -> Any:
        found = login(*arguments)
        write_password(own_users, "anna", "another")
        return found

    portal.login = meanwhile
    assert browser.log_in("anna", "secret").code == 303
    assert browser.get("/").headers["location"] == "/login"


def test_only_operators_have_buttons_and_may_use_them(
    page: Make, node: Archive, own_users: Path
) -> None:
    """The others see everything."""
    node.ae.peers["PACS"] = RemoteAE("PACS", "tcp:pacs.example:104")
    browser = page(users_file=str(own_users), operators=("anna",))
    browser.log_in("bert", "secret")
    for path in ("/peers", "/queue", "/studies", "/worklist"):
        answer = browser.get(path)
        assert answer.code == 200
        assert 'method="post"' not in answer.text.partition("<main")[2]
    for path in ("/peers/echo", "/queue/retry", "/queue/drop"):
        answer = browser.post(path, title="PACS", task="1")
        assert answer.code == 403
        assert "bert may look, and only operators may use the buttons" in answer.shows()
    browser.post("/logout")
    browser.log_in("anna", "secret")
    assert "Echo PACS" in browser.get("/peers").text
    assert browser.post("/queue/retry").code == 303


def test_a_method_that_is_not_allowed_is_told_which_ones_are(page: Make) -> None:
    """RFC 9110 15.5.6."""
    browser = page()
    for method in ("POST", "PUT", "OPTIONS", "DELETE"):
        answer = browser.ask(method, "/studies")
        assert (answer.code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert browser.get("/queue/retry").headers["allow"] == "POST"


def test_every_route_answers_at_once(page: Make, node: Archive) -> None:
    """A stream, too, when only its head is asked for."""
    browser = page()
    for rule in list(browser.service.web.klein.url_map.iter_rules()):
        path = rule.rule.replace("<key>", "1-000000000000").replace("<name>", "page.css")
        for method in ("GET", "HEAD", "POST", "PUT", "OPTIONS", "TRACE", "NONSENSE"):
            assert browser.ask(method, path).code > 0
    transport = browser.send(
        b"HEAD /events?page=/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
        b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    clock = node.ae.clock
    assert isinstance(clock, Clock)
    clock.advance(0)
    assert b"text/event-stream" in transport.value()
    assert b"alive\n" in transport.value()


def test_a_page_that_takes_too_long_is_given_up(page: Make, node: Archive) -> None:
    browser = page()

    async def wait(_: object) -> str:
        return await defer.Deferred()

    browser.service.web.route("/slow", Needs.LOGIN)(wait)
    transport = browser.send(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert transport.value() == b""
    clock = node.ae.clock
    assert isinstance(clock, Clock)
    clock.advance(30)
    assert transport.value().startswith(b"HTTP/1.1 503 ")
    assert b"no answer after 30 seconds" in transport.value()


def test_a_session_ends_when_it_is_not_used() -> None:
    clock = Clock()
    sessions = Sessions(clock.seconds, lambda _: "hash")
    sessions.open("value", "anna", "hash")
    clock.advance(3600)
    assert sessions.user("value") == "anna"
    clock.advance(3601)
    assert sessions.user("value") is None
    assert len(sessions) == 0


def test_a_session_ends_after_half_a_day() -> None:
    clock = Clock()
    sessions = Sessions(clock.seconds, lambda _: "hash")
    sessions.open("value", "anna", "hash")
    for _ in range(12):
        clock.advance(3600)
        assert sessions.user("value") == "anna"
    clock.advance(1)
    assert sessions.user("value") is None


def test_the_oldest_session_gives_way() -> None:
    clock = Clock()
    sessions = Sessions(clock.seconds, lambda _: "hash")
    for number in range(1001):
        sessions.open(f"value {number}", "anna", "hash")
        clock.advance(1)
    assert len(sessions) == 1000
    assert sessions.user("value 0") is None
    assert sessions.user("value 1000") == "anna"


def test_a_large_body_is_refused_before_it_comes(page: Make) -> None:
    browser = page()
    for length in (b"Content-Length: 65537", b"Transfer-Encoding: chunked"):
        transport = browser.send(b"POST /login HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % length)
        assert transport.value().startswith(b"HTTP/1.1 413 ")
        assert transport.disconnecting


def test_connections_are_bounded(page: Make) -> None:
    browser = page()
    waiting: defer.Deferred[str] = defer.Deferred()
    browser.service.web.route("/waits", Needs.NOTHING)(lambda visit: waiting)
    for _ in range(64):
        browser.send(b"GET /waits HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert browser.service.factory.buildProtocol(None) is None


def test_peers_are_served_between_requests_that_come_at_once(page: Make, node: Archive) -> None:
    browser = page()
    clock = node.ae.clock
    assert isinstance(clock, Clock)
    octets = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3
    transports = [browser.send(octets), browser.send(octets)]
    assert [each.value().count(b" 200 OK") for each in transports] == [1, 1]
    clock.advance(0)
    assert [each.value().count(b" 200 OK") for each in transports] == [3, 3]


def test_a_request_whose_browser_has_gone_is_not_answered(page: Make, node: Archive) -> None:
    browser = page()
    clock = node.ae.clock
    assert isinstance(clock, Clock)
    calls: list[object] = []

    def count(visit: object) -> str:
        calls.append(visit)
        return ""

    browser.service.web.route("/counts", Needs.NOTHING)(count)
    browser.send(b"GET /counts HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
    (connection,) = browser.service.factory.protocols
    connection.connectionLost(Failure(ConnectionDone()))
    clock.advance(0)
    clock.advance(0)
    assert len(calls) == 1


def test_a_connection_without_a_request_gives_way(page: Make) -> None:
    """Health checks are answered although somebody sends many requests very slowly."""
    browser = page()
    answered = browser.send(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    slow = [browser.send(b"GET /live HTTP/1.1\r\nHost:") for _ in range(63)]
    following = browser.send(b"GET /events?page=/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answered.disconnected
    for _ in range(70):
        assert browser.get("/live").code == 200
    assert all(each.disconnected for each in slow)
    assert not following.disconnected


def test_the_log_has_no_line_for_a_request(page: Make, lines: list[str]) -> None:
    """Queries name patients."""
    page().get("/nowhere?name=DOE")
    assert lines == []


def test_a_page_that_fails_says_so_without_a_traceback(
    page: Make, failures: LoggedFailures
) -> None:
    browser = page()

    def fail(visit: object) -> str:
        raise ZeroDivisionError("PATIENT^NAME")

    browser.service.web.route("/fails", Needs.LOGIN)(fail)
    answer = browser.get("/fails")
    assert answer.code == 500
    assert "PATIENT" not in answer.text
    assert failures.texts() == ["PATIENT^NAME"]


@pytest.mark.parametrize(
    "path", ["", "studies", "//evil.example", "https://evil.example", "/\\evil", "/a\nb"]
)
def test_a_login_leads_to_no_other_site(path: str) -> None:
    assert inside(path) == "/"
    assert inside("/studies?name=DOE") == "/studies?name=DOE"


def test_a_link_leaves_out_what_is_empty() -> None:
    assert link("/studies", name="DOE^J", date="", page=None) == "/studies?name=DOE%5EJ"
    assert link("/studies", name="") == "/studies"


#: What is open to everybody: files without content of the node, the login, and whether the node is well.
OPEN = {"/static/<name>", "/favicon.ico", "/login", "/logout", "/live", "/ready"}


def test_no_route_is_open_by_accident(page: Make, users: str) -> None:
    """A visitor who has not logged in gets nothing but what is listed here."""
    browser = page(users_file=users)
    rules = list(browser.service.web.klein.url_map.iter_rules())
    assert len(rules) > 15
    for rule in rules:
        path = rule.rule.replace("<key>", "1-000000000000").replace("<name>", "page.css")
        for method in (rule.methods or set()) - {"OPTIONS"}:
            answer = browser.ask(method, path)
            if rule.rule not in OPEN:
                assert answer.code in (303, 401, 403, 404), (method, rule.rule)
                assert "Throughput" not in answer.text
            if method == "POST":
                assert answer.code == 403, rule.rule


def test_a_head_request_has_no_body(page: Make) -> None:
    answer = page().ask("HEAD", "/studies")
    assert (answer.code, answer.body) == (200, b"")
