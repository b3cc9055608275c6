"""The life of a launcher process: it waits for a start, does it, and waits for the next."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import NoReturn

from lxcpy import log, paths
from lxcpy.cgroups import layout as cgroup_layout
from lxcpy.cgroups import plan as cgroup_plan
from lxcpy.config import load as config_load
from lxcpy.errors import CgroupError, LxcpyError
from lxcpy.kernel import process
from lxcpy.rootfs import plan as rootfs_plan
from lxcpy.runtime.channel import Channel, Closed
from lxcpy.runtime.launcher import Launch, Options
from lxcpy.runtime.restoring import Restore

LOG = log.Log("start")
SPARE = "lxcpy-supervisor: spare launcher"  # the title of one that waits
STARTS = 64  # of one process: its collector is off, as after every fork here


def serve(report: Channel, *, warm: bool) -> NoReturn:
    """The whole life of a launcher process: start after start. Never returns.

    warm: there is no work yet, so touch the pages that a start writes to.
    """
    try:
        os.setpgid(0, 0)  # hooks are in it too, so that nothing of a killed launcher goes on
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        process.set_title(SPARE)
        if os.geteuid() == 0:  # else /proc/PID of what it clones were root's, uid_map included
            process.set_dumpable(False)  # nor what it clones: who shares the pid namespace sees that
        if warm:
            config = config_load.load(os.path.join(paths.data_dir("config"), "debian.common.conf"))
            with contextlib.suppress(CgroupError):  # an ordinary user in a group that is not its own
                cgroup_plan.plan(config.cgroup, name="spare", layout=cgroup_layout.detect())
            rootfs_plan.plan(config, rootfs_plan.Facts("spare"))
        for left in reversed(range(STARTS)):
            _message, fds = report.receive()
            with os.fdopen(fds[0], "rb") as work:
                work.seek(0)
                options = Options(**json.loads(work.read()))
            if not _start(options, report, fds[1:], more=left > 0):
                break
    except Closed:
        pass  # the supervisor has gone, or does without
    finally:
        os._exit(0)


def _start(options: Options, report: Channel, stdio: list[int], *, more: bool) -> bool:
    """One start; may this process do another? Not without `more`."""
    again = False
    try:
        process.set_title(f"lxcpy launcher {options.lxcpath} {options.name}")
        os.environ.clear()
        os.environ.update(options.environ)
        launch = (Restore if options.restore else Launch)(options, report, stdio, more=more)
        launch.start()
        again = launch.clean
    except Closed:
        LOG.warn("the supervisor ended meanwhile: what was made is undone")
    except LxcpyError as error:
        LOG.error(error.what)
        _say(report, error)
    except OSError as error:
        _say(report, LxcpyError(f"{error.strerror or error}: while starting", hint=_where(error)))
    except Exception as error:
        import traceback

        traceback.print_exc(file=sys.stderr)
        _say(report, LxcpyError(f"internal error: {type(error).__name__}: {error}", hint=_where(error)))
    log.close()
    for fd in stdio:
        os.close(fd)
    process.set_title(SPARE)
    return again


def _say(report: Channel, error: LxcpyError) -> None:
    try:
        report.send({"failed": error.to_dict()})
    except (Closed, OSError):
        pass  # the supervisor has gone; the record is clean


def _where(error: BaseException) -> str:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return ""
    code = frame.tb_frame.f_code
    return f"{os.path.basename(code.co_filename)}:{frame.tb_lineno}, {error}"
