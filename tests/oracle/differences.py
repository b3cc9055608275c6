"""Where our config means to differ from LXC's, each with its reason.

The oracle test compares acceptance and canonical value of everything it tries with real LXC 5.0.2. What differs must be
covered by exactly these rows, and a row that nothing shows is an error too: the list is neither too short nor too long.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple


class Case(NamedTuple):
    """One operation with two answers."""

    operation: str  # set, get, clear
    key: str
    value: str  # of a set
    ours: list[Any]  # ["ok", VALUE] or ["error"]
    theirs: list[Any]


class Difference(NamedTuple):
    """One intended difference."""

    name: str
    keys: str  # a regular expression
    shows: Callable[[Case], bool]
    reason: str


def _we_refuse(case: Case) -> bool:
    return case.operation == "set" and case.ours == ["error"] and case.theirs[0] == "ok"


def _we_accept(case: Case) -> bool:
    return case.operation == "set" and case.ours[0] == "ok" and case.theirs == ["error"]


def _both_show(ours: Callable[[str], bool], theirs: Callable[[str], bool] = lambda _: True) -> Callable[[Case], bool]:
    def shows(case: Case) -> bool:
        return (case.operation == "get" and case.ours[0] == case.theirs[0] == "ok" and ours(case.ours[1])
                and theirs(case.theirs[1]))  # fmt: skip

    return shows


def _same_as_c_int(case: Case) -> bool:
    """The same numbers, LXC's through a C int."""
    if case.operation != "get" or case.ours[0] != "ok" or case.theirs[0] != "ok":
        return False
    ours = [int(n) for n in re.findall(r"-?\d+", case.ours[1])]
    theirs = [int(n) for n in re.findall(r"-?\d+", case.theirs[1])]
    return [(n + 2**31) % 2**32 - 2**31 for n in ours] == theirs


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*\+?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)", text, re.A) is not None


