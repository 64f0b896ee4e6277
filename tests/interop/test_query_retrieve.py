"""Query and retrieve: the node asked by DCMTK, Orthanc, pynetdicom and ourselves.

What is right is in ``queries.py``, written from the standard; ``dcmqrscp``, loaded with the same files
by the same sender, is asked the same, and each difference has its clause there.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from support.archive.patients import data_set, study_uid
from support.interop.archives import Dcmqrscp, Loaded, findscu, findscu_status, pynetdicom_findscu
from support.interop.peers import Orthanc, StoreSCP
from support.interop.population import BULK, NOBODY, UNIQUE_KEYS, Population
from support.interop.queries import (
    EVERY,
    QUERIES,
    UTF8,
    Asked,
    expected,
    identifier,
    known_matches,
    labels,
)
from support.part10 import by_instance, data_set_bytes
from support.processes import CHECKOUT, need_pynetdicom, program, run, succeed

pytestmark = pytest.mark.interop

each_query = pytest.mark.parametrize("asked", QUERIES, ids=[each.what for each in QUERIES])


def test_the_table_has_what_was_asked_for() -> None:
    """Sixty queries at the least, over all levels and roots."""
    assert len(QUERIES) >= 60
    assert len({each.what for each in QUERIES}) == len(QUERIES)
    assert {(each.level, each.model) for each in QUERIES} == {
        *(("PATIENT", "P"), ("STUDY", "P"), ("SERIES", "P"), ("IMAGE", "P")),
        *(("STUDY", "S"), ("SERIES", "S"), ("IMAGE", "S")),
        *(("PATIENT", "O"), ("STUDY", "O")),
    }


@each_query
def test_findscu_gets_what_the_standard_wants(asked: Asked, loaded: Loaded, tmp_path: Path) -> None:
    """PS3.4 C.2.2.2; each match once, with what C.4.1.1.3.2 wants in every answer."""
    answers = findscu(loaded.address, asked.model, identifier(asked), tmp_path / "answers")
    assert labels(loaded.population, asked, answers) == expected(loaded.population, asked)
    for each in answers:
        assert each.QueryRetrieveLevel == asked.level
        assert each.RetrieveAETitle == loaded.address.ae_title


@each_query
def test_dcmqrscp_differs_only_where_it_is_explained(
    asked: Asked, population: Population, dcmqrscp: Dcmqrscp, tmp_path: Path
) -> None:
    """This proves that the table is not our invention.

    For every query one difference is known: dcmqrscp does not apply PS3.4 C.2.2.1.2, by which an
    attribute without value matches.
    """
    there = population.uncompressed[asked.level] - {NOBODY}
    wanted = known_matches(population, asked) & there
    if asked.dcmqrscp is not None:
        missing = frozenset(asked.dcmqrscp.missing.split())
        extra = frozenset(asked.dcmqrscp.extra.split())
        assert missing <= wanted, "nothing is missing that is not there"
        assert not extra & wanted, "what is right is not extra"
        wanted = there if EVERY in extra else (wanted - missing) | extra
    answers = findscu(dcmqrscp.address, asked.model, identifier(asked), tmp_path / "answers")
    assert labels(population, asked, answers) == sorted(wanted)


BY_PYNETDICOM = [
    # By negotiation (PS3.4 C.5.1.1): options, level, keys, what has a value that matches.
    (["--relational-query"], "SERIES", {"Modality": "PT"}, "A2.2 M1.3 B1.1"),
    (["--relational-query"], "IMAGE", {"PatientID": "JANE"}, "J1.1.1 J1.1.2"),
    (
        ["--dt-matching"],
        "STUDY",
        {"StudyDate": "20060705-20060706", "StudyTime": "100000-110000"},
        "K1",
    ),
    (
        ["--dt-matching"],
        "STUDY",
        {"StudyDate": "20060705-20060707", "StudyTime": "180000-110000"},
        "H1",
    ),
    (["--fuzzy-names"], "STUDY", {"PatientName": "Jurgen Mueller"}, "M1"),
    (
        ["--timezone-adj"],
        "STUDY",
        {"StudyDate": "20190630", "TimezoneOffsetFromUTC": "+0000"},
        "C1 C2",
    ),
]


@pytest.mark.parametrize(
    ("options", "level", "keys", "found"), BY_PYNETDICOM, ids=[str(n) for n in range(6)]
)
def test_pynetdicom_findscu_gets_what_it_negotiated(
    options: list[str],
    level: str,
    keys: dict[str, str],
    found: str,
    loaded: Loaded,
    tmp_path: Path,
) -> None:
    """Relational queries, combined date and time, names by their sound, another time zone."""
    asked = Asked("", level, keys, found)
    answers = pynetdicom_findscu(
        loaded.address, "S", identifier(asked), tmp_path / "answers", *options
    )
    ours = set(labels(loaded.population, asked, answers))
    assert ours == set(found.split())


# One of each kind, for the tools that are asked less.
SOME = [
    each
    for each in QUERIES
    if each.what
    in {
        "an identifier",
        "a list of UIDs",
        "no key",
        "one character",
        "days",
        "up to a time",
        "one item has all of it",
        "kanji",
        "hangul in UTF-8",
        "Greek",
        "Cyrillic",
        "an umlaut in UTF-8",
        "series by way of the patient",
        "all instances of a series",
    }
]
some_queries = pytest.mark.parametrize("asked", SOME, ids=[each.what for each in SOME])


@pytest.mark.parametrize("asked", SOME[::3], ids=[each.what for each in SOME[::3]])
def test_pynetdicom_findscu_gets_the_same(asked: Asked, loaded: Loaded, tmp_path: Path) -> None:
    """Its own encoding of the same identifiers."""
    answers = pynetdicom_findscu(
        loaded.address, asked.model, identifier(asked), tmp_path / "answers"
    )
    assert labels(loaded.population, asked, answers) == expected(loaded.population, asked)


def netdicom(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    """Our own command, as ``python -m netdicom_tx``."""
    return run(
        *(sys.executable, "-m", "netdicom_tx", *words),
        PYTHONPATH=os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])),
    )


@pytest.mark.parametrize("asked", SOME[::3], ids=[each.what for each in SOME[::3]])
def test_netdicom_find_prints_the_same(asked: Asked, loaded: Loaded) -> None:
    """As JSON lines, one for each answer."""
    keys = [
        word
        for keyword, value in asked.keys.items()
        for word in ("-k", f"{keyword}={value if isinstance(value, str) else chr(92).join(value)}")
    ]
    done = netdicom(
        *("find", f"{loaded.address.ae_title}@127.0.0.1:{loaded.address.port}"),
        *(f"-{asked.model}", "--level", asked.level, *keys),
        *("--return", UNIQUE_KEYS[asked.level], "--json", "--quiet"),
    )
    assert done.returncode == 0, done.stdout
    answers = [Dataset.from_json(line) for line in done.stdout.splitlines()]
    assert labels(loaded.population, asked, answers) == expected(loaded.population, asked)


@some_queries
def test_answers_are_in_characters_that_the_requestor_reads(
    asked: Asked, loaded: Loaded, tmp_path: Path
) -> None:
    """PS3.4 C.4.1.1.3.2: names come back as they are, in the set asked for or in one that holds them."""
    keys = asked if asked.level == "STUDY" else Asked("", "STUDY", {}, EVERY)
    request = identifier(keys)
    request.PatientName = request.get("PatientName", "")
    answers = findscu(loaded.address, keys.model, request, tmp_path / "answers")
    for each in answers:
        label = loaded.population.label("STUDY", each.StudyInstanceUID)
        if label in loaded.population.paths or label == BULK:
            continue  # pydicom's samples, some of which bear several names
        stored = pydicom.dcmread(loaded.population.paths[f"{label}.1.1"])
        assert each.PatientName == stored.PatientName
        terms = each.get("SpecificCharacterSet", "")
        if isinstance(terms, str):
            terms = [terms]
        assert list(terms) in ([*asked.terms], [""], [UTF8])


@pytest.mark.parametrize(
    ("keys", "printed"),
    [
        ({"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": ""}, "0xa900"),
        ({"QueryRetrieveLevel": "PATIENT", "PatientID": ""}, "0xa900"),
        ({"PatientID": ""}, "0xa900"),
        ({"QueryRetrieveLevel": "STUDY", "StudyDate": "20061332"}, "0xc000"),
    ],
    ids=["no key above", "no such level", "no level", "no date"],
)
def test_a_bad_identifier_gets_a_failure(
    keys: dict[str, str], printed: str, loaded: Loaded, tmp_path: Path
) -> None:
    """PS3.4 Table C.4-1: 0xA900 does not match SOP class, 0xCxxx unable to process."""
    said = findscu_status(loaded.address, "S", data_set(**keys), tmp_path / "query").lower()
    names = {"0xa900": ("0xa900", "datasetdoesnotmatchsopclass"), "0xc000": ("0xc0", "unable")}
    assert any(name in said for name in names[printed]), said


# -- C-MOVE and C-GET, by the others' tools -----------------------------------------------------------


RETRIEVED = [
    ("P", "PATIENT", {"PatientID": "ADAMS"}, "ADAMS"),
    ("S", "STUDY", {"StudyInstanceUID": study_uid("Y1")}, "Y1"),
    ("S", "STUDY", {"StudyInstanceUID": "1.2.4.1"}, BULK),
    (
        "S",
        "SERIES",
        {"StudyInstanceUID": "1.2.4.1", "SeriesInstanceUID": "1.2.4.1.2"},
        f"{BULK}.2",
    ),
    (
        "P",
        "IMAGE",
        {
            "PatientID": BULK,
            "StudyInstanceUID": "1.2.4.1",
            "SeriesInstanceUID": "1.2.4.1.3",
            "SOPInstanceUID": "1.2.4.1.3.7",
        },
        f"{BULK}.3.7",
    ),
]
each_retrieve = pytest.mark.parametrize(
    ("model", "level", "keys", "label"),
    RETRIEVED,
    ids=[f"{level} {label}" for _, level, _, label in RETRIEVED],
)


def as_keys(level: str, keys: dict[str, str]) -> list[str]:
    words = ["-k", f"QueryRetrieveLevel={level}"]
    for keyword, value in keys.items():
        words += ["-k", f"{keyword}={value}"]
    return words


def assert_same_files(got: dict[str, Path], loaded: Loaded, wanted: frozenset[str]) -> None:
    """These instances, each octet of their data sets as the node keeps it."""
    assert got.keys() == wanted
    kept = loaded.node.instances()
    for uid, path in got.items():
        assert data_set_bytes(path) == data_set_bytes(kept[uid])


@pytest.fixture
def storescp(loaded: Loaded) -> Iterator[StoreSCP]:
    """The destination of the moves, empty at the end."""
    yield loaded.storescp
    for path in loaded.storescp.instances().values():
        path.unlink()


@each_retrieve
def test_movescu_has_it_sent_to_storescp(
    model: str, level: str, keys: dict[str, str], label: str, loaded: Loaded, storescp: StoreSCP
) -> None:
    """PS3.4 C.4.2: at every level, each instance as it is kept."""
    printed = succeed(
        program("movescu"),
        *("--verbose", f"-{model}", "--move", "STORESCP", "--call", loaded.address.ae_title),
        *as_keys(level, keys),
        *loaded.address.arguments,
        TCP_NODELAY="1",
    )
    assert "Received Final Move Response (Success)" in printed
    wanted = loaded.population.instances(level, label)
    assert_same_files(storescp.instances(), loaded, wanted)


@each_retrieve
def test_getscu_receives_it(
    model: str, level: str, keys: dict[str, str], label: str, loaded: Loaded, tmp_path: Path
) -> None:
    """PS3.4 C.4.3: at every level, each instance as it is kept."""
    printed = succeed(
        program("getscu"),
        *("--verbose", f"-{model}", "--bit-preserving", "--call", loaded.address.ae_title),
        *("--output-directory", tmp_path),
        *as_keys(level, keys),
        *loaded.address.arguments,
        TCP_NODELAY="1",
    )
    wanted = loaded.population.instances(level, label)
    assert f"Number of Completed Suboperations : {len(wanted)}\n" in printed
    # What is implicit is received as explicit where getscu prefers that: DCMTK's choice of context.
    got = by_instance(tmp_path)
    assert got.keys() == wanted
    kept = loaded.node.instances()
    for uid, path in got.items():
        assert pydicom.dcmread(path) == pydicom.dcmread(kept[uid])


def test_pynetdicom_getscu_receives_it(loaded: Loaded, tmp_path: Path) -> None:
    """The whole of the larger study, on one association."""
    need_pynetdicom()
    printed = succeed(
        *(sys.executable, "-m", "pynetdicom", "getscu", "--verbose", "-S"),
        *("-aec", loaded.address.ae_title, "-od", tmp_path),
        *as_keys("STUDY", {"StudyInstanceUID": "1.2.4.1"}),
        *loaded.address.arguments,
    )
    assert "Get SCP Result: 0x0000 (Success)" in printed
    assert by_instance(tmp_path).keys() == loaded.population.instances("STUDY", BULK)


def test_pynetdicom_movescu_has_it_sent(loaded: Loaded, storescp: StoreSCP) -> None:
    """To DCMTK's receiver, as movescu does."""
    need_pynetdicom()
    printed = succeed(
        *(sys.executable, "-m", "pynetdicom", "movescu", "--verbose", "-S"),
        *("-aec", loaded.address.ae_title, "-aem", "STORESCP"),
        *as_keys("STUDY", {"StudyInstanceUID": study_uid("M1")}),
        *loaded.address.arguments,
    )
    assert "Move SCP Result: 0x0000 (Success)" in printed
    assert_same_files(storescp.instances(), loaded, loaded.population.instances("STUDY", "M1"))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"PatientID": "ADAMS"}, "A1 A2 A3"),
        ({"PatientName": "Müller^*"}, "M1"),
    ],
    ids=["by identifier", "by name"],
)
def test_orthanc_queries_and_retrieves(
    query: dict[str, str], found: str, loaded: Loaded, orthanc: Orthanc, tmp_path: Path
) -> None:
    """As its users do: a query over REST, then everything that was found moved to Orthanc."""
    population = loaded.population
    modality = orthanc.modality(loaded.address)
    made = orthanc.rest(f"{modality}/query", {"Level": "Study", "Query": query})
    answers = orthanc.rest(f"{made['Path']}/answers?expand&simplify")
    got = {population.label("STUDY", each["StudyInstanceUID"]) for each in answers}
    assert got == set(found.split())
    for number, each in enumerate(answers):
        if population.label("STUDY", each["StudyInstanceUID"]) in found.split():
            orthanc.rest(
                f"{made['Path']}/answers/{number}/retrieve",
                {"TargetAet": "ORTHANC", "Synchronous": True},
            )
    wanted = frozenset().union(*(population.instances("STUDY", each) for each in found.split()))
    assert orthanc.instances(tmp_path / "orthanc").keys() == wanted


