"""The worklist: PS3.4 K.6.1 on items in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from twisted.internet import defer
from zope.interface import implementer

from netdicom_tx import AE, StatusError, dsutils
from netdicom_tx.archive.encoded.walk import InvalidDataSetError
from netdicom_tx.archive.query.identifiers import MatchingError
from netdicom_tx.archive.workflow.worklist import (
    IWorklistSource,
    StepKey,
    Worklist,
    WorklistItem,
    WorklistQuery,
)
from netdicom_tx.negotiation import PContextDef
from netdicom_tx.sopclass import modality_work_list_scp, modality_work_list_scu
from netdicom_tx.testing import connected, failure_of, success_of
from netdicom_tx.uids import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS,
)
from support.archive.worklists import asking, data_set, decoded, encoded, received, scheduled

STANDARD = Path(__file__).parents[2] / "standard"
JAPANESE = ["", "ISO 2022 IR 87"]
KOREAN = ["", "ISO 2022 IR 149"]


def item(**attributes: Any) -> WorklistItem:
    (found,) = WorklistItem.read(encoded(scheduled(**attributes)), EXPLICIT_VR_LITTLE_ENDIAN)
    return found


def passes(what: WorklistItem, **keys: Any) -> bool:
    return WorklistQuery(received(asking(**keys))).accepts(what)


def answer(
    what: WorklistItem, identifier: Dataset, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN
) -> Dataset:
    return decoded(WorklistQuery(received(identifier)).answer(what, syntax), syntax)


# -- matching -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, True),
        ({"PatientID": "P1"}, True),
        ({"PatientID": "p1"}, False),
        ({"PatientID": "P*"}, True),
        ({"PatientID": "P?"}, True),
        ({"PatientID": "?"}, False),
        ({"PatientName": "doe^jane"}, True),
        ({"PatientName": "DOE*"}, True),
        ({"PatientName": "Roe*"}, False),
        ({"PatientName": "*"}, True),
        ({"AccessionNumber": "A1"}, True),
        ({"AccessionNumber": "A2"}, False),
        ({"StudyInstanceUID": ["1.2.9", "1.2.3"]}, True),
        ({"StudyInstanceUID": "1.2.9"}, False),
        ({"Modality": "CT"}, True),
        ({"Modality": "MR"}, False),
        ({"ScheduledStationAETitle": "CT1"}, True),
        ({"ScheduledStationAETitle": "CT2"}, False),
        ({"ScheduledPerformingPhysicianName": "House*"}, True),
        ({"ScheduledPerformingPhysicianName": "Wilson*"}, False),
        ({"ScheduledProcedureStepID": "S1", "Modality": "CT", "PatientID": "P1"}, True),
        ({"ScheduledProcedureStepID": "S1", "Modality": "MR", "PatientID": "P1"}, False),
        ({"AdmissionID": "X"}, False),
    ],
)
def test_every_key_must_pass(keys: dict[str, Any], expected: bool) -> None:
    """PS3.4 K.2.2.1, C.2.2.2: single value, wild card, list of UID, universal; at both depths."""
    assert passes(item(), **keys) is expected


def test_pregnancy_status_0_asks_for_any() -> None:
    """PS3.3 Table C.7-4a defines 1 to 4; dcmjs-dimse 0.3.3 writes a key of VR US without a value as 0."""
    assert passes(item(), PregnancyStatus=0)
    assert passes(item(PregnancyStatus=3), PregnancyStatus=0)
    assert passes(item(PregnancyStatus=3), PregnancyStatus=3)
    assert not passes(item(PregnancyStatus=3), PregnancyStatus=4)


def test_an_item_without_a_value_is_matched_by_no_value() -> None:
    """Unlike the required keys of Q/R (C.2.2.1.2); so has it wlmscpfs."""
    unassigned = item(ScheduledPerformingPhysicianName=None)
    assert not passes(unassigned, ScheduledPerformingPhysicianName="House*")
    assert passes(unassigned, ScheduledPerformingPhysicianName="*")


def test_a_station_is_one_of_several() -> None:
    """Scheduled Station AE Title has VM 1-n."""
    both = item(ScheduledStationAETitle=["CT1", "CT2"])
    assert passes(both, ScheduledStationAETitle="CT2")
    assert not passes(both, ScheduledStationAETitle="CT3")


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        ("20261123", None, True),
        ("20261122", None, False),
        ("20261101-20261130", None, True),
        ("-20261122", None, False),
        ("20261123-", None, True),
        (None, "1015", True),
        (None, "101500-110000", True),
        (None, "-1000", False),
        (None, "1000-", True),
        # One range, K.6.1.2.2: the time of the first day is that of the beginning.
        ("20261122-20261123", "1800-0800", False),
        ("20261122-20261124", "1800-0800", True),
        ("20261123-20261124", "1800-0800", False),
        ("20261122-20261123", "1800-1100", True),
        ("20261123-", "1016-", False),
        ("20261122-", "1800-", True),
        ("-20261123", "-1014", False),
        ("-20261124", "-0800", True),
        # Ranges of different forms: a time without its day says nothing.
        ("20261123-", "-1000", True),
        ("-20261123", "1016-", True),
        ("20261122-20261123", "-1014", False),
        ("20261123-20261124", "1016-", False),
        # One range and one single value are two keys.
        ("20261123", "1000-1100", True),
        ("20261123", "1100-1200", False),
        ("20261122-20261124", "1015", True),
        ("20261122-20261124", "1016", False),
    ],
)
def test_start_date_and_time(date: str | None, time: str | None, expected: bool) -> None:
    """K.6.1.2.2: two ranges are one range of date and time."""
    keys = {"ScheduledProcedureStepStartDate": date, "ScheduledProcedureStepStartTime": time}
    assert passes(item(), **keys) is expected


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [("20261123", "", True), ("20261124", "", False), ("", "1000", False), ("soon", "", False)],
)
def test_a_step_of_unknown_time_begins_on_its_day(date: str, time: str, expected: bool) -> None:
    step = {"ScheduledProcedureStepStartDate": date, "ScheduledProcedureStepStartTime": time}
    ds = scheduled()
    for keyword, value in step.items():
        tag, vr = ds.ScheduledProcedureStepSequence[0][keyword].tag, "LO"
        ds.ScheduledProcedureStepSequence[0].add_new(tag, vr, value)
    (what,) = WorklistItem.of(ds)
    assert (
        passes(
            what,
            ScheduledProcedureStepStartDate="20261123-20261123",
            ScheduledProcedureStepStartTime="0900-1800",
        )
        is expected
    )


def test_codes_are_matched_within_their_sequence() -> None:
    """C.2.2.2.6: some item passes all keys of the item in the key."""
    codes = Sequence(
        [
            data_set(CodeValue="1", CodingSchemeDesignator="L", CodeMeaning="one"),
            data_set(CodeValue="2", CodingSchemeDesignator="M", CodeMeaning="two"),
        ]
    )
    coded = item(RequestedProcedureCodeSequence=codes, ScheduledProtocolCodeSequence=codes)
    for sequence in ("RequestedProcedureCodeSequence", "ScheduledProtocolCodeSequence"):

        def wanted(sequence: str = sequence, **code: str) -> bool:
            return passes(coded, **{sequence: Sequence([data_set(**code)])})

        assert wanted(CodeValue="2", CodingSchemeDesignator="M")
        assert not wanted(CodeValue="1", CodingSchemeDesignator="M")
        assert wanted(CodeMeaning="t*")
    assert not passes(item(), RequestedProcedureCodeSequence=Sequence([data_set(CodeValue="1")]))


NAMES = {
    "kanji": (JAPANESE, "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "half-width": (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    "korean": (KOREAN, "Hong^Gildong=洪^吉洞=홍^길동"),
    "unicode": ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
    "chinese": ("GB18030", "Wang^XiaoDong=王^小东"),
    "greek": ("ISO_IR 126", "Διονυσιος"),
    "cyrillic": ("ISO_IR 144", "Люк"),
}


@pytest.mark.parametrize("of_item", NAMES)
@pytest.mark.parametrize("of_key", ["kanji", "unicode"])
def test_names_match_as_unicode_whatever_they_were_written_in(of_item: str, of_key: str) -> None:
    """PS3.4 C.2.2.2: the character sets of the key and of the item are decoded, not compared."""
    terms, name = NAMES[of_item]
    what = item(SpecificCharacterSet=terms, PatientName=name)
    assert (
        str(decoded(WorklistQuery(asking()).answer(what, EXPLICIT_VR_LITTLE_ENDIAN)).PatientName)
        == name
    )
    key_terms = "ISO_IR 192" if of_key == "unicode" else NAMES[of_item][0]
    for group in filter(None, name.split("=")):
        identifier = received(asking(SpecificCharacterSet=key_terms, PatientName=f"{group[:2]}*"))
        assert WorklistQuery(identifier).accepts(what), group
    other = received(asking(SpecificCharacterSet="ISO_IR 192", PatientName="佐藤*"))
    assert not WorklistQuery(other).accepts(what)


def test_a_key_that_cannot_be_matched_is_refused() -> None:
    octets = encoded(asking(ScheduledProcedureStepStartDate="20261123"))
    someday = decoded(octets.replace(b"20261123", b"some day"))
    with pytest.raises(MatchingError) as caught:
        WorklistQuery(someday)
    assert caught.value.status == 0xC000
    two = asking()
    two.ScheduledProcedureStepSequence.append(Dataset())
    with pytest.raises(MatchingError):
        WorklistQuery(received(two))


def test_an_identifier_without_any_key_asks_for_everything() -> None:
    assert WorklistQuery(Dataset()).accepts(item())


# -- items --------------------------------------------------------------------------------------------


def test_an_item_with_several_steps_is_several_items() -> None:
    """K.6.1.2.2: a response has one scheduled procedure step."""
    ds = scheduled()
    second = data_set(ScheduledProcedureStepID="S2", Modality="MR")
    ds.ScheduledProcedureStepSequence.append(second)
    found = WorklistItem.of(ds)
    assert [each.key for each in found] == [("1.2.3", "S1"), ("1.2.3", "S2")]
    assert [passes(each, Modality="MR") for each in found] == [False, True]
    (step,) = answer(found[1], asking(Modality=None)).ScheduledProcedureStepSequence
    assert step == second


def test_a_data_set_without_a_step_is_no_item() -> None:
    with pytest.raises(InvalidDataSetError, match="0040,0100"):
        WorklistItem.of(data_set(PatientName="Doe^Jane"))


@pytest.mark.parametrize(
    "syntax", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN]
)
def test_items_are_read_and_answers_written_in_every_coding(syntax: str) -> None:
    """PS3.5 A.1 to A.3; pregnancy status is a number of two octets."""
    ds = scheduled(PregnancyStatus=3, PatientName="Müller^Änne", SpecificCharacterSet="ISO_IR 100")
    (what,) = WorklistItem.read(dsutils.encode(ds, syntax), syntax)
    found = answer(what, asking(PregnancyStatus=None), syntax)
    assert found.PregnancyStatus == 3
    assert str(found.PatientName) == "Müller^Änne"


# -- answers ------------------------------------------------------------------------------------------


def test_what_is_asked_for_is_answered_and_no_more() -> None:
    """K.4.1.1.3.2: the return keys, empty where there is no value."""
    found = answer(item(), asking(AdmissionID=None, Modality=None))
    assert [each.keyword for each in found] == [
        "PatientName",
        "PatientID",
        "StudyInstanceUID",
        "AdmissionID",
        "ScheduledProcedureStepSequence",
    ]
    assert not found.AdmissionID
    (step,) = found.ScheduledProcedureStepSequence
    assert step == data_set(Modality="CT", ScheduledProcedureStepID="S1")


@pytest.mark.parametrize("value", [[], [Dataset()]], ids=["no item", "an empty item"])
def test_a_sequence_asked_for_as_a_whole_is_answered_as_a_whole(value: list[Dataset]) -> None:
    """K.6.1.2.2: zero length, or one item of zero length."""
    identifier = data_set(ScheduledProcedureStepSequence=Sequence(value))
    (step,) = answer(item(), identifier).ScheduledProcedureStepSequence
    assert step == scheduled().ScheduledProcedureStepSequence[0]


def test_sequences_are_nested_in_answers() -> None:
    code = data_set(CodeValue="1", CodingSchemeDesignator="L", CodeMeaning="one")
    coded = item(ScheduledProtocolCodeSequence=Sequence([code, data_set(CodeValue="2")]))
    wanted = data_set(CodeValue="1", CodeMeaning=None)
    found = answer(coded, asking(ScheduledProtocolCodeSequence=Sequence([wanted])))
    (step,) = found.ScheduledProcedureStepSequence
    assert list(step.ScheduledProtocolCodeSequence) == [data_set(CodeValue="1", CodeMeaning="one")]
    found = answer(item(), asking(ScheduledProtocolCodeSequence=Sequence([wanted]), Modality=None))
    assert len(found.ScheduledProcedureStepSequence) == 1


@pytest.mark.parametrize(
    ("asked", "own", "name", "expected"),
    [
        (None, "ISO_IR 100", "Doe^Jane", None),
        ("ISO_IR 100", "ISO_IR 192", "Doe^Jane", None),
        (None, "ISO_IR 100", "Müller", "ISO_IR 100"),
        ("ISO_IR 192", "ISO_IR 100", "Müller", "ISO_IR 192"),
        ("ISO_IR 100", JAPANESE, "Yamada=山田", JAPANESE),
        (JAPANESE, "ISO_IR 192", "Yamada=山田", JAPANESE),
        ("ISO_IR 100", "ISO_IR 144", "Люк", "ISO_IR 144"),
        ("NO SUCH SET", "ISO_IR 144", "Люк", "ISO_IR 144"),
        (KOREAN, None, "Doe^Jane", None),
    ],
)
def test_the_character_set_of_an_answer(asked: Any, own: Any, name: str, expected: Any) -> None:
    """The one asked in where it can hold it, else that of the item; none for ASCII."""
    attributes = {"SpecificCharacterSet": own} if own else {}
    what = item(PatientName=name, **attributes)
    identifier = asking()
    if asked:
        identifier.SpecificCharacterSet = asked
    query = WorklistQuery(decoded(encoded(identifier)) if asked != "NO SUCH SET" else identifier)
    found = decoded(query.answer(what, EXPLICIT_VR_LITTLE_ENDIAN))
    said = found.get("SpecificCharacterSet")
    assert (list(said) if isinstance(expected, list) else said) == expected
    assert str(found.PatientName) == name


def test_what_no_set_of_either_side_holds_is_answered_in_unicode() -> None:
    (what,) = WorklistItem.of(scheduled(SpecificCharacterSet="ISO_IR 192", PatientName="Люк"))
    (mixed,) = [WorklistItem((), what.attributes)]
    found = answer(mixed, asking(SpecificCharacterSet="ISO_IR 100"))
    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert str(found.PatientName) == "Люк"


def test_all_keys_of_the_standard_are_matched_and_answered() -> None:
    """PS3.4 Table K.6-1, and what is below its sequences."""
    table = json.loads((STANDARD / "qr_information_model.json").read_text())["modality_worklist"]
    for entry in table["attributes"]:
        if entry["nesting"] > 1 or entry["vr"] in ("SQ", "US"):
            continue
        if entry["nesting"] == 1 and entry["module"] != "Scheduled Procedure Step":
            continue
        value = {"DA": "20261123", "TM": "1015", "UI": "1.2.3", "DS": "70"}.get(entry["vr"], "X")
        ds, identifier = scheduled(), asking()
        tag = int(entry["tag"].replace(",", ""), 16)
        for each in (ds, identifier):
            within = each.ScheduledProcedureStepSequence[0] if entry["nesting"] else each
            within.add_new(tag, entry["vr"], value)
        (what,) = WorklistItem.of(ds)
        query = WorklistQuery(identifier)
        assert query.accepts(what), entry
        found = decoded(query.answer(what, EXPLICIT_VR_LITTLE_ENDIAN))
        within = found.ScheduledProcedureStepSequence[0] if entry["nesting"] else found
        assert str(within[tag].value) == value, entry
        others = {"DA": "20261124", "TM": "1016", "UI": "1.2.4", "DS": "71"}
        for each in (identifier.ScheduledProcedureStepSequence[0], identifier):
            if tag in each:
                each[tag].value = others.get(entry["vr"], "Y")
        assert not WorklistQuery(identifier).accepts(what), entry


# -- the service --------------------------------------------------------------------------------------


def at_once(call: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
    return defer.maybeDeferred(call, *arguments)


@implementer(IWorklistSource)
class Source:
    """Gives what it was given, in the way it was given."""

    def __init__(self, given: Any) -> None:
        self.given = given

    def items(self, identifier: Dataset) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given() if callable(self.given) else self.given


CONTEXT = PContextDef(
    1, MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS, EXPLICIT_VR_LITTLE_ENDIAN, False, True
)


def find(worklist: Worklist, identifier: Dataset) -> list[str]:
    finding = defer.Deferred.fromCoroutine(worklist.find(CONTEXT, identifier))
    return [
        decoded(each).ScheduledProcedureStepSequence[0].ScheduledProcedureStepID
        for each in success_of(finding)
    ]


def steps(*names: str, **attributes: Any) -> list[Dataset]:
    return [scheduled(ScheduledProcedureStepID=name, **attributes) for name in names]


def test_items_come_from_all_sources() -> None:
    async def later() -> Iterable[Dataset]:
        return steps("S3")

    def generated() -> Iterator[Dataset]:
        yield from steps("S4")

    given = [
        steps("S1"),
        lambda: defer.succeed(steps("S2")),
        later,
        generated,
        WorklistItem.of(*steps("S5")),
    ]
    worklist = Worklist(map(Source, given), at_once)
    assert find(worklist, asking()) == ["S1", "S2", "S3", "S4", "S5"]
    assert find(worklist, asking(ScheduledProcedureStepID="S[")) == []


def test_answers_are_in_the_order_of_their_start() -> None:
    late = steps("late", ScheduledProcedureStepStartTime="1700")
    early = steps("early", ScheduledProcedureStepStartTime="0700")
    before = steps("before", ScheduledProcedureStepStartDate="20261122")
    assert find(Worklist([Source(late + early + before)], at_once), asking()) == [
        "before",
        "early",
        "late",
    ]


def test_what_a_source_gives_that_is_no_item_is_left_out() -> None:
    broken = data_set(PatientName="Doe^Jane")
    worklist = Worklist([Source([broken, *steps("S1")])], at_once)
    assert find(worklist, asking()) == ["S1"]


def test_a_source_that_fails_fails_the_query() -> None:
    """Part of a worklist would look like all of it."""
    worklist = Worklist([Source(steps("S1")), Source(OSError("no database"))], at_once)
    finding = defer.Deferred.fromCoroutine(worklist.find(CONTEXT, asking()))
    error = failure_of(finding)
    assert isinstance(error, StatusError)
    assert (error.status, error.comment) == (0xC000, "a worklist source failed")


def test_the_status_of_a_step_is_that_of_its_performed_procedure_step() -> None:
    """One that has ended is answered only to who asks for the status (0040,0020)."""
    seen: list[Collection[StepKey]] = []

    def states(keys: Collection[StepKey]) -> dict[StepKey, str]:
        seen.append(keys)
        return {("1.2.3", "S2"): "STARTED", ("1.2.3", "S3"): "COMPLETED", ("1.9", "S1"): "STARTED"}

    worklist = Worklist([Source(steps("S1", "S2", "S3"))], at_once, states)
    assert find(worklist, asking()) == ["S1", "S2"]
    assert seen == [{("1.2.3", "S1"), ("1.2.3", "S2"), ("1.2.3", "S3")}]
    assert find(worklist, asking(ScheduledProcedureStepStatus="STARTED")) == ["S2"]
    assert find(worklist, asking(ScheduledProcedureStepStatus="COMPLETED")) == ["S3"]
    assert find(worklist, asking(ScheduledProcedureStepStatus=None)) == ["S1", "S2"]
    assert find(Worklist([Source([])], at_once, states), asking()) == []
    assert len(seen) == 4


class Ris(AE):
    """An SCP of the worklist, as a node is one."""

    def __init__(self, worklist: Worklist) -> None:
        super().__init__("RIS")
        self.worklist = worklist
        self.add_scp(modality_work_list_scp)

    def on_receive_find(self, context: PContextDef, ds: Dataset) -> Any:
        return self.worklist.find(context, ds)


def test_the_worklist_is_served() -> None:
    """Annex K over an association: Pending for each item, then Success."""
    scu = AE("CT1").add_scu(modality_work_list_scu)
    ris = Ris(Worklist([Source(steps("S1", "S2"))], at_once))

    async def ask(stream: Any) -> list[tuple[str | None, int]]:
        return [(ds and str(ds.PatientID), int(status)) async for ds, status in stream]

    with connected(scu, ris) as pair:
        find = pair.requestor.get_scu(MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS)
        told = success_of(defer.Deferred.fromCoroutine(ask(find(asking(Modality="CT")))))
        assert told == [("P1", 0xFF00), ("P1", 0xFF00), (None, 0)]
        bad = asking()
        bad.ScheduledProcedureStepSequence.append(Dataset())
        told = success_of(defer.Deferred.fromCoroutine(ask(find(bad))))
        assert told == [(None, 0xC000)]
