"""The context that a hook gets: a presentation context that knows its association and its request."""

from __future__ import annotations

from typing import Any

import pytest

from netdicom_tx import AE, PContextDef, RequestContext, Status, storage_scu, uids
from netdicom_tx.sopclass import storage_scp, verification_scp, verification_scu
from netdicom_tx.testing import connected, success_of
from support.doubles import VERIFICATION, Node, echo_rq
from support.doubles import logged_failures as logged_failures


class Hooked(AE):
    """Keeps the context of each hook that is called."""

    def __init__(self) -> None:
        super().__init__("NODE")
        self.contexts: list[RequestContext] = []
        self.add_scp(verification_scp).add_scp(storage_scp)

    def on_receive_echo(self, context: RequestContext) -> int:
        self.contexts.append(context)
        return 0

    def on_receive_store(self, context: PContextDef, ds: Any) -> int:
        """Annotated as the seed has it: still an override of the base's."""
        assert isinstance(context, RequestContext)
        self.contexts.append(context)
        return 0


def test_a_hook_knows_who_asks_and_what_for() -> None:
    from pydicom.data import get_testdata_file

    ae, path = Hooked(), str(get_testdata_file("CT_small.dcm"))
    scu = AE("CT1").add_scu(verification_scu).add_scu(storage_scu, [uids.CTImageStorage])
    with connected(scu, ae) as pair:
        success_of(pair.requestor.get_scu(VERIFICATION)(7))
        success_of(pair.requestor.get_scu(uids.CTImageStorage)(path, 8))
        echo, store = ae.contexts
        for context in (echo, store):
            assert context.association is pair.acceptor
            assert context.association.calling_ae_title == "CT1"
            assert context.association.peer_address.host == "ct1"  # type: ignore[union-attr]
        assert (echo.request.message_id, store.request.message_id) == (7, 8)
        assert store.request.sop_class_uid == uids.CTImageStorage
        assert str(store.request.sop_instance_uid).startswith("1.3.6.1")


def test_a_context_of_a_hook_is_as_good_as_the_accepted_one() -> None:
    """Equal, with the same hash, so that a hook may ask something back on it."""
    node = Node(Hooked())
    node.associate().send(echo_rq(3))
    (context,) = node.ae.contexts  # type: ignore[attr-defined]
    (accepted,) = node.association().accepted_contexts.values()
    assert context == accepted
    assert accepted == context
    assert hash(context) == hash(accepted)
    assert context != PContextDef(3, VERIFICATION, accepted.supported_ts)
    assert context != Status(0)
    assert repr(context).startswith("RequestContext(id=1")
    assert "request" not in repr(context)
    with pytest.raises(AttributeError):
        context.id = 3  # type: ignore[misc]
