"""Copies of objects on the disk of a node: never more octets than allowed, and never other octets than were put."""

import hashlib
import os
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netdicom_tx.archive.store.cache import Cache, digest_in

LIMIT = 100


def octets_of(number: int) -> bytes:
    """What the object with a number contains; the size depends on the number."""
    return bytes([number]) * (7 * number + 1)


def key_of(number: int) -> str:
    digest = hashlib.sha256(octets_of(number)).hexdigest()
    return f"instances/00/{number:064x}-{digest[:32]}.dcm"


def put(cache: Cache, number: int, octets: bytes | None = None) -> None:
    path = cache.temporary(number)
    written = octets_of(number) if octets is None else octets
    path.write_bytes(written)
    cache.put(key_of(number), path, len(written))


def got(cache: Cache, number: int) -> bytes | None:
    descriptor = cache.get(key_of(number), len(octets_of(number)))
    if descriptor is None:
        return None
    with open(descriptor, "rb") as file:
        return file.read()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(tmp_path / "cache", LIMIT)
    made.open()
    return made


def test_what_was_put_is_there(cache: Cache) -> None:
    assert got(cache, 1) is None
    put(cache, 1)
    assert got(cache, 1) == octets_of(1)
    assert (cache.hits, cache.misses) == (1, 1)


def test_what_was_needed_longest_ago_goes_first(cache: Cache) -> None:
    for number in (4, 5, 6):  # 29, 36 and 43 octets
        put(cache, number)
        got(cache, 4)
    assert [got(cache, number) is not None for number in (4, 5, 6)] == [True, False, True]


def test_what_is_larger_than_the_cache_is_not_put(cache: Cache, tmp_path: Path) -> None:
    put(cache, 20)
    assert got(cache, 20) is None
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_copy_that_is_open_is_read_to_its_end(cache: Cache) -> None:
    put(cache, 5)
    descriptor = cache.get(key_of(5), len(octets_of(5)))
    assert descriptor is not None
    for number in (6, 7):
        put(cache, number)
    with open(descriptor, "rb") as file:
        assert file.read() == octets_of(5)


@pytest.mark.parametrize("damage", ["changed", "cut", "removed"])
def test_a_damaged_copy_of_an_earlier_run_is_not_used(tmp_path: Path, damage: str) -> None:
    """A power cut may leave a copy with its name, but without its octets."""
    cache = Cache(tmp_path / "cache", LIMIT)
    cache.open()
    put(cache, 5)
    (path,) = (tmp_path / "cache").iterdir()
    if damage == "changed":
        path.write_bytes(bytes(len(octets_of(5))))
    elif damage == "cut":
        path.write_bytes(octets_of(5)[:-1])
    again = Cache(tmp_path / "cache", LIMIT)
    again.open()
    if damage == "removed":
        path.unlink()
    assert got(again, 5) is None
    assert again.octets == 0


def test_a_start_finds_the_copies_and_deletes_what_is_none(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", LIMIT)
    cache.open()
    put(cache, 4)
    put(cache, 5)
    cache.temporary(9).write_bytes(b"part")
    again = Cache(tmp_path / "cache", 40)
    again.open()
    assert got(again, 5) == octets_of(5)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_without_a_limit_there_is_no_cache(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 0)
    cache.open()
    assert got(cache, 1) is None
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_is_turned_off_is_emptied(cache: Cache, tmp_path: Path) -> None:
    put(cache, 5)
    again = Cache(tmp_path / "cache", 0)
    again.open()
    assert got(again, 5) is None
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_key_without_a_digest_has_none() -> None:
    assert digest_in(key_of(1)) == hashlib.sha256(octets_of(1)).hexdigest()[:32]
    assert digest_in("versions/00/abc.dcm") == ""
    assert digest_in("1234-0.part") == ""


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "get", "restart", "spoil"]), st.integers(0, 16)),
        max_size=30,
    )
)
def test_whatever_happens_octets_are_right_and_bounded(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "cache"
        cache = Cache(root, LIMIT)
        cache.open()
        for step, number in steps:
            if step == "put":
                put(cache, number)
            elif step == "get":
                assert got(cache, number) in (None, octets_of(number))
            elif step == "restart":
                cache = Cache(root, LIMIT)
                cache.open()
            else:
                path = root / Path(key_of(number)).name
                if path.exists():
                    path.write_bytes(b"spoilt")
                    cache = Cache(root, LIMIT)
                    cache.open()
            there = sum(each.stat().st_size for each in root.iterdir())
            assert there == cache.octets <= LIMIT


def test_threads_put_and_get_at_once(cache: Cache, tmp_path: Path) -> None:
    wrong: list[int] = []

    def work(start: int) -> None:
        for turn in range(60):
            number = (start + turn) % 12
            found = got(cache, number)
            if found is None:
                path = tmp_path / "cache" / f"{start}-{turn}.part"
                path.write_bytes(octets_of(number))
                cache.put(key_of(number), path, len(octets_of(number)))
            elif found != octets_of(number):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []
    sizes = [each.stat().st_size for each in os.scandir(tmp_path / "cache")]
    assert sum(sizes) == cache.octets <= LIMIT
