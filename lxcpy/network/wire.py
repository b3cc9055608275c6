"""The words between the steps and the kernel: constants, the Wire that steps act through, and a script to run."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from errno import EEXIST
from typing import Any, Protocol

from lxcpy.errors import NetworkError, Origin, meaning

Attr = tuple[str, Any]

RTM_NEWLINK, RTM_DELLINK, RTM_SETLINK = 16, 17, 19
RTM_NEWADDR, RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWNEIGH, RTM_DELNEIGH = 20, 24, 25, 28, 29
RTM_NEWLINKPROP, RTM_DELLINKPROP = 108, 109
REQUEST = 0x1 | 0x4  # NLM_F_REQUEST | NLM_F_ACK
CREATE = REQUEST | 0x200 | 0x400  # NLM_F_EXCL | NLM_F_CREATE
AF_BRIDGE, AF_INET, AF_INET6 = 7, 2, 10
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
FADING = 1.0  # seconds


@dataclass(frozen=True)
class Script:
    """A script.up or script.down, for the runtime's hooks to run on the host."""

    command: str
    hook: str  # up, down
    type: str
    parent: str | None = None  # the link
    peer: str | None = None  # the veth's host end
    origin: Origin | None = field(default=None, compare=False)

    @property
    def arguments(self) -> list[str]:
        """What follows `NAME net up|down` on a version 0 command line."""
        return [word for word in (self.type, self.parent, self.peer) if word]

    @property
    def environment(self) -> dict[str, str]:
        """What version 1 sets for the section net."""
        values = {"LXC_NET_TYPE": self.type}
        if self.parent:
            values["LXC_NET_PARENT"] = self.parent
        if self.peer:
            values["LXC_NET_PEER"] = self.peer
        return values

    def __str__(self) -> str:
        return f"run {self.command} (net {self.hook} {' '.join(self.arguments)})"


class Wire(Protocol):
    """What a step acts through."""

    host: socket.socket  # of the namespace the links are made in
    netns: int  # descriptor of the container's network namespace
    pid: int  # a process in it, for tools that take no descriptor

    def link(
        self,
        command: int,
        flags: int,
        attrs: Sequence[Attr],
        *,
        index: int = 0,
        up: bool | None = None,
        family: int = 0,
    ) -> bytes: ...
    def address(self, index: int, address: str, length: int, broadcast: str | None) -> bytes: ...
    def route(
        self, command: int, index: int, *, family: int, to: str | None = None, length: int = 0, via: str | None = None,
        scope: int = RT_SCOPE_UNIVERSE,
    ) -> bytes: ...  # fmt: skip
    def neighbour(self, command: int, index: int, address: str) -> bytes: ...
    def send(self, *messages: bytes) -> None: ...
    def host_index(self, name: str) -> int: ...
    def container_index(self, name: str) -> int: ...
    def learn(self, name: str, host: str) -> None: ...
    def write_sysctl(self, path: str, value: str) -> None: ...
    def run(self, script: Script) -> None: ...


def family_of(address: str) -> int:
    """AF_INET6 for text with a colon, else AF_INET."""
    return AF_INET6 if ":" in address else AF_INET


def send_patiently(wire: Wire, message: bytes) -> None:
    """Send; where the thing exists, give it a moment: a predecessor's veth and routes die a little after it has."""
    deadline = time.monotonic() + FADING
    while True:
        try:
            return wire.send(message)
        except OSError as error:
            if error.errno != EEXIST or time.monotonic() > deadline:
                raise
        time.sleep(0.005)


def info(kind: str, data: Sequence[Attr] = ()) -> Attr:
    """The IFLA_LINKINFO of a new link."""
    attrs: list[Attr] = [("IFLA_INFO_KIND", kind)]
    if data:
        attrs.append(("IFLA_INFO_DATA", {"attrs": list(data)}))
    return "IFLA_LINKINFO", {"attrs": attrs}


def run_tool(*command: str, at: Origin | None = None, data: str = "") -> str:
    """Run a tool of the host, `data` on its standard input; returns its output. Raises NetworkError with its words."""
    try:
        done = subprocess.run(command, input=data, capture_output=True, text=True)
    except OSError as error:
        raise NetworkError(f'cannot run "{" ".join(command)}": {meaning(error)}', at=at) from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        raise NetworkError(f'"{" ".join(command)}" failed: {words}', at=at)
    return done.stdout
