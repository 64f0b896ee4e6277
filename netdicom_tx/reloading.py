"""Applies new options to a running node.

Peers, access rules, limits, routes of procedure steps and the level of the log take effect at once. Existing
associations continue. Options that need a restart are named.
"""

from __future__ import annotations

from dataclasses import dataclass

import attrs

from .access import ANY_TITLE
from .archive import ArchiveAE
from .config import TABLES, Config, key_of
from .descriptors import associations_for
from .logs import show_from, show_uids
from .options import Options
from .quirks import NO_QUIRKS

__all__ = ["Reloaded", "apply", "give_access", "set_up_log"]

_ACCESS = "[access] and [[peer]]"
# Options that are compared in another way, or do not belong to the node.
_NOT_COMPARED = frozenset({"peer", "peers", "strict-peers", "config"})
_LIMITS = frozenset(
    {
        "max-associations",
        "max-associations-per-host",
        "max-associations-per-title",
        "move-associations",
    }
)
_ROUTES = frozenset({"forward-mpps", "notify-mpps", "notify-availability"})
_LOG = frozenset({"log-level", "log-uids"})
# Keys without an option that take effect at once; proxy_protocol is compared with the ports.
_APPLIED = frozenset(
    {("node", "proxies"), ("node", "drain"), ("node", "proxy_protocol"), ("storage", "reserve")}
)


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The result of reading the configuration again.

    Attributes:
        read: The files that were read; empty when there are none.
        applied: The keys whose new values have taken effect.
        waiting: The keys whose new values take effect when the node is restarted.
    """

    read: tuple[str, ...] = ()
    applied: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


def apply(ae: ArchiveAE, options: Options, fresh: Options) -> tuple[list[str], list[str]]:
    """Apply the options that can change while the node runs.

    Args:
        ae: The node.
        options: The options that it has; they become those that have taken effect.
        fresh: The options as they are now.

    Returns:
        The keys that have been applied, and those that wait for a restart.
    """
    changed = sorted(
        name for name in fresh if name not in _NOT_COMPARED and fresh[name] != options.get(name)
    )
    applied = [name for name in changed if name in _LIMITS | _ROUTES | _LOG]
    keys = [key_of(name) for name in applied]
    if _says_of_peers(options) != _says_of_peers(fresh):
        keys.insert(0, _ACCESS)
    rules = fresh.configured.retention.rules()
    if ae.index is not None and ae.keeper.rules != rules:
        ae.keeper.rules = rules
        keys.append("[retention]")
    reserve = fresh.configured.storage.reserve
    if ae.store.reserve != reserve:
        ae.store.reserve = reserve
        keys.append("[storage] reserve")
    if options.configured.node.proxies != fresh.configured.node.proxies:
        keys.append("[node] proxies")
    if options.configured.node.drain != fresh.configured.node.drain:
        keys.append("[node] drain")
    ae.peers.clear()
    ae.peers.update(fresh["peers"])
    give_access(ae, fresh)
    if not _LIMITS.isdisjoint(applied):
        _limit(ae, fresh)
    if ae.index is not None and not _ROUTES.isdisjoint(applied):
        ae.workflow.steps.route(
            fresh["forward-mpps"], fresh["notify-mpps"], fresh["notify-availability"]
        )
    set_up_log(ae, fresh)
    options.take(fresh, [*applied, "peer", "peers", "strict-peers"])
    waiting = [key_of(name) for name in changed if name not in applied]
    return keys, waiting + _waiting(options.begun, fresh.configured)


def _waiting(begun: Config, fresh: Config) -> list[str]:
    """The keys without an option that have another value than at the start, and have not been applied."""
    return [
        f"[{table}] {each.name}"
        for table, kind in TABLES.items()
        for each in attrs.fields(kind)
        if table not in ("access", "retention")
        and "option" not in each.metadata
        and (table, each.name) not in _APPLIED
        and getattr(getattr(begun, table), each.name) != getattr(getattr(fresh, table), each.name)
    ]


def give_access(ae: ArchiveAE, options: Options) -> None:
    """Let the node serve only the peers of these options, with the rights that they have there."""
    is_strict = bool(options["strict-peers"])
    ae.identities = options.identities
    ae.access = None if options.access.is_open else options.access
    ae.quirks = {
        each.title: each.quirks for each in options.configured.peer if each.quirks != NO_QUIRKS
    }
    ae.proxies = options.configured.node.proxies
    ae.called_ae_titles = frozenset([ae.ae_title]) if is_strict else None
    # With a rule for every title of a network, the rules alone decide.
    is_closed = is_strict and ANY_TITLE not in options.titles
    ae.calling_ae_titles = options.titles if is_closed else None


def set_up_log(ae: ArchiveAE, options: Options) -> None:
    """Set the form and the level of the log lines of this process."""
    show_uids(options["log-uids"], ae.ae_title)
    show_from(options["log-level"])


def _says_of_peers(options: Options) -> object:
    return (
        options["peers"],
        bool(options["strict-peers"]),
        options.configured.access,
        options.configured.peer,
        options.titles,
    )


def _limit(ae: ArchiveAE, options: Options) -> None:
    ae.max_associations = associations_for(options["max-associations"])
    ae.max_associations_per_host = options["max-associations-per-host"]
    ae.max_associations_per_title = options["max-associations-per-title"]
    ae.move_associations = options["move-associations"]
