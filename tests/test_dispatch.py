"""Which service answers a request."""

from __future__ import annotations

import pytest

from netdicom_tx import UNKNOWN_SOP_CLASSES, Association, PContextDef
from netdicom_tx.dimsemessages import Request
from netdicom_tx.dispatch import Dispatcher
from netdicom_tx.sopclass import Verification
from support.doubles import CT, FIND, IMPLICIT, MR

PRIVATE = "1.2.826.0.1.3680043.9.9999.1"


def known(uid: str) -> bool:
    return uid != PRIVATE


def service(asce: Association, ctx: PContextDef, msg: Request) -> int:
    """Serves no SOP class of its own."""
    raise AssertionError  # pragma: no cover - it is only registered


def test_a_service_is_found_by_the_abstract_syntax():
    dispatcher = Dispatcher(known)
    dispatcher.register(service, [CT, MR], [IMPLICIT])
    found = dispatcher.find(CT)
    assert found is not None
    assert found.service is service
    assert found.transfer_syntaxes == (IMPLICIT,)
    assert not found.store_in_file
    assert dispatcher.find(FIND) is None
    assert [uid for uid, _ in dispatcher] == [CT, MR]


def test_a_service_may_have_sop_classes_of_its_own():
    def own(asce: Association, ctx: PContextDef, msg: Request) -> int:
        raise AssertionError  # pragma: no cover - it is only registered

    own.sop_classes = (CT,)  # type: ignore[attr-defined]
    own.store_in_file = True  # type: ignore[attr-defined]
    dispatcher = Dispatcher(known)
    dispatcher.register(own, None, [IMPLICIT])
    found = dispatcher.find(CT)
    assert found is not None
    assert found.store_in_file
    dispatcher.register(own, [MR], [IMPLICIT])
    assert dispatcher.find(MR) is not None


def test_a_service_without_sop_classes_is_refused():
    for nothing in (None, ()):
        with pytest.raises(ValueError, match="service has no SOP classes"):
            Dispatcher(known).register(service, nothing, [IMPLICIT])


def test_a_sop_class_has_one_service():
    dispatcher = Dispatcher(known)
    dispatcher.register(service, [CT], [IMPLICIT])
    dispatcher.register(service, [CT], [IMPLICIT])
    with pytest.raises(ValueError, match="has a service already"):
        dispatcher.register(lambda asce, ctx, msg: 0, [MR, CT], [IMPLICIT])
    assert dispatcher.find(MR) is None, "all or nothing"


def test_one_service_may_serve_every_class_that_nobody_knows():
    dispatcher = Dispatcher(known)
    dispatcher.register(service, [UNKNOWN_SOP_CLASSES], [IMPLICIT])
    assert dispatcher.find(PRIVATE) is not None
    assert dispatcher.find(CT) is None
    assert list(dispatcher) == [], "there is nothing to propose"


def test_a_class_is_no_service():
    """It would be called for each request, and its instances answered with."""
    with pytest.raises(
        TypeError, match=r"Verification is a class; expected an instance of it, such as Verif"
    ):
        Dispatcher(known).register(Verification, None, [IMPLICIT])
    with pytest.raises(TypeError, match="7 is not a service"):
        Dispatcher(known).register(7, [CT], [IMPLICIT])  # type: ignore[arg-type]


def test_a_string_is_no_list_of_uids():
    """It would become a list of characters."""
    with pytest.raises(TypeError, match="sop_classes is a list or tuple of UIDs"):
        Dispatcher(known).register(service, CT, [IMPLICIT])
    with pytest.raises(TypeError, match="transfer_syntaxes is a list or tuple of UIDs"):
        Dispatcher(known).register(service, [CT], IMPLICIT)
    with pytest.raises(ValueError, match="'CT Image', which is not a UID"):
        Dispatcher(known).register(service, ["CT Image"], [IMPLICIT])
