"""System call policies: LXC's policy files, versions 1 and 2.

A file is parsed to a Policy (pure), compiled to a program before the fork, and installed by the container's init before
exec. As in LXC a rule counts for every architecture that the host can run; the sections only say on which hosts it is
read; a call that no architecture knows is left out; `reject_force_umount` is umount2 with MNT_FORCE.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from lxcpy import paths
from lxcpy.config.model import Seccomp
from lxcpy.errors import Origin, SecurityError, meaning
from lxcpy.kernel import proc, seccomp
from lxcpy.kernel.fd import Fd
from lxcpy.kernel.mount import MNT_FORCE
from lxcpy.log import Log

LOG = Log("seccomp")

# The first is the native one; libseccomp's names. Rules of a section count where the section is of one of these.
HOSTS = {
    "x86_64": ("x86_64", "x86", "x32"),
    "i686": ("x86",),
    "aarch64": ("aarch64", "arm"),
    "armv7l": ("arm",),
    "ppc64": ("ppc64", "ppc"),
    "ppc64le": ("ppc64le",),
    "ppc": ("ppc",),
    "mips64": ("mips64", "mips", "mips64n32"),
    "mips": ("mips",),
    "s390x": ("s390x",),
    "s390": ("s390",),
    "loongarch64": ("loongarch64",),
    "riscv64": ("riscv64",),
}
SECTIONS = {
    **{name: name for host in HOSTS.values() for name in host if name != "aarch64"},
    "arm64": "aarch64",
    **{name: name for name in ("mipsel", "mipsel64", "mipsel64n32")},
    "all": None,
}
OPERATORS = {
    "!=": seccomp.CMP_NE,
    "<": seccomp.CMP_LT,
    "<=": seccomp.CMP_LE,
    "==": seccomp.CMP_EQ,
    ">=": seccomp.CMP_GE,
    ">": seccomp.CMP_GT,
    "&=": seccomp.CMP_MASKED_EQ,
    "SCMP_CMP_NE": seccomp.CMP_NE,
    "SCMP_CMP_LT": seccomp.CMP_LT,
    "SCMP_CMP_LE": seccomp.CMP_LE,
    "SCMP_CMP_EQ": seccomp.CMP_EQ,
    "SCMP_CMP_GE": seccomp.CMP_GE,
    "SCMP_CMP_GT": seccomp.CMP_GT,
    "SCMP_CMP_MASKED_EQ": seccomp.CMP_MASKED_EQ,
}
ACTIONS = {
    "kill": seccomp.ACT_KILL,
    "allow": seccomp.ACT_ALLOW,
    "trap": seccomp.ACT_TRAP,
    "notify": seccomp.ACT_NOTIFY,
}
STYLES = {"denylist": True, "blacklist": True, "allowlist": False, "whitelist": False}
_ACTION = re.compile(r"(kill|allow|trap|notify)|errno\s*(\d+)")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_REJECT_FORCE_UMOUNT = "reject_force_umount"
_EACCES = 13


@dataclass(frozen=True)
class Rule:
    """`action` (SCMP_ACT_*) for a call whose arguments meet all conditions; `call`: a name, in version 1 a number."""

    call: str | int
    action: int
    arguments: tuple[seccomp.Comparison, ...] = ()
    section: str | None = None  # libseccomp's architecture; None: all
    line: int = 0

    def __str__(self) -> str:
        where = f", {len(self.arguments)} conditions" if self.arguments else ""
        return f"{action_name(self.action)} {self.call}{where}"


@dataclass(frozen=True)
class Policy:
    """A policy file: what happens to calls without a rule, and the rules in the file's order."""

    file: str
    version: int
    default: int
    rules: tuple[Rule, ...] = ()

    @property
    def notifies(self) -> bool:
        return seccomp.ACT_NOTIFY in (self.default, *(rule.action for rule in self.rules))


@dataclass(frozen=True)
class Program:
    """What is installed: the filter's instructions, and whether a listener is wanted for `notify`."""

    file: str
    code: bytes
    listener: bool = False
    unknown: tuple[Rule, ...] = ()  # rules for calls that no architecture has

    def __str__(self) -> str:
        return f"install the system call filter {self.file} ({len(self.code) // 8} instructions)"


def action_name(action: int) -> str:
    """The action in the words of a policy file."""
    if action & 0xFFFF0000 == seccomp.ACT_ERRNO:
        return f"errno {action & 0xFFFF}"
    return next((name for name, value in ACTIONS.items() if value == action), hex(action))


