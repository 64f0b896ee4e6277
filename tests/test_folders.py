"""Folders below an open directory."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from netdicom_tx.folders import entered


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_folders_are_made_as_far_as_they_do_not_exist(root: int, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for _ in range(2):
        folder = entered(root, ("a", "b", "c"))
        assert os.path.samestat(os.fstat(folder), (tmp_path / "a" / "b" / "c").stat())
        os.close(folder)


def test_without_names_it_is_the_directory_itself(root: int, tmp_path: Path) -> None:
    folder = entered(root, ())
    assert os.path.samestat(os.fstat(folder), tmp_path.stat())
    os.close(folder)


@pytest.mark.parametrize("is_link", [True, False])
def test_what_is_not_a_folder_is_not_entered(root: int, tmp_path: Path, is_link: bool) -> None:
    """A link could lead out of the directory. No descriptor stays open."""
    (tmp_path / "elsewhere").mkdir()
    if is_link:
        (tmp_path / "a").symlink_to("elsewhere")
    else:
        (tmp_path / "a").write_text("")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="'a'"):
        entered(root, ("a", "b"))
    assert len(os.listdir("/proc/self/fd")) == before
    assert not (tmp_path / "elsewhere" / "b").exists()
