"""The output of a command: results to stdout, everything else to stderr.

Results are a table on a terminal, tab-separated lines elsewhere, and JSON with ``--json``. A progress bar is
drawn on stderr, and only when that is a terminal. Control characters that a peer sent are escaped.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Self, TextIO

from .failures import CommandError, ExitCode, Problem

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn, Task, TaskID

__all__ = ["Output", "Progress", "Table", "counted", "printable_line", "unwritten"]

# How many characters a pipe with room takes at once: PIPE_BUF is 4096 octets, and a character has up to 4.
_SURE_TO_FIT = 1000


def printable_line(text: object) -> str:
    """The text on one line; control characters and line ends are escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def counted(number: int, thing: str) -> str:
    """A number with its noun: ``1 file``, ``2 files``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


class Output:
    """Where a command writes.

    Args:
        is_json: Whether results and problems are JSON documents.
        is_quiet: Whether notes and progress are left out.
        has_color: Whether colors are used, unless ``NO_COLOR`` is in the environment.
    """

    def __init__(
        self, *, is_json: bool = False, is_quiet: bool = False, has_color: bool = True
    ) -> None:
        self.is_json = is_json
        self.is_quiet = is_quiet
        self.has_color = has_color
        # A name in a script that the terminal cannot show must not end the program.
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="backslashreplace")

    @property
    def has_terminal(self) -> bool:
        """Whether the results go to a terminal."""
        return sys.stdout is not None and sys.stdout.isatty()

    def line(self, text: str) -> None:
        """Write a line of results at once."""
        _write(sys.stdout, text)

    async def stream(self, text: str) -> None:
        """Write a line of results among many; waits while the reader is behind.

        The reactor runs in the meantime, so a slow reader does not make timers run out.
        """
        if _would_block(sys.stdout, text):
            from twisted.internet.threads import deferToThread

            await deferToThread(_write, sys.stdout, text)
        else:
            _write(sys.stdout, text)

    def json(self, value: object) -> None:
        """Write a JSON document on one line."""
        # Escapes are the same text for every reader, where the encoding of the output lacks characters.
        encoding = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "")
        self.line(json.dumps(value, ensure_ascii=encoding != "utf8"))

    def note(self, text: str) -> None:
        """Write a line for a person, beside the results; it may have names of files in it, which are escaped."""
        if not self.is_quiet:
            _write(sys.stderr, printable_line(text))

    def problem(self, problem: Problem, *, in_json: bool = True) -> None:
        """Write why the command failed.

        Args:
            in_json: Write a JSON document as well; False when the document of the results has it already.
        """
        _write(sys.stderr, "\n".join(map(printable_line, str(problem).splitlines())))
        if self.is_json and in_json:
            self.json({"error": problem.as_json()})

    def table(self, columns: Sequence[str], *, has_head: bool = True) -> Table:
        """A table of results; close it after the last row."""
        return Table(self, columns, has_head)

    def progress(self, what: str, *, unit: str, total: int | None = None) -> Progress:
        """A progress bar; nothing is drawn when stderr is not a terminal."""
        return Progress(self, what, unit, total)


def _write(stream: TextIO | None, text: str) -> None:
    """Write a line.

    Raises:
        BrokenPipeError: The reader of the results has gone.
        CommandError: The results cannot be written, such as to a disk that is full.
    """
    if stream is None:
        return  # whoever has started the program has closed it
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard(stream)
        if stream is sys.stderr:
            return
        raise CommandError(unwritten(error)) from error


def _discard(stream: TextIO) -> None:
    """What is left in the buffer would fail once more when the program ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def unwritten(error: OSError) -> Problem:
    """Why the results cannot be written."""
    _discard(sys.stdout)
    return Problem(
        ExitCode.LOCAL_DISK,
        "the results cannot be written",
        str(error.strerror),
        "make room on the disk, or write them to another place",
    )


def _would_block(stream: TextIO, text: str) -> bool:
    """Whether a pipe or terminal may have no room for a line now."""
    if len(text) < _SURE_TO_FIT:
        try:
            return not select.select([], [stream], [], 0)[1]
        except (OSError, ValueError):  # the stream has no descriptor, as in a test
            return False
    return True


