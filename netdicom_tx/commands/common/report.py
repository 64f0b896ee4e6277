"""How a command ends: one report, as a table or as a JSON document, and the exit code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .failures import ExitCode, Problem
from .output import Output

__all__ = ["Report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report of a command at its end.

    Attributes:
        document: The document of ``--json``; a problem is added to it.
        columns: The heads of the table that is shown without ``--json``; empty means no table.
        rows: The rows of that table.
        summary: A line for a person, on stderr; empty means no line.
        problem: Why the command failed; None means that it succeeded.
    """

    document: dict[str, Any]
    columns: Sequence[str] = ()
    rows: Iterable[Iterable[object]] = field(default=())
    summary: str = ""
    problem: Problem | None = None

    def show(self, output: Output) -> int:
        """Write the report; returns the exit code."""
        problem = self.problem
        if output.is_json:
            error = {} if problem is None else {"error": problem.as_json()}
            output.json({**self.document, **error})
        elif self.columns:
            table = output.table(self.columns)
            for row in self.rows:
                table.row(row)
            table.close()
        if self.summary:
            output.note(self.summary)
        if problem is None:
            return ExitCode.OK
        output.problem(problem, in_json=False)  # the document contains it already
        return problem.code
