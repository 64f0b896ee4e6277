"""The pages about the node itself: overview, queue, peers and worklist; and logging in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from pydicom.datadict import tag_for_keyword
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime

from ..archive.encoded.values import fold
from ..archive.workflow.outbound import DEAD, RUNNING, WAITING, Queue
from ..archive.workflow.worklist import ENDED, WorklistItem
from ..oneshot import echo
from ..remoteae import RemoteAE
from .plot import HEIGHT, WIDTH, plot_of
from .site import Needs, PageError, Visit, Web, inside

__all__ = ["register"]

_STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# How many tasks of each state are shown, and how many steps are on a page.
_TASKS: Final = 100
_STEPS: Final = 50
# How much of what is searched for counts: so many characters, and so many words.
_LONGEST_TEXT: Final = 64
_WORDS: Final = 8
# How many seconds a peer has to answer C-ECHO, with all that comes before.
_ECHO: Final = 10.0


def register(web: Web) -> None:
    """Register the routes."""
    _register_files(web)
    _register_logins(web)
    _register_overview(web)
    _register_queue(web)
    _register_peers(web)
    _register_worklist(web)


def _register_files(web: Web) -> None:
    files = {each.name: each.read_bytes() for each in _STATIC.iterdir() if each.suffix in _TYPES}
    # A new version of a file has a new address, so that browsers may keep it.
    web.templates.globals["static"] = {
        name: f"/static/{name}?{sha256(octets).hexdigest()[:8]}" for name, octets in files.items()
    }

    @web.route("/static/<name>", Needs.NOTHING)
    def static(visit: Visit, name: str) -> bytes:
        if name not in files:
            raise PageError(404, "There is no such file.")
        visit.request.setHeader("Content-Type", f"{_TYPES[Path(name).suffix]}; charset=utf-8")
        visit.request.setHeader("Cache-Control", "max-age=86400")
        return files[name]

    @web.route("/favicon.ico", Needs.NOTHING)
    def icon(visit: Visit) -> str:
        return visit.redirect("/static/icon.svg")


def _register_logins(web: Web) -> None:
    @web.route("/login", Needs.NO_LOGIN)
    def login(visit: Visit) -> str:
        if visit.user is not None or not web.has_users:
            return visit.redirect("/")
        return visit.render("login.html", next=inside(visit.argument("next")), problem="")

    @web.route("/login", Needs.NO_LOGIN, methods=("POST",))
    async def log_in(visit: Visit) -> str:
        if not web.has_users:
            return visit.redirect("/")
        there = inside(visit.argument("next"))
        user = visit.argument("user")
        # A password may begin or end with a space.
        (password, *_) = visit.request.args.get(b"password", [b""])
        found = await web.check_password(user, password.decode("utf-8", "replace"), visit.host)
        if found is not None:
            visit.log_in(user, found)
            return visit.redirect(there)
        visit.request.setResponseCode(401)
        return visit.render("login.html", next=there, problem="Wrong user or password.")

    @web.route("/logout", Needs.NO_LOGIN, methods=("POST",))
    def log_out(visit: Visit) -> str:
        visit.log_out()
        return visit.redirect("/login")


# -- overview ----------------------------------------------------------------------------------------


def _register_overview(web: Web) -> None:
    parts = ("state", "figures", "throughput", "associations", "refusals", "storage", "node")

    @web.page("/", Needs.LOGIN, "overview.html", parts)
    async def overview(visit: Visit) -> dict[str, Any]:
        snapshot = await web.observe()
        return {
            "snapshot": snapshot,
            "now": snapshot["time"],
            "plot": plot_of(snapshot["minutes"]),
            "width": WIDTH,
            "height": HEIGHT,
        }


# -- queue -------------------------------------------------------------------------------------------


def _register_queue(web: Web) -> None:
    @web.page("/queue", Needs.LOGIN, "queue.html", ("state", "queue"))
    async def queue(visit: Visit) -> dict[str, Any]:
        snapshot = await web.observe()
        tasks = []
        if web.ae.index is not None:
            for state in (DEAD, RUNNING, WAITING):
                tasks += await web.in_thread(web.ae.workflow.queue.list, state, _TASKS)
        return {"snapshot": snapshot, "now": snapshot["time"], "tasks": tasks, "most": _TASKS}

    def queue_of() -> Queue:
        if web.ae.index is None:
            raise PageError(404, "This node has no queue.")
        return web.ae.workflow.queue

    @web.route("/queue/retry", Needs.OPERATOR, methods=("POST",))
    async def retry(visit: Visit) -> str:
        outbound, number = queue_of(), visit.number("task", 0)
        chosen = [number] if number else None
        count = await web.in_thread(lambda: outbound.retry(chosen).result())
        if count:
            which = f"task {number} is" if number else "all dead tasks are"
            web.tell_use(visit, f"{which} tried again")
        web.ae.workflow.wake()
        return visit.redirect("/queue")

    @web.route("/queue/drop", Needs.OPERATOR, methods=("POST",))
    async def drop(visit: Visit) -> str:
        outbound, number = queue_of(), visit.number("task", 0)
        if await web.in_thread(lambda: outbound.drop([number]).result()):
            web.tell_use(visit, f"task {number} is dropped")
        return visit.redirect("/queue")


# -- peers -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Echo:
    """How a peer has answered C-ECHO.

    Attributes:
        time: When that was, in seconds since 1970.
        text: What it has answered, or why it has not.
        seconds: How long it took, from connecting to the end of the association.
    """

    time: float
    is_success: bool
    text: str
    seconds: float


def _register_peers(web: Web) -> None:
    echoes: dict[str, _Echo] = {}
    under_way: set[str] = set()

    @web.page("/peers", Needs.LOGIN, "peers.html", ("state", "peers"))
    async def peers(visit: Visit) -> dict[str, Any]:
        snapshot = await web.observe()
        live = [each["title"] for each in snapshot["associations"]["live"]]
        rows = [
            {
                "title": title,
                "address": _address(remote),
                "is_over_tls": remote.tls is not None,
                "live": live.count(title),
                "echo": echoes.get(title),
                "is_asked": title in under_way,
            }
            for title, remote in sorted(web.ae.peers.items())
        ]
        return {"snapshot": snapshot, "now": snapshot["time"], "peers": rows}

    @web.route("/peers/echo", Needs.OPERATOR, methods=("POST",))
    async def ask(visit: Visit) -> str:
        title = visit.argument("title")
        remote = web.ae.peers.get(title)
        if remote is None:
            raise PageError(404, "The node has no peer with this AE title.")
        if title not in under_way:
            under_way.add(title)
            try:
                answer = echoes[title] = await _echoed(web, remote)
                web.tell_use(visit, f"{title} is asked for C-ECHO: {answer.text}")
            finally:
                under_way.discard(title)
            for gone in echoes.keys() - web.ae.peers.keys():
                del echoes[gone]
        return visit.redirect("/peers")


def _address(remote: RemoteAE) -> str:
    """Where a peer is called, for people."""
    if not isinstance(remote.endpoint, str):
        return "an endpoint"
    return remote.endpoint.removeprefix("tcp:").replace("\\:", ":")


async def _echoed(web: Web, remote: RemoteAE) -> _Echo:
    clock: IReactorTime = web.ae.clock
    began = clock.seconds()
    asking = echo(remote, ae=web.ae.ae_title).addTimeout(_ECHO, clock)
    try:
        status = await asking
    except defer.TimeoutError:
        is_success, text = False, f"no answer within {_ECHO:g} s"
    except Exception as error:  # what endpoints raise has no base class of its own
        is_success, text = False, str(error) or type(error).__name__
    else:
        is_success, text = status == 0, str(status)
    snapshot_time = (await web.observe())["time"]
    return _Echo(snapshot_time, is_success, text, clock.seconds() - began)


# -- worklist ----------------------------------------------------------------------------------------

_KEYS: Final = {
    name: tag_for_keyword(keyword)
    for name, keyword in {
        "patient": "PatientName",
        "patient_id": "PatientID",
        "accession": "AccessionNumber",
        "procedure": "RequestedProcedureDescription",
    }.items()
}
_STEP_KEYS: Final = {
    name: tag_for_keyword(keyword)
    for name, keyword in {
        "date": "ScheduledProcedureStepStartDate",
        "time": "ScheduledProcedureStepStartTime",
        "modality": "Modality",
        "station": "ScheduledStationAETitle",
        "step": "ScheduledProcedureStepDescription",
        "status": "ScheduledProcedureStepStatus",
    }.items()
}


def _register_worklist(web: Web) -> None:
    @web.page("/worklist", Needs.PATIENTS, "worklist.html", ("state", "worklist"))
    async def worklist(visit: Visit) -> dict[str, Any]:
        snapshot = await web.observe()
        steps = [] if web.ae.index is None else await web.ae.workflow.worklist.steps()
        wanted, are_ended = visit.argument("q"), visit.argument("ended") == "1"
        start = visit.number("start", 0)

        def choose() -> list[dict[str, str]]:
            rows = (_step(each) for each in steps if are_ended or each.status not in ENDED)
            words = fold(wanted[:_LONGEST_TEXT]).split()[:_WORDS]
            return [row for row in rows if _has_words(row, words)]

        rows = await web.in_thread(choose)
        return {
            "snapshot": snapshot,
            "now": snapshot["time"],
            "steps": rows[start : start + _STEPS],
            "total": len(rows),
            "start": start,
            "count": _STEPS,
            "q": wanted,
            "ended": are_ended,
        }


def _has_words(row: Mapping[str, str], words: Sequence[str]) -> bool:
    """Whether each of some words is in a value of a step."""
    if not words:
        return True
    values = [fold(each) for each in row.values()]
    return all(any(word in each for each in values) for word in words)


def _step(item: WorklistItem) -> dict[str, str]:
    """What is shown of a step."""
    found = {}
    for keys, attributes in ((_KEYS, item.attributes), (_STEP_KEYS, item.step)):
        for name, tag in keys.items():
            value = attributes.get(tag) if tag is not None else None
            found[name] = "" if value is None else value.text
    return found