def test_netdicom_get_receives_it(loaded: Loaded, tmp_path: Path) -> None:
    """Our command: the larger study, into a directory."""
    done = netdicom(
        *("get", f"{loaded.address.ae_title}@127.0.0.1:{loaded.address.port}"),
        *("-k", "StudyInstanceUID=1.2.4.1", "-o", tmp_path, "--quiet"),
    )
    assert done.returncode == 0, done.stdout
    assert by_instance(tmp_path).keys() == loaded.population.instances("STUDY", BULK)


def test_netdicom_move_has_it_sent(loaded: Loaded, storescp: StoreSCP) -> None:
    """Our command, to DCMTK's receiver."""
    peer = f"{loaded.address.ae_title}@127.0.0.1:{loaded.address.port}"
    words = ["move", peer, "-k", f"StudyInstanceUID={study_uid('S1')}", "--json", "--to"]
    done = netdicom(*words, "STORESCP")
    assert done.returncode == 0, done.stdout
    assert_same_files(storescp.instances(), loaded, loaded.population.instances("STUDY", "S1"))
    assert netdicom(*words, "NOBODY").returncode != 0


def test_a_destination_that_nobody_named_is_unknown(loaded: Loaded) -> None:
    """PS3.4 Table C.4-2: 0xA801."""
    done = run(
        program("movescu"),
        *("--verbose", "-S", "--move", "NOBODY", "--call", loaded.address.ae_title),
        *as_keys("STUDY", {"StudyInstanceUID": study_uid("A1")}),
        *loaded.address.arguments,
    )
    assert "Refused: MoveDestinationUnknown" in done.stdout
    assert done.returncode != 0
