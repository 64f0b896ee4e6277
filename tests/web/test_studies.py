"""The study browser: search and paging, and what it shows of studies, series and instances."""

import os
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import config, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from netdicom_tx.archive.index.index import Index, record_of
from netdicom_tx.archive.index.watch import Watch
from netdicom_tx.dsutils import encode, part10_header
from netdicom_tx.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN
from netdicom_tx.web import header, lookup, picture
from netdicom_tx.web.header import rows_of
from support.archive.archives import Archive
from support.archive.data_sets import CT_IMAGE_STORAGE
from support.archive.patients import add, data_set
from support.decoders import need_decoders
from support.processes import eventually
from support.web import ATTACK, Browser, check

Make = Callable[..., Browser]
SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
TEXTS = """
    PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime StudyDescription AccessionNumber StudyID
    ReferringPhysicianName SeriesNumber SeriesDescription BodyPartExamined SeriesDate SeriesTime StationName
    Manufacturer Modality InstanceNumber NumberOfFrames
"""


def sample(name: str) -> str:
    """A file of pydicom's own tests."""
    return str(SAMPLES / name)


def at(kind: str, number: int, uid: str) -> str:
    """The path of a study, a series or an instance."""
    return f"/{kind}/{number}-{sha256(uid.encode()).hexdigest()[:12]}"


STUDY, SERIES = at("studies", 1, "1.2.1"), at("series", 1, "1.2.1.1")
INSTANCE = at("instances", 1, "1.2.1.1.1")


def instance(number: int, **values: object) -> Dataset:
    """An instance in a study of its own."""
    given = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": CT_IMAGE_STORAGE,
        "SOPInstanceUID": f"1.2.{number}.1.1",
        "SeriesInstanceUID": f"1.2.{number}.1",
        "StudyInstanceUID": f"1.2.{number}",
        "PatientID": f"P{number}",
        "PatientName": f"Patient^No{number:03}",
        "StudyDate": f"2026{1 + number % 12:02}15",
        "AccessionNumber": f"ACC{number:03}",
        "Modality": "CT",
    }
    return data_set(**{**given, **values})


def keep(node: Archive, *data_sets: Dataset) -> None:
    add(node.index, data_sets, EXPLICIT_VR_LITTLE_ENDIAN)


def names(browser: Browser, query: str = "") -> list[str]:
    """The patients of a page, in its order."""
    text = browser.get(f"/studies{query}").text
    return [
        part.partition("<")[0]
        for part in text.split('<a class="whole" href="/studies/')[1:]
        for part in [part.partition(">")[2]]
    ]


def test_a_node_without_studies_says_so(page: Make) -> None:
    assert "no studies yet" in page().get("/studies").shows()
    assert "No study was found" in page().get("/studies?name=doe").shows()


def test_a_node_without_an_index_says_so(page: Make, node: Archive) -> None:
    node.ae.index = None
    browser = page()
    assert browser.get("/studies").code == 404
    assert browser.get("/queue").code == 200
    browser.get("/login")
    assert "owes nothing" in browser.get("/queue").shows()


def test_a_database_that_does_not_answer_is_told(page: Make, node: Archive) -> None:
    browser = page()
    node.index.close()
    assert browser.get("/studies").code == 503
    node.index.open()


