"""The pages about the node: what they show, and what their buttons do."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from xml.etree.ElementTree import Element

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock

from netdicom_tx import RemoteAE
from netdicom_tx.archive.auditing import Auditor, this_process
from netdicom_tx.archive.snapshots import Minute, Snapshot
from netdicom_tx.archive.workflow.outbound import DEAD, WAITING, task_table
from netdicom_tx.archive.workflow.worklist_sources import WorklistTable
from netdicom_tx.audit_trails import FileTrail
from netdicom_tx.exceptions import AssociationRejectedError
from netdicom_tx.web import pages
from netdicom_tx.web.formats import ago, clock, day, hour, lasting, number, octets, person, place
from netdicom_tx.web.plot import HEIGHT, WIDTH, plot_of
from support.archive.archives import Archive
from support.archive.patients import data_set
from support.audit_schema import checked
from support.doubles import logged_failures as noted_failures  # noqa: F401 - a fixture
from support.doubles import logged_lines as logged_lines
from support.web import ATTACK, Browser, check

Make = Callable[..., Browser]
PAGES = ["/", "/studies", "/worklist", "/queue", "/peers"]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_well_formed(page: Make, path: str) -> None:
    answer = page().get(path)
    assert answer.code == 200
    check(answer.text)


def test_the_login_is_well_formed(page: Make, users: str) -> None:
    answer = page(users_file=users).get("/login")
    check(answer.text)
    assert "<nav" not in answer.text


@pytest.mark.parametrize(
    "path", ["/nowhere", "/studies/7", "/series/7", "/instances/7", "/studies/x"]
)
def test_what_is_not_there_is_said_in_words(page: Make, path: str) -> None:
    answer = page().get(path)
    assert answer.code == 404
    check(answer.text)


def test_a_wrong_method_is_said_in_words(page: Make) -> None:
    assert page().get("/queue/retry").code == 405


@pytest.mark.parametrize("path", ["/studies", "/worklist", "/studies/1", "/instances/1/picture"])
def test_without_users_patients_are_not_shown(page: Make, path: str) -> None:
    """Unless the operator allows it."""
    answer = page(allow_anonymous=False).get(path)
    assert answer.code == 403
    assert "users_file" in answer.text


def test_without_users_figures_are_shown_and_buttons_are_not(page: Make, node: Archive) -> None:
    add_task(node)
    node.ae.peers["PACS"] = RemoteAE("PACS", "tcp:pacs.example:104")
    browser = page(allow_anonymous=False)
    for path in ("/", "/queue", "/peers"):
        answer = browser.get(path)
        assert answer.code == 200
        assert "<form" not in answer.text
    browser.token = "0" * 64
    assert browser.post("/queue/retry").code == 403
    assert browser.post("/peers/echo", title="PACS").code == 403


def test_static_files_have_their_types(page: Make) -> None:
    browser = page()
    for name, kind in (
        ("page.css", "text/css"),
        ("page.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    ):
        answer = browser.get(f"/static/{name}")
        assert (answer.code, answer.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
        assert "max-age" in answer.headers["cache-control"]
    for name in ("..%2fsite.py", "%2e%2e/site.py", "layout.html"):
        assert browser.get(f"/static/{name}").code == 404
    assert browser.get("/favicon.ico").headers["location"] == "/static/icon.svg"


def test_the_stylesheet_is_small_and_loads_nothing() -> None:
    folder = Path(pages.__file__).parent / "static"
    for path in folder.iterdir():
        text = path.read_text("utf-8")
        assert len(text) < 20_000
        assert "@import" not in text
        assert "url(" not in text


# -- overview ----------------------------------------------------------------------------------------


def told(browser: Browser, **parts: Any) -> None:
    """Let the node say something else about itself."""
    service = browser.service

    async def observe() -> Snapshot:
        snapshot: Any = dict(await service.web.ae.observations.current())
        snapshot.update(parts)
        return cast(Snapshot, snapshot)

    service.web.observe = observe


def association(**values: Any) -> dict[str, Any]:
    return {
        "pid": 1,
        "peer": "192.0.2.1:104",
        "title": "CT1",
        "calling": "CT1",
        "called": "NODE",
        "role": "acceptor",
        "state": "open",
        "since": 0.0,
        "operations": ["C-STORE"],
        "performed": {"C-STORE": 12},
        "requested": {},
        "received": 6_300_000,
        "sent": 2000,
        "receiving": 1_500_000.0,
        "sending": 0.0,
        **values,
    }


def live(*rows: dict[str, Any]) -> dict[str, Any]:
    return {
        "live": list(rows),
        "limit": 100,
        "accepted": {"acceptor": 3},
        "ended": {},
        "refused": {},
        "requested": {},
        "received": 0,
        "sent": 0,
    }


def test_the_overview_shows_what_peers_do(page: Make) -> None:
    browser = page(title="The archive", endpoints=("tcp:104",))
    rows = [
        association(),
        association(title="PACS", calling="NODE", called="PACS", role="requestor", operations=[]),
        association(title="", state="requested", operations=[]),
        association(operations=["C-GET", "C-STORE", "C-STORE", "C-STORE"]),
    ]
    told(browser, associations=live(*rows))
    shown = browser.get("/").shows()
    for text in (
        "The archive",
        "every address:104",
        "4 open",
        "CT1 192.0.2.1:104",
        "calls as NODE",
        "called by NODE",
    ):
        assert text in shown
    assert "6.30 MB 1.50 MB/s" in shown
    assert "idle" in shown
    assert "requested" in shown
    assert "+1" in shown


def test_the_overview_shows_some_of_many_associations(page: Make) -> None:
    browser = page()
    told(browser, associations=live(*[association()] * 60))
    assert "10 more are open" in browser.get("/").shows()


def test_the_overview_shows_refusals_and_what_to_do(page: Make) -> None:
    browser = page()
    refused = {
        "time": 0.0,
        "count": 3,
        "peer": "192.0.2.9:5000",
        "title": "CT9",
        "kind": "calling title",
        "verb": "rejected",
        "reason": "calling AE title CT9 came; expected a peer",
        "hint": "add a [[peer]] table",
    }
    told(browser, refusals=[refused])
    shown = browser.get("/").shows()
    assert "CT9 192.0.2.9:5000" in shown
    assert "3 times" in shown
    assert "rejected calling AE title CT9 came; expected a peer add a [[peer]] table" in shown


def test_the_overview_says_why_the_node_is_not_ready(page: Make) -> None:
    browser = page()
    told(browser, health={"ready": False, "state": "draining", "reasons": ["the node is draining"]})
    assert "Not ready. the node is draining" in browser.get("/").shows()


def test_the_overview_warns_of_a_disk_that_fills(page: Make) -> None:
    browser = page()
    told(
        browser,
        disk={
            "time": 0.0,
            "total": 100_000_000_000,
            "free": 1_500_000_000,
            "reserve": 1_000_000_000,
        },
        storage={"time": 0.0, "patients": 1, "studies": 2, "series": 3, "instances": 4, "size": 5},
        queue={"time": 0.0, "waiting": 0, "running": 0, "dead": 2, "oldest": None},
        forecast={"watched": 7200.0, "per_day": 1e9, "full_at": 9e9},
        intake={"arriving": 0, "instances": 2, "octets": 1000, "lag": 0.0, "trouble": ""},
        reactor={"busy": 0.0, "longest": 0.0, "recent": 0.012, "held_up": 0},
    )
    answer = browser.get("/")
    shown = answer.shows()
    for text in ("1.50 GB", "full in", "1.00 GB a day", "2 dead", "2 (1.00 kB)", "12 ms"):
        assert text in shown
    check(answer.text)


def test_every_text_of_a_peer_is_shown_as_text(page: Make, node: Archive) -> None:
    """A peer chooses its title, what it is refused for names it, and errors have its words."""
    node.ae.peers[ATTACK] = RemoteAE("PACS", "tcp:pacs.example:104")
    add_task(node, destination=ATTACK, kind=ATTACK, error=ATTACK)
    browser = page(title=ATTACK, endpoints=(ATTACK,))
    refused = dict.fromkeys(("peer", "title", "kind", "verb", "reason", "hint"), ATTACK)
    told(
        browser,
        associations=live(
            association(
                peer=ATTACK,
                title=ATTACK,
                calling=ATTACK,
                called=ATTACK,
                state=ATTACK,
                operations=[ATTACK],
            )
        ),
        refusals=[{"time": 0.0, "count": 1, **refused}],
        health={"ready": False, "state": ATTACK, "reasons": [ATTACK]},
    )
    for path in (
        "/",
        "/queue",
        "/peers",
        f"/worklist?q={ATTACK.replace(' ', '+').replace('&', '%26')}",
    ):
        answer = browser.get(path)
        assert answer.code == 200
        check(answer.text)
        assert ATTACK in answer.shows()


# -- queue -------------------------------------------------------------------------------------------


def add_task(
    node: Archive,
    *,
    state: str = DEAD,
    destination: str = "PACS",
    kind: str = "unknown",
    error: str = "no answer",
) -> int:
    queue = node.ae.workflow.queue

    def put(connection: Any) -> int:
        made = queue.put(connection, kind, destination, {}, after=600)
        connection.execute(
            task_table.update()
            .where(task_table.c.id == made)
            .values(state=state, last_error=error, attempt=80)
        )
        return made

    return node.index.write(put).result(10)


def test_the_queue_shows_tasks_dead_ones_first(page: Make, node: Archive) -> None:
    add_task(node, state=WAITING, destination="FIRST")
    add_task(node, destination="SECOND")
    shown = page().get("/queue").shows()
    assert shown.index("SECOND") < shown.index("FIRST")
    assert "no answer" in shown
    assert "in 9" in shown.replace("10 min", "9 min")


def test_a_dead_task_is_retried(page: Make, node: Archive) -> None:
    task, other = add_task(node), add_task(node)
    browser = page()
    browser.get("/queue")
    answer = browser.post("/queue/retry", task=str(task))
    assert (answer.code, answer.headers["location"]) == (303, "/queue")
    assert [(each.id, each.state) for each in node.ae.workflow.queue.list()] == [
        (task, WAITING),
        (other, DEAD),
    ]


def test_all_dead_tasks_are_retried(page: Make, node: Archive) -> None:
    add_task(node)
    add_task(node)
    browser = page()
    browser.get("/queue")
    browser.post("/queue/retry")
    assert {each.state for each in node.ae.workflow.queue.list()} == {WAITING}


def test_a_task_is_dropped(page: Make, node: Archive) -> None:
    task = add_task(node)
    browser = page()
    browser.get("/queue")
    assert browser.post("/queue/drop", task=str(task)).code == 303
    assert node.ae.workflow.queue.list() == []


def test_a_drop_without_a_task_drops_nothing(page: Make, node: Archive) -> None:
    add_task(node)
    browser = page()
    browser.get("/queue")
    browser.post("/queue/drop", task="all")
    assert len(node.ae.workflow.queue.list()) == 1


# -- peers -------------------------------------------------------------------------------------------


def echoing(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Any]) -> list[str]:
    """Let C-ECHO end in some way; the list has the titles that were called."""
    called: list[str] = []

    def echo(peer: RemoteAE, *, ae: str) -> defer.Deferred[Any]:
        called.append(peer.ae_title)
        return defer.maybeDeferred(answer)

    monkeypatch.setattr(pages, "echo", echo)
    return called


def with_peer(page: Make, node: Archive) -> Browser:
    node.ae.peers["PACS"] = RemoteAE("PACS", "tcp:pacs.example:104")
    browser = page()
    assert "not asked yet" in browser.get("/peers").shows()
    return browser


def test_a_peer_is_echoed(page: Make, node: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    called = echoing(monkeypatch, lambda: 0)
    browser = with_peer(page, node)
    assert browser.post("/peers/echo", title="PACS").headers["location"] == "/peers"
    assert called == ["PACS"]
    answer = browser.get("/peers")
    assert "dot ok" in answer.text
    assert "pacs.example:104" in answer.shows()


def test_a_peer_that_refuses_is_shown_with_the_reason(
    page: Make, node: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise AssociationRejectedError(1, 1, 7)

    echoing(monkeypatch, fail)
    browser = with_peer(page, node)
    browser.post("/peers/echo", title="PACS")
    answer = browser.get("/peers")
    assert "dot bad" in answer.text
    assert "called AE title" in answer.shows()


def test_a_peer_that_does_not_answer_is_given_up(
    page: Make, node: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And in the meantime it is not asked again."""
    called = echoing(monkeypatch, defer.Deferred)
    clock = node.ae.clock
    assert isinstance(clock, Clock)
    browser = with_peer(page, node)
    body = f"token={browser.token}&title=PACS".encode()
    head = (
        f"POST /peers/echo HTTP/1.1\r\nHost: localhost\r\nCookie: {browser.cookie}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    transport = browser.send(head.encode() + body)
    assert transport.value() == b""
    assert "asking" in browser.get("/peers").shows()
    assert browser.post("/peers/echo", title="PACS").code == 303
    assert called == ["PACS"]
    clock.advance(10)
    assert transport.value().startswith(b"HTTP/1.1 303 ")
    assert "no answer within 10 s" in browser.get("/peers").shows()


def test_only_a_peer_of_the_node_is_echoed(page: Make, node: Archive) -> None:
    """The page does not call addresses that a visitor names."""
    browser = with_peer(page, node)
    assert browser.post("/peers/echo", title="OTHER").code == 404


# -- worklist ----------------------------------------------------------------------------------------

ORDERS = [
    data_set(
        SpecificCharacterSet="ISO_IR 192",
        PatientName=name,
        PatientID=patient_id,
        StudyInstanceUID=f"1.2.{patient_id[1:]}",
        AccessionNumber=accession,
        RequestedProcedureID="R1",
        RequestedProcedureDescription=procedure,
        ScheduledProcedureStepSequence={
            "Modality": modality,
            "ScheduledStationAETitle": f"{modality}1",
            "ScheduledProcedureStepStartDate": date,
            "ScheduledProcedureStepStartTime": "0830",
            "ScheduledProcedureStepID": "S1",
            "ScheduledProcedureStepStatus": status,
        },
    )
    for name, patient_id, accession, procedure, modality, date, status in (
        ("Doe^Jane", "P1", "A1", "CT head", "CT", "20261129", ""),
        ("Roe^<b>Sam", "P2", "A2", "MR knee", "MR", "20261128", "COMPLETED"),
    )
]


def schedule(node: Archive) -> None:
    sources = node.ae.workflow.worklist.sources
    table = next(each for each in sources if isinstance(each, WorklistTable))
    table.put(ORDERS)


def test_the_worklist_shows_what_is_scheduled(page: Make, node: Archive) -> None:
    schedule(node)
    browser = page()
    shown = browser.get("/worklist").shows()
    assert "2026-11-29 08:30 Doe, Jane P1 CT CT1 CT head A1 SCHEDULED" in shown
    assert "Roe" not in shown
    shown = browser.get("/worklist?ended=1").shows()
    assert shown.index("Roe, <b>Sam") < shown.index("Doe, Jane")


@pytest.mark.parametrize(("q", "is_found"), [("jane", True), ("DOE ct1", True), ("doe mr", False)])
def test_the_worklist_is_searched_by_words(
    page: Make, node: Archive, q: str, is_found: bool
) -> None:
    schedule(node)
    shown = page().get(f"/worklist?q={q.replace(' ', '+')}").shows()
    assert ("Doe, Jane" in shown) is is_found
    assert ("No step has all of these words" in shown) is not is_found


def test_a_search_of_the_worklist_for_many_words_takes_no_longer(
    page: Make, node: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is followed is searched every two seconds."""
    schedule(node)
    folded: list[str] = []

    def fold(text: str) -> str:
        folded.append(text)
        return text.lower()

    monkeypatch.setattr(pages, "fold", fold)
    shown = page().get(f"/worklist?q={'+'.join('d' * 3000)}").shows()
    assert "Doe, Jane" in shown
    assert len(folded) < 50


# -- figures -----------------------------------------------------------------------------------------


def test_figures_are_written_for_people() -> None:
    space = "\N{NARROW NO-BREAK SPACE}"
    assert [
        octets(each) for each in (0, 999, 1000, 12_345, 123_456, 999_900, 1.24e9, 5e15, None)
    ] == [
        f"0{space}B",
        f"999{space}B",
        f"1.00{space}kB",
        f"12.3{space}kB",
        f"123{space}kB",
        f"1.00{space}MB",
        f"1.24{space}GB",
        f"5.00{space}PB",
        "\N{EN DASH}",
    ]
    assert [lasting(each) for each in (0, 59, 60, 3700, 273_600, 86_401, None)] == [
        f"0{space}s",
        f"59{space}s",
        f"1{space}min",
        f"1{space}h 1{space}min",
        f"3{space}d 4{space}h",
        f"1{space}d",
        "\N{EN DASH}",
    ]
    assert number(1234567) == "1,234,567"
    assert ago(10, 12) == "just now"
    assert ago(10, 3700) == f"1{space}h ago"
    assert clock(None) == "\N{EN DASH}"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", clock(0))
    places = {
        "tcp:104": "every address:104",
        "tcp:port=104:interface=127.0.0.1": "127.0.0.1:104",
        "tcp6:104:interface=\\:\\:1": "[::1]:104",
        "unix:/run/netdicom": "unix:/run/netdicom",
    }
    assert {each: place(each) for each in places} == places


def test_values_of_dicom_are_written_for_people() -> None:
    assert [day(each) for each in ("20261128", "2026.11.28", "", "soon")] == [
        "2026-11-28",
        "2026-11-28",
        "",
        "soon",
    ]
    assert [hour(each) for each in ("140307", "14:03", "", "noon")] == [
        "14:03",
        "14:03",
        "",
        "noon",
    ]
    names = {
        "DOE^JANE^M": "DOE, JANE M",
        "DOE": "DOE",
        "^JANE": "JANE",
        "": "",
        "Yamada^Tarou=山田^太郎=やまだ^たろう": "Yamada, Tarou · 山田, 太郎 · やまだ, たろう",
    }
    assert {each: person(each) for each in names} == names


def minutes(*figures: tuple[int, int]) -> list[Minute]:
    return [
        Minute(
            time=60.0 * n,
            received=received,
            sent=sent,
            operations=0,
            instances_in=n,
            instances_out=0,
        )
        for n, (received, sent) in enumerate(figures)
    ]


def test_a_plot_has_one_scale_for_both_directions() -> None:
    plot = plot_of(minutes((60_000_000, 0), (30_000_000, 15_000_000), (0, 1)))
    first, second, third = plot.bars
    assert first.up == pytest.approx(2 * second.up, abs=0.2)
    assert second.up == pytest.approx(2 * second.down, abs=0.2)
    assert (first.down, third.up, third.down) == (0, 0, 1)
    assert (plot.received, plot.sent, plot.kept) == (90_000_000, 15_000_001, 3)
    assert plot.lines[0][1] == "1.00\N{NARROW NO-BREAK SPACE}MB/s"


@pytest.mark.parametrize("figures", [(), ((0, 0),) * 60, ((10**12, 0),) * 60, ((0, 10**12),) * 60])
def test_a_plot_stays_inside_its_drawing(figures: tuple[tuple[int, int], ...]) -> None:
    plot = plot_of(minutes(*figures))
    for bar in plot.bars:
        assert 0 <= bar.x <= bar.x + bar.width <= WIDTH
        assert plot.middle - bar.up >= 0
        assert plot.middle + bar.down <= HEIGHT


# -- who has done what -------------------------------------------------------------------------------


@pytest.fixture
def trail(node: Archive) -> list[Element]:
    """The messages of the audit trail."""
    written: list[Element] = []

    class Trail(FileTrail):
        def write(self, message: bytes) -> None:
            written.append(checked(message))

    node.ae.auditor = Auditor(this_process("NETDICOM"), [Trail("")])
    return written


def what(message: Element) -> tuple[str, str, str, str | None]:
    """The type of an event, the user, the address, and what has happened."""
    kind = message.find("EventIdentification/EventTypeCode")
    assert kind is not None
    (user,) = (
        each for each in message.findall("ActiveParticipant") if "AETITLES" not in str(each.attrib)
    )
    said = message.findtext("EventIdentification/EventOutcomeDescription")
    return (
        kind.attrib["originalText"],
        user.attrib["UserID"],
        user.attrib["NetworkAccessPointID"],
        said,
    )


def test_a_button_is_logged_and_audited_with_its_user(
    page: Make,
    node: Archive,
    users: str,
    trail: list[Element],
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PS3.15 A.5.3.11: Use of Restricted Function."""
    echoing(monkeypatch, lambda: 0)
    node.ae.peers["PACS"] = RemoteAE("PACS", "tcp:pacs.example:104")
    first, second = add_task(node), add_task(node)
    browser = page(users_file=users)
    browser.log_in("anna", "secret")
    browser.get("/queue")
    browser.post("/queue/retry", task=str(first))
    browser.post("/queue/retry")
    browser.post("/queue/drop", task=str(second))
    browser.post("/peers/echo", title="PACS")
    said = [
        f"task {first} is tried again",
        "all dead tasks are tried again",
        f"task {second} is dropped",
        "PACS is asked for C-ECHO: 0",
    ]
    assert lines == [
        "status page: anna has logged in from 192.0.2.7",
        *(f"status page: anna at 192.0.2.7: {each}" for each in said),
    ]
    assert [what(each) for each in trail] == [
        ("Login", "anna", "192.0.2.7", None),
        *(("Use of Restricted Function", "anna", "192.0.2.7", each) for each in said),
    ]


def test_a_button_of_a_page_without_users_is_logged_with_the_address(
    page: Make, node: Archive, trail: list[Element], lines: list[str]
) -> None:
    task = add_task(node)
    browser = page()
    browser.get("/queue")
    browser.post("/queue/drop", task=str(task))
    browser.post("/queue/drop", task=str(task))  # it is gone
    assert lines == [f"status page: a visitor at 192.0.2.7: task {task} is dropped"]
    (message,) = trail
    assert what(message)[1] == "a visitor of the status page"


def test_logins_and_logouts_are_audited(
    page: Make, node: Archive, users: str, trail: list[Element]
) -> None:
    """PS3.15 A.5.3.12; a refused login as well, with the name that was given."""
    browser = page(users_file=users)
    browser.log_in("anna", "secret")
    browser.get("/queue")
    browser.post("/logout")
    # The answer comes a second later.
    refusing = browser.service.web.check_password("eve", "guess", "192.0.2.7")
    defer.Deferred.fromCoroutine(refusing)
    assert [what(each)[:2] for each in trail] == [
        ("Login", "anna"),
        ("Logout", "anna"),
        ("Login", "eve"),
    ]
    refused = trail[2].find("EventIdentification")
    assert refused is not None
    assert refused.attrib["EventOutcomeIndicator"] == "4"
