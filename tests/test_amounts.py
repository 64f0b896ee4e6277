"""Amounts of storage with their units."""

import pytest

from netdicom_tx.amounts import Amount, in_units
from netdicom_tx.exceptions import LocalProtocolError


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("1 GiB", 1 << 30),
        ("500 GB", 500 * 10**9),
        ("1.5 KiB", 1536),
        ("12B", 12),
        ("2 kB", 2000),
        ("2 KB", 2000),
        (" 3 TiB ", 3 << 40),
        ("1 PB", 10**15),
    ],
)
def test_a_number_of_octets(text: str, octets: int) -> None:
    assert Amount.read(text) == Amount(octets=octets)
    assert Amount.read(text).of(7) == octets


def test_a_share_of_the_disk() -> None:
    assert Amount.read("80 %").of(1000) == 800
    assert Amount.read("0.5%").of(1000) == 5


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "expected an amount"),
        ("500", "expected an amount"),
        ("-1 GB", "expected an amount"),
        ("1 gigabyte", "not a unit"),
        ("1 gib", "not a unit"),
        ("0 GB", "above 0"),
        ("0 %", "above 0 %"),
        ("101 %", "up to 100 %"),
    ],
)
def test_anything_else_is_refused(text: str, what: str) -> None:
    with pytest.raises(LocalProtocolError, match=what):
        Amount.read(text)


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (0, "0 octets"),
        (1, "1 octet"),
        (1023, "1023 octets"),
        (1536, "1.5 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (3 << 30, "3.0 GiB"),
        (5000 << 50, "5000.0 PiB"),
    ],
)
def test_octets_in_units(octets: int, text: str) -> None:
    assert in_units(octets) == text


@pytest.mark.parametrize("text", ["3 GiB", "500 GB", "1537 B", "80 %", "0.5 %"])
def test_an_amount_says_itself_as_it_is_read(text: str) -> None:
    assert str(Amount.read(text)) == text
