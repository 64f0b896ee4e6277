"""The checks of the project, each in an environment of its own.

``nox`` runs what a change must pass, ``nox -l`` lists all sessions. What stands behind ``--`` goes
to the tool: ``nox -s tests-3.13 -- tests/test_pdu.py``.
"""

import re
from configparser import ConfigParser
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "venv"
# The sessions use those interpreters below that are installed.
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests", "lint", "types", "docs"]

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
#: A file stays in one process, because its tests share peers that take seconds to start.
IN_PARALLEL = ["-n", "auto", "--dist", "loadfile"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on each interpreter."""
    session.install("-e", ".[test]")
    session.run("pytest", *IN_PARALLEL, *session.posargs)


def floors() -> list[str]:
    """The lowest version of each dependency for which setup.cfg names one: ``["click==8.3", ...]``."""
    config = ConfigParser()
    config.read("setup.cfg", encoding="utf-8")
    named = config["options"]["install_requires"] + config["options.extras_require"]["test"]
    found = re.findall(r"^([\w-]+)(?:\[.*?\])?>=([\w.]+)", named, re.MULTILINE)
    return [f"{name}=={version}" for name, version in found]


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest versions that setup.cfg admits."""
    constraints = Path(session.create_tmp(), "lowest.txt")
    constraints.write_text("\n".join(floors()), "utf-8")
    session.install("-e", ".[test]", "--constraint", str(constraints))
    # Before 26.10 Twisted leaves the socket of a port that cannot be opened to the garbage collector.
    leaves = ("-W", "ignore:unclosed <socket:ResourceWarning")
    session.run("pytest", *IN_PARALLEL, *leaves, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Look for likely mistakes, and for what the formatter would change."""
    session.install("ruff")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types."""
    session.install("-e", ".[dev]")
    session.run("mypy", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages; a warning is an error."""
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "docs", "docs/_build", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure branch coverage, with all processes that the tests start, and hold it to its gate."""
    session.install("-e", ".[test]")
    programs = {"NETDICOM_TX_COVER_PROGRAMS": "subprocess, _exit"}
    session.run(
        "pytest", *IN_PARALLEL, "--cov", "--cov-fail-under=97", *session.posargs, env=programs
    )
