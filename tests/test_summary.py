"""What has happened on an association, in a line of the log."""

import pytest

from netdicom_tx.summary import AssociationSummary


def summary(received: int = 0, sent: int = 0, **counts: dict[str, int]) -> str:
    made = AssociationSummary(
        reason=None,
        is_accepted=True,
        duration=1.44,
        performed=counts.get("performed", {}),
        requested=counts.get("requested", {}),
        octets_received=received,
        octets_sent=sent,
    )
    return str(made)


def test_what_both_sides_have_asked_for() -> None:
    assert summary(
        *(6_300_000, 2_000),
        performed={"C-STORE": 12, "C-ECHO": 1},
        requested={"N-EVENT-REPORT": 1},
    ) == (
        "12 C-STORE performed, 1 C-ECHO performed, 1 N-EVENT-REPORT requested, 6.3 MB received, 2.0 kB sent in 1.4 s"
    )


def test_nothing_is_asked_for() -> None:
    assert summary() == "0 octets received, 0 octets sent in 1.4 s"


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (999, "999 octets"),
        (1000, "1.0 kB"),
        (123_456, "123 kB"),
        (99_900_000, "99.9 MB"),
        (5 * 10**9, "5.0 GB"),
        (7 * 10**15, "7000 TB"),
    ],
)
def test_sizes(octets: int, words: str) -> None:
    assert summary(octets).startswith(f"{words} received")
