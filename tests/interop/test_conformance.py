"""What ``netdicom conformance`` states, held against the node that runs: pynetdicom probes it."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from netdicom_tx import uids
from support.node import Node
from support.processes import WITH_PYNETDICOM, eventually, need_pynetdicom, succeed

pynetdicom = pytest.importorskip("pynetdicom")

pytestmark = [*WITH_PYNETDICOM, pytest.mark.slow]

#: Results of presentation contexts (PS3.8 Table 9-18).
ACCEPTED, BY_USER, NO_ABSTRACT_SYNTAX, NO_TRANSFER_SYNTAX = 0, 1, 3, 4
#: As many as an association has.
CONTEXTS = 128
#: What nobody registers.
PRIVATE = "1.2.826.0.1.3680043.2.1143.7.7"


def stated(*options: str | Path) -> dict[str, Any]:
    """The statement of a node with these options."""
    command = (sys.executable, "-m", "netdicom_tx", "conformance", "--format", "json")
    document: dict[str, Any] = json.loads(succeed(*command, *options))
    return document


@contextmanager
def called(
    node: Node, contexts: Iterable[tuple[str, str]], title: str = "PROBE", items: Iterable[Any] = ()
) -> Iterator[Any]:
    """An association of pynetdicom with one context for each abstract syntax and transfer syntax."""
    need_pynetdicom()
    proposed = [pynetdicom.build_context(sop_class, [ts]) for sop_class, ts in contexts]
    ae = pynetdicom.AE(ae_title=title)
    host, port = node.address.arguments
    asce = ae.associate(
        host, int(port), contexts=proposed, ae_title=node.ae_title, ext_neg=list(items) or None
    )
    try:
        yield asce
    finally:
        if asce.is_established:
            asce.release()


def results(node: Node, pairs: Iterable[tuple[str, str]], title: str = "PROBE") -> Iterator[int]:
    """The result for each abstract syntax and transfer syntax, in order."""
    remaining = iter(pairs)
    while chunk := list(islice(remaining, CONTEXTS)):
        with called(node, chunk, title) as asce:
            if not asce.accepted_contexts and not asce.rejected_contexts:
                raise AssertionError("the node did not answer")
            found = {
                each.context_id: each.result
                for each in (*asce.accepted_contexts, *asce.rejected_contexts)
            }
            assert len(found) == len(chunk)
            yield from (found[identity] for identity in sorted(found))


def claims(statement: dict[str, Any]) -> list[tuple[str, str]]:
    """Each SOP class with each of its transfer syntaxes."""
    return [
        (sop_class, ts)
        for service in statement["services"]
        for sop_class in service["sop_classes"]
        for ts in service["transfer_syntaxes"]
    ]


def test_the_node_accepts_all_that_is_stated(node: Node) -> None:
    """Each SOP class in each transfer syntax, in a context of its own (PS3.2 N.7.2)."""
    pairs = claims(stated())
    assert len(pairs) > 10_000
    assert [
        pair for pair, result in zip(pairs, results(node, pairs), strict=True) if result != ACCEPTED
    ] == []


def test_the_node_refuses_what_is_not_stated(node: Node) -> None:
    """SOP classes of other services, private ones, and transfer syntaxes that a service does not take."""
    statement = stated()
    stated_classes = {uid for each in statement["services"] for uid in each["sop_classes"]}
    others = [
        uids.BasicGrayscalePrintManagementMeta,
        uids.UnifiedProcedureStepPush,
        uids.InstanceAvailabilityNotification,
        uids.HangingProtocolInformationModelFind,
        PRIVATE,
    ]
    assert stated_classes.isdisjoint(others)
    for result in results(node, [(each, uids.IMPLICIT_VR_LITTLE_ENDIAN) for each in others]):
        assert result == NO_ABSTRACT_SYNTAX
    for service in statement["services"]:
        wrong = PRIVATE if service["permission"] == "store" else uids.JPEGBaseline8Bit
        assert wrong not in service["transfer_syntaxes"]
        pairs = [(each, wrong) for each in service["sop_classes"]]
        assert set(results(node, pairs)) == {NO_TRANSFER_SYNTAX}


def test_roles_window_and_longest_pdu_are_as_stated(node: Node) -> None:
    """PS3.7 D.3.3.3, D.3.3.4 and PS3.8 D.1."""
    from pynetdicom.pdu_primitives import (
        AsynchronousOperationsWindowNegotiation,
        ImplementationClassUIDNotification,
        ImplementationVersionNameNotification,
        SCP_SCU_RoleSelectionNegotiation,
    )

    statement = stated()
    services = [
        each for each in statement["services"] if each["permission"] in ("echo", "store", "find")
    ]
    assert len(services) == 3
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 8
    window.maximum_number_operations_performed = 8
    firsts = {service["sop_classes"][0]: service for service in services}
    roles = [pynetdicom.build_role(uid, scu_role=True, scp_role=True) for uid in firsts]
    pairs = [(uid, uids.EXPLICIT_VR_LITTLE_ENDIAN) for uid in firsts]
    with called(node, pairs, items=[window, *roles]) as asce:
        assert asce.is_established
        answered = {
            type(each): each
            for each in asce.acceptor.user_information
            if not isinstance(each, SCP_SCU_RoleSelectionNegotiation)
        }
        assert asce.acceptor.maximum_length == statement["max_pdu_length"]
        granted = answered[AsynchronousOperationsWindowNegotiation]
        assert granted.maximum_number_operations_invoked == statement["invoked"]
        assert granted.maximum_number_operations_performed == statement["performed"]
        identity = answered[ImplementationClassUIDNotification]
        assert identity.implementation_class_uid == statement["implementation_class_uid"]
        version = answered[ImplementationVersionNameNotification]
        assert version.implementation_version_name == statement["implementation_version_name"]
        for uid, (scu_role, scp_role) in _roles(asce).items():
            assert (scu_role, scp_role) == (firsts[uid]["is_scp"], firsts[uid]["is_scu"]), uid
        assert _roles(asce).keys() == firsts.keys()


def _roles(asce: Any) -> dict[str, tuple[bool, bool]]:
    return {
        uid: (bool(item.scu_role), bool(item.scp_role))
        for uid, item in asce.acceptor.role_selection.items()
    }


def test_another_configuration_gives_another_statement(
    tmp_path: Path, start_node: Callable[..., Node]
) -> None:
    """Private SOP classes, permissions, and the limits of associations."""
    config = tmp_path / "node.toml"
    config.write_text(
        '[node]\nmax_associations = 3\n[storage]\nunknown_sop_classes = true\n[access]\ndefault = ["echo"]\n'
        '[[peer]]\ntitle = "CT1"\nallow = ["echo", "store"]\n'
    )
    node = start_node("--config", str(config))
    statement = stated("--config", config)
    parties = {each["title"]: each["allow"] for each in statement["parties"]}
    assert parties == {"CT1": ["echo", "store"], "": ["echo"]}
    (storage,) = (each for each in statement["services"] if each["permission"] == "store")
    assert storage["takes_unknown"]
    default = uids.EXPLICIT_VR_LITTLE_ENDIAN
    firsts = [(each["sop_classes"][0], default) for each in statement["services"]]
    for title, allowed in (("CT1", parties["CT1"]), ("OTHER", parties[""])):
        for service, result in zip(
            statement["services"], results(node, firsts, title), strict=True
        ):
            expected = ACCEPTED if service["permission"] in allowed else BY_USER
            assert result == expected, (title, service["name"])
    assert list(results(node, [(PRIVATE, default)], "CT1")) == [ACCEPTED]

    # A further association is rejected, or takes the place of one on which nothing happens; so it is never one more.
    with ExitStack() as stack:
        echo = [(uids.VERIFICATION_SOP_CLASS, default)]
        limit = statement["max_associations"]
        assert limit == 3
        opened = [stack.enter_context(called(node, echo)) for _ in range(limit)]
        assert any(each.is_established for each in opened)
        opened += [stack.enter_context(called(node, echo)) for _ in range(2)]
        eventually(
            lambda: sum(bool(each.is_established) for each in opened) <= limit,
            "limit of associations",
        )
