"""Worklist, performed steps and the queue of two nodes, with DCMTK and pynetdicom on the other side."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID

from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from scale.group import AE_TITLE, Group, GroupNode, Peer, Shape
from scale.test_faults import need_all
from support.archive.worklists import scheduled
from support.node import Address
from support.processes import (
    CHECKOUT,
    WITH_PYNETDICOM,
    eventually,
    free_port,
    need_pynetdicom,
    program,
    run,
    succeed,
)
from support.steps import UID as STEP
from support.steps import final, new_step

pytestmark = [*WITH_PYNETDICOM, pytest.mark.slow]

need_pynetdicom()

from support.interop.pynetdicom_workflow import Told, associated, listening  # noqa: E402

MPPS = "1.2.840.10008.3.1.2.3.3"


def address(node: GroupNode) -> Address:
    return Address(AE_TITLE, node.port)


def put(path: Path, ds: Dataset) -> None:
    """Write a worklist file, as a program that makes them does: in one step."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(EXPLICIT_VR_LITTLE_ENDIAN)
    meta.MediaStorageSOPClassUID = UID("1.2.276.0.7230010.3.1.0.1")
    meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    temporary = path.with_suffix(".new")
    file = FileDataset(str(temporary), ds, preamble=bytes(128), file_meta=meta)
    file.save_as(temporary, enforce_file_format=True)
    temporary.rename(path)


def answers(node: GroupNode, count: int) -> bool:
    """Whether a node answers so many steps to DCMTK's ``findscu``."""
    done = subprocess.run(
        [
            *(program("findscu"), "-W", "-aet", "CT1", "-aec", AE_TITLE),
            *("-k", "0010,0020", "-k", "0040,0100[0].0040,0009"),
            *("127.0.0.1", str(node.port)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return (done.stdout + done.stderr).count("(0040,0009) SH [S") == count


def queue(node: GroupNode, *words: str) -> str:
    """What ``netdicom queue`` says beside a node."""
    return succeed(*netdicom("queue", *words, node=node), PYTHONPATH=str(CHECKOUT))


def netdicom(*words: str, node: GroupNode) -> tuple[str | Path, ...]:
    """A command beside a node."""
    program = Path(sys.executable).with_name("netdicom")
    return program, *words, "--config", str(node.configuration)


def retry(node: GroupNode, tasks: Sequence[int]) -> None:
    """Have tasks performed at once, unless the node was faster: it knows nothing of a task that is done."""
    done = run(*netdicom("queue", "retry", *map(str, tasks), node=node), PYTHONPATH=str(CHECKOUT))
    assert done.returncode == 0 or "there is no task" in done.stdout, done.stdout


def waiting(node: GroupNode) -> list[int]:
    """The numbers of all tasks, when all of them wait."""
    tasks = [
        json.loads(line) for line in queue(node, "list", "--json").splitlines() if line[0] == "{"
    ]
    return (
        [each["id"] for each in tasks] if {each["state"] for each in tasks} == {"waiting"} else []
    )


def test_two_nodes_are_one_worklist_and_one_scp_of_performed_steps(tmp_path: Path) -> None:
    """A step begins at one node and ends at the other, and what the first owed the RIS when it was killed is sent."""
    need_all()
    files = tmp_path / "worklist"
    files.mkdir()
    put(files / "a.wl", scheduled())
    ris, told = Peer("RIS", free_port()), Told()
    settings = {"worklist": {"directory": str(files), "forward_mpps": ["RIS"]}}
    with Group(Shape(2, "postgresql", "shared", proxy=False), [ris], settings=settings) as group:
        first, second = group.nodes
        for node in group.nodes:
            eventually(partial(answers, node, 1), "both answer the file", within=60)
        put(files / "b.wl", scheduled(ScheduledProcedureStepID="S2"))
        for node in group.nodes:
            eventually(partial(answers, node, 2), "both answer the new file", within=60)

        with associated(address(first), "CT1", [MPPS]) as association:
            status, _ = association.send_n_create(new_step(), UID(MPPS), UID(STEP))
            assert status.Status == 0x0000
        with associated(address(second), "CT1", [MPPS]) as association:
            status, _ = association.send_n_create(new_step(), UID(MPPS), UID(STEP))
            assert status.Status == 0x0111
            status, _ = association.send_n_set(final(), UID(MPPS), UID(STEP))
            assert status.Status == 0x0000
        with associated(address(first), "CT1", [MPPS]) as association:
            status, _ = association.send_n_set(final(), UID(MPPS), UID(STEP))
            assert status.Status == 0x0110

        first.kill()
        owed = eventually(partial(waiting, second), "no task is the dead node's", within=120)
        assert len(owed) == 2
        with listening("RIS", told, ris.port):
            retry(second, owed)
            assert told.next(within=60)[:2] == ("create", STEP)
            assert told.next(within=60)[:2] == ("set", STEP)
        # Whoever had the duty, the other one has it now.
        put(files / "c.wl", scheduled(ScheduledProcedureStepID="S3"))
        eventually(partial(answers, second, 3), "the other node reads the directory", within=120)