def parse(text: str, file: str) -> Policy:
    """The policy that `text` holds. Pure. Raises SecurityError with file and line."""
    lines = text.splitlines() + ["", ""]
    version = lines[0].strip()
    if version not in ("1", "2"):
        raise _bad(file, 1, f'unknown version "{version}"', "the first line of a policy is 1 or 2")
    style, _, rest = lines[1].strip().partition(" ")
    if style not in STYLES:
        raise _bad(file, 2, f'unknown style "{style}"', "the second line begins with denylist or allowlist")
    deny = STYLES[style]
    if version == "1":
        if deny:
            raise _bad(file, 2, "a policy of version 1 can only be an allowlist", "version 2 has denylists")
        return Policy(file, 1, seccomp.ACT_KILL, _numbers(lines, file))
    default = _action(rest, file, 2)
    if default is None:
        default = seccomp.ACT_ALLOW if deny else seccomp.ACT_KILL
    return Policy(file, 2, default, _rules(lines, file, seccomp.ACT_KILL if deny else seccomp.ACT_ALLOW))


def _bad(file: str, line: int, what: str, hint: str | None = None) -> SecurityError:
    return SecurityError(f"seccomp policy: {what}", at=Origin(file, line), hint=hint)


def _numbers(lines: list[str], file: str) -> tuple[Rule, ...]:
    rules = []
    for line, text in enumerate(lines[2:], 3):
        word = _COMMENT.sub("", text).strip()
        if word and not word.isdigit():
            raise _bad(file, line, f'"{word}" is not a number of a system call', "version 1 has one number a line")
        if word:
            rules.append(Rule(int(word), seccomp.ACT_ALLOW, line=line))
    return tuple(rules)


def _rules(lines: list[str], file: str, default: int) -> tuple[Rule, ...]:
    rules, section = [], None
    for line, raw in enumerate(lines[2:], 3):
        text = _COMMENT.sub("", raw).strip()
        if text.startswith("["):
            name = text.strip("[] ").lower()
            if name not in SECTIONS:
                raise _bad(file, line, f'unknown architecture "{text}"', f"one of {', '.join(sorted(SECTIONS))}")
            section = SECTIONS[name]
        elif text:
            call, *rest = text.split(None, 1)
            words = rest[0] if rest else ""
            action = _action(words.partition("[")[0], file, line)
            arguments = _arguments(words, file, line)
            rules.append(Rule(call, default if action is None else action, arguments, section, line))
    return tuple(rules)


def _action(text: str, file: str, line: int) -> int | None:
    """The action that `text` begins with; None where there is none."""
    text = _COMMENT.sub("", text).strip()
    if not text:
        return None
    match = _ACTION.match(text)
    if not match:
        hint = "one of kill, allow, trap, notify, errno NUMBER"
        raise _bad(file, line, f'unknown action "{text}"', hint)
    return ACTIONS[match[1]] if match[1] else seccomp.ACT_ERRNO | int(match[2]) & 0xFFFF


def _arguments(text: str, file: str, line: int) -> tuple[seccomp.Comparison, ...]:
    """The conditions `[INDEX,VALUE,OP[,MASK]]` in `text`."""
    found = []
    for group in re.findall(r"\[[^\]]*\]?", text):
        words = [word.strip() for word in group.strip("[]").split(",")]
        try:
            index, value, mask = _number(words[0]), _number(words[1]), _number(words[3]) if len(words) > 3 else 0
            operator = OPERATORS[words[2]]
        except (ValueError, IndexError, KeyError):
            hint = "[INDEX,VALUE,OP] or [INDEX,VALUE,OP,MASK], OP one of != < <= == >= > &="
            raise _bad(file, line, f'bad condition "{group}"', hint) from None
        if not 0 <= index < 6 or len(words) > 4:
            raise _bad(file, line, f'bad condition "{group}"', "INDEX is 0 to 5")
        found.append(seccomp.Comparison(index, operator, value & (1 << 64) - 1, mask))
    if len(found) > 6:
        raise _bad(file, line, "more than 6 conditions")
    return tuple(found)


def _number(word: str) -> int:
    """A number as C reads it: 0x for hexadecimal, 0 for octal."""
    return int(word, 8) if re.fullmatch(r"0[0-7]+", word) else int(word, 0)


def compile(policy: Policy, *, machine: str | None = None) -> Program:
    """The program for this policy. Raises SecurityError if libseccomp is missing or refuses a rule."""
    built, unknown = _build(policy, machine)
    try:
        return Program(policy.file, built.export_bpf(), policy.notifies, unknown)
    except OSError as error:
        raise SecurityError(f"seccomp policy {policy.file}: {error.strerror}") from error


def explain(policy: Policy, *, machine: str | None = None) -> str:
    """The filter in libseccomp's readable form. Raises SecurityError as `compile`."""
    return _build(policy, machine)[0].export_text()