def test_studies_are_shown_with_what_is_in_them(page: Make, node: Archive) -> None:
    keep(
        node,
        instance(1, PatientName="Doe^Jane=山田^花子", PatientSex="F", StudyDescription="Head"),
        instance(1, SOPInstanceUID="1.2.1.1.2"),
        instance(1, SOPInstanceUID="1.2.1.2.1", SeriesInstanceUID="1.2.1.2", Modality="SR"),
    )
    answer = page().get("/studies")
    check(answer.text)
    assert "Doe, Jane · 山田, 花子 P1 F" in answer.shows()
    assert "CT SR Head ACC001 2 3" in answer.shows()
    assert "1-1 of 1 studies" in answer.shows()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("name=doe", ["Doe, Jane"]),
        ("name=JANE+doe", ["Doe, Jane"]),
        ("name=DOE%5EJ*", ["Doe, Jane"]),
        ("name=%E5%B1%B1%E7%94%B0", ["Roe, Sam · 山田"]),
        ("name=%25", []),
        ("name=_", []),
        ("id=P1", ["Doe, Jane"]),
        ("id=P", ["Roe, Sam · 山田", "Doe, Jane"]),
        ("id=%25", []),
        ("accession=ACC00*", ["Roe, Sam · 山田", "Doe, Jane"]),
        ("accession=acc", []),
        ("from=2026-02-15&to=2026-02-15", ["Doe, Jane"]),
        ("from=2026-02-16", ["Roe, Sam · 山田"]),
        ("to=2026-02-16", ["Doe, Jane"]),
        ("modality=mr", ["Roe, Sam · 山田"]),
        ("modality=ct&name=roe", []),
        ("order=name", ["Doe, Jane", "Roe, Sam · 山田"]),
        ("order=date", ["Roe, Sam · 山田", "Doe, Jane"]),
        ("order=nothing", ["Roe, Sam · 山田", "Doe, Jane"]),
    ],
)
def test_studies_are_searched(page: Make, node: Archive, query: str, found: list[str]) -> None:
    keep(
        node,
        instance(1, PatientName="Doe^Jane"),
        instance(2, PatientName="Roe^Sam=山田", Modality="MR"),
    )
    assert names(page(), f"?{query}") == found


def test_a_date_that_is_none_is_told(page: Make) -> None:
    answer = page().get("/studies?from=yesterday")
    assert answer.code == 200
    assert "'yesterday' is not a date; expected one such as 2026-11-28." in answer.shows()


def test_a_search_keeps_its_words(page: Make) -> None:
    text = page().get("/studies?name=doe&id=7&from=2026-01-01&modality=CT&order=name").text
    for words in (
        'value="doe"',
        'value="7"',
        'value="2026-01-01"',
        'value="CT"',
        'value="name" selected',
    ):
        assert words in text


def test_a_long_list_has_pages(page: Make, node: Archive) -> None:
    keep(node, *(instance(number) for number in range(1, 61)))
    browser = page()
    first = browser.get("/studies?order=name&name=patient")
    assert "1-25 of 60 studies" in first.shows()
    assert 'href="/studies?start=25&amp;name=patient&amp;order=name"' in first.text
    assert "Previous" not in first.shows()
    second = browser.get("/studies?order=name&start=25&name=patient")
    assert "26-50 of 60 studies" in second.shows()
    assert 'href="/studies?name=patient&amp;order=name"' in second.text
    last = browser.get("/studies?order=name&start=50")
    assert "51-60 of 60 studies" in last.shows()
    assert "Next" not in last.shows()
    pages = [names(browser, f"?order=name&start={start}") for start in (0, 25, 50)]
    assert [len(each) for each in pages] == [25, 25, 10]
    assert len({name for each in pages for name in each}) == 60
    assert names(browser, "?start=9999") == []
    assert len(names(browser, "?start=-1")) == 25


def test_many_studies_are_not_counted_to_the_end(
    page: Make, node: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "COUNTED", 40)
    keep(node, *(instance(number) for number in range(1, 61)))
    assert "of more than 40 studies" in page().get("/studies").shows()


def test_a_study_shows_its_series_and_these_their_instances(page: Make, node: Archive) -> None:
    keep(
        node,
        *(
            instance(
                1,
                SeriesInstanceUID=f"1.2.1.{series}",
                SOPInstanceUID=f"1.2.1.{series}.{number}",
                SeriesNumber=series,
                SeriesDescription=f"Series no. {series}",
                InstanceNumber=number,
            )
            for series in (10, 2)
            for number in (11, 3)
        ),
    )
    browser = page()
    study = browser.get(STUDY)
    check(study.text)
    shown = study.shows()
    assert shown.index("Series no. 2") < shown.index("Series no. 10")
    assert "2 series, 4 instances" in shown
    number = study.text.split('href="/series/')[1].partition('"')[0]
    series = browser.get(f"/series/{number}")
    check(series.text)
    shown = series.shows()
    assert "Series 2 CT Series no. 2" in shown
    assert shown.index("1.2.1.2.3") < shown.index("1.2.1.2.11")
    assert "1-2 of 2 instances" in shown