class Table:
    """Rows of results.

    In a pipe or a file they are written at once. For a terminal they are kept until the end, and become a table if that
    fits, or a block of lines for each row. So no value is ever broken, because a broken UID cannot be copied.
    """

    def __init__(self, output: Output, columns: Sequence[str], has_head: bool) -> None:
        self._output = output
        self._columns = columns
        self._has_head = has_head
        self._rows: list[list[str]] | None = [] if output.has_terminal else None
        self._is_head_due = self._rows is None and has_head

    def row(self, cells: Iterable[object]) -> None:
        """Add a row."""
        shown = [printable_line(cell) for cell in cells]
        if self._rows is None:
            self._write_head()
            self._output.line("\t".join(shown))
        else:
            self._rows.append(shown)

    async def stream(self, cells: Iterable[object]) -> None:
        """Add a row among many; see :meth:`Output.stream`."""
        if self._rows is None:
            self._write_head()
            await self._output.stream("\t".join(map(printable_line, cells)))
        else:
            self.row(cells)

    def _write_head(self) -> None:
        if self._is_head_due:
            self._is_head_due = False
            self._output.line("\t".join(self._columns))

    def close(self, *, is_complete: bool = True) -> None:
        """Show the rows that were kept.

        Args:
            is_complete: Whether these are all rows; a table without rows has a head only then.
        """
        if is_complete:
            self._write_head()
        if not self._rows:
            return
        from rich.cells import cell_len

        lines = [self._columns, *self._rows] if self._has_head else self._rows
        widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
        width, height = shutil.get_terminal_size()  # rich treats a dumb terminal as a narrow one
        # Each column has a space on either side.
        if sum(widths) + 2 * len(widths) <= width:
            self._draw(self._rows, width, height)
        else:
            self._list(self._rows, width)

    def _draw(self, rows: list[list[str]], width: int, height: int) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        drawn = RichTable(box=SIMPLE_HEAD, show_header=self._has_head, show_edge=False)
        for column in self._columns:
            drawn.add_column(Text(column), no_wrap=True)
        for row in rows:
            drawn.add_row(*map(Text, row))
        Console(
            no_color=None if self._output.has_color else True,
            highlight=False,
            width=width,
            height=height,
        ).print(drawn)

    def _list(self, rows: list[list[str]], width: int) -> None:
        from rich.cells import cell_len

        label = max(map(cell_len, self._columns)) if self._has_head else 0
        for number, row in enumerate(rows):
            if number:
                self._output.line("")
            for column, cell in zip(self._columns, row, strict=True):
                if not self._has_head:
                    self._output.line(cell)
                elif label + 2 + cell_len(cell) <= width:
                    self._output.line(f"{column:{label}}  {cell}".rstrip())
                else:
                    self._output.line(column)
                    self._output.line(f"  {cell}")


class Progress:
    """The progress of a transfer: count, octets a second, time left, failures.

    It is a context manager, and also counts when there is no terminal.

    Attributes:
        done: How many items are finished, including those that failed.
        failed: How many items failed.
    """

    def __init__(self, output: Output, what: str, unit: str, total: int | None) -> None:
        self.done = 0
        self.failed = 0
        self._octets = 0
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        if output.is_quiet or sys.stderr is None or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True, no_color=None if output.has_color else True)
        if console.is_dumb_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.fields[of]} {task.fields[unit]}", markup=False),
            _speed_column(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failures]}", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task(
            what, total=total, unit=unit, of="?" if total is None else total, failures="", octets=0
        )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def is_shown(self) -> bool:
        """Whether a bar is drawn; otherwise a total need not be determined."""
        return self._bar is not None

    def expect(self, total: int) -> None:
        """Set the total."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=total, of=total)

    def set(self, done: int, failed: int, octets: int = 0) -> None:
        """Set how many items are done in all; ``octets`` are added to the former ones."""
        self.done, self.failed = done, failed
        self._octets += octets
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                completed=done,
                octets=self._octets,
                failures=f"{failed} failed" if failed else "",
            )

    def advance(self, octets: int = 0, *, failed: bool = False) -> None:
        """Count one more item as done."""
        self.set(self.done + 1, self.failed + failed, octets)


def _speed_column() -> ProgressColumn:
    """A column with the megabytes a second since the beginning."""
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        """Shows MB/s."""

        def render(self, task: Task) -> Text:
            octets, seconds = task.fields["octets"], task.elapsed
            if not octets or not seconds:
                return Text("")
            return Text(f"{octets / seconds / 1e6:.1f} MB/s")

    return Speed()
