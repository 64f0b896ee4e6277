"""What peers send to ``twistd dicom`` is kept, byte for byte."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydicom.filereader import read_file_meta_info

from support.interop.dcmtk import received, sendable, storescu
from support.interop.peers import PYNETDICOM_PEER, Orthanc
from support.interop.samples import Sample, as_pydicom_writes, one_of_each, read
from support.node import Node
from support.part10 import by_instance, data_set_bytes
from support.processes import need_pynetdicom, program, succeed

pytestmark = pytest.mark.interop


def assert_kept(node: Node, expected: Mapping[str, bytes]) -> None:
    """The node has these instances, no other, each with exactly this data set."""
    kept = node.instances()
    assert kept.keys() == expected.keys()
    assert [uid for uid, path in kept.items() if data_set_bytes(path) != expected[uid]] == []


def assert_readable(node: Node, samples: tuple[Sample, ...]) -> None:
    """pydicom and dcmdump read every stored file, and pydicom reads what was sent."""
    kept = node.instances()
    for sample in samples:
        ds = read(kept[sample.instance])
        assert ds.SOPInstanceUID == sample.instance
        assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == sample.sop_class
        assert ds.file_meta.TransferSyntaxUID == sample.transfer_syntax
    succeed(program("dcmdump"), "--quiet", "--read-file-only", *kept.values())


def test_echoscu_is_answered(node: Node) -> None:
    """PS3.4 Annex A, with DCMTK."""
    printed = succeed(program("echoscu"), "--verbose", *node.address.arguments)
    assert "Received Echo Response (Success)" in printed


def test_pynetdicom_echoscu_is_answered(node: Node) -> None:
    """PS3.4 Annex A, with pynetdicom."""
    need_pynetdicom()
    printed = succeed(
        *(sys.executable, "-m", "pynetdicom", "echoscu", "--verbose"), *node.address.arguments
    )
    assert "Received Echo Response (Status: 0x0000 - Success)" in printed


def test_orthanc_echo_is_answered(node: Node, orthanc: Orthanc) -> None:
    """PS3.4 Annex A, with Orthanc; it answers a failed echo with an HTTP error."""
    orthanc.rest(f"{orthanc.modality(node.address)}/echo", {})


def test_storescu_as_shipped_stores_every_sample(
    node: Node, samples: tuple[Sample, ...], dcmtk_samples: tuple[Sample, ...]
) -> None:
    """The bytes are those that DCMTK's own bit-preserving receiver writes for the same command.

    For most samples those are also the bytes of the file.
    """
    sent = sendable(samples)
    expected = {sample.instance: sample.data_set for sample in dcmtk_samples}
    printed = storescu(node.address, sent)
    assert printed.count("Received Store Response (Success)") == len(sent)
    assert_kept(node, expected)
    as_in_file = [sample for sample in sent if expected[sample.instance] == sample.data_set]
    assert len(as_in_file) > len(sent) // 2
    assert_readable(node, sent)


def test_storescu_stores_what_dcmtk_has_written_as_it_is_in_the_file(
    node: Node, dcmtk_samples: tuple[Sample, ...]
) -> None:
    """DCMTK does not change its own files on the way: the stored data set is the sent file's."""
    storescu(node.address, dcmtk_samples)
    assert_kept(node, {sample.instance: sample.data_set for sample in dcmtk_samples})


def test_dcmsend_as_shipped_stores_a_mixed_set_on_one_association(
    node: Node, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    """dcmsend proposes what each file needs, compressed syntaxes in contexts of their own."""
    command = [program("dcmsend"), "--verbose"]
    paths = [sample.path for sample in sendable(samples)]
    judge = received(
        lambda to: succeed(*command, *to.arguments, *paths, TCP_NODELAY="1"), tmp_path / "judge"
    )
    printed = succeed(*command, *node.address.arguments, *paths)
    assert "with status SUCCESS" in printed
    assert_kept(node, {uid: data_set_bytes(path) for uid, path in judge.items()})


def test_orthanc_stores_what_it_holds(
    node: Node,
    orthanc: Orthanc,
    samples: tuple[Sample, ...],
    dcmtk_samples: tuple[Sample, ...],
) -> None:
    """A job of Orthanc's to a modality: what DCMTK makes of the files that Orthanc holds."""
    sent = [sample for sample in one_of_each(sendable(samples)) if sample.in_hierarchy]
    forms = {sample.instance: sample.data_set for sample in dcmtk_samples}
    identifiers = {sample.instance: orthanc.upload(sample.path) for sample in sent}
    for sample in sent:
        assert orthanc.file(identifiers[sample.instance]) == sample.path.read_bytes()
    outcome = orthanc.rest(
        f"{orthanc.modality(node.address)}/store",
        {"Resources": list(identifiers.values()), "Synchronous": True},
    )
    assert (outcome["InstancesCount"], outcome["FailedInstancesCount"]) == (len(sent), 0)
    assert_kept(node, {sample.instance: forms[sample.instance] for sample in sent})


def test_pynetdicom_storescu_stores_what_it_encodes(
    node: Node, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    """pynetdicom's program decodes each file and sends what pydicom makes of it."""
    need_pynetdicom()
    sent = one_of_each(sample for sample in samples if sample.conforms)
    folder = tmp_path / "sent"
    folder.mkdir()
    for sample in sent:
        (folder / sample.path.name).symlink_to(sample.path)
    printed = succeed(
        *(sys.executable, "-m", "pynetdicom", "storescu", "--verbose", "--required-contexts"),
        *(*node.address.arguments, folder),
    )
    assert printed.count("Received Store Response (Status: 0x0000 - Success)") == len(sent)
    assert_kept(node, {sample.instance: as_pydicom_writes(sample.path) for sample in sent})


def test_pynetdicom_stores_every_sample_as_it_is_in_the_file(
    node: Node, samples: tuple[Sample, ...]
) -> None:
    """Sent without being decoded: here the bytes are the file's for every sample."""
    need_pynetdicom()
    printed = succeed(
        *(sys.executable, PYNETDICOM_PEER, "send", str(node.address.port)),
        *(sample.path for sample in samples),
    )
    assert printed.split("\n")[:-1] == [f"{sample.path.name} 0x0000" for sample in samples]
    assert_kept(node, {sample.instance: sample.data_set for sample in samples})


def test_every_sample_comes_back_as_it_is_in_the_file(
    node: Node, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    """Sent and retrieved without being decoded: nothing is lost on the way to the disk and back."""
    need_pynetdicom()
    paths = [sample.path for sample in samples]
    succeed(*(sys.executable, PYNETDICOM_PEER, "send", str(node.address.port)), *paths)
    port = str(node.address.port)
    printed = succeed(*(sys.executable, PYNETDICOM_PEER, "get", port, tmp_path / "got"), *paths)
    assert printed == "0x0000\n"
    got = by_instance(tmp_path / "got")
    assert len(got) == len(samples)
    assert [
        sample.name
        for sample in samples
        if data_set_bytes(got[sample.instance]) != sample.sent
        or read_file_meta_info(got[sample.instance]).TransferSyntaxUID != sample.transfer_syntax
    ] == []