DIFFERENCES = (
    # -- what LXC accepts and we refuse: mistakes that LXC takes for something else, or for nothing
    Difference("not a number", r"lxc\.(init\.[ug]id|seccomp\.allow_nesting|hook\.version|autodev\.tmpfs\.size)",
               lambda case: _we_refuse(case) and (not _is_number(case.value) or int(case.value, 0) >= 2**31),
               "LXC reports no error and leaves the old value: a typing error would give init uid 0."),
    Difference("switch", r"lxc\.monitor\.unshare", _we_refuse,
               "A switch is 0 or 1; LXC checks that for its other switches."),
    Difference("signal number", r"lxc\.(signal\..*|monitor\.signal\.pdeath)", _we_refuse,
               "There are 64 signals; LXC would fail when it sends the signal."),
    Difference("empty range", r"lxc\.idmap", _we_refuse,
               "The kernel refuses a range of no ids, or one beyond the last id, when the container starts."),
    Difference("variable without a name", r"lxc\.environment", _we_refuse,
               "An environment cannot hold it."),
    Difference("nothing shared", r"lxc\.mount\.auto", lambda case: _we_refuse(case) and "shmounts:" in case.value,
               "No directory of the host is named."),
    Difference("unit of a size", r"lxc\.console\.(buffer\.)?size",
               lambda case: _we_refuse(case) or (case.operation == "get" and case.theirs == ["ok", "4096"]),
               "LXC ignores one letter after a number, whatever it is: 64s is 64 bytes."),
    Difference("flags", r"lxc\.net\.\d+\.flags", _we_refuse,
               "LXC takes any word for up, also down."),
    Difference("name of a device", r"lxc\.net\.\d+\.(link|name|veth\.pair)", _we_refuse,
               "The kernel takes 15 bytes without blanks and slashes; LXC cuts the name off and goes on with another."),
    Difference("MAC", r"lxc\.net\.\d+\.hwaddr", _we_refuse,
               "LXC checks it when the interface is made."),
    Difference("MTU", r"lxc\.net\.\d+\.mtu", _we_refuse,
               "LXC checks it when the interface is made."),
    Difference("IPv6 prefix", r"lxc\.net\.\d+\.ipv6\.address", _we_refuse,
               "LXC checks it when the address is set."),
    Difference("limit", r"lxc\.prlimit\..*", _we_refuse,
               "LXC takes nothing for 0, a sign for a huge number, and any name for a resource until the start."),
    Difference("path instead of a name", r"lxc\.(cgroup2?|proc)\..*", _we_refuse,
               "A slash or .. would lead out of the container's own control group or /proc directory."),
    # -- what we accept and LXC refuses
    Difference("emptied", r"lxc\.(arch|mount\.fstab|namespace\.share)",
               lambda case: _we_accept(case) and not case.value,
               "Every key can be emptied; LXC clears the fstab and reports an error all the same."),
    Difference("variable of the caller", r"lxc\.environment", _we_accept,
               "The variable is looked up when the container starts, in the environment of who starts it."),
    Difference("capability by number", r"lxc\.cap\.(drop|keep)", _we_accept,
               "A file for another kernel loads; the number is compared with the kernel's when the container starts."),
    Difference("negative time", r"lxc\.time\.offset\..*", _we_accept,
               "LXC 7 accepts it; LXC 5 takes a negative product for an overflow. Blanks before ms are accepted too."),
    Difference("blank after a size", r"lxc\.console\.(buffer\.)?size", _we_accept,
               "Blanks around a value do not count in a file either."),
    Difference("newer architecture", r"lxc\.arch", lambda case: _we_accept(case) and case.value in NEWER_ARCHES,
               "LXC 6 and 7 know it."),
    Difference("option with a similar name", r"lxc\.rootfs\.options", _we_accept,
               "LXC looks for its own words inside others, and opens the file of idmap= while it reads the config."),
    # -- what is shown differently
    Difference("numbers beyond a C int", r"lxc\.(start\.delay|init\.(uid|gid|groups))", _same_as_c_int,
               "LXC shows an unsigned number as a signed one."),
    Difference("nothing", r"lxc\.cgroup\.dir(\..*)?|lxc\.net\.\d+\.type|lxc\.namespace\.share\..*",
               _both_show(lambda text: text == "", lambda text: text in ("(null)", "empty")),
               "LXC prints a null pointer, and empty for an interface whose type was never set."),
    Difference("time", r"lxc\.time\.offset\..*",
               lambda case: case.operation == "get" and case.theirs[1].replace(" ", "").rstrip() == case.ours[1],
               "As LXC 7 shows it."),
    Difference("mount point", r"lxc\.rootfs\.mount", _both_show(lambda text: text == "/usr/lib/lxcpy/rootfs"),
               "lxcpy's own default."),
    Difference("size of /dev", r"lxc\.autodev\.tmpfs\.size", _both_show(lambda text: text == "500000",
                                                                        lambda text: text == "0"),
               "LXC 5 shows 0 before the key is cleared once; the default is 500000."),
    Difference("death signal", r"lxc\.monitor\.signal\.pdeath", _both_show(lambda text: text == "0",
                                                                           lambda text: text == "9"),
               "Our containers outlive their supervisor, so no signal is the default."),
    Difference("automatic mounts", r"lxc\.mount\.auto",
               _both_show(lambda text: "cgroup" in text or "shmounts" in text),
               "LXC shows neither cgroup2, nor :force, nor shmounts."),
    Difference("notification socket", r"lxc\.seccomp\.notify\.proxy", _both_show(lambda text: text[:5] == "unix:"),
               "LXC takes unix: and @ off; what we show can be set again."),
    Difference("the other capability list", r"lxc\.cap\.(drop|keep)",
               _both_show(lambda text: text == "", lambda text: text != ""),
               "LXC 5 shows one list under both names; LXC 7 does not."),
    Difference("random MAC", r"lxc\.net\.\d+\.hwaddr", _both_show(lambda text: "x" in text.lower()),
               "Digits are drawn when the container is created or started, so that reading a config changes nothing."),
    Difference("class of an address", r"lxc\.net\.\d+\.ipv4\.address",
               lambda case: case.operation == "get" and re.sub(r"/\d+", "", case.ours[1]) == re.sub(
                   r"/\d+", "", case.theirs[1]),
               "LXC judges the class by the last byte instead of the first."),
    Difference("spelling of an MTU", r"lxc\.net\.\d+\.mtu",
               lambda case: case.operation == "get" and int(case.theirs[1], 0 if case.theirs[1].strip("+ ")[:1] != "0"
                                                            or "x" in case.theirs[1].lower() else 8)
               == int(case.ours[1]),
               "A number is shown as a decimal number."),
    Difference("matching devices", r"lxc\.net\.\d+\.link", _both_show(lambda text: text[-1:] == "+"),
               "Reading a config does not look at the machine's devices."),
    Difference("mode without a value", r"lxc\.net\.\d+\.(veth|macvlan|ipvlan)\.(mode|isolation)",
               _both_show(lambda text: text in ("bridge", "private", "l3"), lambda text: text in ("(invalid)", "l2")),
               "Emptied, the default holds; LXC is left with an invalid mode."),
    Difference("VLAN of a port", r"lxc\.net\.\d+\.veth\.vlan\.id",
               _both_show(lambda text: text in ("", "none"), lambda text: text in ("0", "-1")),
               "As LXC 7 shows none at all; none is shown as none, which can be set again."),
    Difference("gateway", r"lxc\.net\.\d+\.ipv[46]\.gateway", _both_show(lambda text: text not in ("auto", "dev"),
                                                                         lambda text: text in ("auto", "dev")),
               "LXC does not forget auto and dev when the key is cleared or gets another value."),
    Difference("ttys", r"lxc\.tty\.max", _both_show(lambda text: text == "0"),
               "LXC forgets to clear the number."),
    Difference("interface without a type", r"lxc\.net", _both_show(lambda text: "(none)" in text),
               "LXC calls it invalid."),
    Difference("loopback", r"lxc\.net\.\d+\.name", _both_show(lambda text: text == "", lambda text: text == "lo"),
               "LXC notes the loopback's name for type empty."),
    Difference("bare prefix", r"lxc\.namespace\.share",
               lambda case: case.operation in ("get", "clear") and case.theirs == ["error"],
               "As for the other keys with sub-keys."),
    Difference("proc file twice", r"lxc\.proc(\..*)?", _both_show(lambda _: True),
               "The last value counts; LXC writes the file twice and shows both values as one."),
)  # fmt: skip
NEWER_ARCHES = ("x32", "loongarch64", "loong64")


def difference(case: Case) -> Difference | None:
    """The intended difference that a case shows."""
    for row in DIFFERENCES:
        if re.fullmatch(row.keys, case.key) and row.shows(case):
            return row
    return None
