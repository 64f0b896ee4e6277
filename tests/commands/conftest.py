"""What the tests of the commands have: a peer, instances, and ``netdicom`` in a directory."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from support.commands.running import Netdicom, Peer


@pytest.fixture
def netdicom(tmp_path: Path) -> Netdicom:
    """Runs the command in the directory of the test."""
    return Netdicom(tmp_path)


@pytest.fixture(scope="session")
def instances(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one study of six CT images, an MR image and a compressed one."""
    directory = tmp_path_factory.mktemp("instances")
    ct = dcmread(str(get_testdata_file("CT_small.dcm")))
    for number in range(6):
        ct.SOPInstanceUID = ct.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        ct.StudyInstanceUID, ct.SeriesInstanceUID = "1.2.3", "1.2.3.100"
        ct.InstanceNumber = number
        ct.save_as(directory / f"ct{number}.dcm")
    for name in ("MR_small.dcm", "JPEG2000.dcm"):
        (directory / name).write_bytes(Path(str(get_testdata_file(name))).read_bytes())
    return directory


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory, instances: Path) -> Iterator[Peer]:
    """One for all tests of a module; it is alive at the end."""
    made = Peer(tmp_path_factory.mktemp("peer"), instances)
    yield made
    ended = made.ended()
    made.stop()
    assert not ended, made.log


@pytest.fixture
def start_peer(tmp_path: Path, instances: Path) -> Iterator[Callable[[], Peer]]:
    """One that may die."""
    made: list[Peer] = []

    def start() -> Peer:
        directory = tmp_path / f"peer{len(made)}"
        directory.mkdir()
        made.append(Peer(directory, instances))
        return made[-1]

    yield start
    for each in made:
        each.stop()
