"""What the processes of a node have in common: claims, counters, the lock of the index."""

import fcntl
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from netdicom_tx.archive import FileStore
from netdicom_tx.archive.shared import LEAD, MOST_WORKERS, Alone, Shared
from support.processes import CHECKOUT

# A process that performs each line of its input with its share as `shared`, and prints the result.
OTHER = """
import sys
from netdicom_tx.archive.shared import Shared
shared = Shared(int(sys.argv[1]), int(sys.argv[2]))
held = None
for line in sys.stdin:
    print(eval(line), flush=True)
"""


class Other:
    """Another process of the node."""

    def __init__(self, lead: Shared, slot: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(lead.descriptor), str(slot)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            pass_fds=[lead.descriptor],
        )

    def does(self, call: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{call}\n")
        self._process.stdin.flush()
        return eval(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def lead() -> Shared:
    return Shared.create()


@pytest.fixture
def worker(lead: Shared) -> Iterator[Callable[[int], Other]]:
    started: list[Other] = []

    def start(slot: int) -> Other:
        started.append(Other(lead, slot))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def test_one_process_claims_a_uid(lead: Shared, worker: Callable[[int], Other]) -> None:
    """Until it releases the claim."""
    first, second = worker(1), worker(2)
    assert first.does("shared.claim('1.2')") is True
    assert second.does("shared.claim('1.2')") is False
    assert second.does("shared.claim('1.3')") is True
    assert lead.claim("1.2", patience=0.01) is False
    first.does("shared.release('1.2')")
    assert second.does("shared.claim('1.2', 5.0)") is True


def test_the_claims_of_a_process_end_with_it(lead: Shared, worker: Callable[[int], Other]) -> None:
    first = worker(1)
    assert first.does("shared.claim('1.2')") is True
    first.kill()
    assert lead.claim("1.2", patience=5.0) is True


def test_a_reader_waits_for_what_another_has_acknowledged(
    lead: Shared, worker: Callable[[int], Other]
) -> None:
    """And the other one notices that it is waited for."""
    other = worker(MOST_WORKERS)
    assert lead.settle(0.0) is True
    other.does("shared.acknowledged(3)")
    assert lead.settle(0.0) is False
    assert other.does("shared.is_waited_for") is True
    other.does("shared.finished(2)")
    assert lead.settle(0.0) is False
    other.does("shared.finished(1)")
    assert lead.settle(0.0) is True
    assert other.does("shared.is_waited_for") is False


def test_a_process_does_not_wait_for_itself(lead: Shared) -> None:
    """Its own threads know better."""
    lead.acknowledged(1)
    assert lead.settle(0.0) is True


def test_the_lead_completes_what_a_dead_worker_has_acknowledged(
    lead: Shared, worker: Callable[[int], Other]
) -> None:
    other = worker(1)
    other.does("shared.acknowledged(3)")
    other.kill()
    assert lead.settle(0.0) is False
    lead.complete(1)
    assert lead.settle(0.0) is True


def test_a_writer_knows_whether_rows_have_changed(
    lead: Shared, worker: Callable[[int], Other]
) -> None:
    """Its own changes do not count."""
    other = worker(1)
    assert other.does("shared.slot") == 1
    with lead.writing() as is_stale:
        assert not is_stale
        lead.changed()
    with lead.writing() as is_stale:
        assert not is_stale
    assert other.does("shared.writing().__enter__()") is True


def test_one_process_writes_at_a_time(lead: Shared, worker: Callable[[int], Other]) -> None:
    """The lock of one that dies is free."""
    other = worker(1)
    other.does("[held := shared.writing(), held.__enter__()][1]")
    with pytest.raises(BlockingIOError):
        fcntl.lockf(lead.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
    other.kill()
    with lead.writing():
        pass


def test_a_folder_that_is_not_safe_is_so_for_all(
    lead: Shared, worker: Callable[[int], Other]
) -> None:
    worker(1).does("shared.fail(511)")
    assert lead.has_failed(511)
    assert not lead.has_failed(0)


def test_the_lead_reads_what_a_dead_worker_had_noted(
    lead: Shared, worker: Callable[[int], Other]
) -> None:
    """Neither what it had dropped nor what another one has noted."""
    first, second = worker(1), worker(2)
    dropped = first.does("shared.note('1.1')")
    first.does("shared.note('1.2')")
    first.does(f"shared.drop({dropped})")
    second.does("shared.note('1.3')")
    first.kill()
    assert lead.noted(1) == [sha256(b"1.2").digest()]
    lead.complete(1)
    assert lead.noted(1) == []
    assert lead.noted(2) == [sha256(b"1.3").digest()]


def test_a_note_waits_for_room(lead: Shared) -> None:
    """Sixty-four at a time are many: there are a few threads that make them."""
    notes = [lead.note(f"1.{number}") for number in range(64)]
    assert len(lead.noted(LEAD)) == 64
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lead.note, "2.1")
        lead.drop(notes[7])
        waiting.result(30)
    assert sha256(b"2.1").digest() in lead.noted(LEAD)
    assert sha256(b"1.7").digest() not in lead.noted(LEAD)


def test_one_process_agrees_with_itself() -> None:
    alone = Alone()
    assert not alone.is_shared
    assert alone.slot == LEAD
    assert alone.claim("1.2")
    assert alone.settle(0.0)
    assert not alone.is_waited_for
    assert not alone.has_failed(1)
    alone.fail(1)
    alone.release("1.2")
    alone.drop(alone.note("1.2"))
    assert alone.noted(LEAD) == []
    alone.acknowledged(1)
    alone.finished(1)
    with alone.writing() as is_stale:
        alone.changed()
        assert not is_stale


def test_the_store_has_a_journal_for_each_worker(tmp_path: Path) -> None:
    lead = Shared.create()
    store = FileStore(tmp_path)
    store.share(lead)
    store.open()
    member = FileStore(tmp_path)
    member.share(Shared(lead.descriptor, 2))
    member.open()
    assert (tmp_path / "journal" / "2").is_dir()
    member.close()
    store.close()
