"""Which service answers a request.

A :class:`Dispatcher` maps abstract syntaxes to services, one for each AE and role. It serves negotiation and
dispatch alike, so an accepted context always has a service that answers. What a service may give back, and what
the peer gets for it, is in :mod:`netdicom_tx.operations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .uids import as_tuple

__all__ = ["UNKNOWN_SOP_CLASSES", "Dispatcher", "Registration", "Service"]

# A service takes (asce, ctx, msg) as SCP and (asce, ctx, *args, **kwargs) as SCU. What an SCP may return is the
# table in netdicom_tx.operations; hence Any.
Service = Callable[..., Any]

#: Register a service for this to have it serve every SOP class that the registry of PS3.6 does not
#: name: private ones, and those that are newer than this version.
UNKNOWN_SOP_CLASSES = "*"


@dataclass(frozen=True, slots=True)
class Registration:
    """A service, with what negotiation and reception must know of it.

    Attributes:
        service: The service itself.
        transfer_syntaxes: The transfer syntaxes that it takes, in the order of our preference.
        store_in_file: Whether the data sets of its requests are received into a file.
        suboperations: The abstract syntaxes of the sub-operations that the SCP performs on the same association,
            in the other direction: C-GET stores at its requestor.
    """

    service: Service
    transfer_syntaxes: tuple[str, ...]
    store_in_file: bool
    suboperations: tuple[str, ...] = ()


class Dispatcher:
    """Finds the service for an abstract syntax, for one AE in one role.

    Args:
        is_known: Whether the registry of PS3.6 names a SOP class; :data:`UNKNOWN_SOP_CLASSES` serves the others.
    """

    def __init__(self, is_known: Callable[[str], bool]) -> None:
        self._is_known = is_known
        self._services: dict[str, Registration] = {}
        self._suboperations: frozenset[str] = frozenset()

    def register(
        self, service: Service, sop_classes: Iterable[str] | None, transfer_syntaxes: Sequence[str]
    ) -> None:
        """Let a service answer for SOP classes.

        Args:
            service: The service.
            sop_classes: The SOP classes; None means the service's own ``sop_classes``.
            transfer_syntaxes: The transfer syntaxes that the service takes, in the order of preference.

        Raises:
            TypeError: The service is a class or is not callable, or what should be a list of UIDs is not one.
            ValueError: There is no SOP class, one of them has a service already, or a UID is not one.
        """
        title = getattr(service, "__name__", type(service).__name__)
        if isinstance(service, type):
            raise TypeError(f"{title} is a class; expected an instance of it, such as {title}()")
        if not callable(service):
            raise TypeError(f"{service!r:.80} is not a service; expected a callable")
        own: Iterable[str] = getattr(service, "sop_classes", ())
        uids = as_tuple(
            "sop_classes", own if sop_classes is None else sop_classes, besides=UNKNOWN_SOP_CLASSES
        )
        if not uids:
            raise ValueError(f"{title} has no SOP classes of its own: name them")
        for uid in uids:
            other = self._services.get(uid)
            if other is not None and other.service is not service:
                raise ValueError(f"SOP class {uid} has a service already")
        registration = Registration(
            service,
            as_tuple("transfer_syntaxes", transfer_syntaxes),
            bool(getattr(service, "store_in_file", False)),
            tuple(getattr(service, "suboperations", ())),
        )
        self._services.update(dict.fromkeys(uids, registration))
        self._suboperations |= frozenset(registration.suboperations)

    def find(self, abstract_syntax: str) -> Registration | None:
        """The service for the abstract syntax of a presentation context; None when there is no service."""
        found = self._services.get(abstract_syntax)
        if found is None and not self._is_known(abstract_syntax):
            found = self._services.get(UNKNOWN_SOP_CLASSES)
        return found

    @property
    def suboperations(self) -> frozenset[str]:
        """The abstract syntaxes of the sub-operations of all services."""
        return self._suboperations

    def __iter__(self) -> Iterator[tuple[str, Registration]]:
        return iter(
            (uid, entry) for uid, entry in self._services.items() if uid != UNKNOWN_SOP_CLASSES
        )
