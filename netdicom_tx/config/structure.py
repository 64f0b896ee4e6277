"""Makes the classes of the tables from the values of TOML, and collects all mistakes of a document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args, get_origin

import attrs
from cattrs import ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn

from ..access import ANY_TITLE, EVERYTHING, Permission, Profile
from ..exceptions import LocalProtocolError
from ..pdu import check_ae_title
from .kinds import CHECKS, Default, shown
from .mistakes import WrongError, nearest
from .tables import Peer

__all__ = ["converter"]


def _permissions(value: Any) -> frozenset[Permission]:
    return frozenset(converter.structure(value, tuple[Permission, ...]))


def _default_profile(value: Any, _: Any) -> Profile | None:
    if isinstance(value, list):
        return Profile(_permissions(value))
    words = {"all": EVERYTHING, "none": None}
    if not isinstance(value, str) or value not in words:
        raise WrongError(
            f'expected "all", "none" or a list of permissions, got {shown(value)}',
            nearest(str(value), words),
        )
    return words[value]


converter = Converter(detailed_validation=True, forbid_extra_keys=True)
for _kind, _check in CHECKS.items():
    converter.register_structure_hook(_kind, _check)
converter.register_structure_hook(Default, _default_profile)


def _is_tuple(kind: object) -> bool:
    return get_origin(kind) is tuple


def _tuple_hook(kind: Any) -> Callable[[Any, Any], Any]:
    """Accept only an array for a tuple, and nothing else that can be iterated over."""
    structure = converter.get_structure_hook(list[get_args(kind)[0]])  # type: ignore[misc]  # a type at run time

    def check(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            hint = "write it in brackets: [ … ]"
            raise WrongError(f"expected a list of strings, got {shown(value)}", hint)
        return tuple(structure(value, list))

    return check


converter.register_structure_hook_factory(_is_tuple, _tuple_hook)


def _peer_hook(_: Any) -> Callable[[Any, Any], Peer]:
    structure = make_dict_structure_fn(Peer, converter)

    def check(value: Any, kind: Any) -> Peer:
        unusable: set[str] = set()
        wrong: list[Exception] = []
        try:
            peer: Peer = structure(value, kind)
        except ClassValidationError as error:
            wrong.append(error)
            unusable.update(note.name for _, note in error.group_exceptions()[0])
        if isinstance(value, dict):
            wrong += [each for each, keys in _contradictions(value) if unusable.isdisjoint(keys)]
        if wrong:
            raise ExceptionGroup("a peer", wrong)
        return attrs.evolve(peer, title=peer.title.strip())

    return check


def _contradictions(peer: Mapping[str, Any]) -> Iterator[tuple[WrongError, tuple[str, ...]]]:
    """What is wrong in the table of a peer although each value has the right kind, with the keys that it concerns."""
    title = peer.get("title")
    if title == ANY_TITLE:
        if "networks" not in peer:
            hint = "[access] default is for all others"
            yield WrongError('title "*" needs networks', hint, "title"), ("title",)
        if "host" in peer:
            error = WrongError('title "*" cannot be called', "leave out host and port", "host")
            yield error, ("title", "host")
    elif isinstance(title, str):
        try:
            check_ae_title(title)
        except LocalProtocolError as found:
            yield WrongError(str(found), key="title"), ("title",)
    if ("host" in peer) != ("port" in peer):
        missing, there = ("port", "host") if "host" in peer else ("host", "port")
        hint = f"add {missing}, or leave both out for a peer that only calls"
        yield WrongError(f"{there} without {missing}", hint, there), ("host", "port")
    if peer.get("networks") == []:
        hint = "leave it out for a peer that calls from every address"
        yield WrongError("networks is empty", hint, "networks"), ("networks",)
    if not str(peer.get("certificate", "given")).strip():
        hint = "leave it out, or write a name or a SHA-256"
        yield WrongError("certificate is empty", hint, "certificate"), ("certificate",)


converter.register_structure_hook_factory(lambda kind: kind is Peer, _peer_hook)
