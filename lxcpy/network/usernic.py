"""An ordinary user's veth: LXC's setuid helper lxc-user-nic makes it, within what /etc/lxc/lxc-usernet grants.

It draws the host end's name itself, raises it and puts it on the bridge, and gives the other end its name in the
container. Both die with the container's namespace; it takes the nic from its own list at the user's next one.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import Any

from lxcpy.config.model import Nic
from lxcpy.errors import NetworkError, Origin, meaning
from lxcpy.network.steps import Step
from lxcpy.network.wire import Wire

HELPERS = ("/usr/libexec/lxc/lxc-user-nic", "/usr/lib/x86_64-linux-gnu/lxc/lxc-user-nic", "/usr/lib/lxc/lxc-user-nic")
USERS_HAVE = "an ordinary user's have type = veth on a bridge, empty or none"
USERNET = "/etc/lxc/lxc-usernet"


def helper() -> str | None:
    """Where lxc-user-nic is installed; None: it is not."""
    return next((path for path in HELPERS if os.access(path, os.X_OK)), None)


def grants(link: str) -> int:
    """How many veths on a bridge lxc-usernet(5) grants the caller, by name or by @group."""
    import grp
    import pwd

    try:
        with open(USERNET, errors="replace") as file:
            rows = [line.partition("#")[0].split() for line in file]
        names = {pwd.getpwuid(os.geteuid()).pw_name}
        names |= {f"@{entry.gr_name}" for entry in grp.getgrall() if names & set(entry.gr_mem)}
    except (OSError, KeyError):
        return 0
    return sum(int(row[3]) for row in rows if len(row) == 4 and row[0] in names and row[1:3] == ["veth", link]
               and row[3].isdigit())  # fmt: skip


def unfit(nic: Nic) -> str | None:
    """What an ordinary user's container cannot have of this interface; None: nothing."""
    if nic.type not in ("veth", "empty"):
        return f"type = {nic.type}"
    veth = nic.veth
    asked = (
        ("veth.mode", veth.mode == "router"), ("veth.vlan.id", veth.vlan_id is not None),
        ("veth.vlan.tagged.id", veth.vlan_tagged_id), ("veth.ipv4.route", veth.ipv4_route),
        ("veth.ipv6.route", veth.ipv6_route), ("l2proxy", nic.l2proxy),
    )  # fmt: skip
    return next((key for key, wanted in asked if wanted), None)


@dataclass(frozen=True)
class UserVeth(Step):
    """A pair, made by the helper. link: the bridge; none: `none`, which lxc-usernet may grant as well."""

    lxcpath: str
    container: str
    link: str
    name: str
    switch: bool = False  # an Open vSwitch bridge, which keeps the port of a veth that is gone

    def apply(self, wire: Wire) -> None:
        words = self._run("create", str(wire.pid), self.link, self.name)
        name, _, rest = words.strip().partition(":")
        _index, _, rest = rest.partition(":")
        host, _, _host_index = rest.partition(":")
        if name != self.name or not host:
            raise NetworkError(f'lxc-user-nic gave an answer that makes no sense: "{words.strip()}"', at=self.at)
        wire.learn(self.name, host)

    def undo(self) -> dict[str, Any] | None:
        if not self.switch:
            return None
        words = {"lxcpath": self.lxcpath, "container": self.container, "link": self.link, "name": self.name}
        return {"do": "usernic", **words}

    def __str__(self) -> str:
        return f"veth on {self.link} to {self.name} in the container, by lxc-user-nic"

    def _run(self, verb: str, *words: str) -> str:
        program = helper()
        if program is None:
            raise NetworkError(
                f"the veth {self.name} needs lxc-user-nic, which is not installed", at=self.at,
                hint="install lxc, or use lxc.net.[i].type = empty",
            )  # fmt: skip
        return run(program, verb, self.lxcpath, self.container, words[0], "veth", *words[1:], at=self.at)


def run(program: str, *words: str, at: Origin | None = None) -> str:
    """What the helper answers. Raises NetworkError with its words."""
    try:
        done = subprocess.run([program, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError as error:
        raise NetworkError(f'cannot run "{program}": {meaning(error)}', at=at) from error
    if done.returncode == 0:
        return done.stdout
    said = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    # its own log lines begin with place and function: `cmd/lxc_user_nic.c: 1183: main: Quota reached`
    said = [line.rpartition(": ")[2] if line.startswith(("cmd/", "../", "lxc_user_nic.c")) else line for line in said]
    raise NetworkError(
        f"lxc-user-nic refused the veth on {words[5]}: {'; '.join(said) or f'exit status {done.returncode}'}",
        at=at,
        hint=f'root grants it in {USERNET}: "USER veth {words[5]} NUMBER", the number of all running ones together',
    )
