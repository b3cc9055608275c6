"""Packages on their way from the mirror into the target: fetched by threads, unpacked by processes, both at once."""

from __future__ import annotations

import errno
import heapq
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lxcpy.bootstrap import download
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.download import Expected
from lxcpy.bootstrap.plan import STAGES, Item, Plan, Repository
from lxcpy.bootstrap.progress import Progress
from lxcpy.bootstrap.workers import Damaged, Worker
from lxcpy.errors import BootstrapError

FETCHERS = 6  # connections; a mirror answers in about a millisecond, so more gain nothing
_T = TypeVar("_T")


class Unpacking:
    """The whole movement: `start`, `wait` for each stage in turn, `close`.

    Packages of later stages are fetched and decompressed meanwhile, but nothing of them is in the target before they
    are waited for: a maintainer script that finds half of systemd there takes it for a working one.

    `found` maps a package's name to what the unpacker learnt of it.
    """

    def __init__(
        self,
        plan: Plan,
        repositories: Sequence[Repository],
        store: Store,
        workers: Sequence[Worker],
        progress: Progress,
        target: str,
        *,
        ordered: bool = False,
    ) -> None:
        """ordered: packages are unpacked in the order of their names by the one worker, whichever came first."""
        self.plan = plan
        self.target = target
        self.repositories = repositories
        self.store = store
        self.workers = workers
        self.progress = progress
        self.found: dict[str, dict[str, Any]] = {}
        self._left = {stage: len(plan.stage(stage)) for stage in STAGES}
        self._change = threading.Condition()
        self._error: BaseException | None = None
        # Largest first, so that no worker is left with a large one at the end.
        self._wanted = sorted(plan.items, key=lambda item: (item.stage, item.name if ordered else -item.size))
        self._ordered = ordered
        self._ready: list[tuple[int, Item]] = []  # a heap: (place in _wanted, a package that arrived)
        self._taken = 0
        self._open = STAGES[0]  # what is of this stage or an earlier one may be in the target
        self._threads: list[threading.Thread] = []
        self._stopped = False

    def start(self) -> None:
        """Begin. The package that knows the system's users is unpacked before all others, as dpkg would need it."""
        missing = [item for item in self._wanted if not self.store.holds(item.expected)]
        _check_reachable([item for item in missing if self.repositories[item.repository].mirrors.offline])
        if missing:
            self.progress.start("download", total=sum(item.size for item in missing), unit="bytes")
        self.progress.start("unpack", total=len(self._wanted), unit="packages")
        self._missing = len(missing)
        users = next((item for item in self._wanted if item.name == "base-passwd"), None)
        if users is not None:
            self._fetch(users)
            self._unpack(self.workers[0], users)
            self._wanted.remove(users)
        pending: queue.SimpleQueue[tuple[int, Item]] = queue.SimpleQueue()
        for place_and_item in enumerate(self._wanted):
            pending.put(place_and_item)
        for _ in range(min(FETCHERS, len(self._wanted))):
            self._run(self._fetcher, pending)
        for worker in self.workers:
            self._run(self._unpacker, worker)

    def wait(self, stage: int) -> None:
        """Let a stage into the target, until all of it is unpacked. Raises the first failure of any thread."""
        with self._change:
            self._open = stage
            self._change.notify_all()
            self._change.wait_for(lambda: self._error is not None or not self._left[stage])
        self.check(0)

    def check(self, seconds: float) -> None:
        """Raises the first failure of any thread, if there is one or comes in time while packages are left."""
        with self._change:
            self._change.wait_for(lambda: self._error is not None or not any(self._left.values()), seconds)
            if self._error is not None:
                raise self._error

    def close(self) -> None:
        """Stop the threads; the processes are the caller's."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        for repository in self.repositories:
            if self._error is not None or any(self._left.values()):
                repository.mirrors.client.close()
        for thread in self._threads:
            thread.join(timeout=5)

    def _run(self, task: Callable[[Any], None], argument: Any) -> None:
        def guarded() -> None:
            try:
                task(argument)
            except BaseException as error:
                with self._change:
                    self._error = self._error or error
                    self._change.notify_all()

        thread = threading.Thread(target=guarded, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _fetcher(self, pending: queue.SimpleQueue[tuple[int, Item]]) -> None:
        while not self._stopped and self._error is None:
            try:
                place, item = pending.get_nowait()
            except queue.Empty:
                return
            self._fetch(item)
            with self._change:
                heapq.heappush(self._ready, (place, item))
                self._change.notify_all()

    def _unpacker(self, worker: Worker) -> None:
        held: list[Item] = []
        while (item := self._next(held)) is not None:
            if item.stage <= self._open:
                self._unpack(worker, item)
            else:
                self._work(worker.hold, item)
                held.append(item)

    def _next(self, held: list[Item]) -> Item | None:
        """What a worker is to do next: unpack what it holds and may, or take what arrived; None at the end."""
        with self._change:
            while not self._stopped and self._error is None:
                if (due := next((item for item in held if item.stage <= self._open), None)) is not None:
                    held.remove(due)
                    return due
                if self._ready and (not self._ordered or self._ready[0][0] == self._taken):
                    self._taken += 1
                    return heapq.heappop(self._ready)[1]
                if not held and self._taken == len(self._wanted):
                    return None
                self._change.wait()
        return None

    def _fetch(self, item: Item) -> None:
        mirrors = self.repositories[item.repository].mirrors
        counted = 0

        def show(offset: int, data: bytes) -> None:
            nonlocal counted
            self.progress.advance("download", offset + len(data) - counted)
            counted = offset + len(data)

        fetched = self.store.fetch(mirrors, [item.filename], item.expected, show)
        with self._change:
            if fetched and self._missing:
                self._missing -= 1
                if not self._missing:
                    self.progress.finish("download")

    def _unpack(self, worker: Worker, item: Item) -> None:
        found = self._work(worker.unpack, item)
        _check_identity(item, found)
        self.progress.advance("unpack")
        with self._change:
            self.found[item.name] = found
            self._left[item.stage] -= 1
            if not any(self._left.values()):
                self.progress.finish("unpack")
            self._change.notify_all()

    def _work(self, task: Callable[[Expected], _T], item: Item) -> _T:
        """Let a worker do something with a package. Raises BootstrapError."""
        try:
            try:
                return task(item.expected)
            except Damaged:
                # The cache went bad: fetch it once more.
                self.store.discard(item.sha256)
                self._fetch(item)
                return task(item.expected)
        except Damaged as error:
            raise BootstrapError(
                f'the cache "{self.store.directory}" does not keep what is written to it: {error}',
                hint="check the disk and its free space",
            ) from error
        except BootstrapError as error:
            raise BootstrapError(f"{item.name}: {error.what}", hint=error.hint) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise download.full_disk(error, self.target) from error
            raise BootstrapError(f"{item.name}: cannot be unpacked: {error}") from error


def _check_reachable(lost: Sequence[Item]) -> None:
    """Raises BootstrapError that names the packages which are not there and may not be fetched."""
    if lost:
        names = ", ".join(sorted(f"{item.name} {item.version}" for item in lost))
        raise BootstrapError(
            f"--offline fetches nothing, and {len(lost)} packages are not in the cache: {names}",
            hint="make the same once without --offline",
        )


def _check_identity(item: Item, found: dict[str, Any]) -> None:
    """That the package inside the file is the one that the index promised. Raises BootstrapError."""
    lines = found["control"].split("\n")
    for field, wanted in (("Package", item.name), ("Version", item.version), ("Architecture", item.arch)):
        if f"{field}: {wanted}" not in lines:
            raise BootstrapError(f"{item.filename}: the package inside is not {item.name} {item.version} ({item.arch})")