def test_a_series_has_pages(page: Make, node: Archive) -> None:
    keep(
        node,
        *(instance(1, SOPInstanceUID=f"1.2.1.1.{n}", InstanceNumber=n) for n in range(1, 151)),
    )
    browser = page()
    assert "1-100 of 150 instances" in browser.get(SERIES).shows()
    assert "101-150 of 150 instances" in browser.get(f"{SERIES}?start=100").shows()


def test_what_a_peer_has_written_is_shown_as_text(page: Make, node: Archive) -> None:
    """Every text of a study, a series and an instance, in every place where one appears."""
    ds = instance(1)
    for keyword in TEXTS.split():
        tag = tag_for_keyword(keyword)
        assert tag is not None
        ds[tag] = DataElement(tag, "LO", ATTACK, validation_mode=config.IGNORE)
    ds.StudyInstanceUID = f"1.2.{ATTACK}"[:64]
    store(node, ds)
    browser = page()
    study = browser.get("/studies").text.split('<a class="whole" href="')[1].partition('"')[0]
    for there in ("/studies", study, SERIES, INSTANCE):
        answer = browser.get(there)
        assert answer.code == 200, there
        check(answer.text)
        assert "<script>alert(1)</script>" in answer.shows()
        assert "{{ 7*7 }}" in answer.shows()


def test_a_text_that_utf_8_cannot_express_is_shown_as_far_as_possible(
    page: Make, node: Archive
) -> None:
    """pydicom decodes by any codec of Python that a Specific Character Set names."""
    there = store(node, instance(1, PatientComments="COMMENTS", SpecificCharacterSet="ISO_IR 100"))
    path = node.store.path("1.2.1.1.1")
    octets = path.read_bytes().replace(b"COMMENTS", b"<\\ud800>")
    charset = b"CS\x12\x00raw_unicode_escape"
    path.write_bytes(octets.replace(b"CS\x0a\x00ISO_IR 100", charset))
    answer = page().get(there)
    assert answer.code == 200
    check(answer.text)
    assert "Patient Comments <?>" in answer.shows()


# -- instances ---------------------------------------------------------------------------------------


