"""The session's own directories, the commands of this checkout, and the proof that nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import criutool
import hypothesis
import leaks
import probes
import pytest
from debfixtures import archive, cache, key, server  # noqa: F401  # for every file
from session import BASE, RUN_DIR, TOKEN

from lxcpy import paths

ROOT = Path(__file__).parent.parent
WATCH = leaks.Watch(token=TOKEN, folders=(RUN_DIR, BASE), machine=os.environ.get("LXCPY_LEAKS") == "machine")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure(config: pytest.Config) -> None:
    os.makedirs(paths.ROOTFS_MOUNT, exist_ok=True)  # the installer's
    # a run that decides something looks at the same examples each time; elsewhere each run looks at new ones
    hypothesis.settings.register_profile("ci", derandomize=True)
    if os.environ.get("CI"):
        hypothesis.settings.load_profile("ci")
    config.addinivalue_line("markers", "requires(*words): what the test needs of the machine (tests/probes.py)")


def pytest_collection_finish() -> None:
    # thousands of tests would else be gone through at each full collection of garbage: 0.1 s after each test
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    # attach ignores these, in-process too; what is ignored at an exec stays so in the next test's child
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    for marker in item.iter_markers("requires"):
        for word in marker.args:
            reason = probes.missing(word)
            if reason and probes.must_run(word):
                pytest.fail(f"needs {word}: {reason}", pytrace=False)
            if reason:
                pytest.skip(f"needs {word}: {reason}")


@pytest.fixture(scope="session")
def bin() -> str:
    """A directory with the commands of this checkout, as the installer makes them."""
    from lxcpy.cli import launcher

    packages = [str(ROOT), sysconfig.get_path("purelib")]
    launcher.install(f"{BASE}/bin", python=sys.executable, packages=packages)
    return f"{BASE}/bin"


@pytest.fixture(scope="session")
def run(bin: str) -> Run:
    """`run("start", "-n", name)`: run lxcpy-start to its end; text of both outputs, no terminal, no input."""

    def call(command: str, *words: str, timeout: float = 120, **options: object) -> subprocess.CompletedProcess[str]:
        argv = [f"{bin}/lxcpy-{command}" if command else f"{bin}/lxcpy", *words]
        settings: dict[str, object] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "timeout": timeout,
            **options,
        }
        return subprocess.run(argv, **settings)  # type: ignore[call-overload,no-any-return]

    return call


@pytest.fixture
def lxcpath(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A directory for containers, gone with everything in it after the test."""
    folder = tempfile.mkdtemp(prefix="lxc-", dir=BASE)
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def criu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A criu that works here, first in PATH."""
    monkeypatch.setenv("PATH", f"{criutool.folder()}:{os.environ['PATH']}")


_COUNT = itertools.count(1)


@pytest.fixture
def name() -> str:
    """A container's name that no other test has."""
    return f"{TOKEN}-{next(_COUNT)}"


@pytest.fixture
def names() -> Callable[[], str]:
    """As many such names as a test asks for."""
    return lambda: f"{TOKEN}-{next(_COUNT)}"


def _is_supervisor(item: str) -> bool:
    return "supervisor" in item


def _between_tests(kind: str, item: str) -> bool:
    """What may stay between two tests: the warm supervisor, its files, the compiled filters and the profiles' place."""
    if kind == "cgroups":
        return item.endswith("/lxcpy.supervisor")
    if kind not in ("processes", "files"):
        return False
    return _is_supervisor(item) or f"{RUN_DIR}/filters" in item or item == f"{RUN_DIR}/apparmor"


def _descriptors() -> dict[str, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            pass  # the listing's own
    return found


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each lifecycle or oracle test, the machine is what it was before."""
    if not {"lifecycle", "oracle"} & set(request.node.path.parts):
        yield
        return
    before, descriptors = WATCH.snapshot(), _descriptors()
    yield
    extra = leaks.new(before, WATCH, ignore=_between_tests)
    gc.collect()
    opened = {f"{fd} {target}" for fd, target in _descriptors().items() if fd not in descriptors}
    if opened:
        extra["descriptors"] = opened
    if extra:
        pytest.fail(leaks.describe(extra), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_at_the_end() -> Iterator[None]:
    """After the session the supervisor goes, and the machine is what it was before."""
    os.makedirs(RUN_DIR, exist_ok=True)
    before = WATCH.snapshot()
    yield
    _end_supervisors()
    # a supervisor of another run directory leaves when it has been idle for half a minute
    kept = lambda kind, item: kind == "files" and _between_tests(kind, item)  # noqa: E731
    extra = leaks.new(before, WATCH, ignore=kept, patience=60)
    if not any("mounts" in kind or "processes" in kind for kind in extra):
        shutil.rmtree(BASE, ignore_errors=True)
    if extra:
        pytest.fail(leaks.describe(extra), pytrace=False)


def _end_supervisors() -> None:
    """Ask the supervisors that this session's tests brought up to leave."""
    for item in WATCH.snapshot()["processes"]:
        if _is_supervisor(item):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(item.split()[0]), signal.SIGTERM)
    deadline = time.monotonic() + 10
    while any(map(_is_supervisor, WATCH.snapshot()["processes"])) and time.monotonic() < deadline:
        time.sleep(0.05)
