"""Show the use of resources by running containers, again and again."""

from __future__ import annotations

import errno
import os
import select
import sys
import time

from lxcpy.cli import output
from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option
from lxcpy.errors import UsageError
from lxcpy.kernel.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lxcpy.cgroups.stats import Stats

SORTS = {
    "n": "name", "c": "processor", "b": "block I/O", "m": "memory", "s": "memory and swap", "k": "kernel memory",
}  # fmt: skip


class Args(CommonArgs):
    delay: float | None
    batch: bool
    sort: str
    reverse: bool
    json: bool


def delay(text: str) -> float:
    """Seconds. Raises ValueError."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise ValueError(f'"{text}" is not a time in seconds')
    return value


def sort(text: str) -> str:
    """A letter of SORTS. Raises ValueError."""
    if text not in SORTS:
        raise ValueError(f'"{text}" is not one of {" ".join(SORTS)}')
    return text


COMMAND = Command(
    "top",
    "Show the use of resources by running containers, again and again.",
    "[OPTION...]",
    (
        Option("d", "delay", "SECONDS", "Time between two displays (default 3; with -b 300).", convert=delay),
        Option("b", "batch", None, "Print comma-separated values for a file."),
        Option(
            "s", "sort", "LETTER", f"Sort by {', '.join(f'{key} ({what})' for key, what in SORTS.items())}.",
            convert=sort, default="n", choices=tuple(SORTS),
        ),
        Option("r", "reverse", None, "Sort in descending order."),
        Option(
            "", "json", None, "With -b: an object a line instead, one a container; standard input may be anything.",
            ours=True,
        ),
    ),
    {0: "left by q, Ctrl-C or a signal that ends", 1: "standard input is not a terminal"},
    default_name="",
    many_paths=True,
    words="Keys: q leaves; n c b m s k sort, the same key again turns the order round; so does r.",
    args=Args,
)  # fmt: skip


class Row(NamedTuple):
    """One container's use of resources; sizes in bytes, times in nanoseconds."""

    name: str
    cpu: int = 0
    cpu_system: int = 0
    cpu_user: int = 0
    blkio: int = 0
    blkio_read: int = 0
    blkio_write: int = 0
    blkio_operations: int = 0
    memory: int = 0
    memsw: int = 0
    kmem: int = 0
    lxcpath: str = ""
    numbers: Stats | None = None  # with None where this host cannot tell


ORDERS: dict[str, Callable[[Row], Any]] = {
    "n": lambda row: os.fsencode(row.name),
    "c": lambda row: row.cpu,
    "b": lambda row: row.blkio,
    "m": lambda row: row.memory,
    "s": lambda row: row.memsw,
    "k": lambda row: row.kmem,
}
BATCH_HEAD = (
    "time_ms,container,cpu_nanos,cpu_sys_userhz,cpu_user_userhz,blkio_bytes,blkio_iops,"
    "mem_used_bytes,memsw_used_bytes,kernel_mem_used_bytes"
)


def size(value: int) -> str:
    """Bytes as lxc-top writes them: like lxc-info, but a bare number with two places below 1 KiB."""
    return output.size(value) if value > 1 << 10 else f"{value:3d}.00   "


def ordered(rows: list[Row], letter: str, *, reverse: bool) -> list[Row]:
    """By name ascending; by a number descending first, as one wants to see the largest. `reverse` turns it round."""
    return sorted(rows, key=ORDERS[letter], reverse=reverse if letter == "n" else not reverse)


def harmless(name: str) -> str:
    """A name without what a terminal or a reader of lines obeys: anybody can listen on a socket of some name."""
    return "".join(letter if letter.isprintable() or "\udc80" <= letter <= "\udcff" else "?" for letter in name)


def display(rows: list[Row], *, columns: int = 1 << 10, lines: int) -> list[str]:
    """The table for a terminal of that size: two heads, the rows that fit, and the total; wide lines are cut."""
    fields = Row._fields[1:-2]
    total = Row("TOTAL", **{field: sum(getattr(row, field) for row in rows) for field in fields})
    extra = [(label, field) for label, field in (("MemSw", "memsw"), ("KMem", "kmem")) if getattr(total, field) > 0]
    first = f"{'Container':<18} {'CPU':>12} {'CPU':>12} {'CPU':>12} {'BlkIO':>36} {'Mem':>10}"
    second = f"{'Name':<18} {'Used':>12} {'Sys':>12} {'User':>12} {'Total(Read/Write)':>36} {'Used':>10}"
    for label, _field in extra:
        first, second = f"{first} {label:>10}", f"{second} {'Used':>10}"
    bold, plain = "\033[1m\033[7m", "\033[0m"
    shown = rows[: max(lines - 3, 0)]
    text = [f"{bold}{head[:columns]}{plain}" for head in (first, second)]
    text += [_line(row, harmless(row.name), extra)[:columns] for row in shown]
    return [*text, _line(total, f"TOTAL {len(shown)} of {len(rows)}", extra)[:columns]]


def _line(row: Row, name: str, extra: list[tuple[str, str]]) -> str:
    blkio = f"{size(row.blkio)}({size(row.blkio_read)}/{size(row.blkio_write)})"
    times = " ".join(f"{value / 1e9:12.2f}" for value in (row.cpu, row.cpu_system, row.cpu_user))
    text = f"{name:<18.18} {times} {blkio:>36} {size(row.memory):>10}"
    return text + "".join(f" {size(getattr(row, field)):>10}" for _label, field in extra)


