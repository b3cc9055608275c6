"""Every command: its name, the module that holds it, and one sentence. Imports nothing: each command loads this."""

from __future__ import annotations

COMMANDS: dict[str, tuple[str, str]] = {
    "attach": ("attach", "Run a command inside a running container."),
    "autostart": ("autostart", "Start, reboot or stop the containers that are marked for it."),
    "cache": ("cache", "List, check or thin the cache of packages and root filesystems."),
    "cgroup": ("cgroup", "Read or set a control group value of a running container."),
    "checkconfig": ("checkconfig", "Check what this kernel offers to containers."),
    "config": ("config", "Print the system's LXC settings, check a container's config, or explain it."),
    "console": ("console", "Connect the terminal to a container's tty or console."),
    "copy": ("copy", "Copy, clone or rename a container, or start a temporary clone."),
    "create": ("create", "Create a container from a template."),
    "destroy": ("destroy", "Delete a container."),
    "device": ("device", "Add a device to a running container or remove one."),
    "doctor": ("doctor", "Say what keeps a container from starting or working, why, and what cures it."),
    "execute": ("execute", "Run one command in a container of its own."),
    "freeze": ("freeze", "Stop every process of a container until it is thawed."),
    "info": ("info", "Show a container's state, addresses and use of resources."),
    "ls": ("ls", "List the containers."),
    "monitor": ("monitor", "Report the changes of state of containers as they happen."),
    "net": ("net", "Start, stop or show the network that containers hang on."),
    "snapshot": ("snapshot", "Take, list, restore or delete snapshots of a container."),
    "start": ("start", "Start a container."),
    "stop": ("stop", "Stop or reboot a container."),
    "supervisor": ("supervisor", "Show the supervisor, replace its code in place, or end it."),
    "top": ("top", "Show the use of resources by running containers, again and again."),
    "unfreeze": ("unfreeze", "Thaw a frozen container."),
    "unshare": ("unshare", "Run a command in new namespaces."),
    "update-config": ("update_config", "Rewrite the key names of LXC before 2.1 in a container's configuration."),
    "usernsexec": ("usernsexec", "Run a command as root of a new user namespace."),
    "wait": ("wait", "Wait until a container reaches a state."),
}
