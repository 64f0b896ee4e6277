"""The worklist: ``findscu -W`` has from the node what it has from ``wlmscpfs``, and what PS3.4 says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from support.interop.archives import pynetdicom_findscu
from support.interop.workflow import Wlmscpfs, worklist, write_wl
from support.node import Node
from support.processes import WITH_PYNETDICOM, absent, program, run, succeed

pytestmark = WITH_PYNETDICOM

TITLE = "HOSPITAL"

OF_STEP = (
    "Modality",
    "ScheduledPerformingPhysicianName",
    "ScheduledProcedureStepDescription",
    "ScheduledProcedureStepID",
    "ScheduledProcedureStepLocation",
    "ScheduledProcedureStepStartDate",
    "ScheduledProcedureStepStartTime",
    "ScheduledStationAETitle",
    "ScheduledStationName",
)


def data_set(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def split(attributes: dict[str, Any]) -> Dataset:
    """A data set whose attributes of the step are in its sequence."""
    ds = data_set(**{name: value for name, value in attributes.items() if name not in OF_STEP})
    step = {name: value for name, value in attributes.items() if name in OF_STEP}
    ds.ScheduledProcedureStepSequence = Sequence([data_set(**step)])
    return ds


#: What is written of every item besides; wlmscpfs leaves files out that lack a return key of type 1 or 2.
REST = {
    "PatientBirthDate": "19700101",
    "PatientSex": "F",
    "PatientWeight": "70",
    "PatientState": "stable",
    "PregnancyStatus": 4,
    "MedicalAlerts": "none",
    "Allergies": "nuts",
    "SpecialNeeds": "",
    "ConfidentialityConstraintOnPatientDataDescription": "",
    "AdmissionID": "ADM0",
    "CurrentPatientLocation": "Ward 1",
    "ReferringPhysicianName": "Wilson^James",
    "RequestingPhysician": "Cuddy^Lisa",
    "RequestedProcedurePriority": "LOW",
    "PatientTransportArrangements": "",
    "ReferencedStudySequence": [],
    "ReferencedPatientSequence": [],
    "ScheduledProcedureStepLocation": "Room 1",
    "ScheduledStationName": "SCAN1",
}


class Item(NamedTuple):
    """A line of the table."""

    patient_id: str
    name: str
    accession: str
    modality: str
    station: str
    date: str
    time: str
    physician: str
    more: dict[str, Any]


ITEMS = {
    "1": Item("P1", "Doe^Jane", "A100", "CT", "CT1", "20261123", "080000", "House^Gregory", {}),
    "2": Item("P1", "Doe^Jane", "A101", "MR", "MR1", "20261123", "093000", "House^Gregory", {}),
    "3": Item("P2", "Doe^John^Q", "A102", "CT", "CT2", "20261124", "080000", "Chase^Robert", {}),
    "4": Item("P30", "Smith^Mary", "B100", "CT", "CT1", "20261124", "120000", "Foreman^Eric", {}),
    "5": Item("P31", "Smithson^Mary Ann", "B101", "US", "US1", "20261125", "143000", "", {}),
    "6": Item("P4", "Brown^Ann", "B102", "CR", "CR1", "20261125", "235959", "House^Greta", {}),
    "7": Item("Q5", "Green^Bob", "C100", "MR", "MR1", "20261126", "000000", "Chase^Robert", {}),
    "8": Item("Q6", "White^Walter", "C101", "MR", "MR2", "20261201", "101530", "Chase^R", {}),
    "9": Item(
        "Q7",
        "Black^Jack",
        "C102",
        "CT",
        "CT1",
        "20261231",
        "1015",
        "Foreman^Eric",
        {"AdmissionID": "ADM9", "ReferringPhysicianName": "Kutner^Lawrence"},
    ),
    "10": Item(
        "Q8",
        "Grey^Meredith",
        "D100",
        "XA",
        "XA1",
        "20270101",
        "073000.5",
        "Shepherd^Derek",
        {"RequestingPhysician": "Bailey^Miranda", "PregnancyStatus": 1},
    ),
}


def scheduled(label: str, item: Item) -> Dataset:
    return split(
        {
            **REST,
            "PatientID": item.patient_id,
            "PatientName": item.name,
            "AccessionNumber": item.accession,
            "StudyInstanceUID": f"1.2.826.0.1.3680043.10.1.{label}",
            "RequestedProcedureID": f"RP{label}",
            "RequestedProcedureDescription": f"Procedure {label}",
            "Modality": item.modality,
            "ScheduledStationAETitle": item.station,
            "ScheduledProcedureStepStartDate": item.date,
            "ScheduledProcedureStepStartTime": item.time,
            "ScheduledPerformingPhysicianName": item.physician,
            "ScheduledProcedureStepDescription": f"Step {label}",
            "ScheduledProcedureStepID": f"S{label}",
            **item.more,
        }
    )


def asking(**keys: Any) -> Dataset:
    """An identifier with keys, that asks for all that is written, by empty keys and an empty sequence of codes."""
    everything = dict.fromkeys([*REST, *OF_STEP])
    everything |= dict.fromkeys(
        [
            "PatientID",
            "PatientName",
            "AccessionNumber",
            "StudyInstanceUID",
            "RequestedProcedureID",
            "RequestedProcedureDescription",
        ]
    )
    return split({**everything, **keys})


QUERIES: dict[str, dict[str, Any]] = {
    "everything": {},
    "patient ID": {"PatientID": "P1"},
    "patient ID, other case": {"PatientID": "p1"},
    "patient ID, part": {"PatientID": "P"},
    "name": {"PatientName": "Doe^Jane"},
    "name, family": {"PatientName": "Doe^*"},
    "name, star within": {"PatientName": "S*^M*"},
    "name, question mark": {"PatientName": "Gr??n^Bob"},
    "name, star alone": {"PatientName": "*"},
    "name, nobody": {"PatientName": "Nobody*"},
    "modality": {"Modality": "CT"},
    "modality of nobody": {"Modality": "NM"},
    "station": {"ScheduledStationAETitle": "MR1"},
    "date": {"ScheduledProcedureStepStartDate": "20261124"},
    "dates": {"ScheduledProcedureStepStartDate": "20261124-20261126"},
    "dates from": {"ScheduledProcedureStepStartDate": "20261126-"},
    "dates to": {"ScheduledProcedureStepStartDate": "-20261124"},
    "time": {"ScheduledProcedureStepStartTime": "080000"},
    "times": {"ScheduledProcedureStepStartTime": "080000-120000"},
    "times from": {"ScheduledProcedureStepStartTime": "143000-"},
    "times to": {"ScheduledProcedureStepStartTime": "-075959"},
    "date and times": {
        "ScheduledProcedureStepStartDate": "20261123",
        "ScheduledProcedureStepStartTime": "090000-100000",
    },
    "dates and times are one range": {
        "ScheduledProcedureStepStartDate": "20261123-20261125",
        "ScheduledProcedureStepStartTime": "090000-150000",
    },
    "dates and times from": {
        "ScheduledProcedureStepStartDate": "20261125-",
        "ScheduledProcedureStepStartTime": "150000-",
    },
    "dates and times to": {
        "ScheduledProcedureStepStartDate": "-20261124",
        "ScheduledProcedureStepStartTime": "-100000",
    },
    "physician": {"ScheduledPerformingPhysicianName": "Chase^Robert"},
    "physician, star": {"ScheduledPerformingPhysicianName": "House*"},
    "accession number": {"AccessionNumber": "B101"},
    "accession number, star": {"AccessionNumber": "C*"},
    "referring physician": {"ReferringPhysicianName": "Kutner*"},
    "requesting physician": {"RequestingPhysician": "Bailey^Miranda"},
    "admission": {"AdmissionID": "ADM9"},
    "requested procedure": {"RequestedProcedureID": "RP7"},
    "modality, station and dates": {
        "Modality": "CT",
        "ScheduledStationAETitle": "CT1",
        "ScheduledProcedureStepStartDate": "20261124-20261231",
    },
    "modality and name that do not meet": {"Modality": "CT", "PatientName": "Green*"},
}


#: Where the node differs: the keys, its answers, and why.
DIFFERENCES: dict[str, tuple[dict[str, Any], str, str]] = {
    "patient ID, star": (
        {"PatientID": "P*"},
        "1 2 3 4 5 6",
        "Table K.6-1 asks for single value matching only; C.2.2.2.4 has wild cards for every LO",
    ),
    "patient ID, question marks": ({"PatientID": "?3?"}, "4 5", "as above"),
    "step": (
        {"ScheduledProcedureStepID": "S8"},
        "8",
        "an optional matching key (K.2.2.1.2), which wlmscpfs takes as a return key",
    ),
    "study": ({"StudyInstanceUID": "1.2.826.0.1.3680043.10.1.4"}, "4", "as above"),
    "studies": (
        {"StudyInstanceUID": [f"1.2.826.0.1.3680043.10.1.{n}" for n in (4, 5)]},
        "4 5",
        "list of UID matching (C.2.2.2.2) of the same key",
    ),
    "description of the step": (
        {"ScheduledProcedureStepDescription": "Step ?"},
        "1 2 3 4 5 6 7 8 9",
        "as above",
    ),
    "sex": ({"PatientSex": "F", "PregnancyStatus": 1}, "10", "as above"),
    "name, other case": (
        {"PatientName": "doe^JANE"},
        "1 2",
        "C.2.2.2.1 leaves it to the implementation whether case matters in names",
    ),
}

JAPANESE, KATAKANA = ["", "ISO 2022 IR 87"], ["ISO 2022 IR 13", "ISO 2022 IR 87"]
KOREAN, LATIN, UNICODE = ["", "ISO 2022 IR 149"], "ISO_IR 100", "ISO_IR 192"
#: More than one set of characters in one name, and another default set than ASCII.
EAST_ASIAN = ["", "ISO 2022 IR 87", "ISO 2022 IR 149"]
LATIN_JAPANESE = ["ISO 2022 IR 100", "ISO 2022 IR 87"]
GREEK_CYRILLIC = ["ISO 2022 IR 126", "ISO 2022 IR 144"]

#: Items in other scripts: Specific Character Set, name, physician.
NAMES: dict[str, tuple[Any, str, str]] = {
    "20": (JAPANESE, "Yamada^Tarou=山田^太郎=やまだ^たろう", "Satou^Ichirou=佐藤^一郎"),
    "21": (KATAKANA, "ﾔﾏﾀﾞ^ﾊﾅｺ=山田^花子=やまだ^はなこ", ""),
    "22": (JAPANESE, "Suzuki^Jirou=鈴木^次郎=すずき^じろう", "Yamada^Saburou=山田^三郎"),
    "23": (KOREAN, "Hong^Gildong=洪^吉洞=홍^길동", "Kim^Uisa=金^醫師=김^의사"),
    "24": (KOREAN, "Kim^Huijung=金^喜中=김^희중", ""),
    "25": (LATIN, "Müller^Jürgen", "Weiß^Änne"),
    "26": (UNICODE, "Wang^XiaoDong=王^小东", "Müller^Jürgen"),
    "27": ("GB18030", "Zhang^XiaoDong=张^小东", ""),
    "28": ("ISO_IR 126", "Διονυσιος^Νίκος", ""),
    "29": ("ISO_IR 144", "Люксембург^Пётр", ""),
    "30": (UNICODE, "Yamada^Shirou=山田^四郎=やまだ^しろう", "Müller^Ö"),
    "31": (EAST_ASIAN, "Tanaka^Minjun=田中^民俊=たなか^민준", "Pak^Jirou=朴^次郎=박^じろう"),
    "32": (LATIN_JAPANESE, "Böhm^Hanako=山本^花子=やまもと^はなこ", "Müller^Kenji=ミュラー^健二"),
    "33": (GREEK_CYRILLIC, "Παππάς^Пётр", "Νίκος^Иванов"),
}

#: Keys in their character sets, and what PS3.4 C.2.2.2 has them match on decoded names.
IN_OTHER_SCRIPTS: dict[str, tuple[Any, dict[str, str], str]] = {
    "kanji, one group": (JAPANESE, {"PatientName": "=山田*"}, "20 21 30"),
    "kanji, whole": (JAPANESE, {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}, "20"),
    "kanji, any group": (JAPANESE, {"PatientName": "山田*"}, "20 21 30"),
    "kanji, question mark": (JAPANESE, {"PatientName": "=山田^?郎"}, "20 30"),
    "hiragana": (JAPANESE, {"PatientName": "==やまだ*"}, "20 21 30"),
    "half-width katakana": (KATAKANA, {"PatientName": "ﾔﾏﾀﾞ*"}, "21"),
    "kanji from the katakana set": (KATAKANA, {"PatientName": "=山田^花子"}, "21"),
    "kanji in Unicode": (UNICODE, {"PatientName": "=山田*"}, "20 21 30"),
    "romaji": (None, {"PatientName": "yamada*"}, "20 30"),
    "physician, kanji": (JAPANESE, {"ScheduledPerformingPhysicianName": "=山田*"}, "22"),
    "two keys, kanji": (
        JAPANESE,
        {"PatientName": "=鈴木*", "ScheduledPerformingPhysicianName": "=山田*"},
        "22",
    ),
    "hangul": (KOREAN, {"PatientName": "==홍^길동"}, "23"),
    "hanja": (KOREAN, {"PatientName": "=金*"}, "24"),
    "hanja and hangul": (KOREAN, {"PatientName": "=金*=김*"}, "24"),
    "hangul in Unicode": (UNICODE, {"PatientName": "==김*"}, "24"),
    "umlaut": (LATIN, {"PatientName": "Müller*"}, "25"),
    "umlaut, other case": (LATIN, {"PatientName": "MÜLLER^J*"}, "25"),
    "umlaut in Unicode": (UNICODE, {"ScheduledPerformingPhysicianName": "Müller^?*"}, "26 30 32"),
    "chinese in Unicode": (UNICODE, {"PatientName": "=*^小东"}, "26 27"),
    "chinese in GB18030": ("GB18030", {"PatientName": "=王*"}, "26"),
    "greek": ("ISO_IR 126", {"PatientName": "Διονυσιος*"}, "28"),
    "cyrillic": ("ISO_IR 144", {"PatientName": "Люксембург^Пётр"}, "29"),
    "nobody": (UNICODE, {"PatientName": "=渡辺*"}, ""),
    "hiragana and hangul in one group": (EAST_ASIAN, {"PatientName": "==たなか^민준"}, "31"),
    "kanji of a mixed name": (JAPANESE, {"PatientName": "=田中*"}, "31"),
    "hangul of a mixed name": (KOREAN, {"ScheduledPerformingPhysicianName": "==박^*"}, "31"),
    "two scripts in two keys": (
        EAST_ASIAN,
        {"PatientName": "==*^민준", "ScheduledPerformingPhysicianName": "=朴^次郎"},
        "31",
    ),
    "umlaut and kanji": (LATIN_JAPANESE, {"PatientName": "Böhm*=山本^花子"}, "32"),
    "umlaut beside kanji": (LATIN, {"PatientName": "böhm^*"}, "32"),
    "katakana beside an umlaut": (
        UNICODE,
        {"ScheduledPerformingPhysicianName": "=ミュラー*"},
        "32",
    ),
    "greek and cyrillic": (GREEK_CYRILLIC, {"PatientName": "Παππάς^Пётр"}, "33"),
    "cyrillic of a mixed name": (
        "ISO_IR 144",
        {"ScheduledPerformingPhysicianName": "*^Иванов"},
        "33",
    ),
    "cyrillic, whoever": (UNICODE, {"PatientName": "*^Пётр"}, "29 33"),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As wlmscpfs wants it: a directory for the AE, and a lockfile in it."""
    path = tmp_path_factory.mktemp("worklist")
    for label, item in ITEMS.items():
        write_wl(scheduled(label, item), path / TITLE / f"{label}.wl")
    (path / TITLE / "lockfile").touch()
    return path


