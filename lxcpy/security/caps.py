"""Capabilities of a container: lxc.cap.drop and lxc.cap.keep.

As in LXC the container loses capabilities by its bounding set: root inside gets at most what is left there with the
next exec, and no file capability brings more. What the caller may have had inheritable goes too, for inherited
capabilities are not cut by the bounding set. The effective set stays until exec: a system call filter still has to be
installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lxcpy.config.model import Cap
from lxcpy.errors import Origin, SecurityError, meaning
from lxcpy.kernel import capability
from lxcpy.log import Log

LOG = Log("caps")


@dataclass(frozen=True)
class CapPlan:
    """The numbers to take away; empty: leave everything."""

    drop: frozenset[int] = frozenset()

    def __str__(self) -> str:
        return f"drop capabilities {' '.join(name_of(number) for number in sorted(self.drop))}" if self.drop else ""

    def drops(self, name: str) -> bool:
        """Whether the capability (`sys_admin`) is taken away."""
        return capability.CAPABILITIES.index(name) in self.drop


def name_of(number: int) -> str:
    """sys_admin for 21; the number as text for one that has no name here yet."""
    return capability.CAPABILITIES[number] if number < len(capability.CAPABILITIES) else str(number)


def number_of(word: str) -> int:
    """The capability's number from its name (with or without CAP_, any case) or from digits. Raises ValueError."""
    name = word.lower().removeprefix("cap_")
    if name.isdigit() and int(name) < 64:
        return int(name)
    if name not in capability.CAPABILITIES:
        raise ValueError(f'"{word}" is not a capability')
    return capability.CAPABILITIES.index(name)


def plan(cap: Cap, *, last: int | None = None, at: Callable[[str], Origin | None] = lambda key: None) -> CapPlan:
    """What these settings take away on a kernel whose highest capability is `last` (None: this one's).

    Names that the kernel does not have are left out: nobody can hold them. Raises SecurityError for an unknown word.
    """
    if last is None:
        last = capability.last_cap()
    if cap.keep is None:
        return CapPlan(frozenset(number for number in _numbers(cap.drop, "lxc.cap.drop", at) if number <= last))
    kept = cap.keep
    if "none" in kept:  # the word forgets what stands before it
        kept = kept[len(kept) - kept[::-1].index("none") :]
    return CapPlan(frozenset(range(last + 1)) - _numbers(kept, "lxc.cap.keep", at))


def _numbers(words: tuple[str, ...], key: str, at: Callable[[str], Origin | None]) -> frozenset[int]:
    numbers = set()
    for word in words:
        try:
            numbers.add(number_of(word))
        except ValueError as error:
            raise SecurityError(f"{key}: {error}", at=at(key), hint="see capabilities(7)") from None
    return frozenset(numbers)


def plan_like(bounding: int, *, last: int | None = None) -> CapPlan:
    """What a process that joins a container must lose: all that the mask CapBnd of the container's init lacks."""
    if last is None:
        last = capability.last_cap()
    return CapPlan(frozenset(number for number in range(last + 1) if not bounding >> number & 1))


def apply(plan: CapPlan) -> None:
    """Take the plan's capabilities away from the calling process, from its next exec on. Raises SecurityError."""
    if not plan.drop:
        return
    try:
        capability.drop_bounding(plan.drop)
        sets = capability.get()
        if sets.inheritable & plan.drop:  # lowers the ambient set along with it
            capability.set(sets.effective, sets.permitted, sets.inheritable - plan.drop)
    except OSError as error:
        raise SecurityError(
            f"cannot drop capabilities: {meaning(error)}", hint="the caller needs the capability setpcap"
        ) from error
    LOG.debug(str(plan))
