"""The second stage of a system that this machine cannot run: a script in its root that finishes it elsewhere.

It does what is done here otherwise: preinst scripts, `dpkg --configure -a`, the template's scripts; then it goes. A
machine of the architecture, or a program such as qemu that stands in for one, runs it inside the root file system.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from lxcpy.bootstrap import chroot, dpkgdb
from lxcpy.kernel.fd import exists_in_root, read_in_root, write_in_root

PATH = "lxcpy-second-stage"
_BEGIN = """#!/bin/sh
# Run this inside the system on a machine that can: chroot ROOTFS /{path}
set -e
cd /
umask 022
export {environment}
mounted=
if ! [ -e /proc/self/exe ]; then mount -t proc proc /proc && mounted=1; fi
trap '[ "$mounted" ] && umount /proc || true' EXIT

preinst() # PACKAGE VERSION ARCHITECTURE STEM
{{
    rm -rf /{admin}/tmp.ci
    mkdir /{admin}/tmp.ci
    echo "Package: $1" >/{admin}/tmp.ci/control # debconf reads it
    for part in preinst config templates; do
        if [ -e "/{admin}/info/$4.$part" ]; then cp -p "/{admin}/info/$4.$part" /{admin}/tmp.ci/$part; fi
    done
    DPKG_MAINTSCRIPT_PACKAGE=$1 DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 DPKG_MAINTSCRIPT_ARCH=$3 \\
        DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_DEBUG=0 DPKG_ADMINDIR=/{admin} DPKG_ROOT= \\
        DPKG_RUNNING_VERSION=$2 /{admin}/tmp.ci/preinst install
    rm -rf /{admin}/tmp.ci
}}
"""
_END = f"""
rm -f /usr/sbin/policy-rc.d /{PATH}
echo "the second stage is done"
"""


def begin(
    root: int, dpkg: str, preinsts: Sequence[Mapping[str, Any]], stages: Sequence[Sequence[str]]
) -> None:
    """Write the script as far as dpkg is concerned. Raises OSError.

    dpkg: its version. preinsts: name, arch and stem of the packages whose preinst does something, in order. stages:
    the packages to be configured before the others.
    """
    environment = " ".join(f"{name}={shlex.quote(value)}" for name, value in chroot.ENVIRONMENT.items())
    lines = [_BEGIN.format(path=PATH, environment=environment, admin=dpkgdb.ADMIN)]
    lines += [shlex.join(["preinst", one["name"], dpkg, one["arch"], one["stem"]]) for one in preinsts]
    lines += [*(shlex.join(["dpkg", "--configure", *names]) for names in stages if names), "dpkg --configure -a", ""]
    write_in_root(root, PATH, "\n".join(lines).encode(errors="surrogateescape"), 0o700)


def add(root: int, text: str) -> None:
    """Let the script run one more script of its own process. Raises OSError."""
    before = read_in_root(root, PATH)
    part = f"\nsh -s <<'LXCPY-END'\n{text.rstrip()}\nLXCPY-END\n"
    write_in_root(root, PATH, before + part.encode(errors="surrogateescape"), 0o700)


def end(root: int) -> None:
    """Let the script clean up at its end. Raises OSError."""
    if exists_in_root(root, PATH):
        write_in_root(root, PATH, read_in_root(root, PATH) + _END.encode(), 0o700)
