"""A snapshot of a node in which every part has something to say."""

from netdicom_tx.archive.snapshots import BOUNDS, MINUTES, Snapshot

NOON = 1_700_000_040.0 // 60 * 60
GIB = 1 << 30


def full() -> Snapshot:
    """A busy node at noon."""
    buckets = [0] * (len(BOUNDS) + 1)
    buckets[2], buckets[-1] = 11, 1
    nothing = {"received": 0, "sent": 0, "operations": 0, "instances_in": 0, "instances_out": 0}
    return Snapshot(
        time=NOON,
        processes=[
            {
                "pid": 4711,
                "ae_title": "NODE",
                "version": "1.2.3",
                "started": NOON - 3600,
                "now": NOON,
                "state": "serving",
                "cpu": 12.5,
                "resident": 100 << 20,
            }
        ],
        health={"ready": True, "state": "serving", "reasons": []},
        associations={
            "live": [
                {
                    "pid": 4711,
                    "peer": "192.0.2.7:50000",
                    "title": "CT1",
                    "calling": "CT1",
                    "called": "NODE",
                    "role": "acceptor",
                    "state": "open",
                    "since": NOON - 90,
                    "operations": ["C-STORE"],
                    "performed": {"C-STORE": 12},
                    "requested": {},
                    "received": 6_300_000,
                    "sent": 2_000,
                    "receiving": 70_000.0,
                    "sending": 20.0,
                }
            ],
            "limit": 100,
            "accepted": {"acceptor": 3, "requestor": 1},
            "ended": {"released": 2, "lost": 1},
            "refused": {"calling": 4},
            "requested": {"C-STORE": 5},
            "received": 7_000_000,
            "sent": 3_000_000,
        },
        operations=[
            {
                "operation": "C-STORE",
                "status": 0,
                "count": 12,
                "seconds": 700.5,
                "buckets": buckets,
            },
            {
                "operation": "C-STORE",
                "status": 0xA700,
                "count": 1,
                "seconds": 0.001,
                "buckets": [1] + [0] * len(BOUNDS),
            },
            {
                "operation": "C-FIND",
                "status": None,
                "count": 1,
                "seconds": 0.002,
                "buckets": [0, 1] + [0] * (len(BOUNDS) - 1),
            },
        ],
        bounds=list(BOUNDS),
        refusals=[
            {
                "time": NOON - 30,
                "count": 4,
                "peer": "192.0.2.9:50001",
                "title": "STRANGER",
                "kind": "calling",
                "verb": "refused",
                "reason": "calling AE title 'STRANGER'; expected that of a known peer",
                "hint": "add it to the peers that are served here",
            }
        ],
        minutes=[
            {"time": NOON - 60 * back, **nothing}  # type: ignore[typeddict-item]
            for back in reversed(range(MINUTES))
        ],
        intake={"arriving": 1, "instances": 2, "octets": 1_000_000, "lag": 0.25, "trouble": ""},
        shared={
            "place": "s3://archive",
            "put": 4,
            "put_seconds": 0.5,
            "read": 2,
            "read_seconds": 0.25,
            "failures": 1,
            "cached": 1_000_000,
            "cache_limit": 2_000_000,
            "hits": 3,
            "misses": 2,
        },
        reactor={"busy": 10.5, "longest": 0.9, "recent": 0.125, "held_up": 3},
        memory={"held": 4 << 20, "limit": 256 << 20, "waiting": 0},
        disk={"time": NOON - 2, "total": 100 * GIB, "free": 40 * GIB, "reserve": GIB},
        storage={
            "time": NOON - 2,
            "patients": 2,
            "studies": 3,
            "series": 4,
            "instances": 12,
            "size": 6_200_000,
        },
        queue={"time": NOON - 2, "waiting": 2, "running": 1, "dead": 1, "oldest": NOON - 600},
        group={
            "time": NOON - 2,
            "node": "archive-1",
            "duties": ["retention", "scrub"],
            "skew": 0.5,
            "nodes": [
                {
                    "name": name,
                    "host": "here",
                    "version": "1.2.3",
                    "state": state,
                    "seen": seen,
                    "duties": duties,
                    "associations": associations,
                }
                for name, state, seen, duties, associations in (
                    ("archive-1", "alive", 2.0, ["retention", "scrub"], 1),
                    ("archive-2", "dead", 90.0, [], 7),
                )
            ],
        },
        forecast={"watched": 86400.0, "per_day": 1.0 * GIB, "full_at": NOON + 39 * 86400},
    )
