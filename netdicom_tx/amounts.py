"""Amounts of storage as people write them: ``1 GiB``, ``500 GB`` or ``80 %`` of a disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from .exceptions import LocalProtocolError

__all__ = ["Amount", "in_units"]

_UNITS: Final = {
    unit: base**power
    for base, suffix in ((1000, "B"), (1024, "iB"))
    for power, unit in enumerate(("B", *(f"{each}{suffix}" for each in "KMGTP")))
} | {"kB": 1000}
_AMOUNT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(%|[A-Za-z]+)")
# What databases hold in an integer.
_LARGEST: Final = (1 << 63) - 1
_EXAMPLES: Final = 'an amount such as "500 GB", "1 GiB" or "80 %"'


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of octets, or a share of a disk.

    Attributes:
        octets: The number of octets; 0 for a share.
        share: The share of the disk, above 0 and up to 1; 0 for a number of octets.
    """

    octets: int = 0
    share: float = 0.0

    @classmethod
    def read(cls, text: str) -> Amount:
        """Read an amount with its unit.

        Raises:
            LocalProtocolError: The text is not an amount, or the amount is not above 0.
        """
        found = _AMOUNT.fullmatch(text.strip())
        if found is None:
            raise LocalProtocolError(f"expected {_EXAMPLES}, not {text!r:.60}")
        number, unit = float(found[1]), found[2]
        if unit == "%":
            if not 0 < number <= 100:
                raise LocalProtocolError(f"expected a share above 0 % and up to 100 %, not {text}")
            return cls(share=number / 100)
        if unit not in _UNITS:
            raise LocalProtocolError(f"{unit!r} is not a unit of storage; expected {_EXAMPLES}")
        if number * _UNITS[unit] > _LARGEST:
            raise LocalProtocolError(f"expected an amount up to 8192 PiB, not {text:.60}")
        octets = round(number * _UNITS[unit])
        if octets < 1:
            raise LocalProtocolError(f"expected an amount above 0, not {text}")
        return cls(octets=octets)

    def of(self, total: int) -> int:
        """The number of octets on a disk of this size."""
        return round(self.share * total) if self.share else self.octets

    def __str__(self) -> str:
        """The amount as :meth:`read` takes it."""
        if self.share:
            return f"{self.share * 100:g} %"
        fitting = (each for each in _UNITS.items() if self.octets % each[1] == 0)
        unit, size = max(fitting, key=lambda each: each[1])
        return f"{self.octets // size} {unit}"


def in_units(octets: int) -> str:
    """A number of octets with the largest unit that suits it: ``1.5 GiB``."""
    if octets < 1024:
        return f"{octets} octet{'' if octets == 1 else 's'}"
    size = float(octets)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1023.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} PiB"