@pytest.fixture(scope="module")
def node(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    made = Node(tmp_path_factory.mktemp("node"), "--worklist", str(directory))
    made.start()
    yield made
    made.stop()
    assert "Traceback" not in made.log, made.log


@pytest.fixture(scope="module")
def wlmscpfs(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wlmscpfs]:
    peer = Wlmscpfs(directory, TITLE, tmp_path_factory.mktemp("wlmscpfs") / "log")
    yield peer
    peer.close()


def flat(ds: Dataset, path: str = "") -> dict[str, str]:
    """Every attribute as text, sequences by the numbers of their items."""
    found = {}
    for element in ds:
        if element.keyword == "SpecificCharacterSet":
            continue
        if element.VR == "SQ":
            for number, item in enumerate(element.value):
                found |= flat(item, f"{path}{element.keyword}[{number}].")
        else:
            found[f"{path}{element.keyword}"] = "" if element.value is None else str(element.value)
    return found


def ids(found: Iterable[Dataset]) -> list[str]:
    return sorted(
        str(ds.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID)[1:] for ds in found
    )


@pytest.mark.parametrize("name", QUERIES)
def test_the_node_answers_as_wlmscpfs_does(
    name: str, node: Node, wlmscpfs: Wlmscpfs, tmp_path: Path
) -> None:
    """The same items, and every attribute of them that wlmscpfs knows as a return key."""
    identifier = asking(**QUERIES[name])
    theirs = worklist(wlmscpfs.address, identifier, tmp_path / "theirs", wlmscpfs.inside)
    ours = worklist(node.address, identifier, tmp_path / "ours")
    assert ids(ours) == ids(theirs)
    by_step = {
        each["ScheduledProcedureStepSequence[0].ScheduledProcedureStepID"]: each
        for each in map(flat, ours)
    }
    for ds in theirs:
        answer = flat(ds)
        own = by_step[answer["ScheduledProcedureStepSequence[0].ScheduledProcedureStepID"]]
        assert {key: own.get(key) for key in answer} == answer


@pytest.mark.parametrize("name", DIFFERENCES)
def test_where_the_node_differs_the_standard_has_it(
    name: str, node: Node, wlmscpfs: Wlmscpfs, tmp_path: Path
) -> None:
    keys, expected, reason = DIFFERENCES[name]
    identifier = asking(**keys)
    assert ids(worklist(node.address, identifier, tmp_path / "ours")) == sorted(expected.split())
    theirs = worklist(wlmscpfs.address, identifier, tmp_path / "theirs", wlmscpfs.inside)
    assert ids(theirs) != sorted(expected.split()), f"no difference any more: {reason}"


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node whose items are in other scripts and character sets, some in several at once."""
    path = tmp_path_factory.mktemp("scripts")
    for label, (terms, name, physician) in NAMES.items():
        item = Item(f"P{label}", name, label, "CT", "CT1", "20261123", "080000", physician, {})
        ds = scheduled(label, item)
        ds.SpecificCharacterSet = terms
        write_wl(ds, path / f"{label}.wl")
    made = Node(path, "--worklist", str(path))
    made.start()
    yield made
    made.stop()
    assert "Traceback" not in made.log, made.log


@pytest.mark.parametrize("name", IN_OTHER_SCRIPTS)
def test_names_are_matched_as_what_they_say(name: str, scripts: Node, tmp_path: Path) -> None:
    """wlmscpfs compares octets, so PS3.4 C.2.2.2 is the judge; and every answer reads as it was written."""
    terms, keys, expected = IN_OTHER_SCRIPTS[name]
    identifier = asking(**keys)
    if terms is not None:
        identifier.SpecificCharacterSet = terms
    found = worklist(scripts.address, identifier, tmp_path / "found")
    assert ids(found) == expected.split()
    for ds in found:
        _, patient, physician = NAMES[str(ds.PatientID)[1:]]
        assert str(ds.PatientName) == patient
        step = ds.ScheduledProcedureStepSequence[0]
        assert str(step.ScheduledPerformingPhysicianName or "") == physician


def test_the_files_of_dcmtk_are_read(tmp_path: Path) -> None:
    """As ``dump2dcm`` makes them of the examples that DCMTK brings."""
    dumps = sorted(Path("/usr/share/doc/dcmtk/examples/wlistdb/OFFIS").glob("*.dump"))
    if not dumps:
        absent("DCMTK's examples are not installed")
    (tmp_path / "OFFIS").mkdir()
    for number, dump in enumerate(dumps):
        # A third of them without a header.
        options = ["--write-dataset"] if number % 3 == 0 else []
        target = tmp_path / "OFFIS" / f"{dump.stem}.wl"
        succeed(program("dump2dcm"), *options, dump, target)
    (tmp_path / "OFFIS" / "lockfile").touch()
    peer = Wlmscpfs(tmp_path, "OFFIS", tmp_path / "wlmscpfs.log")
    node = Node(tmp_path, "--worklist", str(tmp_path))
    try:
        node.start()
        for number, keys in enumerate(({}, {"Modality": "MR"}, {"PatientName": "V*"})):
            identifier = asking(**keys)
            theirs = worklist(peer.address, identifier, tmp_path / f"theirs{number}", peer.inside)
            ours = worklist(node.address, identifier, tmp_path / f"ours{number}")
            assert ids(ours) == ids(theirs) != []
    finally:
        peer.close()
        node.stop()


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[tuple[Node, Path]]:
    """A node, and the directory of its worklist, which a test changes."""
    path = tmp_path / "worklist"
    path.mkdir()
    node = Node(tmp_path, "--worklist", str(path))
    node.start()
    yield node, path
    node.stop()


def test_changes_of_the_directory_are_seen_without_a_restart(
    changing: tuple[Node, Path], tmp_path: Path
) -> None:
    node, path = changing
    queries = iter(range(100))

    def found() -> list[str]:
        return ids(worklist(node.address, asking(), tmp_path / f"query{next(queries)}"))

    assert found() == []
    write_wl(scheduled("1", ITEMS["1"]), path / "a.wl")
    assert found() == ["1"]
    write_wl(scheduled("2", ITEMS["2"]), path / "b.wl")
    (path / "broken.wl").write_bytes(b"half a file")
    assert found() == ["1", "2"]
    write_wl(scheduled("3", ITEMS["3"]), path / "a.wl")
    (path / "b.wl").unlink()
    assert found() == ["3"]
    assert "broken.wl is not a worklist item" in node.log


def test_a_key_that_is_none_is_refused_and_the_next_query_answered(
    node: Node, tmp_path: Path
) -> None:
    """0xC000 with an Error Comment (PS3.4 Table K.4-1)."""
    identifier = asking(ScheduledProcedureStepStartDate="20261123")
    write_wl(identifier, tmp_path / "query.dcm")
    octets = (tmp_path / "query.dcm").read_bytes().replace(b"20261123", b"some day")
    (tmp_path / "query.dcm").write_bytes(octets)
    printed = run(
        program("findscu"),
        *("--verbose", "--worklist", *node.address.arguments),
        tmp_path / "query.dcm",
        tmp_path / "query.dcm",
    ).stdout
    assert printed.count("Received Final Find Response (Failed: UnableToProcess)") == 2, printed
    assert len(worklist(node.address, asking(), tmp_path / "next")) == len(ITEMS)


def test_pynetdicom_asks_the_worklist(node: Node, tmp_path: Path) -> None:
    found = pynetdicom_findscu(
        node.address, "W", asking(ScheduledStationAETitle="MR1"), tmp_path / "query"
    )
    assert ids(found) == ["2", "7"]