def store(node: Archive, ds: Dataset, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> str:
    """Keep a data set with a file; returns the path of its page."""
    octets = encode(ds, syntax)
    uid = str(ds.SOPInstanceUID)
    path = node.store.path(uid)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(part10_header(str(ds.SOPClassUID), uid, syntax) + octets)
    node.index.add(record_of(path)).result(10)
    return at("instances", node.index.last_row(), uid)


def test_an_instance_shows_its_header(page: Make, node: Archive) -> None:
    ds = dcmread(sample("CT_small.dcm"))
    del ds.PixelData
    answer = page().get(store(node, ds))
    check(answer.text)
    shown = answer.shows()
    for text in (
        "(0010,0010) PN Patient's Name CompressedSamples^CT1",
        "(0008,0016) UI SOP Class UID 1.2.840.10008.5.1.4.1.1.2 (CT Image Storage)",
        "(0008,0008) CS Image Type ORIGINAL\\PRIMARY\\AXIAL",
        "(0010,1002) SQ Other Patient IDs Sequence 2 items Item 1 (0010,0020) LO Patient ID ABCD1234",
        "(0009,0010) LO Private Creator GEMS_IDEN_01 (0009,1001) LO Full fidelity GE_GENESIS_FF",
        "Explicit VR Little Endian",
        "CT Image Storage",
    ):
        assert text in shown


def test_an_instance_without_a_series_is_shown(page: Make, node: Archive) -> None:
    """A hanging protocol belongs to no patient."""
    ds = data_set(
        SOPClassUID="1.2.840.10008.5.1.4.38.1", SOPInstanceUID="1.2.3", HangingProtocolName="CHEST"
    )
    answer = page().get(store(node, ds))
    check(answer.text)
    assert "Hanging Protocol Name CHEST" in answer.shows()


def test_a_file_that_is_gone_is_told(page: Make, node: Archive) -> None:
    path = store(node, instance(1))
    node.store.path("1.2.1.1.1").unlink()
    answer = page().get(path)
    assert answer.code == 200
    assert "The file cannot be read" in answer.shows()


def test_a_file_that_is_damaged_is_told(page: Make, node: Archive) -> None:
    path = store(node, instance(1))
    node.store.path("1.2.1.1.1").write_bytes(b"no DICOM")
    answer = page().get(path)
    assert answer.code == 200
    assert 'role="alert"' in answer.text


def written(tmp_path: Path, octets: bytes, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> Path:
    path = tmp_path / "file.dcm"
    path.write_bytes(part10_header(CT_IMAGE_STORAGE, "1.2.3", syntax) + octets)
    return path


def test_long_values_are_cut(tmp_path: Path) -> None:
    ds = data_set(
        ImageType=[f"V{n}" for n in range(100)],
        PatientComments="x" * 10_000,
        ICCProfile=b"\0" * 1000,
        StudyDate="",
    )
    rows = {
        row.name: row
        for row in rows_of(written(tmp_path, encode(ds, EXPLICIT_VR_LITTLE_ENDIAN)))[0]
    }
    assert rows["Image Type"].text.endswith("V39\\… (100 values)")
    assert rows["Patient Comments"].text == "x" * 300 + "…"
    assert rows["ICC Profile"].length == 1000
    assert rows["Study Date"].text == ""


def test_a_long_header_is_cut(tmp_path: Path) -> None:
    items = [{"CodeValue": str(n)} for n in range(3000)]
    octets = encode(data_set(ProcedureCodeSequence=items), EXPLICIT_VR_LITTLE_ENDIAN)
    rows, has_more = rows_of(written(tmp_path, octets))
    assert (len(rows), has_more) == (2000, True)


def test_only_the_first_mebibyte_is_read(tmp_path: Path) -> None:
    octets = encode(
        data_set(StudyDate="20261128", PatientComments="x" * 100), EXPLICIT_VR_LITTLE_ENDIAN
    )
    blob = b"\x09\x00\x01\x10OB\x00\x00" + (1 << 21).to_bytes(4, "little") + bytes(1 << 21)
    rows, has_more = rows_of(written(tmp_path, octets[:18] + blob + octets[18:]))
    assert rows[0].text == "20261128"
    assert has_more


def test_deep_items_are_not_shown(tmp_path: Path) -> None:
    inner = data_set(CodeValue="deep")
    for _ in range(20):
        inner = nested(inner)
    rows, _ = rows_of(written(tmp_path, encode(inner, EXPLICIT_VR_LITTLE_ENDIAN)))
    assert rows[-1].text == "(deeper items are not shown)"
    assert max(row.depth for row in rows) == 8


def nested(ds: Dataset) -> Dataset:
    outer = Dataset()
    outer.ProcedureCodeSequence = [ds]
    return outer


def test_a_value_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    octets = b"\x28\x00\x10\x00US\x03\x00abc\x28\x00\x11\x00US\x02\x00\x07\x00"
    rows, _ = rows_of(written(tmp_path, octets))
    assert [(row.name, row.text) for row in rows] == [
        ("Rows", "(this value cannot be read)"),
        ("Columns", "7"),
    ]


def test_a_deflated_data_set_is_read_as_far_as_it_is_shown(tmp_path: Path) -> None:
    """A few kilobytes may inflate to gigabytes."""
    plain = encode(data_set(StudyDate="20261128"), EXPLICIT_VR_LITTLE_ENDIAN)
    bomb = plain + b"\x09\x00\x01\x10OB\x00\x00" + (1 << 24).to_bytes(4, "little") + bytes(1 << 24)
    packer = zlib.compressobj(wbits=-15)
    octets = packer.compress(bomb) + packer.flush()
    rows, has_more = rows_of(written(tmp_path, octets, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN))
    assert (rows[0].text, has_more) == ("20261128", True)
    with pytest.raises(ValueError, match="cannot be read"):
        rows_of(written(tmp_path, b"\xff\xff", DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN))


@pytest.mark.filterwarnings("ignore")
def test_every_file_of_pydicom_has_rows_or_a_reason() -> None:
    for path in SAMPLES.glob("*.dcm"):
        with suppress(OSError, ValueError):
            rows, _ = rows_of(path)
            assert all(isinstance(row.text, str) for row in rows)


# -- pictures ----------------------------------------------------------------------------------------


def test_without_the_extra_there_is_no_picture(
    page: Make, node: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store(node, instance(1, Rows=4, Columns=4))
    monkeypatch.setattr(header, "can_show_pictures", lambda: False)
    browser = page()
    assert "<img" not in browser.get(path).text.partition("<main")[2]
    answer = browser.get(f"{path}/picture")
    assert answer.code == 404
    assert "netdicom-tx[pixel]" in answer.shows()


def test_an_instance_has_a_picture(page: Make, node: Archive) -> None:
    need_decoders()
    path = store(node, dcmread(sample("CT_small.dcm")))
    browser = page()
    answer = browser.get(path)
    assert f'src="{path}/picture?frame=1"' in answer.text
    check(answer.text)
    shown = browser.get(f"{path}/picture?frame=1")
    assert (shown.code, shown.headers["content-type"]) == (200, "image/png")
    assert shown.headers["cache-control"] == "no-store"
    assert shown.body.startswith(b"\x89PNG")
    assert browser.get(f"{path}/picture?frame=2").code == 404


def test_frames_have_links_to_each_other(page: Make, node: Archive) -> None:
    need_decoders()
    path = store(node, dcmread(sample("SC_rgb_rle_2frame.dcm")), "1.2.840.10008.1.2.5")
    browser = page()
    first, second = browser.get(path), browser.get(f"{path}?frame=2")
    assert "Frame 1 of 2" in first.shows()
    assert f'href="{path}?frame=2"' in first.text
    assert "Frame 2 of 2" in second.shows()
    assert "frame=3" not in second.text
    assert browser.get(f"{path}/picture?frame=2").code == 200


def test_an_instance_without_pixels_has_a_reason(page: Make, node: Archive) -> None:
    need_decoders()
    path, other = store(node, instance(1)), store(node, instance(2, Rows=4, Columns=4))
    browser = page()
    answer = browser.get(f"{path}/picture")
    assert answer.code == 404
    assert "has no picture" in answer.shows()
    assert "cannot be decoded" in browser.get(f"{other}/picture").shows()
    assert browser.get("/instances/9/picture").code == 404


def test_a_decoder_that_crashes_or_hangs_does_no_harm(
    page: Make, node: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoders are written in C, and read what peers have sent."""
    path = store(node, instance(1))
    monkeypatch.setattr(header, "can_show_pictures", lambda: True)
    browser = page()
    for script, said in (("kill -SEGV $$", "cannot be shown"), ("exec sleep 60", "takes too long")):
        program = tmp_path / "decoder"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", os.fspath(program))
        monkeypatch.setattr(header, "_DECODING", 0.5)
        answer = browser.get(f"{path}/picture")
        assert answer.code == 404
        assert said in answer.shows()


def test_a_decoder_ends_with_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node does not wait for it when it stops."""
    program, began = tmp_path / "decoder", tmp_path / "began"
    program.write_text(f"#!/bin/sh\ntouch {began}\nexec sleep 300\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", os.fspath(program))
    monkeypatch.setattr(header, "_DECODING", 300)
    decoder = header.Decoder()
    with ThreadPoolExecutor(1) as threads:
        drawing = threads.submit(decoder.picture_of, tmp_path / "file.dcm", 0)
        eventually(began.exists, "a decoder at work")
        decoder.stop()
        with pytest.raises(ValueError, match="cannot be shown"):
            drawing.result(60)
    decoder.stop()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("CT_small.dcm", (128, 128)),
        ("examples_palette.dcm", (800, 350)),
        ("examples_rgb_color.dcm", (320, 240)),
        ("SC_rgb_small_odd.dcm", (3, 3)),
        ("rtdose_1frame.dcm", (10, 10)),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_all_kinds_of_pixels_are_drawn(name: str, size: tuple[int, int]) -> None:
    need_decoders()
    image = picture.drawn(sample(name), 0)
    assert image.size == size
    assert image.mode in ("L", "RGB")


def test_an_inverted_picture_is_inverted(tmp_path: Path) -> None:
    need_decoders()
    ds = dcmread(sample("CT_small.dcm"))
    plain = picture.drawn(sample("CT_small.dcm"), 0)
    ds.PhotometricInterpretation = "MONOCHROME1"
    ds.save_as(tmp_path / "inverted.dcm")
    inverted = picture.drawn(str(tmp_path / "inverted.dcm"), 0)
    assert plain.getpixel((60, 60)) + inverted.getpixel((60, 60)) == 255


def test_a_picture_that_is_too_large_is_not_drawn(tmp_path: Path) -> None:
    ds = dcmread(sample("CT_small.dcm"))
    ds.Rows, ds.Columns = 60_000, 60_000
    ds.save_as(tmp_path / "large.dcm")
    need_decoders()
    with pytest.raises(picture.NoPictureError, match="too large"):
        picture.drawn(str(tmp_path / "large.dcm"), 0)


# -- keys --------------------------------------------------------------------------------------------


def test_a_link_leads_to_no_other_study(page: Make, node: Archive) -> None:
    """After a deletion the database may give the number of its row to the study of another patient."""
    keep(node, instance(1))
    browser = page()
    for path in (STUDY, SERIES, INSTANCE):
        assert browser.get(path).code == 200
    node.index.remove("1.2.1.1.1").result(10)
    keep(node, instance(2))
    for path in (STUDY, SERIES, INSTANCE, f"{INSTANCE}/picture"):
        assert browser.get(path).code == 404
    assert browser.get(at("studies", 1, "1.2.2")).code == 200


@pytest.mark.parametrize(
    "key", ["1", "1-", "-1", "x", "1-ffffffffffff", "9" * 30, "\u0661-ffffffffffff"]
)
def test_a_wrong_key_finds_nothing(node: Archive, key: str) -> None:
    keep(node, instance(1))
    for find in (lookup.study_of, lookup.series_with, lookup.instance_of):
        assert find(node.index, Watch(), key) is None


# -- searches that nobody waits for ------------------------------------------------------------------


def test_a_search_ends_with_the_visit(
    page: Make, node: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser that goes away does not leave its search to the database."""
    browser = page()
    seen: list[Watch] = []
    started: defer.Deferred[Any] = defer.Deferred()

    def in_thread(_: object, index: Index, watch: Watch, *arguments: object) -> Any:
        seen.append(watch)
        return started

    monkeypatch.setattr(browser.service.web, "in_thread", in_thread)
    browser.send(b"GET /studies HTTP/1.1\r\nHost: localhost\r\n\r\n")
    (watch,) = seen
    assert not watch.is_over
    for protocol in list(browser.service.factory.protocols):
        protocol.connectionLost(Failure(ConnectionDone()))
    assert watch.is_over


def test_a_search_ends_with_the_page(page: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = page()
    seen: list[Watch] = []

    def in_thread(_: object, index: Index, watch: Watch, *arguments: object) -> Any:
        seen.append(watch)
        return defer.Deferred()

    monkeypatch.setattr(browser.service.web, "in_thread", in_thread)
    browser.send(b"GET /studies HTTP/1.1\r\nHost: localhost\r\n\r\n")
    browser.service.stopService()
    assert seen[0].is_over


def test_work_that_waits_is_bounded(page: Make) -> None:
    browser = page()
    browser.service.web._waiting = 32
    answer = browser.get("/studies")
    assert answer.code == 503
    assert "busy" in answer.shows()
    browser.service.web._waiting = 0
    assert browser.get("/studies").code == 200
