"""netdicom export."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from netdicom_tx.archive import FileStore
from netdicom_tx.commands import run
from support.archive.part10_files import write
from support.commands.running import environment, three_lines


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """An archive with a CT and an MR study."""
    for number, modality in enumerate(("CT", "MR")):
        write(
            tmp_path / "in" / f"{number}.dcm",
            f"1.{number}",
            Modality=modality,
            StudyInstanceUID=f"2.{number}",
            SeriesInstanceUID=f"3.{number}",
        )
    storage = tmp_path / "archive"
    assert run(["import", str(tmp_path / "in"), "-s", str(storage), "-q", "--jobs", "1"]) == 0
    return storage


def files_of(directory: Path) -> list[str]:
    return sorted(str(each.relative_to(directory)) for each in directory.rglob("*.dcm"))


def test_instances_are_exported_by_keys(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["export", "-s", str(storage), "-k", "Modality=MR", "-o", str(out)]
    assert run([*arguments, "--layout", "patient"]) == 0
    assert files_of(out) == ["P/20261128_HEAD/1_MR/00001.dcm"]
    assert "1 instance to " in capsys.readouterr().err
    assert run([*arguments, "--layout", "patient", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["exported"], document["same"]) == (0, 1)


def test_everything_needs_a_word(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert run(["export", "-s", str(storage), "-o", out]) == 2
    assert "--all" in capsys.readouterr().err
    assert run(["export", "-s", str(storage), "-o", out, "--all"]) == 0
    assert len(files_of(tmp_path / "out")) == 2


@pytest.mark.parametrize("lacks", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_everything_has_what_belongs_to_no_study(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], lacks: str
) -> None:
    """No query finds it, but it was acknowledged."""
    alone = write(tmp_path / "alone", "1.7", **{"StudyInstanceUID": "2.0", lacks: ""})
    assert run(["import", str(alone), "-s", str(storage), "-q"]) == 0
    out = tmp_path / "out"
    audit = ["--audit", str(tmp_path / "audit.xml")]
    assert run(["export", "-s", str(storage), "-o", str(out), "--all", *audit]) == 0
    assert len(files_of(out)) == 3
    assert "unknown/unknown/1.7.dcm" in files_of(out)
    capsys.readouterr()
    medium = ["export", "-s", str(storage), "-o", str(tmp_path / "cd"), "--all", "--dicomdir"]
    assert run(medium) == 1
    assert f"1.7: it has no {lacks}, which a DICOMDIR needs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["-k", "Modality=XX", "-o", "out"], 10),
        (["-k", "Modality=CT"], 2),
        (["-k", "Modality=CT", "-o", "out", "--zip", "x.zip"], 2),
        (["-k", "Modality=CT", "-o", "out", "--layout", "../{PatientID}"], 2),
        (["-k", "Modality=CT", "-o", "out", "--layout", "{Patient}"], 2),
        (["-k", "StudyDate=2026-11-28", "-o", "out"], 2),
        (["-k", "Modality=CT", "--zip", "absent/x.zip"], 2),
        (["-k", "Modality=CT", "--zip", "-", "--json"], 2),
    ],
)
def test_what_cannot_be_exported_is_told_in_three_lines(
    storage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["export", "-s", str(storage), *arguments]) == code
    assert "error: " in capsys.readouterr().err
    assert not list(tmp_path.glob("*.zip"))


def test_a_damaged_instance_is_named(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = FileStore(storage).path("1.0")
    path.write_bytes(path.read_bytes()[:-4])
    assert run(["export", "-s", str(storage), "--all", "-o", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert "failed: 1.0: " in err
    assert three_lines(err)
    assert len(files_of(tmp_path / "out")) == 1


def test_a_medium_in_a_zip_file(storage: Path, tmp_path: Path) -> None:
    target = tmp_path / "medium.zip"
    assert run(["export", "-s", str(storage), "--all", "--dicomdir", "--zip", str(target)]) == 0
    with zipfile.ZipFile(target) as found:
        names = found.namelist()
    assert names[-1] == "DICOMDIR"
    assert len(names) == 3


def test_a_second_dicomdir_is_refused(storage: Path, tmp_path: Path) -> None:
    arguments = ["export", "-s", str(storage), "--all", "--dicomdir", "-o", str(tmp_path / "out")]
    assert run(arguments) == 0
    assert (tmp_path / "out" / "DICOMDIR").exists()
    assert run(arguments) == 2


@pytest.mark.slow
def test_a_zip_file_goes_to_a_pipe(storage: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "netdicom_tx", "export", "-s", storage, "--all", "--zip", "-"],
        env=environment(tmp_path),
        capture_output=True,
        check=True,
        timeout=60,
    )
    with zipfile.ZipFile(io.BytesIO(done.stdout)) as found:
        assert found.testzip() is None
        assert len(found.namelist()) == 2
