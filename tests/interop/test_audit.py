"""The audit trail of what DCMTK does (PS3.15 A.5): it stores, asks and retrieves."""

import base64
import stat
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest
from pydicom import dcmread

from netdicom_tx.dsutils import decode
from support.audit_schema import checked
from support.interop.peers import StoreSCP
from support.interop.samples import Sample
from support.node import Node
from support.processes import program, run, succeed

pytestmark = pytest.mark.interop


def event(message: Element) -> str:
    """The code of the event."""
    code = message.find("EventIdentification/EventID")
    assert code is not None
    return code.attrib["csd-code"]


def test_each_tool_leaves_its_message(
    tmp_path: Path,
    start_node: Callable[..., Node],
    start_storescp: Callable[..., StoreSCP],
    samples: tuple[Sample, ...],
) -> None:
    """Begin and end of the node, the stored study, the query, and begin and end of the retrieve."""
    ct = next(each for each in samples if each.name == "CT_small.dcm")
    study = dcmread(ct.path, stop_before_pixels=True)
    trail = tmp_path / "audit.xml"
    viewer = start_storescp()
    node = start_node(
        "--audit", str(trail), "--peer", f"{viewer.ae_title}@127.0.0.1:{viewer.address.port}"
    )
    where = ("-aec", node.ae_title, *node.address.arguments)
    succeed(program("storescu"), "-aet", "CT1", *where, ct.path)
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study.StudyInstanceUID}")
    succeed(program("findscu"), "-S", "-aet", "WORKS", *where, *keys)
    run(program("movescu"), "-S", "-aet", "WORKS", "-aem", viewer.ae_title, *where, *keys)
    assert stat.S_IMODE(trail.stat().st_mode) == 0o600
    node.stop()
    messages = [checked(each) for each in trail.read_bytes().splitlines()]
    codes = [event(each) for each in messages]
    assert codes[0] == codes[-1] == "110100"
    assert sorted(codes[1:-1]) == ["110102", "110104", "110104", "110112"]
    for each in messages:
        if event(each) in ("110102", "110104"):
            objects = each.findall("ParticipantObjectIdentification")
            ids = [item.attrib["ParticipantObjectID"] for item in objects]
            assert ids == [study.StudyInstanceUID, study.PatientID]
    (query,) = (each for each in messages if event(each) == "110112")
    asked = query.findtext(".//ParticipantObjectQuery")
    syntax = query.find(".//ParticipantObjectDetail")
    assert asked is not None
    assert syntax is not None
    identifier = decode(base64.b64decode(asked), base64.b64decode(syntax.attrib["value"]).decode())
    assert identifier.StudyInstanceUID == study.StudyInstanceUID
    assert query.findall("ActiveParticipant")[0].attrib["UserID"] == "WORKS"
