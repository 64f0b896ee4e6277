"""The modality worklist of an archive: scheduled procedure steps, matched and answered (PS3.4 Annex K).

Items come from sources (:class:`IWorklistSource`). Those of the archive are in
:mod:`netdicom_tx.archive.workflow.worklist_sources`. Items are matched in memory, as Unicode, by the rules of
:mod:`netdicom_tx.archive.query.matching` and those of Annex K:

* Every key of the identifier is matched, at any depth; the list of required keys in the standard is shorter.
* An attribute without a value matches no value of a key.
* A range of start dates and a range of start times together are one range, from the first time on the first day to
  the last time on the last day (K.6.1.2.2).
* An answer has one scheduled procedure step, so an item with several steps becomes several answers (K.6.1.2.2).
* A step that has ended, according to its performed procedure step, is answered only to a query for its status
  (0040,0020).

An answer is in the Specific Character Set of the identifier if that can hold it, otherwise in that of the item, and
otherwise in ISO_IR 192.

"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from pydicom.dataset import Dataset
from twisted.internet import defer
from zope.interface import Interface

from ... import dsutils, statuses
from ...encoding import Coding, coding_of
from ...exceptions import StatusError
from ...logs import Logger, Trouble
from ...negotiation import PContextDef
from ...uids import EXPLICIT_VR_LITTLE_ENDIAN
from ..encoded.elements import CANONICAL, Element, encode_element, encode_item, swapped
from ..encoded.recode import recode
from ..encoded.values import TEXT_VRS, codecs_of, date_range, text_of, time_range
from ..encoded.walk import InvalidDataSetError, elements, items
from ..index.schema import Level
from ..index.watch import Watch, Watches
from ..query.answers import Encode, encoder_of
from ..query.criteria import Between, Criterion, Test
from ..query.identifiers import Identifier, InformationModel, Key, QueryOptions, SequenceKey
from ..query.retrieval import refusing

__all__ = [
    "ENDED",
    "IWorklistSource",
    "StepKey",
    "Worklist",
    "WorklistItem",
    "WorklistQuery",
]

_T = TypeVar("_T")

_CHARACTER_SET, _STUDY, _STEPS = 0x00080005, 0x0020000D, 0x00400100
_STATION, _START_DATE, _START_TIME = 0x00400001, 0x00400002, 0x00400003
_STEP_ID, _STEP_STATUS = 0x00400009, 0x00400020
_PREGNANCY_STATUS = 0x001021C0

#: What a step is called that is over; (0040,0020) has other words for those that are not.
ENDED: Final = frozenset(("COMPLETED", "DISCONTINUED"))

#: A step: Study Instance UID and Scheduled Procedure Step ID.
StepKey = tuple[str, str]


class Value(NamedTuple):
    """The value of an attribute.

    Attributes:
        octets: The value in explicit VR little endian; text is in UTF-8.
        text: The value as text, for a text or a number.
        items: The items of a sequence.
    """

    vr: str
    octets: bytes
    text: str
    items: tuple[Attributes, ...]


Attributes = Mapping[int, Value]
_NONE: Final = Value("UN", b"", "", ())
_UTF8: Final = ("utf-8",)


def _parsed(data: bytes, start: int, end: int) -> dict[int, Value]:
    found = {}
    for each in elements(data, CANONICAL, start, end):
        octets = data[each.start : each.end]
        if each.vr == "SQ":
            inside = items(data, CANONICAL, each.start, each.end)
            value = Value("SQ", b"", "", tuple(_parsed(data, *where) for where in inside))
        else:
            value = Value(each.vr, octets, text_of(each.vr, octets, _UTF8), ())
        found[each.tag] = value
    return found


@dataclass(frozen=True, slots=True)
class WorklistItem:
    """A scheduled procedure step, with the requested procedure and the patient it is for.

    Attributes:
        terms: The values of its Specific Character Set.
        attributes: All attributes; Scheduled Procedure Step Sequence has one item.
    """

    terms: tuple[str, ...]
    attributes: Attributes

    @classmethod
    def read(cls, data: bytes, transfer_syntax: str, offset: int = 0) -> list[WorklistItem]:
        """Read the steps of an encoded data set.

        Raises:
            InvalidDataSetError: The data set cannot be read, or has no Scheduled Procedure Step.
        """
        coding = coding_of(transfer_syntax)
        terms: tuple[str, ...] = ()
        there = elements(data, coding, offset, len(data))
        first = next((each for each in there if each.tag >= _CHARACTER_SET), None)
        if first is not None and first.tag == _CHARACTER_SET:
            said = text_of("CS", data[first.start : first.end], codecs_of(()))
            terms = tuple(said.split("\\")) if said else ()
        item = encode_item(data[offset:], coding)
        whole = Element(0, "SQ", 0, len(item), len(item), coding)
        plain = recode(item, whole, codecs_of(()), CANONICAL)
        ((start, end),) = items(plain, CANONICAL, 0, len(plain))
        attributes = _parsed(plain, start, end)
        steps = attributes.get(_STEPS, _NONE).items
        if not steps:
            raise InvalidDataSetError("no Scheduled Procedure Step Sequence (0040,0100)")
        return [cls(terms, {**attributes, _STEPS: Value("SQ", b"", "", (step,))}) for step in steps]

    @classmethod
    def of(cls, ds: Dataset) -> list[WorklistItem]:
        """The steps of a data set.

        Raises:
            DataSetError: The data set cannot be encoded.
            InvalidDataSetError: The data set has no Scheduled Procedure Step.
        """
        return cls.read(dsutils.encode(ds, EXPLICIT_VR_LITTLE_ENDIAN), EXPLICIT_VR_LITTLE_ENDIAN)

    @property
    def step(self) -> Attributes:
        """The item of Scheduled Procedure Step Sequence."""
        return self.attributes[_STEPS].items[0]

    @property
    def key(self) -> StepKey:
        return self.attributes.get(_STUDY, _NONE).text, self.step.get(_STEP_ID, _NONE).text

    @property
    def status(self) -> str:
        """Scheduled Procedure Step Status; empty when it has no value."""
        return self.step.get(_STEP_STATUS, _NONE).text

    @property
    def start(self) -> tuple[str, str]:
        """The date and time by which steps are sorted."""
        step = self.step
        return step.get(_START_DATE, _NONE).text, step.get(_START_TIME, _NONE).text

    def with_status(self, status: str) -> WorklistItem:
        """The same step with another Scheduled Procedure Step Status."""
        step = {**self.step, _STEP_STATUS: Value("CS", status.encode(), status, ())}
        steps = Value("SQ", b"", "", (step,))
        return WorklistItem(self.terms, {**self.attributes, _STEPS: steps})


# -- queries ----------------------------------------------------------------------------------------


class _Identifier(Identifier):
    """An identifier without a Query/Retrieve Level, because a worklist has one level (PS3.4 K.4.1.1.3.1)."""

    def _level(self, data_set: Dataset, model: InformationModel) -> Level:
        return Level.IMAGE

    def _tests(self, tag: int, vr: str, value: str) -> list[Test]:
        # Its values are 1 to 4; dcmjs-dimse 0.3.3 writes 0 for a key without a value, in every query that it makes.
        if tag == _PREGNANCY_STATUS and value == "0":
            return []
        return super()._tests(tag, vr, value)


class _Period(NamedTuple):
    """A range of start dates and a range of start times, combined into one range; keys have 20 digits."""

    first: str
    last: str

    @classmethod
    def of(cls, keys: Iterable[Key]) -> _Period | None:
        """The period that the keys of a step ask for; None when they are not two ranges."""
        found = {}
        for key in keys:
            if key.tag in (_START_DATE, _START_TIME) and isinstance(key.criterion, Criterion):
                (*tests,) = key.criterion.tests
                if len(tests) == 1 and isinstance(tests[0], Between) and tests[0].is_range:
                    found[key.tag] = tests[0]
        if len(found) < 2:
            return None
        day, time = found[_START_DATE], found[_START_TIME]
        # A time has a meaning only beside a day.
        first = last = ""
        if day.first is not None:
            first = day.first.first + ("0" * 12 if time.first is None else time.first.first)
        if day.last is not None:
            last = day.last.last + ("9" * 12 if time.last is None else time.last.last)
        return cls(first, last or "~")

    def accepts(self, step: Attributes) -> bool:
        try:
            day = date_range(step.get(_START_DATE, _NONE).text).first
            # A step whose time is unknown begins at some time of its day.
            text = step.get(_START_TIME, _NONE).text
            moment = day + time_range(text).first if text else day
        except ValueError:
            return False
        return self.first[: len(moment)] <= moment <= self.last


class WorklistQuery:
    """The identifier of a worklist query.

    Attributes:
        keys: The keys in the order of their tags.
        terms: The values of its Specific Character Set.

    Raises:
        MatchingError: The identifier cannot be answered.
    """

    def __init__(self, identifier: Dataset) -> None:
        model = InformationModel.COMPOSITE_INSTANCE_ROOT
        read = _Identifier(identifier, model, QueryOptions(), match_unknown=False)
        self.keys = read.keys
        self.terms = read.terms
        self._period: _Period | None = None
        self._of_step: tuple[Key, ...] = ()
        for key in self.keys:
            if key.tag == _STEPS and isinstance(key.criterion, SequenceKey):
                self._of_step = key.criterion.keys
                self._period = _Period.of(self._of_step)
        if self._period is not None:
            together = (_START_DATE, _START_TIME)
            self._of_step = tuple(key for key in self._of_step if key.tag not in together)

    @property
    def asks_for_status(self) -> bool:
        """Whether the query asks for a value of Scheduled Procedure Step Status."""
        return any(key.tag == _STEP_STATUS and not key.is_universal for key in self._of_step)

    def accepts(self, item: WorklistItem) -> bool:
        """Whether an item passes all keys."""
        if self._period is not None and not self._period.accepts(item.step):
            return False
        return _passes(self._of_step, item.step) and all(
            _passes_one(key, item.attributes) for key in self.keys if key.tag != _STEPS
        )

    def answer(self, item: WorklistItem, transfer_syntax: str) -> bytes:
        """The identifier of the response for a matching item."""
        coding = coding_of(transfer_syntax)
        for terms in (("",), self.terms, item.terms):
            encode = encoder_of(terms)
            if encode is None:
                continue
            try:
                return _character_set(terms, coding) + _written(
                    self.keys, item.attributes, coding, encode
                )
            except UnicodeEncodeError:
                continue
        return _character_set(("ISO_IR 192",), coding) + _written(
            self.keys, item.attributes, coding, str.encode
        )


def _passes(keys: Iterable[Key], attributes: Attributes) -> bool:
    return all(_passes_one(key, attributes) for key in keys)


def _passes_one(key: Key, attributes: Attributes) -> bool:
    if key.is_universal:
        return True
    value = attributes.get(key.tag, _NONE)
    if isinstance(key.criterion, SequenceKey):
        return any(_passes(key.criterion.keys, item) for item in value.items)
    return key.criterion is None or key.criterion.accepts(value.text)


def _character_set(terms: Sequence[str], coding: Coding) -> bytes:
    text = "\\".join(terms)
    return encode_element(_CHARACTER_SET, "CS", text.encode(), coding) if text else b""


def _written(keys: Iterable[Key], attributes: Attributes, coding: Coding, encode: Encode) -> bytes:
    """The requested attributes; one that an item does not have is empty."""
    parts = []
    for key in keys:
        value = attributes.get(key.tag)
        if value is None:
            parts.append(encode_element(key.tag, key.vr, b"", coding))
        elif value.vr == "SQ" and isinstance(key.criterion, SequenceKey) and key.criterion.keys:
            inside = key.criterion.keys
            content = b"".join(
                encode_item(_written(inside, item, coding, encode), coding)
                for item in value.items
                if key.tag == _STEPS or _passes(inside, item)
            )
            parts.append(encode_element(key.tag, "SQ", content, coding))
        else:
            parts.append(_whole(key.tag, value, coding, encode))
    return b"".join(parts)


def _whole(tag: int, value: Value, coding: Coding, encode: Encode) -> bytes:
    if value.vr == "SQ":
        octets = b"".join(
            encode_item(b"".join(_whole(*each, coding, encode) for each in item.items()), coding)
            for item in value.items
        )
    elif value.vr in TEXT_VRS:
        octets = encode(value.text)
    else:
        octets = value.octets if coding.little else swapped(value.vr, value.octets)
    return encode_element(tag, value.vr, octets, coding)


# -- the service ------------------------------------------------------------------------------------


class IWorklistSource(Interface):
    """A source of worklist items."""

    def items(identifier: Dataset) -> object:
        """Return the items.

        This is called on the reactor thread for each C-FIND.

        Args:
            identifier: The identifier of the request. A source may use it to return fewer items; all that it returns
                are matched in any case.

        Returns:
            An iterable of data sets or of :class:`WorklistItem`; or a Deferred or coroutine of one.
        """


class Worklist:
    """The worklist of a node.

    Args:
        sources: Providers of :class:`IWorklistSource`.
        in_thread: Runs a blocking call off the reactor thread.
        states: The Scheduled Procedure Step Status of steps that have begun, by their keys; blocks.
        watches: Watch over the queries; None means watches of its own.
    """

    _log = Logger()

    def __init__(
        self,
        sources: Iterable[Any],
        in_thread: Callable[..., defer.Deferred[Any]],
        states: Callable[[Collection[StepKey]], Mapping[StepKey, str]] | None = None,
        watches: Watches | None = None,
    ) -> None:
        self.sources = list(sources)
        self._watches = watches or Watches()
        self._trouble = Trouble(self._log)
        self._in_thread = in_thread
        self._states = states

    async def find(self, context: PContextDef, identifier: Dataset) -> list[bytes]:
        """Return the matches that ``on_receive_find`` returns for the worklist SOP class.

        Raises:
            MatchingError: The identifier cannot be answered.
            StatusError: 0xC000, a source has failed; 0xA700, the matching takes too long.
        """
        with (
            refusing(statuses.C_FIND_OUT_OF_RESOURCES, self._trouble),
            self._watches.watching() as watch,
        ):
            # A peer determines how long the keys are, and how long it takes to read them.
            query: WorklistQuery = await self._in_thread(WorklistQuery, identifier)
            found = await self._found(identifier)
            answering: Awaitable[list[bytes]] = self._in_thread(
                self._answers, query, found, context.supported_ts, watch
            )
            return await answering

    async def steps(self) -> list[WorklistItem]:
        """All steps with their current status, in the order of their start.

        Raises:
            StatusError: 0xC000, a source has failed.
        """
        found = await self._found(Dataset())

        def sort() -> list[WorklistItem]:
            return sorted(self._current(self._read(found)), key=lambda item: item.start)

        sorting: Awaitable[list[WorklistItem]] = self._in_thread(sort)
        return await sorting

    async def _found(self, identifier: Dataset) -> list[Dataset | WorklistItem]:
        found: list[Dataset | WorklistItem] = []
        for source in self.sources:
            try:
                given: Any = source.items(identifier)
                if inspect.isawaitable(given):
                    given = await given
                found += given
            except Exception as error:  # a user's; part of a worklist would look like all of it
                self._log.failure("a worklist source failed")
                raise StatusError(
                    statuses.C_FIND_UNABLE_TO_PROCESS, "a worklist source failed"
                ) from error
        return found

    def _answers(
        self,
        query: WorklistQuery,
        found: Iterable[Dataset | WorklistItem],
        transfer_syntax: str,
        watch: Watch,
    ) -> list[bytes]:
        watch.step()
        accepted = []
        for item in self._current(self._read(found)):
            watch.check()
            if query.accepts(item) and (query.asks_for_status or item.status not in ENDED):
                accepted.append(item)
        accepted.sort(key=lambda item: item.start)
        return [query.answer(item, transfer_syntax) for item in accepted]

    def _read(self, found: Iterable[Dataset | WorklistItem]) -> Iterator[WorklistItem]:
        for each in found:
            if isinstance(each, WorklistItem):
                yield each
                continue
            try:
                yield from WorklistItem.of(each)
            except (dsutils.DataSetError, InvalidDataSetError) as error:
                self._log.error("a worklist source gave no item: {error}", error=error)

    def _current(self, found: Iterable[WorklistItem]) -> Iterable[WorklistItem]:
        """The items with the status that their performed procedure steps have given them."""
        known = list(found)
        states = self._states({item.key for item in known}) if self._states and known else {}
        return [
            item.with_status(states[item.key]) if item.key in states else item for item in known
        ]
