"""How far a bootstrap is, shown as it suits who watches: a live line, plain lines, or one JSON object an event.

Several phases run at once (packages arrive, are unpacked and configured), so a display keeps a counter for each.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import IO, Protocol


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
        self.stream.write(text + "\n")
        self.stream.flush()

    def close(self) -> None:
        pass


class Terminal(Plain):
    """One line, rewritten some times a second: every phase that runs, with bytes, rate and time left."""

    INTERVAL = 0.1

    def __init__(self, stream: IO[str] | None = None) -> None:
        super().__init__(stream)
        self.drawn = 0.0
        self.dirty = False

    def start(self, phase: str, *, total: int = 0, unit: str = "") -> None:
        with self.lock:
            self.counters[phase] = Counter(total, unit)
            self.draw()

    def advance(self, phase: str, amount: int = 1) -> None:
        with self.lock:
            super().advance(phase, amount)
            if time.monotonic() - self.drawn >= self.INTERVAL:
                self.draw()

    def finish(self, phase: str) -> None:
        with self.lock:
            super().finish(phase)
            self.draw()

    def line(self, text: str) -> None:
        if self.dirty:
            self.stream.write("\r\x1b[K")
            self.dirty = False
        super().line(text)

    def draw(self) -> None:
        """Write the line anew."""
        self.drawn = time.monotonic()
        parts = []
        for phase, counter in self.counters.items():
            text = f"{phase} {counter}".rstrip()
            if counter.total and 0 < counter.done < counter.total and counter.rate > 0:
                left = int((counter.total - counter.done) / counter.rate)
                text += f", {left // 60}:{left % 60:02d} left" if counter.unit == "bytes" else ""
            parts.append(text)
        width = _width(self.stream)
        text = " | ".join(parts)
        self.stream.write("\r" + text[: width - 1] + "\x1b[K")
        self.stream.flush()
        self.dirty = bool(text)

    def close(self) -> None:
        with self.lock:
            if self.dirty:
                self.stream.write("\r\x1b[K")
                self.stream.flush()
                self.dirty = False


class Json:
    """An object a line: {"event", "phase", "done", "total", "unit", "seconds"}; progress at most ten times a second."""

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


def _width(stream: IO[str]) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def default(stream: IO[str] | None = None) -> Progress:
    """The display for a stream (standard error): live on a terminal, plain lines elsewhere."""
    stream = stream or sys.stderr
    return Terminal(stream) if stream.isatty() else Plain(stream)
