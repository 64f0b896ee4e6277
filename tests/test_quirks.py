"""What is agreed on with one peer alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from netdicom_tx import AE, Window
from netdicom_tx.asceprovider import Association
from netdicom_tx.config import ConfigurationError, read
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.negotiation import NO_WINDOW, Offer
from netdicom_tx.options import Options
from netdicom_tx.pdu import PresentationContextRQ
from netdicom_tx.quirks import NO_QUIRKS, Quirks
from netdicom_tx.sopclass import storage_scp, storage_scu
from netdicom_tx.tap import makeService
from netdicom_tx.testing import Network, success_of
from netdicom_tx.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    CTImageStorage,
)
from netdicom_tx.userdataitems import AsynchronousOperationsWindow

BOTH = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


# -- values ------------------------------------------------------------------------------------------


def test_without_quirks_everything_stays() -> None:
    context = PresentationContextRQ(1, CTImageStorage, BOTH)
    offer = Offer(BOTH)
    assert NO_QUIRKS.window_or(Window(8, 8)) == Window(8, 8)
    assert (NO_QUIRKS.limit(0), NO_QUIRKS.limit(16384)) == (0, 16384)
    assert NO_QUIRKS.proposed((context,)) == (context,)
    assert NO_QUIRKS.offered(offer) is offer


@pytest.mark.parametrize(("octets", "limit"), [(0, 16384), (4096, 4096), (1 << 20, 16384)])
def test_the_smaller_limit_holds(octets: int, limit: int) -> None:
    """PS3.8 D.1: 0 means no limit."""
    assert Quirks(max_pdu=16384).limit(octets) == limit


def test_contexts_lose_transfer_syntaxes_and_vanish_without_any() -> None:
    quirks = Quirks(transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN,))
    one = PresentationContextRQ(1, CTImageStorage, BOTH)
    other = PresentationContextRQ(3, CTImageStorage, (EXPLICIT_VR_LITTLE_ENDIAN,))
    assert quirks.proposed((one, other)) == (
        replace(one, transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN,)),
    )
    assert quirks.offered(Offer(BOTH)).transfer_syntaxes == (IMPLICIT_VR_LITTLE_ENDIAN,)


def test_a_wrong_value_is_refused() -> None:
    with pytest.raises(ValueError, match="window"):
        Quirks(window=0)
    with pytest.raises(ValueError, match="max_pdu"):
        Quirks(max_pdu=0)


# -- associations ------------------------------------------------------------------------------------


@contextmanager
def associated(
    quirks: Quirks = NO_QUIRKS, *, of_caller: Quirks = NO_QUIRKS
) -> Iterator[tuple[Association, Association]]:
    """Both sides of an association between two AEs that would negotiate more."""
    scu = AE("SCU", window=Window(8, 8)).add_scu(storage_scu, [CTImageStorage], BOTH)
    scp = AE("SCP", window=Window(8, 8)).add_scp(storage_scp, [CTImageStorage], BOTH)
    scp.quirks = {"SCU": of_caller}
    with Network(scu, scp) as network:
        remote = replace(network.remote(scp), quirks=quirks)
        asce = success_of(scu.request_association(remote))
        (accepted,) = scp.associations
        yield asce, accepted


def test_nothing_is_changed_for_others() -> None:
    with associated() as (requestor, acceptor):
        assert requestor.window == acceptor.window == Window(8, 8)
        assert requestor.send_limit == acceptor.send_limit > 16384


@pytest.mark.parametrize("side", ["called", "caller"])
def test_a_peer_is_spared_asynchronous_operations(side: str) -> None:
    """PS3.7 D.3.3.3: without the item, one operation at a time."""
    one = Quirks(window=1)
    with associated(
        one if side == "called" else NO_QUIRKS, of_caller=one if side == "caller" else NO_QUIRKS
    ) as (requestor, acceptor):
        assert requestor.window == acceptor.window == NO_WINDOW
        asked = requestor.request_pdu
        assert asked is not None
        assert (asked.user_item(AsynchronousOperationsWindow) is None) is (side == "called")


@pytest.mark.parametrize("side", ["called", "caller"])
def test_a_peer_is_spared_large_pdus(side: str) -> None:
    """It gets none, although it admits them, and it is told of a small limit."""
    small = Quirks(max_pdu=16384)
    with associated(
        small if side == "called" else NO_QUIRKS, of_caller=small if side == "caller" else NO_QUIRKS
    ) as (requestor, acceptor):
        assert requestor.send_limit == acceptor.send_limit == 16384


@pytest.mark.parametrize("side", ["called", "caller"])
def test_a_peer_is_spared_transfer_syntaxes(side: str) -> None:
    implicit = Quirks(transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN,))
    with associated(
        implicit if side == "called" else NO_QUIRKS,
        of_caller=implicit if side == "caller" else NO_QUIRKS,
    ) as (requestor, _):
        syntaxes = {each.transfer_syntax for each in requestor.accepted_contexts.values()}
        assert syntaxes == {IMPLICIT_VR_LITTLE_ENDIAN}


def test_nothing_left_to_propose_is_said() -> None:
    scu = AE("SCU").add_scu(storage_scu, [CTImageStorage], [EXPLICIT_VR_LITTLE_ENDIAN])
    scp = AE("SCP").add_scp(storage_scp, [CTImageStorage])
    with Network(scu, scp) as network:
        quirks = Quirks(transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN,))
        with pytest.raises(LocalProtocolError, match="takes only Implicit VR Little Endian"):
            scu.request_association(replace(network.remote(scp), quirks=quirks))


# -- the configuration -------------------------------------------------------------------------------

FILE = """
[[peer]]
title = "OLD"
host = "old"
port = 104
window = 1
max_pdu = 16384
transfer_syntaxes = ["ImplicitVRLittleEndian", "1.2.840.10008.1.2.1"]
[[peer]]
title = "SENDS"
window = 1
[[peer]]
title = "PLAIN"
host = "plain"
port = 104
"""


def test_a_file_has_quirks_of_peers(tmp_path: Path) -> None:
    """A peer that only calls has them as well."""
    path = tmp_path / "node.toml"
    path.write_text(FILE)
    options = Options()
    options.parse(["--config", str(path), "--storage", str(tmp_path / "archive")])
    old = Quirks(
        window=1,
        max_pdu=16384,
        transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN),
    )
    assert options["peers"]["OLD"].quirks == old
    assert options["peers"]["PLAIN"].quirks == NO_QUIRKS
    node = makeService(options)
    assert node.ae.quirks == {"OLD": old, "SENDS": Quirks(window=1)}
    path.write_text(FILE.replace("16384", "32768"))
    assert node.reloaded().applied == ("[access] and [[peer]]",)
    assert node.ae.quirks["OLD"] == replace(old, max_pdu=32768)
    assert node.ae.peers["OLD"].quirks.max_pdu == 32768


def test_wrong_quirks_are_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(
        '[[peer]]\ntitle = "OLD"\nwindow = 0\nmax_pdu = 100\ntransfer_syntaxes = ["ImplicitVRLitleEndian"]\n'
    )
    with pytest.raises(ConfigurationError) as caught:
        read(str(path))
    assert [str(each) for each in caught.value.mistakes] == [
        "line 3: [[peer]] 1 window: expected a whole number of 1 or more, not '0'; netdicom config init shows what "
        "each key means",
        "line 4: [[peer]] 1 max_pdu: expected a whole number from 4096 to 4294967295, not '100'; netdicom config "
        "init shows what each key means",
        "line 5: [[peer]] 1 transfer_syntaxes entry 1: 'ImplicitVRLitleEndian' is not a transfer syntax; "
        "did you mean ImplicitVRLittleEndian?",
    ]
