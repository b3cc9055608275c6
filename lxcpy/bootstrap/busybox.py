"""The busybox system: one program, its links, and the files that its init reads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from lxcpy.bootstrap.job import Job
from lxcpy.bootstrap.template import Renderer, Template
from lxcpy.errors import BootstrapError, meaning
from lxcpy.kernel import elf
from lxcpy.kernel.fd import make_dirs_in_root, write_in_root

_DIRECTORIES = (
    "selinux", "dev", "dev/pts", "home", "root", "etc", "bin", "usr/bin", "sbin", "usr/sbin", "proc", "sys", "mnt",
    "tmp", "var/log", "var/run", "lib", "usr/lib", "lib64", "usr/lib64",
)  # fmt: skip
_LIBRARIES = ("lib", "usr/lib", "lib64", "usr/lib64")
_SCRIPT = re.compile(r"-s[ ,].*\(default:? ?/?([^)\s]+)\)|-s.*Run PROG.*?\(default /?([^)\s]+)\)")


def fill(job: Job) -> str:
    """Make the system in the job's tree; the lines for its config. Raises BootstrapError."""
    return make(job.template, job.tree, job.name, job.options.get("busybox-path"), mapped=job.trees.mapped)


def make(template: Template, target: str, name: str, program: str | None = None, *, mapped: bool = False) -> str:
    """Make the system in the empty directory `target`; the lines for its config. Raises BootstrapError."""
    source = program or shutil.which("busybox")
    if source is None:
        raise BootstrapError("there is no busybox in PATH", hint="install busybox-static, or give --busybox-path FILE")
    try:
        applets = _ask(source, "--list").split()
        # A dynamic one lives on the host's libraries, as LXC's template has it.
        libraries = [place for place in _LIBRARIES if os.path.isdir(f"/{place}")] if _is_dynamic(source) else []
        for directory in _DIRECTORIES:
            os.makedirs(os.path.join(target, directory), 0o755, exist_ok=True)
        os.chmod(os.path.join(target, "tmp"), 0o1777)
        shutil.copy(source, os.path.join(target, "bin/busybox"))
        # As in LXC's template: passwd, su and ping are for everybody; busybox drops root for all that need none.
        os.chmod(os.path.join(target, "bin/busybox"), 0o6755)
        for applet in applets:
            if applet not in ("busybox", "init"):
                os.symlink("busybox", os.path.join(target, "bin", applet))
        os.link(os.path.join(target, "bin/busybox"), os.path.join(target, "sbin/init"))
        root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            renderer = Renderer(template, root, {"name": name, "libraries": libraries, "mapped": mapped})
            renderer.lay()
            script = _script_place(source) or template.settings["udhcpc"]
            make_dirs_in_root(root, os.path.dirname(script)).close()
            write_in_root(root, script, renderer.text("udhcpc.j2").encode(), 0o755)
            return renderer.text("config.j2")
        finally:
            os.close(root)
    except (OSError, subprocess.CalledProcessError) as error:
        words = meaning(error) if isinstance(error, OSError) else str(error)
        raise BootstrapError(f'cannot make the busybox system in "{target}": {words}') from error


def _ask(program: str, *words: str) -> str:
    done = subprocess.run([program, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    return done.stdout.decode(errors="replace")


def _script_place(program: str) -> str:
    """Where this busybox's udhcpc looks for its script, as its own help tells; empty if it does not."""
    try:
        found = _SCRIPT.search(_ask(program, "udhcpc", "--help"))
    except (OSError, subprocess.CalledProcessError):
        return ""
    return (found[1] or found[2] or "") if found else ""


def _is_dynamic(path: str) -> bool:
    """Whether a program needs a loader. Raises OSError."""
    with open(path, "rb") as file:
        return bool(elf.interpreter(file.fileno()))
