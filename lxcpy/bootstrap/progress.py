"""How far a bootstrap is, shown as it suits who watches: live bars, plain lines, or one JSON object an event.

Several phases run at once (packages arrive, are unpacked and configured), so a display keeps a counter for each.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Protocol

from lxcpy.errors import LxcpyError, visible

if TYPE_CHECKING:
    from lxcpy.bootstrap.bars import Bars


class Progress(Protocol):
    """What the engine tells; callable from any thread."""

    def start(self, phase: str, *, total: int = 0, unit: str = "") -> None:
        """A phase begins. total: how much is to be done, 0 if not known; unit: "bytes", "packages" or ""."""

    def advance(self, phase: str, amount: int = 1) -> None:
        """So much more of it is done."""

    def finish(self, phase: str) -> None:
        """It is over."""

    def message(self, text: str) -> None:
        """A line for the user."""

    def warning(self, text: str) -> None:
        """A line for the user about something that may be wrong."""

    def close(self) -> None:
        """Nothing more will come."""


class Counter:
    """The state of one phase."""

    def __init__(self, total: int, unit: str) -> None:
        self.total, self.unit, self.done = total, unit, 0
        self.began = time.monotonic()
        self.ended = 0.0

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.began

    @property
    def rate(self) -> float:
        """Units a second so far."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    def __str__(self) -> str:
        if self.unit == "bytes":
            text = f"{size(self.done)} of {size(self.total)}" if self.total and not self.ended else size(self.done)
            return f"{text}, {size(int(self.rate))}/s"
        if self.total and not self.ended:
            return f"{self.done}/{self.total}"
        return f"{self.done} {self.unit}".rstrip() if self.done else ""


def size(count: int) -> str:
    """Bytes as people read them: 31.9 MB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{int(value)} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


class Silent:
    """Says nothing."""

    def start(self, phase: str, *, total: int = 0, unit: str = "") -> None:
        pass

    def advance(self, phase: str, amount: int = 1) -> None:
        pass

    def finish(self, phase: str) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def warning(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class Plain:
    """A line when a phase begins and one when it ends: for logs and pipes."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.stream = stream or sys.stderr
        self.counters: dict[str, Counter] = {}
        self.lock = threading.RLock()

    def start(self, phase: str, *, total: int = 0, unit: str = "") -> None:
        with self.lock:
            self.counters[phase] = Counter(total, unit)
            amount = size(total) if unit == "bytes" else f"{total} {unit}"
            self.line(f"{phase}: {amount}" if total else f"{phase} ...")

    def advance(self, phase: str, amount: int = 1) -> None:
        with self.lock:
            if phase in self.counters:
                self.counters[phase].done += amount

    def finish(self, phase: str) -> None:
        with self.lock:
            counter = self.counters.pop(phase, None)
            if counter is not None:
                counter.ended = time.monotonic()
                self.line(f"{phase}: done in {counter.seconds:.1f} s" + (f" ({counter})" if str(counter) else ""))

    def message(self, text: str) -> None:
        with self.lock:
            self.line(text)

    def warning(self, text: str) -> None:
        self.message(f"warning: {text}")

    def line(self, text: str) -> None:
        self.stream.write(visible(text) + "\n")
        self.stream.flush()

    def close(self) -> None:
        pass


class Live(Plain):
    """Bars below the lines: every phase that runs, with bytes or packages, rate and time left.

    They come with the first phase of a known length, so what takes a blink does not load the library that draws them;
    where it is not installed, the plain lines remain.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        super().__init__(stream)
        self.bars: Bars | None = None
        self.missing = False

    def start(self, phase: str, *, total: int = 0, unit: str = "") -> None:
        with self.lock:
            if total and self.bars is None and not self.missing:
                self._open()
            if self.bars is None:
                super().start(phase, total=total, unit=unit)
                return
            self.counters[phase] = Counter(total, unit)
            self.bars.start(phase, total, unit)

    def advance(self, phase: str, amount: int = 1) -> None:
        with self.lock:
            super().advance(phase, amount)
            if self.bars is not None:
                self.bars.advance(phase, amount)

    def finish(self, phase: str) -> None:
        with self.lock:
            if self.bars is not None:
                self.bars.finish(phase)
            super().finish(phase)

    def line(self, text: str) -> None:
        if self.bars is not None:
            self.bars.line(visible(text))
        else:
            super().line(text)

    def _open(self) -> None:
        try:
            from lxcpy.bootstrap.bars import Bars
        except ImportError:
            self.missing = True
            return
        self.bars = Bars(self.stream)
        for phase, counter in self.counters.items():
            self.bars.start(phase, counter.total, counter.unit)

    def close(self) -> None:
        with self.lock:
            if self.bars is not None:
                self.bars.close()
                self.bars = None


class Json:
    """An object a line, as lxcpy-json(7) has them; progress at most ten times a second for each phase."""

    INTERVAL = 0.1

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.stream = stream or sys.stdout
        self.counters: dict[str, Counter] = {}
        self.told: dict[str, float] = {}
        self.lock = threading.RLock()

    def start(self, phase: str, *, total: int = 0, unit: str = "") -> None:
        with self.lock:
            self.counters[phase] = Counter(total, unit)
            self._tell("start", phase)

    def advance(self, phase: str, amount: int = 1) -> None:
        with self.lock:
            if phase not in self.counters:
                return
            self.counters[phase].done += amount
            if time.monotonic() - self.told.get(phase, 0) >= self.INTERVAL:
                self._tell("progress", phase)

    def finish(self, phase: str) -> None:
        with self.lock:
            if phase in self.counters:
                self._tell("finish", phase)
                del self.counters[phase]

    def message(self, text: str) -> None:
        self._write({"event": "message", "text": text})

    def warning(self, text: str) -> None:
        self._write({"event": "warning", "text": text})

    def created(self, name: str, rootfs: str) -> None:
        """The last event: all is done."""
        self._write({"event": "created", "name": name, "rootfs": rootfs or None})

    def failed(self, error: LxcpyError) -> None:
        """The last event: nothing is left of what was made."""
        at = error.at and error.at.to_dict()
        self._write({"event": "error", "text": error.what, "cure": error.hint, "at": at})

    def close(self) -> None:
        pass

    def _tell(self, event: str, phase: str) -> None:
        counter = self.counters[phase]
        self.told[phase] = time.monotonic()
        self._write(
            {
                "event": event, "phase": phase, "done": counter.done, "total": counter.total, "unit": counter.unit,
                "seconds": round(counter.seconds, 3),
            }
        )  # fmt: skip

    def _write(self, event: dict[str, object]) -> None:
        with self.lock:
            self.stream.write(json.dumps(event) + "\n")
            self.stream.flush()


def default(stream: IO[str] | None = None) -> Progress:
    """The display for a stream (standard error): live on a terminal that can move its cursor, plain lines elsewhere."""
    stream = stream or sys.stderr
    return Live(stream) if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" else Plain(stream)
