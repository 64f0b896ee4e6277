"""One rule for wrong arguments: what no peer and no moment could make right is raised in the call itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from pydicom.data import get_testdata_file
from twisted.internet.task import Clock

from netdicom_tx import (
    AE,
    AssociationPool,
    RemoteAE,
    Window,
    storage_scp,
    verification_scu,
)
from netdicom_tx.arguments import check_number, check_seconds, check_type, many
from netdicom_tx.dsutils import DataSetError
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.testing import failure_of
from netdicom_tx.userdataitems import RoleSelection
from support.doubles import CT, EXPLICIT

WRONG = (TypeError, ValueError, LocalProtocolError)


# -- the checks -----------------------------------------------------------------------------------------


def test_a_class_is_asked_for_in_words():
    check_type("window", Window(1, 1), Window)
    with pytest.raises(TypeError, match=r"^window is 8; expected a Window$"):
        check_type("window", 8, Window)
    with pytest.raises(TypeError, match=r"^ae is 8; expected an AE$"):
        check_type("ae", 8, AE)
    with pytest.raises(
        TypeError, match=r"^window is 8; expected a Window, such as Window\(8, 8\)$"
    ):
        check_type("window", 8, Window, "a Window, such as Window(8, 8)")


@pytest.mark.parametrize("value", ["3", 3.0, None, True])
def test_a_number_is_an_int(value: Any):
    with pytest.raises(TypeError, match=r"^limit is .*; expected a whole number, 1 or greater$"):
        check_number("limit", value, 1)


def test_a_number_has_a_least_value():
    check_number("limit", 1, 1)
    with pytest.raises(
        ValueError, match="limit is 0; expected a whole number, 1 or greater, of octets"
    ):
        check_number("limit", 0, 1, unit="octets")


@pytest.mark.parametrize("value", ["3", None, True, [3]])
def test_seconds_are_a_number(value: Any):
    with pytest.raises(TypeError, match=r"^idle is .*; expected seconds as a number"):
        check_seconds("idle", value)


@pytest.mark.parametrize("value", [0, -1, math.inf, -math.inf, math.nan])
def test_seconds_are_greater_than_0_and_finite(value: float):
    with pytest.raises(
        ValueError, match=r"^idle is .*; expected seconds greater than 0 and finite"
    ):
        check_seconds("idle", value)


def test_0_seconds_may_be_allowed():
    check_seconds("idle", 0, zero=True)
    check_seconds("idle", 0.5)
    with pytest.raises(ValueError, match="expected seconds of 0 or greater and finite"):
        check_seconds("idle", -1, zero=True)


@pytest.mark.parametrize("value", ["A", b"A", 5, None])
def test_a_list_is_no_single_item(value: Any):
    with pytest.raises(TypeError, match=r"^titles is .*; expected a list of AE titles$"):
        many("titles", value, str, "AE titles")


def test_a_list_is_copied_and_its_items_are_looked_at():
    assert many("titles", iter(["A", "B"]), str, "AE titles") == ("A", "B")
    with pytest.raises(TypeError, match=r"^titles holds 5; expected AE titles$"):
        many("titles", ["A", 5], str, "AE titles")
    with pytest.raises(TypeError, match=r"^roles is RoleSelection\("):
        many("roles", RoleSelection(CT, True, True), RoleSelection, "roles")  # type: ignore[arg-type]


# -- application entities ----------------------------------------------------------------------------------


REMOTE = RemoteAE("PEER", "tcp:127.0.0.1:104")
ROLE = RoleSelection(CT, True, True)


def entity() -> Any:
    return AE("ME", reactor=Clock()).add_scu(verification_scu)


def opening(*arguments: Any, **options: Any) -> Callable[[], Any]:
    return lambda: entity().request_association(*(arguments or (REMOTE,)), **options)


CALLS: dict[str, Callable[[], Any]] = {
    "title": lambda: AE(b"ME"),  # type: ignore[arg-type]
    "maximum length": lambda: AE("ME", max_pdu_length="1"),  # type: ignore[arg-type]
    "negative length": lambda: AE("ME", max_pdu_length=-1),
    "limit": lambda: AE("ME", max_associations=1.5),  # type: ignore[arg-type]
    "timeouts": lambda: AE("ME", timeouts=30),  # type: ignore[arg-type]
    "window": lambda: AE("ME", window=(8, 8)),  # type: ignore[arg-type]
    "no lane": lambda: AE("ME", move_associations=0),
    "address": lambda: RemoteAE("PEER", 104),  # type: ignore[arg-type]
    "identity": lambda: RemoteAE("PEER", "tcp:h:104", "me"),  # type: ignore[arg-type]
    "tls": lambda: RemoteAE("PEER", "tcp:h:104", tls=True),  # type: ignore[arg-type]
    "peer": opening("PEER@127.0.0.1:104"),
    "endpoint": opening(RemoteAE("PEER", "tcp:127.0.0.1")),
    "contexts": opening(REMOTE, CT),
    "a list of UIDs": opening(REMOTE, [CT]),
    "a number": opening(REMOTE, 5),
    "no contexts": opening(REMOTE, {}),
    "a syntax without its list": opening(REMOTE, {CT: EXPLICIT}),
    "no syntaxes": opening(REMOTE, {CT: []}),
    "no UID": opening(REMOTE, {"CT": [EXPLICIT]}),
    "no UID of a syntax": opening(REMOTE, [(CT, ["explicit"])]),
    "too many": opening(REMOTE, [(CT, [EXPLICIT])] * 129),
    "one file": opening(for_files="image.dcm"),
    "no file": opening(for_files=[5]),
    "one role": opening(roles=ROLE),
    "no role": opening(roles=["scp"]),
    "no item": opening(user_items=["identity"]),
    "listener": lambda: entity().listen(11112),
    "listener's string": lambda: entity().listen("tcp"),
    "service nowhere": lambda: entity().as_service(),
    "service": lambda: entity().as_service("tcp"),
    "grace": lambda: entity().as_service("tcp:11112", grace="long"),
    "for ever": lambda: entity().drain(math.inf),
    "pool's limit": lambda: AssociationPool(entity(), limit=0),
    "pool's attempts": lambda: AssociationPool(entity(), attempts="3"),  # type: ignore[arg-type]
    "pool's idle": lambda: AssociationPool(entity(), idle=math.inf),
    "pool's backoff": lambda: AssociationPool(entity(), backoff=-1),
    "service class": lambda: entity().add_scp(type(storage_scp)),
    "associate": lambda: entity().associate(104),
    "associate with nothing": lambda: entity().associate(REMOTE, lambda: None),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_told_in_the_call_itself(name: str):
    with pytest.raises(WRONG) as told:
        CALLS[name]()
    assert len(str(told.value).split()) > 4, "it says what is expected"


@pytest.mark.parametrize(
    ("path", "error"),
    [("/nowhere/image.dcm", OSError), (str(get_testdata_file("README.txt")), DataSetError)],
)
def test_what_a_file_does_fails_the_deferred(path: str, error: type[Exception]):
    assert isinstance(failure_of(opening(for_files=[path])()), error)
