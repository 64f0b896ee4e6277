"""What a peer needs to be spared: values of the negotiation that hold for one peer alone (PS3.8 D.1, PS3.7 D.3.3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .arguments import check_number
from .negotiation import Offer, Window
from .pdu import PresentationContextRQ

__all__ = ["NO_QUIRKS", "Quirks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """What is agreed on with one peer, whatever it proposes or admits.

    Attributes:
        window: How many operations may be outstanding at once, in each direction; None leaves that to the application
            entity. 1 means that asynchronous operations are not negotiated.
        max_pdu: The largest P-DATA-TF that we send to it and admit from it, in octets; None leaves that to the
            negotiation.
        transfer_syntaxes: The UIDs of the only transfer syntaxes that are proposed to it or accepted from it; empty for
            all.

    Raises:
        TypeError, ValueError: A value is wrong.
    """

    window: int | None = None
    max_pdu: int | None = None
    transfer_syntaxes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.window is not None:
            check_number("window", self.window, 1)
        if self.max_pdu is not None:
            check_number("max_pdu", self.max_pdu, 1, unit="octets")

    def window_or(self, own: Window) -> Window:
        """The window for this peer, where the application entity has this one."""
        return own if self.window is None else Window(self.window, self.window)

    def limit(self, octets: int) -> int:
        """A limit of a P-DATA-TF for this peer; 0 means none."""
        if self.max_pdu is None:
            return octets
        return min(octets, self.max_pdu) if octets else self.max_pdu

    def proposed(
        self, contexts: tuple[PresentationContextRQ, ...]
    ) -> tuple[PresentationContextRQ, ...]:
        """The presentation contexts without transfer syntaxes that are not for this peer."""
        if not self.transfer_syntaxes:
            return contexts
        kept = ((each, self._of(each.transfer_syntaxes)) for each in contexts)
        return tuple(replace(each, transfer_syntaxes=some) for each, some in kept if some)

    def offered(self, offer: Offer) -> Offer:
        """An offer without transfer syntaxes that are not for this peer."""
        if not self.transfer_syntaxes:
            return offer
        return replace(offer, transfer_syntaxes=self._of(offer.transfer_syntaxes))

    def _of(self, syntaxes: Sequence[str]) -> tuple[str, ...]:
        return tuple(each for each in syntaxes if each in self.transfer_syntaxes)


#: A peer that needs nothing.
NO_QUIRKS = Quirks()
