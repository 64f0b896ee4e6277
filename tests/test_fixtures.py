"""The fixtures that the package has for the tests of others, used as those do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from twisted.internet import defer
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, verification_scp
from netdicom_tx.fixtures import RunningNode, dicom_network, dicom_node, run_node
from netdicom_tx.testing import Network, success_of

__all__ = ["dicom_network", "dicom_node"]

CT = str(get_testdata_file("CT_small.dcm"))


def _store(node: RunningNode) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "netdicom_tx", "store", node.address, CT],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_node_runs_for_one_test(dicom_node: RunningNode) -> None:
    _store(dicom_node)
    (file,) = dicom_node.files()
    assert file.is_relative_to(dicom_node.storage)
    assert f"listening on 127.0.0.1:{dicom_node.port}" in dicom_node.log


class NodeTests(TestCase):
    def test_a_node_runs_for_one_test_of_trial(self) -> None:
        node = run_node(self)
        _store(node)
        assert len(node.files()) == 1


def test_a_node_leaves_nothing_behind() -> None:
    with RunningNode() as node:
        assert node.storage.is_dir()
    assert not node.storage.parent.exists()


def test_a_node_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="1 or more"):
        RunningNode(tmp_path, "--max-associations", "0").start()


def test_entities_meet_in_memory(dicom_network: Network) -> None:
    scu, scp = AE("SCU"), AE("SCP").add_scp(verification_scp)
    dicom_network.add(scu)
    dicom_network.add(scp)

    async def work() -> int:
        async with scu.associate(dicom_network.remote(scp)) as asce:
            return await asce.echo()

    assert success_of(defer.Deferred.fromCoroutine(work())) == 0x0000
