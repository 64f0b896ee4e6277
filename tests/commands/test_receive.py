"""``netdicom receive``, to which ``netdicom store`` sends."""

import json
import re
from pathlib import Path

import pytest
from pydicom import dcmread

from support.commands.running import Netdicom
from support.processes import eventually

pytestmark = pytest.mark.slow

STUDY = "StudyInstanceUID=1.2.3"


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize("end", ["interrupt", "terminate"])
def test_receive_takes_what_store_sends(
    netdicom: Netdicom, instances: Path, form: list[str], end: str
) -> None:
    """One line for each association; Ctrl-C is the end that is meant, so exit code 0."""
    listen = ("receive", "--listen", "127.0.0.1:0", "-o", "inbox", "-aet", "INBOX")
    with netdicom.start(*listen, *form) as run:
        said = run.stderr.readline()
        port = re.search(r"INBOX listening on 127\.0\.0\.1:(\d+), writing to inbox", said)[1]
        sent = netdicom("store", f"127.0.0.1:{port}", instances, "--jobs", 1)
        assert sent.returncode == 0, sent.stderr
        assert netdicom("echo", f"127.0.0.1:{port}").returncode == 0
        getattr(run, end)()
        code, out, err = run.end()
    assert code == 0, err
    lines = out.splitlines()
    if form:
        documents = [json.loads(line) for line in lines]
        assert documents[0]["listening"] == {
            "ae_title": "INBOX",
            "host": "127.0.0.1",
            "port": int(port),
        }
        ended = [each["association"] for each in documents if "association" in each]
        assert [each["kept"] for each in ended] == [8, 0]
        assert len([each for each in documents if "file" in each]) == 8
    else:
        assert "8 instances, 0 refused" in lines[0]
        assert lines[0].startswith("NETDICOM-SCU@127.0.0.1: ")
        assert lines[0].endswith("; released")
    for path in instances.iterdir():
        sent_image = dcmread(path)
        (kept,) = (netdicom.directory / "inbox").rglob(f"{sent_image.SOPInstanceUID}.dcm")
        assert dcmread(kept) == sent_image


def test_receive_leaves_nothing_of_what_was_cut_off(netdicom: Netdicom) -> None:
    """The sender dies in the middle of an instance (RELIABILITY: temporary file removed)."""
    import socket

    from netdicom_tx.dimsemessages import CStoreRQ
    from netdicom_tx.fragments import fragment
    from netdicom_tx.pdu import AAssociateRQ, PresentationContextRQ
    from netdicom_tx.userdataitems import ImplementationClassUID, MaximumLength

    ct, plain = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2"
    request = AAssociateRQ(
        called_ae_title="INBOX",
        calling_ae_title="DYING",
        presentation_contexts=(PresentationContextRQ(1, ct, (plain,)),),
        user_information=(MaximumLength(16384), ImplementationClassUID("1.2.3")),
    )
    store = CStoreRQ(
        message_id=1,
        affected_sop_class_uid=ct,
        affected_sop_instance_uid="1.2.3.4",
        data_set=b"\x08\x00\x16\x00" + bytes(300_000),
    )
    pieces = [bytes(each) for each in fragment(store, context_id=1, limit=16384)]
    with netdicom.start("receive", "--listen", "127.0.0.1:0", "-o", "inbox") as run:
        port = int(re.search(r"127\.0\.0\.1:(\d+)", run.stderr.readline())[1])
        inbox = netdicom.directory / "inbox"
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request.encode())
            assert connection.recv(1) == b"\x02"
            for piece in pieces[:10]:
                connection.sendall(piece)
            eventually(lambda: any(inbox.iterdir()), "file on its way in")
        line = run.stdout.readline()
        assert "0 instances" in line
        assert "the connection was lost" in line
        assert list(inbox.iterdir()) == []
