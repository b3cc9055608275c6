"""Commands that run at stages of a container's life."""

from __future__ import annotations

from lxcpy.config.keys.row import GROUP, LIST, ONE, Row
from lxcpy.config.values import EMPTY, TEXT, VERSION

ROWS = (
    Row("lxc.hook", "hook", EMPTY, GROUP, "1.1",
        "All hooks; empty, it forgets them."),
    Row("lxc.hook.version", "hook.version", VERSION, ONE, "3.0",
        "How hooks are told what happens: 0 arguments, 1 environment."),
    Row("lxc.hook.pre-start", "hook.pre_start", TEXT, LIST, "0.8",
        "Command of the host before anything is made."),
    Row("lxc.hook.pre-mount", "hook.pre_mount", TEXT, LIST, "0.9",
        "Command in the container's mount namespace before the root filesystem is mounted."),
    Row("lxc.hook.mount", "hook.mount", TEXT, LIST, "0.8",
        "Command in the container's mount namespace after the mounts."),
    Row("lxc.hook.autodev", "hook.autodev", TEXT, LIST, "0.9",
        "Command in the container's mount namespace while /dev is filled."),
    Row("lxc.hook.start-host", "hook.start_host", TEXT, LIST, "3.0",
        "Command of the host just before init runs."),
    Row("lxc.hook.start", "hook.start", TEXT, LIST, "0.8",
        "Command of the container just before init runs."),
    Row("lxc.hook.stop", "hook.stop", TEXT, LIST, "2.0",
        "Command of the host when init has ended, with the namespaces still there."),
    Row("lxc.hook.post-stop", "hook.post_stop", TEXT, LIST, "0.8",
        "Command of the host when all is taken down."),
    Row("lxc.hook.clone", "hook.clone", TEXT, LIST, "1.0",
        "Command of the host when the container has been copied."),
    Row("lxc.hook.destroy", "hook.destroy", TEXT, LIST, "2.0",
        "Command of the host before the container is removed."),
)  # fmt: skip
