"""A version that a running node keeps aside, adopted: DCMTK finds and retrieves both instances."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from netdicom_tx.archive import FileStore
from support.commands.running import Netdicom
from support.node import Node
from support.processes import program, run

pytestmark = [pytest.mark.interop, pytest.mark.slow]


def test_dcmtk_gets_both_after_one_was_adopted(
    start_node: Callable[..., Node], tmp_path: Path
) -> None:
    """The node is not restarted."""
    node = start_node("--duplicates", "keep-both")
    first = dcmread(str(get_testdata_file("CT_small.dcm")))
    first.save_as(tmp_path / "first.dcm")
    first.PatientComments = "a second look"
    first.save_as(tmp_path / "second.dcm")
    peer = ("127.0.0.1", str(node.address.port))
    for name in ("first.dcm", "second.dcm"):
        sent = run(program("storescu"), "-aec", node.ae_title, *peer, str(tmp_path / name))
        assert sent.returncode == 0, sent.stdout
    (version,) = FileStore(node.storage).versions()
    done = Netdicom(tmp_path)(
        "versions", "--storage", node.storage, "--adopt", version.path.name, "--json"
    )
    assert (done.returncode, done.stderr) == (0, "")

    kept = tmp_path / "kept"
    kept.mkdir()
    got = run(
        *(program("getscu"), "-S", "-aec", node.ae_title, *peer, "-od", str(kept)),
        *("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={first.StudyInstanceUID}"),
    )
    assert got.returncode == 0, got.stdout
    found = {str(each.SOPInstanceUID): each for each in map(dcmread, kept.iterdir())}
    assert len(found) == 2
    del found[str(first.SOPInstanceUID)]
    (adopted,) = found.values()
    assert adopted.PatientComments == "a second look"
    assert adopted.OriginalAttributesSequence[0].SourceOfPreviousValues == "STORESCU"
    for path in kept.iterdir():
        dumped = run(program("dcmdump"), "+E", str(path))
        assert (dumped.returncode, "error" in dumped.stdout) == (0, False)
