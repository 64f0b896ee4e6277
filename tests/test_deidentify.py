"""docs/examples/deidentify.py, in front of a node."""

import sys
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from support.node import Node
from support.processes import Process, absent, free_port, run
from support.shell import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.interop]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (directory := tmp_path / "node").mkdir()
    return Node(directory)


def test_the_gateway_keeps_patients_out_of_the_archive(tmp_path: Path, node: Node) -> None:
    """What arrives has other names and UIDs, is the same when it is sent again, and its pixels are untouched."""
    try:
        import dicognito  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        absent("dicognito is not installed")
    (tmp_path / "seed").write_text("a seed\n")
    names = ("CT_small.dcm", "JPEG2000.dcm")
    sent = [dcmread(str(get_testdata_file(name))) for name in names]
    node.start()
    port = free_port()
    gateway = Process(
        tmp_path / "gateway.log",
        *(sys.executable, ROOT / "docs/examples/deidentify.py"),
        *(f"{node.ae_title}@127.0.0.1:{node.address.port}", tmp_path / "seed"),
        f"tcp:{port}:interface=127.0.0.1",
        PYTHONPATH=str(ROOT),
    )
    try:
        gateway.ready(lambda: "listening on" in gateway.text(), "gateway")
        store = (sys.executable, "-m", "netdicom_tx", "store", f"DEIDENTIFY@127.0.0.1:{port}")
        for _ in range(2):
            done = run(*store, *(str(get_testdata_file(name)) for name in names))
            assert done.returncode == 0, done.stdout
        kept = [dcmread(path) for path in node.instances().values()]
        assert len(kept) == len(sent)
        assert {ds.SOPInstanceUID for ds in kept}.isdisjoint(ds.SOPInstanceUID for ds in sent)
        assert {str(ds.PatientName) for ds in kept}.isdisjoint(str(ds.PatientName) for ds in sent)
        assert sorted(ds.PixelData for ds in kept) == sorted(ds.PixelData for ds in sent)
        for ds in kept:
            assert "DICOGNITO" in ds.DeidentificationMethod
            assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        # Without an archive, the sender learns that it has to send again.
        node.stop()
        done = run(*store, str(get_testdata_file(names[0])))
        assert "A700" in done.stdout
        assert done.returncode != 0
    finally:
        gateway.stop()
        node.stop()
