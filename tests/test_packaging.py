"""However netdicom_tx is installed, ``twistd`` and ``twist`` know ``dicom``.

Each way of installing gets a fresh virtual environment, without pip and without the network: what
the running interpreter has installed (Twisted, setuptools, ...) is lent to it by a ``.pth`` line.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from configparser import ConfigParser
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from support.measuring import variables

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
#: What the distributions are made of; the rest of the checkout stays out of the builds.
SOURCES = [
    "CHANGES.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "MANIFEST.in",
    "README.md",
    "SECURITY.md",
    "docs",
    "netdicom_tx",
    "newsfragments",
    "noxfile.py",
    "pyproject.toml",
    "setup.cfg",
    "tests",
    "twisted",
]
PLUGIN = "twisted/plugins/netdicom_tx_plugin.py"
#: Every file of the package: the modules, the type marker, templates and style sheets.
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "netdicom_tx").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
)
BUILD = """
import sys
from setuptools import build_meta
getattr(build_meta, f"build_{sys.argv[1]}")(sys.argv[2])
"""


def run(*arguments: str | Path, cwd: Path) -> str:
    """Run a command that must succeed, and return all it says."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "VIRTUAL_ENV", *variables())
    }
    done = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=240,
    )
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def copy_of_the_sources(directory: Path) -> Path:
    unwanted = shutil.ignore_patterns(
        "__pycache__", "_build", "_generated", "dropin.cache", "*.egg-info"
    )
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=unwanted)
        else:
            shutil.copy(source, directory / name)
    return directory


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = copy_of_the_sources(tmp_path_factory.mktemp("wheel"))
    run(sys.executable, "-c", BUILD, "wheel", tree / "dist", cwd=tree)
    return next((tree / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = copy_of_the_sources(tmp_path_factory.mktemp("sdist"))
    run(sys.executable, "-c", BUILD, "sdist", tree / "dist", cwd=tree)
    return next((tree / "dist").glob("*.tar.gz"))


@pytest.fixture(scope="module", params=["wheel", "sdist", "editable"])
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The interpreter of a fresh environment with the package, and where its files must be."""
    home = tmp_path_factory.mktemp(f"venv-{request.param}")
    venv.create(home, symlinks=os.name == "posix")
    variables = {"base": str(home), "platbase": str(home)}
    scheme = "venv" if "venv" in sysconfig.get_scheme_names() else sysconfig.get_default_scheme()
    python = Path(sysconfig.get_path("scripts", scheme, variables)) / "python"
    site = Path(sysconfig.get_path("purelib", scheme, variables))
    lent = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (site / "lent.pth").write_text("\n".join(lent), "utf-8")

    where = site
    if request.param == "editable":
        where = copy_of_the_sources(tmp_path_factory.mktemp("checkout"))
        what = ["--editable", where]
    else:
        what = [request.getfixturevalue(request.param)]
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index"),
        *("--no-deps", "--no-build-isolation", "--ignore-installed", *what),
        cwd=home,
    )
    return python, where


def subcommands(listing: str) -> dict[str, str]:
    """The subcommands that a ``--help`` lists, with their descriptions."""
    rows = [line.split(maxsplit=1) for line in listing.partition("Commands:")[2].splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 2}


def test_twistd_lists_dicom(installed: tuple[Path, Path], tmp_path: Path) -> None:
    python, _ = installed
    listing = run(
        python, "-c", "from twisted.scripts.twistd import run; run()", "--help", cwd=tmp_path
    )
    assert subcommands(listing)["dicom"] == "A DICOM archive node"


def test_twist_lists_dicom(installed: tuple[Path, Path], tmp_path: Path) -> None:
    python, _ = installed
    listing = run(python, "-m", "twisted", "--help", cwd=tmp_path)
    assert subcommands(listing)["dicom"] == "A DICOM archive node"


def test_the_subcommand_has_all_it_imports(installed: tuple[Path, Path], tmp_path: Path) -> None:
    """A subpackage left out of the wheel would show only here: the checkout has it."""
    python, _ = installed
    assert "--aet" in run(python, "-m", "twisted", "dicom", "--help", cwd=tmp_path)


def test_the_installed_files_are_the_ones_that_answer(
    installed: tuple[Path, Path], tmp_path: Path
) -> None:
    """Neither the checkout nor anything lent to the environment stands in for it."""
    python, where = installed
    program = (
        "import netdicom_tx, twisted.plugins.netdicom_tx_plugin as plugin;"
        "print(netdicom_tx.__file__, plugin.__file__, sep='\\n')"
    )
    files = run(python, "-c", program, cwd=tmp_path).splitlines()
    expected = [where / "netdicom_tx/__init__.py", where / PLUGIN]
    assert [Path(file).resolve() for file in files] == [path.resolve() for path in expected]


def test_listing_the_plugins_imports_nothing_of_ours(tmp_path: Path) -> None:
    """Every ``twistd --help`` imports the plugin; the node is loaded when it is run."""
    program = f"""
import runpy, sys
plugin = runpy.run_path({str(ROOT / PLUGIN)!r})
print(plugin["dicom"].module, [name for name in sys.modules if name.startswith("netdicom_tx")])
"""
    assert run(sys.executable, "-c", program, cwd=tmp_path).strip() == "netdicom_tx.tap []"


def test_the_wheel_holds_the_package_the_plugin_and_the_type_marker(wheel: Path) -> None:
    """An ``__init__.py`` in ``twisted/`` or ``twisted/plugins/`` would overwrite Twisted's own."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert "netdicom_tx/py.typed" in FILES
    assert sorted(names) == sorted([*FILES, PLUGIN])


def metadata(wheel: Path) -> Message:
    """The core metadata of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def test_the_metadata_of_the_wheel_is_what_an_index_accepts(wheel: Path) -> None:
    """What ``twine check --strict`` looks at: name, version, summary, and a description that can be shown."""
    found = metadata(wheel)
    assert re.fullmatch(r"netdicom[-_]tx", found["Name"])
    assert re.fullmatch(r"\d+(\.\d+)*(\.dev\d+|rc\d+)?", found["Version"])
    assert 0 < len(found["Summary"]) <= 120
    assert found["Requires-Python"] == ">=3.11"
    assert found["Description-Content-Type"] == "text/markdown"
    description = found.get_payload()
    assert isinstance(description, str)
    assert description.strip() == (ROOT / "README.md").read_text("utf-8").strip()
    classifiers = found.get_all("Classifier", [])
    assert len(classifiers) == len(set(classifiers))
    # An index refuses a wheel with a classifier that it does not know; each has at least two parts.
    assert [each for each in classifiers if " :: " not in each] == []
    assert found.get_all("License-File") == ["LICENSE"]


def test_the_metadata_name_every_extra_and_what_it_needs(wheel: Path) -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    found = metadata(wheel)
    assert sorted(found.get_all("Provides-Extra", [])) == sorted(config["options.extras_require"])
    required = [
        re.split(r"[<>=!~;\s\[]", each)[0].lower() for each in found.get_all("Requires-Dist", [])
    ]
    for name in ("twisted", "pydicom", "attrs", "cattrs", "sqlalchemy", "alembic", "click", "rich"):
        assert name in required


def test_the_wheel_has_the_command_and_is_for_every_platform(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        (points,) = (each for each in archive.namelist() if each.endswith("/entry_points.txt"))
        assert "netdicom = netdicom_tx.__main__:main" in archive.read(points).decode()
        (top,) = (each for each in archive.namelist() if each.endswith("/top_level.txt"))
        assert archive.read(top).decode().split() == ["netdicom_tx", "twisted"]


def test_each_python_of_the_classifiers_is_tested_by_nox() -> None:
    """And the other way round: nothing is claimed that no session tests."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    claimed = re.findall(r"Python :: (3\.\d+)", config["metadata"]["classifiers"])
    sessions = re.search(r"^PYTHONS = \[(.*)\]$", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    assert sessions is not None
    assert claimed == re.findall(r"3\.\d+", sessions[1])
    assert claimed == ["3.11", "3.12", "3.13", "3.14"]


def test_the_sdist_can_run_its_own_tests(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = [*FILES, PLUGIN, "setup.cfg", "pyproject.toml", "README.md", "docs/conf.py"]
    needed += ["CONTRIBUTING.md", "SECURITY.md", "noxfile.py"]
    needed += [path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/**/*.py")]
    needed += [path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/standard/*")]
    assert [name for name in needed if name not in names] == []
