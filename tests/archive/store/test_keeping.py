"""An instance that is kept by itself while other processes of the node may have it in their journals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from netdicom_tx.archive import Duplicates, FileStore, Index
from netdicom_tx.archive.index.record import record_of
from netdicom_tx.archive.store.filestore import Outcome
from netdicom_tx.archive.store.keeping import keep_claimed
from netdicom_tx.archive.store.spool import Spool
from netdicom_tx.dsutils import part10_header
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT, ct
from support.archive.databases import database_url

UID = "1.2.3.4"


class Keeping:
    """A store that replaces, and one instance in it."""

    def __init__(self, directory: Path) -> None:
        self.store = FileStore(directory / "archive", fsync=False, duplicates=Duplicates.REPLACE)
        self.store.open()
        self.index = Index(database_url(directory / "index.db"))
        self.index.open()
        self.claimed: list[str] = []
        self.owed: list[str] = []
        self.forgotten = 0
        #: Done while the journals are emptied.
        self.meanwhile: Callable[[], object] = lambda: None
        self.write(1)
        self.index.add(record_of(self.path)).result()

    @property
    def path(self) -> Path:
        return self.store.path(UID)

    def write(self, fill: int) -> None:
        """What another process does when it stores the instance."""
        header = part10_header(CT_IMAGE_STORAGE, UID, EXPLICIT.transfer_syntax)
        self.store.place(str(self.path), header + ct(UID, fill=fill))

    @contextmanager
    def claim(self, uid: str) -> Iterator[None]:
        self.claimed.append(uid)
        yield
        self.claimed.remove(uid)

    def forget(self) -> None:
        self.forgotten += 1
        assert self.claimed == []
        assert not self.store._naming.locked()
        self.meanwhile()

    def spool(self, fill: int) -> Spool:
        spool = self.store.spool(CT_IMAGE_STORAGE, UID, EXPLICIT.transfer_syntax, "SENDER")
        spool.write(ct(UID, fill=fill))
        return spool

    def keep(self, spool: Spool) -> Outcome:
        kept, row = keep_claimed(
            *(self.store, self.index, spool), *(self.claim, self.forget, self.owed.append)
        )
        assert self.owed == []
        if row is not None:
            row.result()
        return kept.outcome

    def is_kept(self, fill: int) -> bool:
        """Whether file and row are those of a data set."""
        row = self.index.get(UID)
        is_indexed = row is not None and row.size == self.path.stat().st_size
        return is_indexed and self.path.read_bytes().endswith(ct(UID, fill=fill))

    def close(self) -> None:
        self.index.close()
        self.store.close()


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    keeping = Keeping(tmp_path)
    yield keeping
    keeping.close()


def test_nothing_is_claimed_while_the_journals_are_emptied(keeping: Keeping) -> None:
    """The lead may be making the same instance a file, because the worker that had it in its journal has died."""
    with keeping.spool(2) as spool:
        assert keeping.keep(spool) is Outcome.REPLACED
    assert keeping.forgotten == 1
    assert keeping.is_kept(2)


def test_the_journals_are_emptied_again_when_another_file_is_there(keeping: Keeping) -> None:
    """It may have come by way of a journal."""

    def meanwhile() -> None:
        if keeping.forgotten == 1:
            keeping.write(3)

    keeping.meanwhile = meanwhile
    with keeping.spool(2) as spool:
        assert keeping.keep(spool) is Outcome.REPLACED
    assert keeping.forgotten == 2
    assert keeping.is_kept(2)


def test_what_has_come_meanwhile_counts(keeping: Keeping) -> None:
    """The same content is not kept twice, and an instance that is gone is not replaced."""
    keeping.meanwhile = lambda: keeping.write(2)
    with keeping.spool(2) as spool:
        assert keeping.keep(spool) is Outcome.SAME
    keeping.meanwhile = keeping.path.unlink
    with keeping.spool(4) as spool:
        assert keeping.keep(spool) is Outcome.STORED
    assert keeping.is_kept(4)


def test_an_instance_is_kept_although_its_peer_has_gone_meanwhile(keeping: Keeping) -> None:
    """Its spool is closed when the thread needs it no longer."""
    spool = keeping.spool(2)
    keeping.meanwhile = spool.close
    assert keeping.keep(spool) is Outcome.REPLACED
    assert spool.closed
    assert keeping.is_kept(2)


def test_only_what_replaces_waits_for_journals(keeping: Keeping) -> None:
    with keeping.spool(1) as spool:
        assert keeping.keep(spool) is Outcome.SAME
    keeping.store.duplicates = Duplicates.KEEP
    with keeping.spool(2) as spool:
        assert keeping.keep(spool) is Outcome.REFUSED
    assert keeping.forgotten == 0
