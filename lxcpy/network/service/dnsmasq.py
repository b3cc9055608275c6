"""dnsmasq: the bridge's DHCP and DNS, and router advertisements."""

from __future__ import annotations

import os
import pwd
import select
import signal
from collections.abc import Iterable

from lxcpy import paths
from lxcpy.network.service.settings import Settings

USERS = ("lxc-dnsmasq", "dnsmasq", "nobody")
LEASES = "/var/lib/misc"
LXC_PID_FILE = "/run/lxc/dnsmasq.pid"  # of lxc-net's own
GRACE = 2.0  # seconds between SIGTERM and SIGKILL


def pid_file() -> str:
    """Where our dnsmasq writes its process id."""
    return os.path.join(paths.run_dir(), "dnsmasq.pid")


def lease_file(settings: Settings) -> str:
    """lxc-net's place, so that leases outlive a change from one to the other."""
    return f"{LEASES}/dnsmasq.{settings.bridge}.leases"


def user(names: Iterable[str] = USERS) -> str:
    """The first of these users that exists; the last if none does."""
    last = "nobody"
    for last in names:
        try:
            pwd.getpwnam(last)
        except KeyError:
            continue
        return last
    return last


def command(settings: Settings, *, ipv6: bool, user: str, pid_file: str) -> list[str]:
    """The command line, as lxc-net's. ipv6: advertise the bridge's network."""
    words = ["dnsmasq", f"--conf-file={settings.dhcp_confile or '/dev/null'}"]
    if settings.domain:
        words += ["-s", settings.domain, "-S", f"/{settings.domain}/"]
    if not settings.dhcp_ping:
        words.append("--no-ping")
    words += ["-u", user, "--strict-order", "--bind-interfaces", f"--pid-file={pid_file}"]
    words += ["--listen-address", settings.addr, "--dhcp-range", settings.dhcp_range]
    words += [f"--dhcp-lease-max={settings.dhcp_max}", "--dhcp-no-override", "--except-interface=lo"]
    words += [f"--interface={settings.bridge}", f"--dhcp-leasefile={lease_file(settings)}", "--dhcp-authoritative"]
    if ipv6:
        words += [f"--dhcp-range={settings.ipv6_addr},ra-only", "--listen-address", settings.ipv6_addr]
    return words


def running(pid_file: str) -> int | None:
    """The pid of the dnsmasq that wrote this file, None if it does not run."""
    try:
        with open(pid_file) as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except (OSError, ValueError):
        return None
    own = f"--pid-file={pid_file}".encode()
    return pid if os.path.basename(words[0]) == b"dnsmasq" and own in words else None


def stop(pid_file: str) -> None:
    """End it and wait until it is gone; by SIGKILL when it takes its time. Raises OSError."""
    pid = running(pid_file)
    if pid is not None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            descriptor = -1
        if descriptor >= 0:
            try:
                if running(pid_file) == pid:  # the descriptor is of the process that was asked about
                    _end(descriptor)
            finally:
                os.close(descriptor)
    try:
        os.unlink(pid_file)
    except FileNotFoundError:
        pass


def _end(descriptor: int) -> None:
    for number, wait in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        try:
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return
        if select.select([descriptor], [], [], wait)[0]:
            return


def leases(settings: Settings) -> int:
    """How many leases are written down."""
    try:
        with open(lease_file(settings), errors="replace") as file:
            return sum(1 for line in file if not line.startswith("duid"))
    except OSError:
        return 0
