"""``netdicom get`` and ``netdicom move`` from a node whose stored files are not what they were."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netdicom_tx.dsutils import part10_header, read_file_meta
from netdicom_tx.fixtures import RunningNode
from netdicom_tx.sopclass import Instance
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from support.commands.running import Netdicom
from support.processes import eventually, free_port

pytestmark = pytest.mark.slow

STUDY = "StudyInstanceUID=1.2.3"
# What happens to the files of the first instances; the others stay as they are.
HARM: dict[str, Callable[[Path], object]] = {
    "1.2.3.0": lambda path: os.truncate(path, 900),
    "1.2.3.1": Path.unlink,
    "1.2.3.2": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "1.2.3.3": lambda path: (path.rename(f"{path}.moved"), path.symlink_to(f"{path}.moved")),
}
GOOD = {"1.2.3.4", "1.2.3.5"}


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def node(tmp_path: Path, port: int) -> Iterator[RunningNode]:
    with RunningNode(tmp_path / "node", "--peer", f"HERE@127.0.0.1:{port}") as running:
        yield running


def data_set(path: Path) -> bytes:
    with path.open("rb") as file:
        read_file_meta(file)
        return file.read()


@pytest.mark.parametrize("command", ["get", "move"])
def test_what_was_damaged_is_failed_and_the_rest_comes(
    netdicom: Netdicom, node: RunningNode, instances: Path, port: int, command: str
) -> None:
    """PS3.4 C.4.2.1.4.2: failed ones are counted and listed; nothing else is sent in their place."""
    done = netdicom("store", node.address, *sorted(instances.glob("ct*.dcm")))
    assert done.returncode == 0, done.stderr
    for path in node.files():
        uid = Instance.of(path).sop_instance_uid
        HARM.get(uid, Path.exists)(path)
    options = [] if command == "get" else ["-aet", "HERE", f"--receive=127.0.0.1:{port}"]
    done = netdicom(command, node.address, "-k", STUDY, "-o", "out", "--json", *options)
    *arrived, end = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 1, done.stderr
    assert (end["status"], end["completed"], end["failed"]) == ("B000", 2, 4)
    assert set(end["failed_sop_instance_uids"]) == set(HARM)
    for each in arrived:
        path = netdicom.directory / each["file"]
        assert data_set(path) == data_set(instances / f"ct{path.stem[-1]}.dcm")
    assert {Path(each["file"]).stem for each in arrived} == GOOD
    eventually(lambda: all(node.log.count(f"{uid} failed") == 1 for uid in HARM), "four lines")


def test_a_file_in_a_data_set_goes_through_all_commands(
    netdicom: Netdicom, node: RunningNode, instances: Path
) -> None:
    """Stored, retrieved, the same again, and indexed again: octet for octet."""
    original = Instance.of(instances / "ct0.dcm")
    header = part10_header(
        original.sop_class_uid, original.sop_instance_uid, EXPLICIT_VR_LITTLE_ENDIAN
    )
    twice = netdicom.directory / "twice.dcm"
    twice.write_bytes(header + (instances / "ct0.dcm").read_bytes())
    for path in (twice, twice, instances / "ct0.dcm"):
        done = netdicom("store", node.address, path)
        assert done.returncode == 0, done.stderr
    done = netdicom("get", node.address, "-k", STUDY, "-o", "out")
    assert done.returncode == 0, done.stderr
    (came,) = (netdicom.directory / "out").rglob("*.dcm")
    assert data_set(came) == (instances / "ct0.dcm").read_bytes()
    node.stop()
    done = netdicom("reindex", "--storage", node.storage, "--from-scratch", "--json")
    assert (done.returncode, json.loads(done.stdout)["indexed"]) == (0, 1), done.stderr
