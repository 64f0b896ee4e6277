"""The facts of a conformance statement."""

import re
from pathlib import Path

import pytest
import trustme

from netdicom_tx import uids
from netdicom_tx.access import Permission
from netdicom_tx.archive import ArchiveAE
from netdicom_tx.conformance import Statement, state
from netdicom_tx.negotiation import Window
from netdicom_tx.options import Options
from netdicom_tx.sopclass.base import sop_classes
from netdicom_tx.tap import make_ae

ROOT = Path(__file__).resolve().parent.parent


def made(*arguments: str) -> tuple[ArchiveAE, Options]:
    options = Options()
    options.parse(list(arguments))
    return make_ae(options), options


@pytest.fixture
def default() -> Statement:
    return state(*made())


def test_each_registered_sop_class_is_stated_once(default: Statement) -> None:
    ae, _ = made()
    stated = [uid for service in default.services for uid in service.sop_classes]
    assert sorted(stated) == sorted(uid for uid, _ in ae.supported_scp)


def test_what_a_program_registers_besides_is_stated() -> None:
    """The statement follows the application entity, not a list of its own."""

    @sop_classes([uids.BasicGrayscalePrintManagementMeta])
    def printing(asce: object, ctx: object, msg: object) -> int:
        return 0

    ae, options = made()
    ae.add_scp(printing, None, [uids.IMPLICIT_VR_LITTLE_ENDIAN])
    ae.window = Window(4, 8)
    statement = state(ae, options)
    (found,) = (each for each in statement.services if each.permission == Permission.OTHER)
    assert found.name == "Other"
    assert found.sop_classes == (uids.BasicGrayscalePrintManagementMeta,)
    assert found.transfer_syntaxes == (uids.IMPLICIT_VR_LITTLE_ENDIAN,)
    assert (statement.invoked, statement.performed) == (8, 4)


def test_tls_is_stated_with_its_profile(tmp_path: Path, default: Statement) -> None:
    """PS3.15 Annex B."""
    assert (default.tls_profile, default.tls_clients) == (None, "none")
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "node.pem"
    )
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    options = ["--tls-listen", "tcp:2762", "--tls-certificate", str(tmp_path / "node.pem")]
    statement = state(*made(*options))
    assert statement.tls_listen == ("tcp:2762",)
    assert (statement.tls_profile, statement.tls_profile_section) == ("bcp195", "B.12")
    assert statement.tls_clients == "none"
    options += ["--tls-authorities", str(tmp_path / "ca.pem")]
    assert state(*made(*options)).tls_clients == "required"
    options += ["--tls-clients", "optional", "--tls-profile", "bcp195-modified"]
    statement = state(*made(*options))
    assert (statement.tls_clients, statement.tls_profile_section) == ("optional", "B.13")


def test_the_page_says_what_the_statement_says(default: Statement) -> None:
    """docs/conformance.md is written by hand, so its numbers are compared here."""
    page = (ROOT / "docs" / "conformance.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", page, re.MULTILINE))
    assert rows["Associations at once"].startswith(f"{default.max_associations}, changed with")
    assert rows["Maximum length received"].startswith(f"{default.max_pdu_length} octets")
    assert rows["Application context"].startswith(default.application_context)
    window = f"answered with {default.invoked},{default.performed}"
    assert window in rows["Asynchronous operations window"]
    assert f"`{default.ae_title}`" in rows["AE title"]
    for name in ("ARTIM", "connect, as requestor", "response: the response to one of our requests"):
        assert float(rows[name]) == default.timeouts[name.split(":")[0].split(",")[0].lower()]
    for service in default.services:
        if service.permission in ("store", "find", "move", "get"):
            continue
        for uid in service.sop_classes:
            title = uids.name(uid).removesuffix(" SOP Class")
            short = title.replace("Modality Performed Procedure Step ", "MPPS ")
            assert any(
                each in rows
                for each in (title, short, title.removesuffix(" Information Model - FIND"))
            ), title
