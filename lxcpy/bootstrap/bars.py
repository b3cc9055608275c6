"""The live display: one bar for each phase that runs, drawn by rich, which progress.py loads on a terminal only."""

from __future__ import annotations

import os
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from lxcpy.bootstrap.progress import size

_A_SECOND = 8  # times it is drawn anew


class _Terminal(Console):
    def show_cursor(self, show: bool = True) -> bool:
        """Leave the cursor as it is: who kills us finds it where it was."""
        return False


class _Amount(ProgressColumn):
    """How much is done, how fast, and how long the rest takes."""

    def render(self, task: Task) -> Text:
        return Text(amount(int(task.completed), int(task.total or 0), task.fields["unit"], task.speed))


class Bars:
    """Phases come and go; lines are written above them. Not for several threads at once."""

    def __init__(self, stream: IO[str]) -> None:
        # Not what COLUMNS said when the shell began: a bar wider than the terminal cannot be rewritten.
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        console = _Terminal(file=stream, markup=False, highlight=False, emoji=False, _environ=environment)
        self._progress = Progress(
            TextColumn("{task.description:<9}", table_column=Column(no_wrap=True, min_width=9)),
            BarColumn(bar_width=24),
            _Amount(table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console, refresh_per_second=_A_SECOND, transient=True, redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._tasks: dict[str, int] = {}
        self._progress.start()

    def start(self, phase: str, total: int, unit: str) -> None:
        self.finish(phase)
        self._tasks[phase] = self._progress.add_task(phase, total=total or None, unit=unit)

    def advance(self, phase: str, amount: int) -> None:
        if phase in self._tasks:
            self._progress.advance(self._tasks[phase], amount)  # type: ignore[arg-type]

    def finish(self, phase: str) -> None:
        if phase in self._tasks:
            self._progress.remove_task(self._tasks.pop(phase))  # type: ignore[arg-type]

    def line(self, text: str) -> None:
        """A line above the bars; its characters must be harmless."""
        self._progress.console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """Take the bars away."""
        self._progress.stop()


def amount(done: int, total: int, unit: str, rate: float | None) -> str:
    """`12.0 of 31.9 MB, 5.1 MB/s, 0:04 left`; of packages their number. rate: units a second, None if not known."""
    if unit == "bytes":
        text = f"{size(done)} of {size(total)}" if total else size(done)
    else:
        text = f"{done}/{total} {unit}".rstrip() if total else ""
    if not rate or not total:
        return text
    if unit == "bytes":
        text += f", {size(int(rate))}/s"
    left = int((total - done) / rate + 0.5)
    return f"{text}, {left // 60}:{left % 60:02d} left" if done < total else text
