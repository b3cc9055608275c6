"""What only a user namespace lets an ordinary user do: touch files of the ids that /etc/subuid and /etc/subgid grant.

The namespace used here shows each of these ids, and the caller's own, under its own number. So code that was written
for root, with the host's numbers, works in it as it stands. Root needs none of this.
"""

from __future__ import annotations

import functools
import marshal
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from lxcpy import paths
from lxcpy.errors import LxcpyError, SecurityError, from_dict
from lxcpy.kernel import idmap, namespace
from lxcpy.kernel.idmap import IdRange
from lxcpy.kernel.process import set_pdeathsig
from lxcpy.log import Log

P = ParamSpec("P")
R = TypeVar("R")
LOG = Log("start")
_state: dict[str, Any] = {"inside": False}


def needed() -> bool:
    """Is the caller an ordinary user, outside of that namespace?"""
    return os.geteuid() != 0 and not _state["inside"]


def with_ids(function: Callable[P, R]) -> Callable[P, R]:
    """A function that an ordinary user's process runs by way of `apart`; root's calls it as it is."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not needed():
            return function(*args, **kwargs)
        result: R = apart(lambda: function(*args, **kwargs))
        return result

    return call


def apart(work: Callable[[], Any], userns: int | None = None) -> Any:
    """Call `work` in a child that is in the namespace; what it returns, as data that marshal can carry.

    userns: another namespace than the caller's usual one. Raises its LxcpyError or OSError; SecurityError where the
    namespace cannot be had.
    """
    userns = _namespace() if userns is None else userns
    reader, writer = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            with os.fdopen(writer, "wb") as stream:
                stream.write(marshal.dumps(_told(work, userns, parent)))
        finally:
            os._exit(0)
    os.close(writer)
    said = _result_of(pid, reader)
    if not said:
        raise LxcpyError("the process that had the ids of the container ended early", hint="it was killed: try again")
    kind, value = marshal.loads(said)
    if kind == "os":
        raise OSError(*value)
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "error":
        error = from_dict(value)
        error.code = value["code"]
        raise error
    return value


def as_root(work: Callable[[int, int], None], uids: Sequence[IdRange], gids: Sequence[IdRange]) -> None:
    """Call `work` in a child that is root in a namespace with a container's id map, the caller's own ids being mapped
    too, to what `work` is told. Raises as `apart`."""
    with_uid, uid = idmap.with_own(uids, os.geteuid())
    with_gid, gid = idmap.with_own(gids, os.getegid())
    places = {"LXCPY_CACHE_DIR": paths.cache_dir(), "LXCPY_RUN_DIR": paths.run_dir()}  # root's are others

    def become() -> None:
        os.environ.update(places)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        set_pdeathsig(signal.SIGKILL)  # other ids clear it
        work(uid, gid)

    try:
        userns = idmap.userns_fd(with_uid, with_gid)
    except OSError as error:
        raise cannot_map(error, what="lxc.idmap") from error
    with userns:
        apart(become, userns.number)


def own_ranges() -> tuple[list[IdRange], list[IdRange]]:
    """The uids and gids of the calling user: granted ones and its own, each under its own number."""
    uids, gids = idmap.subids(os.getuid())
    return idmap.same_numbers(uids, os.geteuid()), idmap.same_numbers(gids, os.getegid())


def cannot_map(error: OSError, *, what: str) -> SecurityError:
    """The error for an id map that an ordinary user does not get, with what to do."""
    said = error.strerror or str(error)
    if "is not installed" in said:
        return SecurityError(f"{what}: {said}", hint="install the package uidmap (shadow-utils, shadow)")
    return SecurityError(f"{what}: {said}", hint=grant_hint())


def grant_hint() -> str:
    """How the calling user gets an id map: the lines for the config, or what root has to do first."""
    uids, gids = idmap.subids(os.getuid())
    if uids and gids:
        lines = [f"lxc.idmap = {kind} 0 {ranges[0].hostid} {ranges[0].count}" for kind, ranges in
                 (("u", uids), ("g", gids))]  # fmt: skip
        return f"in the ranges that you are granted: {' and '.join(lines)}"
    cure = f"usermod -v 100000-165535 -w 100000-165535 {_user()}"
    return f"/etc/subuid and /etc/subgid grant you nothing: as root, {cure}"


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def prepare() -> None:
    """Make the namespace ahead, for this process and those that it forks. Raises nothing."""
    try:
        if needed():
            _namespace()
    except LxcpyError as error:
        LOG.debug(error.what)


def kept() -> list[int]:
    """The descriptor of the namespace, where there is one: who closes what it inherited leaves it open."""
    return [_state["userns"]] if "userns" in _state else []


def _namespace() -> int:
    """The namespace's descriptor, kept for the next time."""
    ranges = own_ranges()
    if _state.get("ranges") != ranges:
        for old in kept():
            os.close(old)
            del _state["userns"], _state["ranges"]
        try:
            _state.update(userns=idmap.userns_fd(*ranges).steal(), ranges=ranges)
        except OSError as error:
            raise cannot_map(error, what="cannot make a user namespace for the ids of a container") from error
    found: int = _state["userns"]
    return found


def _told(work: Callable[[], Any], userns: int, parent: int) -> tuple[str, Any]:
    try:
        namespace.setns(userns, namespace.CLONE_NEWUSER)
        set_pdeathsig(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        _state["inside"] = True
        return "value", work()
    except LxcpyError as error:
        return "error", {**error.to_dict(), "code": error.code}
    except OSError as error:
        return "os", (error.errno or 5, error.strerror or str(error), error.filename)
    except KeyboardInterrupt:
        return "interrupt", None
    except Exception as error:
        import traceback

        traceback.print_exc()
        what = f"internal error: {type(error).__name__}: {error}"
        return "error", {**LxcpyError(what).to_dict(), "code": 1}


def _result_of(pid: int, reader: int) -> bytes:
    """What a child wrote until its end. An interrupt is the child's too: it cleans up, and says so."""
    said = b""
    interrupted = False
    while True:
        try:
            part = os.read(reader, 1 << 16)
            if not part:
                break
            said += part
        except KeyboardInterrupt:
            interrupted = True
    os.close(reader)
    os.waitpid(pid, 0)
    if interrupted:
        raise KeyboardInterrupt
    return said