def batch(rows: list[Row], now: float) -> list[str]:
    """A line a container, comma-separated; user and system time in ticks."""
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return [
        f"{int(now * 1000)},{harmless(row.name)},{row.cpu},{row.cpu_system // tick},{row.cpu_user // tick},{row.blkio},"
        f"{row.blkio_operations},{row.memory},{row.memsw},{row.kmem}"
        for row in rows
    ]


def as_json(rows: list[Row], now: float) -> str:
    """A line of JSON a container."""
    heads = [{"time": now, "name": row.name, "lxcpath": row.lxcpath} for row in rows]
    return "".join(
        output.json({**head, **row.numbers.to_dict()}) for head, row in zip(heads, rows, strict=True) if row.numbers
    )


def gather(lxcpaths: list[str]) -> list[Row]:
    """The containers that run now."""
    from lxcpy.cgroups import stats
    from lxcpy.container import states
    from lxcpy.runtime import usage

    rows = []
    for lxcpath in lxcpaths:
        for name, found in states(lxcpath, cgroups=True).items():
            record = usage.cgroups(lxcpath, found)
            if record is None:
                continue
            numbers = stats.read(record)
            values = (
                numbers.cpu, numbers.cpu_system, numbers.cpu_user, numbers.blkio_total, numbers.blkio_read,
                numbers.blkio_write, numbers.blkio_operations, numbers.memory, numbers.memsw, numbers.kmem,
            )  # fmt: skip
            row = Row(name, *(value or 0 for value in values))  # type: ignore[arg-type]  # those stand in order
            rows.append(row._replace(lxcpath=lxcpath, numbers=numbers))
    return rows


class Screen:
    """The terminal, read key by key; given back as it was, also while this process is stopped."""

    def __enter__(self) -> Screen:
        import signal
        import termios

        self.saved = termios.tcgetattr(0)
        self.changed = termios.tcgetattr(0)
        self.changed[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(0, termios.TCSANOW, self.changed)
        self.woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)  # select(2) is begun anew after a signal, PEP 475
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGWINCH, lambda number, frame: None)
        signal.signal(signal.SIGTSTP, lambda number, frame: self._stop())
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, _leave)
        return self

    def __exit__(self, *_error: object) -> None:
        import termios

        try:
            termios.tcsetattr(0, termios.TCSANOW, self.saved)
        except termios.error:
            pass  # it has hung up

    def _stop(self) -> None:
        import signal
        import termios

        termios.tcsetattr(0, termios.TCSANOW, self.saved)
        os.kill(os.getpid(), signal.SIGSTOP)
        termios.tcsetattr(0, termios.TCSANOW, self.changed)

    def key(self, seconds: float) -> str:
        """The next key within that time, else ""; "q" where the terminal hangs up."""
        ready, _, _ = select.select([0, self.woken], [], [], seconds)
        if self.woken in ready:
            os.read(self.woken, 64)
        if 0 not in ready:
            return ""
        try:
            return os.read(0, 1).decode(errors="replace") or "q"
        except OSError:
            return "q"


def _leave(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def run(args: Args) -> int:
    if args.json and not args.batch:
        raise UsageError("--json goes with -b")
    letter, reverse = args.sort, args.reverse
    pause = args.delay if args.delay is not None else 300.0 if args.batch else 3.0
    if args.json and not os.isatty(0):
        while True:
            show(ordered(gather(args.lxcpaths), letter, reverse=reverse), args)
            time.sleep(pause)
    if not os.isatty(0):
        hint = "lxcpy-info shows one container, also in a script, lxcpy-top -b --json all"
        raise UsageError("stdin is not a tty", hint=hint)
    if args.batch and not args.json:
        sys.stdout.write(f"{BATCH_HEAD}\n")
    try:
        watch(args, letter, pause, reverse=reverse)
    except KeyboardInterrupt:
        pass  # how one leaves, as with lxc-top
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    try:
        sys.stdout.write("" if args.json else "\n")
        sys.stdout.flush()
    except OSError:  # EIO: the terminal has hung up; what is left to write is for nobody
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def watch(args: Args, letter: str, pause: float, *, reverse: bool) -> None:
    """Show the table again and again until q."""
    with Screen() as screen:
        while True:
            rows = ordered(gather(args.lxcpaths), letter, reverse=reverse)
            show(rows, args)
            key = screen.key(pause)
            if key == "q":
                return
            if key == "r" or key == letter:
                reverse = not reverse
            elif key in SORTS:
                letter, reverse = key, False


def show(rows: list[Row], args: Args) -> None:
    """Write the table anew, or a line a container."""
    if args.json:
        sys.stdout.write(as_json(rows, time.time()))
    elif args.batch:
        sys.stdout.write("".join(f"{line}\n" for line in batch(rows, time.time())))
    else:
        columns, height = os.get_terminal_size(1) if os.isatty(1) else (0, 0)
        lines = display(rows, columns=columns or 1 << 10, lines=height or 25)  # a new pty has no size
        sys.stdout.write("\033[H" + "\033[K\n".join(lines) + "\033[K\033[J")
    sys.stdout.flush()
