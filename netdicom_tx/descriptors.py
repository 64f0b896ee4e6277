"""File descriptors for the associations that a node admits.

An association has a socket, the file that is arriving, and one that is being sent. A process that runs out of
descriptors refuses the instances of the peers that it serves already, so it admits no more associations than it has
descriptors for.
"""

from __future__ import annotations

import resource
from typing import Final

from .admission import BURST_LIMIT, HALF_OPEN_LIMIT
from .logs import Logger

__all__ = ["associations_for"]

#: Descriptors of an association, and of everything else: logs, the database, files that a query or a scan reads.
EACH: Final = 3
OTHERS: Final = 128

_log = Logger()


def associations_for(wanted: int) -> int:
    """Raise the limit of descriptors as far as that is needed and allowed.

    Args:
        wanted: How many associations are to be admitted.

    Returns:
        How many can be, which is at least one.
    """
    needed = EACH * wanted + HALF_OPEN_LIMIT + OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = (
        needed + BURST_LIMIT if hard == resource.RLIM_INFINITY else min(needed + BURST_LIMIT, hard)
    )
    if soft != resource.RLIM_INFINITY and soft < allowed:
        soft = allowed
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    possible = max(1, (soft - HALF_OPEN_LIMIT - OTHERS) // EACH)
    _log.warn(
        "the process may open {soft} files, which is enough for {possible} associations instead of {wanted}; raise the "
        "limit (ulimit -n, LimitNOFILE=) to {needed}",
        soft=soft,
        possible=possible,
        wanted=wanted,
        needed=needed,
    )
    return possible
