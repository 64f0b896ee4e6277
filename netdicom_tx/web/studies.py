"""The study browser: search, studies, series, instances with header and picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from twisted.internet import defer

from ..archive.index.index import Index
from ..archive.index.watch import Watches
from ..uids import name
from . import header, lookup
from .site import Needs, PageError, Visit, Web

__all__ = ["register"]

_T = TypeVar("_T")

# How many studies and instances are on a page.
_STUDIES: Final = 25
_INSTANCES: Final = 100
# How old a list may be that is followed, in seconds, when no instance comes.
_OLDEST: Final = 30
_ORDERS: Final = {"received": "last received", "date": "newest", "name": "patient"}


def register(web: Web) -> None:
    """Register the routes."""
    pages = _Pages(web)
    needs = Needs.PATIENTS
    web.page("/studies", needs, "studies.html", ("studies",), pages.changed)(pages.studies)
    web.page("/studies/<key>", needs, "study.html", ("study",), pages.changed)(pages.study)
    web.page("/series/<key>", needs, "series.html")(pages.series)
    web.page("/instances/<key>", needs, "instance.html")(pages.instance)
    web.route("/instances/<key>/picture", needs)(pages.picture)


class _Pages:
    """The pages, with what they share: searches that end with the visit, and a process that decodes pictures."""

    def __init__(self, web: Web) -> None:
        self._web = web
        # The process decodes one picture at a time.
        self._decoding = defer.DeferredSemaphore(1)
        self._decoder = header.Decoder()
        self._watches = Watches(lookup.SECONDS)
        web.at_end += (self._decoder.stop, self._watches.cancel)

    def _index(self) -> Index:
        if self._web.ae.index is None:
            raise PageError(404, "This node has no index, so its studies cannot be shown.")
        return self._web.ae.index

    async def _find(self, call: Callable[..., _T], *arguments: Any) -> _T:
        """Search in a thread; the search ends with the visit."""
        with self._watches.watching() as watch:
            return await self._web.in_thread(call, self._index(), watch, *arguments)

    async def _there(
        self, call: Callable[..., dict[str, Any] | None], key: object
    ) -> dict[str, Any]:
        """Find what a key names.

        Raises:
            PageError: It is gone.
        """
        found = await self._find(call, key)
        if found is None:
            raise PageError(404, "The node does not have this any more.")
        return found

    async def changed(self) -> object:
        """A value that changes when the lists may have changed."""
        # What is deleted, and how long ago a study was received, is shown after some seconds.
        last = await self._find(lookup.last_row)
        return last, self._web.ae.clock.seconds() // _OLDEST

    async def studies(self, visit: Visit) -> dict[str, Any]:
        """The search, and a page of what it has found."""
        wanted = lookup.Wanted(
            name=visit.argument("name"),
            patient_id=visit.argument("id"),
            accession=visit.argument("accession"),
            first=visit.argument("from"),
            last=visit.argument("to"),
            modality=visit.argument("modality"),
        )
        order = visit.argument("order", "received")
        order = order if order in _ORDERS else "received"
        start = visit.number("start", 0)
        problem, found = "", lookup.Found([], 0)
        try:
            found = await self._find(lookup.studies, wanted, order, start, _STUDIES)
        except ValueError as error:
            problem = str(error)
        return {
            "wanted": wanted,
            "asked": {
                "name": wanted.name,
                "id": wanted.patient_id,
                "accession": wanted.accession,
                "from": wanted.first,
                "to": wanted.last,
                "modality": wanted.modality,
            },
            "order": order,
            "orders": _ORDERS,
            "start": start,
            "count": _STUDIES,
            "found": found,
            "counted": lookup.COUNTED,
            "problem": problem,
            "now": (await self._web.observe())["time"],
        }

    async def study(self, visit: Visit, key: str) -> dict[str, Any]:
        """A study with its series."""
        found = await self._there(lookup.study_of, key)
        series = await self._find(lookup.series_of, found["id"])
        return {"study": found, "series": series, "now": (await self._web.observe())["time"]}

    async def series(self, visit: Visit, key: str) -> dict[str, Any]:
        """A series with a page of its instances."""
        found = await self._there(lookup.series_with, key)
        start = visit.number("start", 0)
        rows = await self._find(lookup.instances_of, found["id"], start, _INSTANCES)
        return {
            "study": await self._there(lookup.study_above, found["parent_id"]),
            "series": found,
            "instances": rows,
            "start": start,
            "count": _INSTANCES,
            "name_of": name,
        }

    async def instance(self, visit: Visit, key: str) -> dict[str, Any]:
        """An instance with its header, and whether it has a picture."""
        found = await self._there(lookup.instance_of, key)
        above = study = None
        if found["parent_id"] is not None:
            above = await self._there(lookup.series_above, found["parent_id"])
            study = await self._there(lookup.study_above, above["parent_id"])
        rows: list[header.Row] = []
        has_more, problem = False, ""
        try:
            rows, has_more = await self._web.in_thread(
                lookup.with_file, found["file"], header.rows_of
            )
        except OSError as error:
            problem = f"The file cannot be read: {error.strerror}."
        except ValueError as error:
            problem = str(error)
        frames = found["number_of_frames"]
        count = int(frames) if frames.isascii() and frames.isdecimal() and len(frames) < 7 else 1
        return {
            "study": study,
            "series": above,
            "instance": found,
            "rows": rows,
            "has_more": has_more,
            "problem": problem,
            "has_picture": header.can_show_pictures()
            and any(each.tag == "(0028,0010)" for each in rows),
            "frame": min(visit.number("frame", 1), max(count, 1)) or 1,
            "frames": count,
            "name_of": name,
        }

    async def picture(self, visit: Visit, key: str) -> bytes:
        """A frame of an instance as PNG."""
        if not header.can_show_pictures():
            raise PageError(
                404, "Pictures need the extra packages: pip install 'netdicom-tx[pixel]'"
            )
        found = await self._there(lookup.instance_of, key)
        frame = max(visit.number("frame", 1), 1) - 1
        try:
            drawn = await self._decoding.run(
                self._web.in_thread,
                lookup.with_file,
                found["file"],
                self._decoder.picture_of,
                frame,
            )
        except OSError as error:
            raise PageError(404, "The file of this instance cannot be read.") from error
        except ValueError as error:
            raise PageError(404, str(error)) from error
        visit.request.setHeader("Content-Type", "image/png")
        return bytes(drawn)
