"""Who may do what: rules by AE title, address and certificate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netdicom_tx import uids
from netdicom_tx.access import (
    EVERYTHING,
    Access,
    Caller,
    Certificate,
    Denied,
    Permission,
    Profile,
    Rule,
    needed_for,
    network,
    restricted,
)
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.negotiation import Offer

STORE = Profile(frozenset([Permission.ECHO, Permission.STORE]))
QUERY = Profile(frozenset([Permission.FIND, Permission.MOVE]), frozenset(["WS1"]))
DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("uid", "operations", "permission"),
    [
        (uids.VERIFICATION_SOP_CLASS, (), Permission.ECHO),
        (uids.CTImageStorage, (), Permission.STORE),
        (uids.STUDY_ROOT_FIND_SOP_CLASS, (), Permission.FIND),
        (uids.STUDY_ROOT_GET_SOP_CLASS, (), Permission.GET),
        (uids.WITHOUT_BULK_DATA_GET_SOP_CLASS, (), Permission.GET),
        (uids.PATIENT_ROOT_MOVE_SOP_CLASS, (), Permission.MOVE),
        (uids.MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS, ("C-FIND",), Permission.WORKLIST),
        (uids.ModalityPerformedProcedureStep, ("N-CREATE",), Permission.MPPS),
        (uids.STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS, ("N-ACTION",), Permission.COMMIT),
        ("1.2.3.4", ("C-STORE",), Permission.STORE),
        ("1.2.3.4", ("C-MOVE",), Permission.MOVE),
        ("1.2.3.4", ("N-ACTION",), Permission.OTHER),
        (uids.BasicFilmSession, (), Permission.OTHER),
    ],
)
def test_each_service_needs_a_permission(
    uid: str, operations: tuple[str, ...], permission: Permission
) -> None:
    """The operation counts for SOP classes that the registry does not name."""
    assert needed_for(uid, operations) is permission


def access() -> Access:
    return Access(
        (
            Rule(title="CT1", networks=(network("192.0.2.0/24"),), profile=STORE),
            Rule(title="WS1", profile=QUERY),
            Rule(title="*", networks=(network("198.51.100.0/24"),), profile=QUERY),
            Rule(title="*", networks=(network("198.51.100.7"),), profile=STORE),
        ),
        None,
    )


@pytest.mark.parametrize(
    ("title", "host", "profile"),
    [
        ("CT1", "192.0.2.9", STORE),
        ("CT1", "::ffff:192.0.2.9", STORE),
        ("WS1", "203.0.113.1", QUERY),
        ("WS1", "", QUERY),
        ("NEW", "198.51.100.1", QUERY),
        ("NEW", "198.51.100.7", STORE),
        ("CT1", "198.51.100.7", None),
        ("CT1", "192.0.3.1", None),
        ("CT1", "", None),
        ("CT1", "not an address", None),
        ("ct1", "192.0.2.9", None),
        ("NEW", "2001:db8::1", None),
        ("NEW", "", None),
    ],
)
def test_a_rule_is_found_by_title_and_network(
    title: str, host: str, profile: Profile | None
) -> None:
    """A title with a rule is served by no other; among those for networks the longest prefix counts."""
    found = access().judge(Caller(title, host))
    if profile is None:
        assert isinstance(found, Denied)
    else:
        assert found == profile


def test_a_peer_without_a_rule_has_the_default_profile() -> None:
    assert Access(default=QUERY).judge(Caller("NEW", "192.0.2.1")) == QUERY
    assert Access().judge(Caller("NEW")) == EVERYTHING


def test_a_destination_has_to_be_in_the_list() -> None:
    caller = Caller("WS1", "192.0.2.1")
    assert access().may(caller, Permission.MOVE, "WS1")
    assert not access().may(caller, Permission.MOVE, "WS2")
    assert not access().may(caller, Permission.STORE)
    assert not access().may(Caller("NEW"), Permission.ECHO)
    assert Access().may(caller, Permission.MOVE, "WS2")


@pytest.mark.parametrize("expected", ["ct1.example", "CT1.Example", DIGEST, "AB:" * 31 + "AB"])
def test_a_title_is_bound_to_a_certificate(expected: str) -> None:
    """Fingerprints are read with and without colons; names as in the DNS."""
    bound = Access((Rule(title="CT1", certificate=expected),))
    own = Certificate(DIGEST, ("ct1.example",))
    assert bound.judge(Caller("CT1", "192.0.2.1", own)) == EVERYTHING
    for other in (None, Certificate("00" * 32, ("ct2.example",)), Certificate("00" * 32)):
        denied = bound.judge(Caller("CT1", "192.0.2.1", other))
        assert isinstance(denied, Denied)
        assert expected in denied.expected
    assert bound.judge(Caller("NEW", "192.0.2.1", None)) == EVERYTHING


def test_a_fingerprint_is_not_a_name() -> None:
    """An authority may sign a certificate whose name is the fingerprint of another one."""
    bound = Access((Rule(title="CT1", certificate=DIGEST),))
    other = Certificate("00" * 32, (DIGEST,))
    assert isinstance(bound.judge(Caller("CT1", "192.0.2.1", other)), Denied)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("::ffff:192.0.2.17", "192.0.2.17"), ("::ffff:192.0.2.0/120", "192.0.2.0/24")],
)
def test_a_network_of_mapped_addresses_is_one_of_ipv4(written: str, meant: str) -> None:
    """RFC 4291 2.5.5.2: a peer may appear with either."""
    assert network(written) == network(meant)
    rules = Access((Rule(title="CT1", networks=(network(written),)),), default=None)
    for host in ("192.0.2.17", "::ffff:192.0.2.17"):
        assert rules.judge(Caller("CT1", host)) == EVERYTHING


def test_a_network_has_no_zone() -> None:
    """RFC 4007: fe80::1 of another interface is another host, so the zone must not be ignored."""
    with pytest.raises(LocalProtocolError, match="zone"):
        network("fe80::1%eth0")


def test_a_refusal_says_what_was_expected() -> None:
    wrong = access().judge(Caller("CT1", "192.0.3.1"))
    assert isinstance(wrong, Denied)
    assert (wrong.came, wrong.expected) == (
        "calling AE title 'CT1' from 192.0.3.1",
        "it from 192.0.2.0/24",
    )


def test_what_is_open_is_known() -> None:
    """Then nothing is checked for each request."""
    assert Access((Rule(title="A"),)).is_open
    assert not Access((Rule(title="A", profile=STORE),)).is_open
    assert not Access((Rule(title="A", certificate="x"),)).is_open
    assert not Access(default=None).is_open


@pytest.mark.parametrize("text", ["192.0.2.1/24", "x", "", "192.0.2.0/33"])
def test_a_wrong_network_is_refused(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="is not a network"):
        network(text)


def test_wrong_rules_are_refused() -> None:
    with pytest.raises(LocalProtocolError, match="has two rules"):
        Access((Rule(title="A"), Rule(title="A")))
    with pytest.raises(LocalProtocolError, match="needs networks"):
        Rule(title="*")


BOTH = Offer(("1.2.840.10008.1.2",), as_scp=True, as_scu=True)


@pytest.mark.parametrize(
    ("allow", "needed", "roles"),
    [
        ({Permission.STORE, Permission.GET}, Permission.STORE, (True, True, False)),
        ({Permission.STORE}, Permission.STORE, (True, False, True)),
        ({Permission.GET}, Permission.STORE, (False, True, True)),
        ({Permission.COMMIT}, Permission.COMMIT, (True, True, False)),
        (set(), Permission.COMMIT, (False, False, True)),
    ],
)
def test_an_offer_is_cut_to_what_a_peer_may_use(
    allow: set[Permission], needed: Permission, roles: tuple[bool, bool, bool]
) -> None:
    """What C-GET brings to a peer needs the permission to get, not that to store (PS3.4 C.4.3)."""
    left = restricted(BOTH, needed, Profile(frozenset(allow)))
    assert (left.as_scp, left.as_scu, left.is_refused) == roles


@given(st.text(), st.text())
def test_any_caller_is_judged(title: str, host: str) -> None:
    """What a peer sends cannot make the judgement fail."""
    assert isinstance(access().judge(Caller(title, host)), Denied | Profile)
