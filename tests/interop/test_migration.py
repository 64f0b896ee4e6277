"""The images of other archives are taken over, as the pages about moving say."""

import sys
from pathlib import Path

import pytest

from support.interop.archives import Dcmqrscp, dcmsend
from support.interop.peers import Orthanc
from support.interop.qr_peers import PynetdicomQRSCP
from support.interop.samples import Sample
from support.node import files
from support.part10 import by_instance, data_set_bytes
from support.processes import succeed

pytestmark = [pytest.mark.interop, pytest.mark.slow]

NAMES = ("CT_small.dcm", "MR_small.dcm", "SC_rgb.dcm")


@pytest.fixture
def images(samples: tuple[Sample, ...]) -> list[Sample]:
    """Some that every archive takes."""
    return [each for each in samples if each.name in NAMES]


def imported(directory: Path, storage: Path) -> dict[str, Path]:
    """What is in an archive after the directory of another one was imported."""
    command = (sys.executable, "-m", "netdicom_tx", "import", "--quiet")
    succeed(*command, directory, "--storage", storage)
    return files(storage)


def assert_same(kept: dict[str, Path], theirs: dict[str, Path]) -> None:
    """The same instances, with the data sets that the other archive has."""
    assert kept.keys() == theirs.keys()
    for uid, path in kept.items():
        assert data_set_bytes(path) == data_set_bytes(theirs[uid]), uid


def test_the_storage_of_orthanc_is_imported(images: list[Sample], tmp_path: Path) -> None:
    """Its files have no suffix; its index and its attachments are skipped."""
    orthanc = Orthanc(tmp_path, known=[])
    try:
        for sample in images:
            orthanc.upload(sample.path)
        theirs = orthanc.instances(tmp_path / "received")
    finally:
        orthanc.close()
    assert len(theirs) == len(images)
    assert_same(imported(tmp_path / "db", tmp_path / "archive"), theirs)


def test_the_storage_of_dcmqrscp_is_imported(images: list[Sample], tmp_path: Path) -> None:
    archive = Dcmqrscp(tmp_path, known=["SENDER"])
    try:
        dcmsend(archive.address, [each.path for each in images], "SENDER")
    finally:
        archive.close()
    theirs = by_instance(tmp_path / "dcmqrscp", "*.dcm")
    assert len(theirs) == len(images)
    assert_same(imported(tmp_path / "dcmqrscp", tmp_path / "archive"), theirs)


def test_the_instances_of_qrscp_are_imported(images: list[Sample], tmp_path: Path) -> None:
    """Its files have the SOP Instance UIDs as names."""
    archive = PynetdicomQRSCP(tmp_path, {})
    try:
        dcmsend(archive.address, [each.path for each in images], "SENDER")
    finally:
        archive.close()
    theirs = by_instance(tmp_path / "instances")
    assert len(theirs) == len(images)
    assert_same(imported(tmp_path / "instances", tmp_path / "archive"), theirs)