def _build(policy: Policy, machine: str | None) -> tuple[seccomp.Filter, tuple[Rule, ...]]:
    """The filter for all of the host's architectures, and the rules for calls that none has."""
    host = HOSTS.get(_host(machine or os.uname().machine), ())
    try:
        main = seccomp.Filter(policy.default)
        others = [(arch, seccomp.Filter(policy.default, arch)) for arch in host[1:] if policy.version > 1]
    except OSError as error:
        hint = "install libseccomp2" if "not installed" in str(error) else None
        raise SecurityError(f"seccomp policy {policy.file}: {error.strerror}", hint=hint) from error
    unknown = []
    for rule in policy.rules:
        if rule.section is not None and rule.section not in host:
            continue
        try:
            if not _add(rule, policy.default, main, others):
                unknown.append(rule)
        except OSError as error:
            raise _bad(policy.file, rule.line, f"rule refused: {rule}: {error.strerror}") from error
    for rule in unknown:
        LOG.warn(f'{policy.file}:{rule.line}: no architecture has a system call "{rule.call}"; rule left out')
    try:
        for _, other in others:
            main.merge(other)
    except OSError as error:
        raise SecurityError(f"seccomp policy {policy.file}: {error.strerror}") from error
    return main, tuple(unknown)


def _host(machine: str) -> str:
    if re.fullmatch("i[3-6]86", machine):
        return "i686"
    return "armv7l" if machine.startswith("armv7") else machine


def _add(rule: Rule, default: int, main: seccomp.Filter, others: list[tuple[str, seccomp.Filter]]) -> bool:
    """Put a rule into the filters whose architecture has the call; False if there is none such."""
    call, action, arguments = rule.call, rule.action, rule.arguments
    if isinstance(call, str) and call.startswith(_REJECT_FORCE_UMOUNT):
        call, action = "umount2", seccomp.ACT_ERRNO | _EACCES
        arguments = (seccomp.Comparison(1, seccomp.CMP_MASKED_EQ, MNT_FORCE, MNT_FORCE),)
    native = call if isinstance(call, int) else seccomp.resolve(call)
    if native is None:
        return False
    if action == default:
        return True  # libseccomp refuses a rule that changes nothing
    if native >= 0:
        main.add_rule(native, action, arguments)
    for arch, other in others:
        foreign = seccomp.resolve(str(call), arch)
        if foreign is not None and foreign >= 0:
            other.add_rule(native, action, arguments)
    return True


def active() -> bool:
    """Whether the calling process is under a filter already, or its kernel has none."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        return proc.status(file.read()).get("Seccomp", "unknown") != "0"


_compiled: dict[tuple[str, int, int, int], Program] = {}


def prepare(config: Seccomp, *, at: Callable[[str], Origin | None] = lambda key: None) -> Program | None:
    """The program for a container's lxc.seccomp keys; None if it has no profile, or a filter is active here already.

    To be called before the fork. A compiled file is kept, so that a long-lived process pays for it once.
    Raises SecurityError: the file is unreadable or wrong, or `notify` is used without a proxy.
    """
    if not config.profile:
        return None
    if not config.allow_nesting and active():
        LOG.info(f"{config.profile}: not loaded, a filter is active already or the kernel has no seccomp")
        return None
    try:
        path = _find(config.profile)
        state = os.stat(path)
        key = (path, state.st_ino, state.st_size, state.st_mtime_ns)
        program = _compiled.get(key)
        if program is None:
            with open(path, encoding="utf-8", errors="replace") as file:
                program = _compiled[key] = compile(parse(file.read(), path))
    except OSError as error:
        what = f'lxc.seccomp.profile: cannot read "{config.profile}": {meaning(error)}'
        raise SecurityError(what, at=at("lxc.seccomp.profile")) from error
    if program.listener and not config.notify_proxy:
        raise SecurityError(
            f'seccomp policy "{config.profile}" uses notify, but nobody would answer',
            at=at("lxc.seccomp.profile"),
            hint="set lxc.seccomp.notify.proxy = unix:PATH",
        )
    return program


def _find(profile: str) -> str:
    """The file; a preset of LXC that is not installed is served by ours."""
    if os.path.dirname(profile) == paths.LXC_CONFIG_DIR and not os.path.exists(profile):
        return os.path.join(paths.data_dir("config"), os.path.basename(profile))
    return profile


def apply(program: Program) -> Fd | None:
    """Install the program on the calling process; the listener if the policy notifies. Raises SecurityError."""
    try:
        listener = seccomp.install(program.code, listener=program.listener)
    except OSError as error:
        what = f'cannot install the system call filter "{program.file}": {meaning(error)}'
        raise SecurityError(what, hint="without no_new_privs it needs the capability sys_admin") from error
    LOG.debug(str(program))
    return listener
