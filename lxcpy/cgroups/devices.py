"""Device rules: LXC's lines, what two dialects side by side mean, and the program that stands for them on v2.

A v1 host takes the lines as they are, in their order. On v2 there is no devices controller: a BPF program is attached
to the payload group. Its verdict is the v1 controller's: everything is allowed until `deny a`; from then on what later
lines allow; a line that takes back an earlier one changes it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

from lxcpy.cgroups.values import Bad
from lxcpy.errors import CgroupError, Origin, meaning
from lxcpy.kernel import bpf
from lxcpy.kernel.record import NamedTuple

_FORM = "`a`, or TYPE MAJOR:MINOR ACCESS such as c 10:200 rwm or b *:* m, or /dev/PATH ACCESS"


class DeviceRule(NamedTuple):
    """One line of devices.allow or devices.deny; None: any number. Type `a` speaks of every device and access."""

    allow: bool
    type: str  # a b c
    major: int | None
    minor: int | None
    access: str  # of r w m, in this order
    origin: Origin | None = None
    dialect: int = 0

    @property
    def text(self) -> str:
        """The line as the v1 files take it."""
        if self.type == "a":
            return "a"
        major, minor = ("*" if number is None else str(number) for number in (self.major, self.minor))
        return f"{self.type} {major}:{minor} {self.access}"

    @property
    def file(self) -> str:
        """devices.allow or devices.deny."""
        return "devices.allow" if self.allow else "devices.deny"

    def __str__(self) -> str:
        return f"{'allow' if self.allow else 'deny'} {self.text}"


def parse(
    file: str,
    text: str,
    *,
    origin: Origin | None = None,
    dialect: int = 0,
    stats: Callable[[str], os.stat_result] = os.stat,
) -> DeviceRule:
    """The rule of one line. Raises Bad.

    file:  devices.allow or devices.deny.
    stats: looks up the device of the form `/dev/PATH ACCESS`.
    """
    if file not in ("devices.allow", "devices.deny"):
        raise Bad(f'"{file}" takes no rules', "devices.allow or devices.deny")
    words = text.split()
    allow = file == "devices.allow"
    if words and words[0] == "a":
        if words[1:] not in ([], ["*:*"], ["*:*", "rwm"]):
            raise Bad(f'"{text}" is no device rule', "`a` speaks of all devices; for some name b or c")
        return DeviceRule(allow, "a", None, None, "rwm", origin, dialect)
    if len(words) == 2 and words[0].startswith("/"):
        return DeviceRule(allow, *_of_path(words[0], stats), _access(words[1]), origin, dialect)
    if len(words) != 3 or words[0] not in ("b", "c"):
        raise Bad(f'"{text}" is no device rule', _FORM)
    numbers = words[1].split(":")
    if len(numbers) != 2 or not all(number == "*" or number.isdecimal() for number in numbers):
        raise Bad(f'"{words[1]}" is no device number', "MAJOR:MINOR, each a number or *")
    major, minor = (None if number == "*" else int(number) for number in numbers)
    return DeviceRule(allow, words[0], major, minor, _access(words[2]), origin, dialect)


def _access(text: str) -> str:
    if not text or set(text) - set("rwm"):
        raise Bad(f'"{text}" is no access', "some of r (read), w (write), m (mknod)")
    return "".join(letter for letter in "rwm" if letter in text)


def _of_path(path: str, stats: Callable[[str], os.stat_result]) -> tuple[str, int, int]:
    try:
        found = stats(path)
    except OSError as error:
        raise Bad(f'"{path}": {meaning(error)}', "a device that exists on the host, or its number") from error
    kind = "b" if stat.S_ISBLK(found.st_mode) else "c" if stat.S_ISCHR(found.st_mode) else ""
    if not kind:
        raise Bad(f'"{path}" is no device', "a block or character device")
    return kind, os.major(found.st_rdev), os.minor(found.st_rdev)


def joined(rules: Sequence[DeviceRule], own: int) -> tuple[list[DeviceRule], list[DeviceRule]]:
    """(rules in force, rules set aside) where a file carries both dialects and the host speaks `own`.

    Both dialects change the same list, so lines count in the file's order. But where each has a whole policy (a line
    for `a`), as in the presets of LXC 4 and 5, the foreign policy says the same thing again: its lines, which are those
    from its `a` on to the next line of the host's own dialect or the end of the file, are set aside.
    """
    if len({rule.dialect for rule in rules if rule.type == "a"}) < 2:
        return list(rules), []
    used: list[DeviceRule] = []
    aside: list[DeviceRule] = []
    block: str | None = None  # the file of the foreign policy that is being read
    for rule in rules:
        file = rule.origin.file if rule.origin else ""
        if rule.dialect != own and rule.type == "a":
            block = file
        elif rule.dialect == own or file != block:
            block = None
        (used if block is None else aside).append(rule)
    return used, aside


def policy(rules: Sequence[DeviceRule]) -> tuple[bool, list[DeviceRule]]:
    """(what is allowed by default, exceptions in order; the last that matches decides).

    A rule for exactly the devices of an earlier exception changes that one, as in the v1 controller.
    """
    default = True
    exceptions: list[DeviceRule] = []
    for rule in rules:
        if rule.type == "a":
            default, exceptions = rule.allow, []
        elif rule.allow != default:
            exceptions = _except(exceptions, rule)
        else:
            exceptions = _take_back(exceptions, rule)
    return default, exceptions


def _except(exceptions: list[DeviceRule], rule: DeviceRule) -> list[DeviceRule]:
    for at, other in enumerate(exceptions):
        same = other.allow == rule.allow and other[1:4] == rule[1:4]
        if same and all(later.allow == rule.allow for later in exceptions[at:]):
            access = "".join(letter for letter in "rwm" if letter in other.access + rule.access)
            return [*exceptions[:at], other._replace(access=access), *exceptions[at + 1 :]]
    return [*exceptions, rule]


def _take_back(exceptions: list[DeviceRule], rule: DeviceRule) -> list[DeviceRule]:
    kept, wider = [], False
    for other in exceptions:
        if other.allow == rule.allow or not _overlap(other, rule):
            kept.append(other)
        elif _covers(rule, other):
            access = "".join(letter for letter in other.access if letter not in rule.access)
            if access:
                kept.append(other._replace(access=access))
        else:
            kept.append(other)
            wider = True
    return [*kept, rule] if wider else kept


def _overlap(one: DeviceRule, two: DeviceRule) -> bool:
    if one.type != two.type or not set(one.access) & set(two.access):
        return False
    return all(None in pair or pair[0] == pair[1] for pair in ((one.major, two.major), (one.minor, two.minor)))


def _covers(wide: DeviceRule, narrow: DeviceRule) -> bool:
    return wide.type == narrow.type and wide.major in (None, narrow.major) and wide.minor in (None, narrow.minor)


def program(rules: Sequence[DeviceRule]) -> bytes | None:
    """The instructions for `bpf.load`; None where everything is allowed, so that no program is needed. Pure."""
    default, exceptions = policy(rules)
    if default and not exceptions:
        return None
    any_number = [
        bpf.DeviceRule(
            rule.type, -1 if rule.major is None else rule.major, -1 if rule.minor is None else rule.minor,
            rule.access, rule.allow,
        )
        for rule in exceptions
    ]  # fmt: skip
    return bpf.device_program(any_number, allow=default)


def install(group: str, rules: Sequence[DeviceRule]) -> None:
    """Put the rules in force on the v2 group, in place of an earlier program of ours. Raises CgroupError."""
    code = program(rules)
    origin = next((rule.origin for rule in rules if rule.origin), None)
    try:
        with bpf.open_cgroup(group) as cgroup:
            before = [bpf.program_by_id(number) for number in bpf.attached(cgroup.number)]
            try:
                if code is not None:
                    with bpf.load(code) as loaded:
                        bpf.attach(cgroup.number, loaded.number, replace=before[0].number if before else -1)
                elif before:
                    bpf.detach(cgroup.number, before[0].number)
            finally:
                for old in before:
                    old.close()
    except OSError as error:
        raise CgroupError(
            f"cannot put the device rules in force on the cgroup {group}: {error.strerror or meaning(error)}",
            at=origin,
            hint="device rules on cgroup v2 need a kernel with CONFIG_CGROUP_BPF and the right to load programs (root)",
        ) from error
