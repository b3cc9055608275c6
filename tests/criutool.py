"""A criu that suits the kernel: the machine's own, or Debian stable's out of the host's mirror, with its own libraries.

The kernel's vDSO changes, and a criu that is older than that refuses to work: Debian 12's does on Linux 6.13 and later.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lxcpy.bootstrap import hostapt, keyring, machine, plan, release, template
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.download import Client, Mirrors
from lxcpy.bootstrap.progress import Silent
from lxcpy.errors import BootstrapError, LxcpyError

WRAPPER = """\
#!/bin/sh
exec {tree}/lib64/ld-linux-x86-64.so.2 --library-path {tree}/usr/lib/x86_64-linux-gnu {tree}/usr/sbin/criu "$@"
"""


def folder() -> str:
    """What to put first in PATH. Skips the test where there is no criu that works."""
    found = _find()
    if found.startswith("/"):
        return found
    pytest.skip(f"no criu that suits this kernel: {found}")


@functools.cache
def _find() -> str:
    """The folder, or why there is none."""
    if named := os.environ.get("LXCPY_TEST_CRIU"):
        return named
    problems = []
    own = shutil.which("criu", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if own:
        if (reason := _check(own)) is None:
            return os.path.dirname(own)
        problems.append(f"the machine's own says {reason}")
    place = Path(os.environ["LXCPY_CACHE_DIR"], "criu")
    if not place.exists():
        try:
            _fetch(place)
        except (LxcpyError, OSError, subprocess.CalledProcessError) as error:
            return "; ".join([*problems, str(error)])
    if reason := _check(str(place / "bin/criu")):
        return "; ".join([*problems, f"{reason}, out of the mirror"])
    return str(place / "bin")


def _check(program: str) -> str | None:
    """Why it does not work here."""
    done = subprocess.run([program, "check"], capture_output=True, text=True, check=False)
    said = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
    return said if done.returncode else None


def _fetch(place: Path) -> None:
    """It and its libraries, out of the mirror that the host has its own packages from. Raises LxcpyError."""
    if machine.host_arch() != "amd64":
        raise BootstrapError("that of Debian stable is fetched for amd64 alone")
    debian = template.find("debian")
    names = debian.pairs("suites")
    bases = [source.uri for source in hostapt.sources() if source.suite in {*names, *names.values()}]
    if not bases:
        raise BootstrapError("the host has no source of Debian, from which to fetch one")
    suite = names["stable"]
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as work:
        store, client = Store(f"{work}/cache"), Client()
        try:
            mirrors = Mirrors(client, bases[:1])
            trust = release.Trust(tuple(keyring.find(debian.words("keyrings"))))
            found = plan.Repository(mirrors, suite, release.fetch(mirrors, suite, trust), ("main",))
            wish = plan.Wish("amd64", packages=("criu",))
            items = [
                item for item in plan.make([found], wish, store, Silent()).items
                if item.name == "criu" or item.name.startswith("lib")
            ]  # fmt: skip
            with ThreadPoolExecutor(4) as pool:
                jobs = [
                    pool.submit(store.fetch, mirrors, [item.filename], item.expected, lambda *_: None) for item in items
                ]
                for job in jobs:
                    job.result()
        finally:
            client.close()
        tree = f"{work}/made/tree"
        os.makedirs(tree)
        for item in items:
            subprocess.run(["dpkg-deb", "-x", str(store.place(item.sha256)), tree], check=True)
        if not os.path.lexists(f"{tree}/lib64"):
            os.symlink("usr/lib64", f"{tree}/lib64")
        os.mkdir(f"{work}/made/bin")
        wrapper = Path(work, "made/bin/criu")
        wrapper.write_text(WRAPPER.format(tree=place / "tree"))
        wrapper.chmod(0o755)
        os.rename(f"{work}/made", place)
