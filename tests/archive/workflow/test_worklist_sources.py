"""Where worklist items come from: files, the table, what is imported into it."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from twisted.internet import defer
from twisted.internet.task import Clock

from netdicom_tx import dsutils
from netdicom_tx.archive.encoded.walk import InvalidDataSetError
from netdicom_tx.archive.index.database import EngineDatabase
from netdicom_tx.archive.workflow.worklist import IWorklistSource, WorklistItem
from netdicom_tx.archive.workflow.worklist_sources import (
    FILE_LIMIT,
    LOOK_EVERY,
    SharedWorklistDirectory,
    WorklistDirectory,
    WorklistImportError,
    WorklistTable,
    read_csv,
    read_item,
    read_json,
)
from netdicom_tx.testing import success_of
from netdicom_tx.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from support.archive.databases import database_url
from support.archive.worklists import data_set, encoded, scheduled
from support.doubles import logged_lines as logged_lines

SYNTAXES = [
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
]


def at_once(call: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
    return defer.maybeDeferred(call, *arguments)


def part10(ds: Dataset, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN, **meta: Any) -> bytes:
    """A file as worklist tools write it: often with no more of a header than the transfer syntax."""
    header = FileMetaDataset()
    header.TransferSyntaxUID = UID(syntax)
    for keyword, value in meta.items():
        setattr(header, keyword, value)
    buffer = DicomBytesIO()
    buffer.write(bytes(128) + b"DICM")
    write_file_meta_info(buffer, header, enforce_standard=False)
    return buffer.getvalue() + dsutils.encode(ds, syntax)


def names(items: Any) -> list[str]:
    return sorted(item.key[1] for item in items)


# -- files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_part_10_file_is_read(syntax: str) -> None:
    (item,) = read_item(part10(scheduled(), syntax, ImplementationVersionName="TEST"))
    assert item.key == ("1.2.3", "S1")
    assert item.start == ("20261123", "101500")


@pytest.mark.parametrize("syntax", SYNTAXES[:3])
def test_a_data_set_alone_is_read(syntax: str) -> None:
    (item,) = read_item(dsutils.encode(scheduled(PatientComments="x" * 300), syntax))
    assert item.key == ("1.2.3", "S1")


def test_a_header_without_transfer_syntax_is_explicit_little_endian() -> None:
    """What there must be otherwise, group 0002 is written in (PS3.10 7.1)."""
    (item,) = read_item(bytes(128) + b"DICM" + encoded(scheduled()))
    assert item.key == ("1.2.3", "S1")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, world",
        b"DICM",
        bytes(128) + b"DICM",
        encoded(scheduled())[:-3],
        part10(scheduled())[:140],
        part10(data_set(PatientName="Doe^Jane")),
    ],
    ids=["empty", "text", "prefix", "no data set", "cut", "cut header", "no step"],
)
def test_what_is_no_item_is_said(data: bytes) -> None:
    with pytest.raises(InvalidDataSetError):
        read_item(data)


def test_a_deflated_file_has_a_limit() -> None:
    stream = zlib.compressobj(wbits=-15)
    bomb = b"".join(stream.compress(bytes(1 << 20)) for _ in range(17)) + stream.flush()
    head = part10(Dataset(), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    with pytest.raises(dsutils.DataSetError):
        read_item(
            head[: -len(dsutils.encode(Dataset(), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN))] + bomb
        )


@pytest.fixture
def directory(tmp_path: Path) -> WorklistDirectory:
    return WorklistDirectory(tmp_path, at_once)


def put(path: Path, *, at: float | None = None, **attributes: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(part10(scheduled(**attributes)))
    if at is not None:
        os.utime(path, (at, at))


def test_files_are_in_the_directory_or_in_one_of_it(
    tmp_path: Path, directory: WorklistDirectory
) -> None:
    """wlmscpfs has a directory for each AE title, with a lockfile in it."""
    put(tmp_path / "a.wl", ScheduledProcedureStepID="S1")
    put(tmp_path / "OFFIS" / "b.wl", ScheduledProcedureStepID="S2")
    (tmp_path / "OFFIS" / "lockfile").touch()
    (tmp_path / "notes.txt").write_text("no item")
    (tmp_path / "folder.wl").mkdir()
    assert IWorklistSource.providedBy(directory)
    assert names(success_of(directory.items(Dataset()))) == ["S1", "S2"]


def test_changes_are_seen(tmp_path: Path, directory: WorklistDirectory) -> None:
    """New, changed and removed files, without a restart."""
    put(tmp_path / "a.wl", ScheduledProcedureStepID="S1", at=1000)
    assert names(directory.read()) == ["S1"]
    put(tmp_path / "b.wl", ScheduledProcedureStepID="S2")
    assert names(directory.read()) == ["S1", "S2"]
    put(tmp_path / "a.wl", ScheduledProcedureStepID="S3", at=1001)
    assert names(directory.read()) == ["S2", "S3"]
    (tmp_path / "b.wl").unlink()
    assert names(directory.read()) == ["S3"]


def test_only_what_has_changed_is_read(
    tmp_path: Path, directory: WorklistDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a.wl", ScheduledProcedureStepID="S1", at=1000)
    put(tmp_path / "b.wl", ScheduledProcedureStepID="S2", at=1000)
    directory.read()
    read: list[Path] = []
    whole = WorklistDirectory._read_one

    def watched(self: WorklistDirectory, path: Path) -> list[WorklistItem]:
        read.append(path)
        return whole(self, path)

    monkeypatch.setattr(WorklistDirectory, "_read_one", watched)
    put(tmp_path / "b.wl", ScheduledProcedureStepID="S2", at=1001)
    assert names(directory.read()) == ["S1", "S2"]
    assert read == [tmp_path / "b.wl"]


@pytest.mark.parametrize("content", [b"no item", bytes(FILE_LIMIT + 1)])
def test_a_file_that_is_no_item_is_left_out(
    tmp_path: Path, directory: WorklistDirectory, content: bytes
) -> None:
    """It may be half written: it is read again when it has changed."""
    put(tmp_path / "a.wl", ScheduledProcedureStepID="S1")
    (tmp_path / "b.wl").write_bytes(content)
    assert names(directory.read()) == ["S1"]
    put(tmp_path / "b.wl", ScheduledProcedureStepID="S2")
    assert names(directory.read()) == ["S1", "S2"]


def test_a_file_that_goes_while_the_directory_is_read_is_left_out(
    tmp_path: Path, directory: WorklistDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a.wl", ScheduledProcedureStepID="S1")
    paths = [tmp_path / "a.wl", tmp_path / "gone.wl"]
    monkeypatch.setattr(WorklistDirectory, "_paths", lambda self: iter(paths))
    assert names(directory.read()) == ["S1"]


def test_a_directory_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        WorklistDirectory(tmp_path / "absent", at_once).read()


# -- the table ----------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> Iterator[EngineDatabase]:
    database = EngineDatabase(database_url(tmp_path / "index.db"))
    yield database
    database.close()


class Members:
    """Two nodes that share a database; the first has the duty until it is given to the other."""

    def __init__(self, path: Path, database: EngineDatabase) -> None:
        self.holder = 0
        self.clock = Clock()
        self.nodes = [
            SharedWorklistDirectory(path, database, at_once, partial(self.is_holder, each))
            for each in range(2)
        ]

    def is_holder(self, node: int) -> bool:
        return self.holder == node

    def answers(self, node: int) -> list[str]:
        return names(success_of(self.nodes[node].items(Dataset())))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    path = tmp_path / "worklist"
    path.mkdir()
    return path


@pytest.fixture
def members(files: Path, database: EngineDatabase) -> Members:
    return Members(files, database)


def test_files_that_one_node_reads_are_answered_by_all(files: Path, members: Members) -> None:
    put(files / "a.wl", ScheduledProcedureStepID="S1", at=1000)
    put(files / "CT" / "b.wl", ScheduledProcedureStepID="S2")
    assert IWorklistSource.providedBy(members.nodes[0])
    assert members.answers(1) == []
    assert members.answers(0) == members.answers(1) == ["S1", "S2"]
    put(files / "a.wl", ScheduledProcedureStepID="S3", at=1001)
    (files / "CT" / "b.wl").unlink()
    assert members.answers(0) == members.answers(1) == ["S3"]


def test_the_node_with_the_duty_looks_into_the_directory_by_itself(
    files: Path, members: Members
) -> None:
    for each in members.nodes:
        each.start(members.clock)
    put(files / "a.wl", ScheduledProcedureStepID="S1")
    assert members.answers(1) == []
    members.clock.advance(LOOK_EVERY)
    assert members.answers(1) == ["S1"]
    for each in members.nodes:
        each.stop()
    assert members.clock.getDelayedCalls() == []


def test_another_node_goes_on_when_it_has_the_duty(files: Path, members: Members) -> None:
    put(files / "a.wl", ScheduledProcedureStepID="S1")
    assert members.answers(0) == ["S1"]
    members.holder = 1
    (files / "a.wl").unlink()
    put(files / "b.wl", ScheduledProcedureStepID="S2")
    assert members.answers(0) == ["S1"]
    assert members.answers(1) == members.answers(0) == ["S2"]


def test_a_node_without_the_directory_answers_what_others_have_read(
    files: Path, members: Members, database: EngineDatabase
) -> None:
    put(files / "a.wl", ScheduledProcedureStepID="S1")
    assert members.answers(0) == ["S1"]
    without = SharedWorklistDirectory(None, database, at_once, lambda: True)
    without.start(members.clock)
    assert names(without.read()) == ["S1"]
    assert members.clock.getDelayedCalls() == []


def test_a_shared_file_that_is_no_item_is_read_and_logged_once(
    files: Path, members: Members, lines: list[str]
) -> None:
    put(files / "a.wl", ScheduledProcedureStepID="S1")
    (files / "b.wl").write_bytes(b"no item")
    for _ in range(3):
        assert members.answers(0) == members.answers(1) == ["S1"]
    assert sum("is not a worklist item" in each for each in lines) == 1
    put(files / "b.wl", ScheduledProcedureStepID="S2")
    assert members.answers(0) == members.answers(1) == ["S1", "S2"]


def test_a_shared_directory_that_is_away_leaves_its_items(
    files: Path, members: Members, lines: list[str]
) -> None:
    put(files / "a.wl", ScheduledProcedureStepID="S1")
    assert members.answers(0) == ["S1"]
    files.rename(files.with_name("away"))
    for _ in range(3):
        assert members.answers(0) == members.answers(1) == ["S1"]
    files.with_name("away").rename(files)
    assert members.answers(0) == ["S1"]
    assert sum("cannot be read for the other nodes" in each for each in lines) == 1
    assert sum("can be read for the other nodes again" in each for each in lines) == 1


def test_a_shared_file_may_have_any_name(files: Path, members: Members) -> None:
    """Linux has names in any encoding, and databases have text."""
    put(files / os.fsdecode(b"M\xfcller.wl"), ScheduledProcedureStepID="S1")
    assert members.answers(0) == members.answers(1) == ["S1"]


@pytest.fixture
def table(database: EngineDatabase) -> WorklistTable:
    return WorklistTable(database, at_once)


def test_items_are_put_into_the_table_and_taken_out(table: WorklistTable) -> None:
    first, second = (scheduled(ScheduledProcedureStepID=name) for name in ("S1", "S2"))
    assert table.put([first, second]) == 2
    assert names(success_of(table.items(Dataset()))) == ["S1", "S2"]
    assert table.remove(("1.2.3", "S1"))
    assert not table.remove(("1.2.3", "S1"))
    assert names(table.read()) == ["S2"]


def test_what_was_put_in_can_be_had_as_it_was(table: WorklistTable) -> None:
    ds = scheduled(PatientName="Yamada=山田", SpecificCharacterSet="ISO_IR 192")
    table.put([ds])
    assert table.data_sets() == [ds]


def test_an_item_takes_the_place_of_the_one_of_its_study_and_step(table: WorklistTable) -> None:
    table.put([scheduled(PatientID="P1"), scheduled(StudyInstanceUID="1.2.4")])
    table.put([scheduled(PatientID="P2")])
    found = {item.key: item.attributes[0x00100020].text for item in table.read()}
    assert found == {("1.2.3", "S1"): "P2", ("1.2.4", "S1"): "P1"}


def test_only_rows_that_have_changed_are_decoded(
    table: WorklistTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.put([scheduled(), scheduled(StudyInstanceUID="1.2.4")])
    before = table.read()
    table.put([scheduled(StudyInstanceUID="1.2.4", PatientID="P2")])
    decoded: list[bytes] = []
    whole = WorklistItem.read

    def watched(data: bytes, transfer_syntax: str) -> list[WorklistItem]:
        decoded.append(data)
        return whole(data, transfer_syntax)

    monkeypatch.setattr(WorklistItem, "read", watched)
    after = table.read()
    assert len(decoded) == 1
    assert after[0] is before[0]
    assert after[1].attributes[0x00100020].text == "P2"


def test_an_item_keeps_its_character_set(table: WorklistTable) -> None:
    name = "Yamada^Tarou=山田^太郎"
    table.put([scheduled(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=name)])
    (item,) = table.read()
    assert item.terms == ("", "ISO 2022 IR 87")
    assert item.attributes[0x00100010].text == name


def test_all_are_put_or_none(table: WorklistTable) -> None:
    with pytest.raises(InvalidDataSetError):
        table.put([scheduled(), data_set(StudyInstanceUID="1.2.3")])
    assert table.read() == []


@pytest.mark.slow
def test_an_order_without_a_study_is_given_one_always_the_same(table: WorklistTable) -> None:
    """Study Instance UID is a return key of type 1."""
    for accession in ("A1", "A2", "A1"):
        table.put([scheduled(StudyInstanceUID=None, AccessionNumber=accession)])
    studies = [item.key[0] for item in table.read()]
    assert len(set(studies)) == 2
    assert all(UID(each).is_valid for each in studies)


# -- imports ------------------------------------------------------------------------------------------


def test_items_are_read_from_json(table: WorklistTable) -> None:
    """PS3.18 Annex F; a list, one alone, or one on each line."""
    model = scheduled(PatientName="Yamada=山田").to_json_dict()
    ((place, item),) = read_json(json.dumps(model))
    assert place == "item 1"
    assert item.ScheduledProcedureStepSequence[0].Modality == "CT"
    assert read_json(f" {json.dumps(model)}\n{json.dumps(model)}\n") == [
        ("item 1", item),
        ("item 2", item),
    ]
    both = json.dumps([model, scheduled(StudyInstanceUID="1.2.4").to_json_dict()])
    table.put(ds for _, ds in read_json(both))
    assert [each.key for each in table.read()] == [("1.2.3", "S1"), ("1.2.4", "S1")]
    assert table.read()[0].attributes[0x00100010].text == "Yamada=山田"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "the text is not JSON"),
        ("[" * 100_000, "the text is not JSON"),
        ("{} x", "the text is not JSON"),
        ("[1]", "item 1 is not a data set: expected"),
        ('[{"PatientID": "1"}]', "item 1 is not a data set: expected"),
        ('[{"00100010": {"vr": "PN"}}]', "item 1 has no scheduled procedure step"),
        ("[]", ""),
    ],
)
def test_json_that_is_none_is_said(text: str, words: str) -> None:
    if not words:
        assert read_json(text) == []
        return
    with pytest.raises(WorklistImportError, match=words):
        read_json(text)


CSV = """\
PatientName,PatientID,AccessionNumber,Modality,ScheduledStationAETitle,ScheduledProcedureStepStartDate,\
ScheduledProcedureStepStartTime,ScheduledProcedureStepID,PregnancyStatus
Yamada^Tarou=山田^太郎,P1,A1,CT,CT1,20261123,101500,S1,3
"Doe, Jane",P2,A2,MR,,20261123,,S2,
"""


def test_items_are_read_from_csv(table: WorklistTable) -> None:
    """The attributes of the step go into its sequence; what is empty is left out."""
    (_, first), (place, second) = read_csv(CSV)
    assert place == "line 3"
    assert str(first.PatientName) == "Yamada^Tarou=山田^太郎"
    assert first.PregnancyStatus == 3
    (step,) = second.ScheduledProcedureStepSequence
    assert step == data_set(
        Modality="MR", ScheduledProcedureStepStartDate="20261123", ScheduledProcedureStepID="S2"
    )
    table.put(ds for _, ds in read_csv(CSV))
    assert names(table.read()) == ["S1", "S2"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Name\nDoe\n", "column 'Name' is not the keyword"),
        ("RequestedProcedureCodeSequence\nX\n", "is not the keyword"),
        ("PatientID\nP1,P2\n", "line 2 has more values"),
        ("PatientID\nP1\n", "line 2 has no scheduled procedure step"),
        ("Modality\n" + "C" * 200_000, "the text is not CSV behind line 1: field larger"),
        ("Modality,PregnancyStatus\nCT,no\n", "line 2, PregnancyStatus: invalid literal"),
    ],
)
def test_csv_that_is_none_is_said(text: str, words: str) -> None:
    with pytest.raises(WorklistImportError, match=words):
        read_csv(text)


def test_csv_may_have_any_end_of_line() -> None:
    """RFC 4180 has carriage return and line feed; some programs write the former alone."""
    for end in ("\r", "\r\n", "\n"):
        text = end.join(("PatientID,Modality", "P1,CT", "P2,MR"))
        found = read_csv(text)
        assert [(where, ds.PatientID) for where, ds in found] == [
            ("line 2", "P1"),
            ("line 3", "P2"),
        ]


def test_json_that_no_data_set_can_hold_is_said() -> None:
    model = scheduled().to_json_dict() | {"001021C0": {"vr": "US", "Value": [70_000]}}
    with pytest.raises(WorklistImportError, match="item 1 is not a data set"):
        read_json(json.dumps(model))


def test_a_value_that_is_none_of_its_attribute_is_said() -> None:
    with (
        pytest.warns(UserWarning, match="Invalid value for VR DS"),
        pytest.raises(WorklistImportError, match="line 2, PatientWeight"),
    ):
        read_csv("PatientWeight,Modality\nheavy,CT\n")


def test_an_empty_csv_has_no_items() -> None:
    assert read_csv("") == []
