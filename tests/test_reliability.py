"""The page about what goes wrong names tests that exist."""

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "explanation" / "reliability.md"
ROW = re.compile(r"^\| (D?\d+) \|.*\| ([^|]*) \|$", re.MULTILINE)
NAME = re.compile(r"`(test_\w+)`")


def test_every_case_and_promise_has_a_test_that_exists() -> None:
    """92 cases, and 13 promises."""
    rows = dict(ROW.findall(PAGE.read_text()))
    assert list(rows) == [f"D{n}" for n in range(1, 14)] + [str(n) for n in range(1, 93)]
    defined = {
        name
        for path in HERE.rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    for number, cell in rows.items():
        names = NAME.findall(cell)
        assert names, f"{number} has no test"
        missing = [name for name in names if name not in defined]
        assert not missing, f"{number}: {', '.join(missing)}"
