"""Packages that load their names when they are first used."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import netdicom_tx
from netdicom_tx import archive

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("package", [netdicom_tx, archive], ids=lambda each: each.__name__)
def test_every_public_name_is_there(package) -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)


@pytest.mark.parametrize("package", [netdicom_tx, archive], ids=lambda each: each.__name__)
def test_type_checkers_see_the_objects_that_programs_get(package) -> None:
    """The imports under ``TYPE_CHECKING`` and the table of the package say the same."""
    assert package.__file__ is not None
    tree = ast.parse(Path(package.__file__).read_text("utf-8"))
    guarded = [
        node
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
    ]
    seen = set()
    for node in guarded:
        assert isinstance(node, ast.ImportFrom)
        base = ".".join(filter(None, (package.__name__, node.module)))
        for alias in node.names:
            seen.add(alias.name)
            if node.module is None:
                expected = importlib.import_module(f"{base}.{alias.name}")
            else:
                expected = getattr(importlib.import_module(base), alias.name)
            assert getattr(package, alias.name) is expected
    assert seen == set(package.__all__) - {"__version__"}


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'netdicom_tx' has no attribute 'nothing'"):
        netdicom_tx.nothing  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from netdicom_tx import nothing")
    assert not hasattr(netdicom_tx, "__wrapped__")


def test_a_module_is_an_attribute_of_the_package() -> None:
    """As it was when the package imported all of them."""
    program = "import netdicom_tx; print(netdicom_tx.exceptions.NetDICOMError.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout == "NetDICOMError\n"


def test_what_a_module_needs_and_does_not_find_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for an attribute that does not exist."""
    (tmp_path / "lazily").mkdir()
    (tmp_path / "lazily" / "__init__.py").write_text(
        "from netdicom_tx._lazy import lazy_names\n__getattr__, __dir__ = lazy_names(__name__, {})\n"
    )
    (tmp_path / "lazily" / "needy.py").write_text("import that_is_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    lazily = importlib.import_module("lazily")
    with pytest.raises(ModuleNotFoundError, match="that_is_not_installed"):
        lazily.needy  # noqa: B018
