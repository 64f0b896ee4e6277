"""The digest that stands for an instance in paths, in keys of objects and in shared memory."""

from __future__ import annotations

import hashlib

__all__ = ["digest_of_uid"]


def digest_of_uid(sop_instance_uid: str) -> bytes:
    """The SHA-256 of a SOP Instance UID; its octets are those that were received, also when they are not ASCII."""
    return hashlib.sha256(sop_instance_uid.encode("utf-8", "surrogateescape")).digest()
