"""What a storage directory has after a crash: instances whose content their UIDs decide."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from netdicom_tx.archive.encoded.walk import walk
from netdicom_tx.archive.store.spool import SPOOL_MEMORY
from netdicom_tx.dsutils import read_file_meta

from .data_sets import ct

# Small ones go to the journal, the large one arrives in a file.
SIZES = (512, 4096, 100_000, SPOOL_MEMORY + 500_000)


def made(uid: str) -> bytes:
    """The data set of an instance; the UID decides what is in it."""
    number = int(uid.rpartition(".")[2])
    return ct(uid, pixels=SIZES[number % len(SIZES)], fill=number % 251)


def survivors(storage: Path) -> set[str]:
    """The instances of a storage directory: each is whole, what was sent, and in the index; nothing else is there."""
    assert list((storage / "incoming").iterdir()) == []
    found = set()
    for path in (storage / "instances").rglob("*"):
        if path.is_dir():
            continue
        with path.open("rb") as file:
            meta = read_file_meta(file)
            data = file.read()
        assert data == made(meta.sop_instance_uid), f"{path} is not what was sent"
        assert walk(data, meta.transfer_syntax).is_whole
        found.add(meta.sop_instance_uid)
    with closing(sqlite3.connect(f"file:{storage}/index.db?mode=ro", uri=True)) as index:
        rows = index.execute("SELECT sop_instance_uid FROM instance").fetchall()
    indexed = {uid for (uid,) in rows}
    assert indexed == found, f"no row: {found - indexed}, no file: {indexed - found}"
    return found
