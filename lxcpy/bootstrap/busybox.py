"""The busybox system: one static program, its links, and an init that it reads."""

from __future__ import annotations

import os
import shutil
import subprocess

from lxcpy.errors import BootstrapError, meaning

_DIRECTORIES = (
    "dev", "home", "root", "etc", "etc/init.d", "bin", "usr", "usr/bin", "sbin", "usr/sbin", "proc", "sys", "mnt",
    "tmp", "var", "var/log", "var/run", "dev/pts", "lib", "etc/udhcpc",
)  # fmt: skip
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:root\n",
    "etc/fstab": "",
    "etc/init.d/rcS": "#!/bin/sh\nsyslogd\nmount -a\nudhcpc -b >/dev/null 2>&1\n",
    # init takes USR1 as halt and TERM as reboot
    "etc/inittab": "::sysinit:/etc/init.d/rcS\ntty1::respawn:/bin/getty -L tty1 115200 vt100\n"
    "console::askfirst:/bin/sh\n",
    "etc/udhcpc/default.script": """\
#!/bin/sh
case "$1" in
deconfig)
    ip addr flush dev "$interface"
    ;;
renew | bound)
    ip addr replace "$ip/${mask:-24}" dev "$interface"
    for gateway in $router; do ip route replace default via "$gateway" dev "$interface"; done
    : >/etc/resolv.conf
    for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
    ;;
esac
""",
}


def fill(target: str, name: str, program: str | None = None) -> list[str]:
    """Make the system in the empty directory `target`; the lines for its config. Raises BootstrapError."""
    source = program or shutil.which("busybox")
    if source is None:
        raise BootstrapError("there is no busybox in PATH", hint="install busybox-static, or give --busybox-path FILE")
    try:
        applets = subprocess.run([source, "--list"], capture_output=True, text=True, check=True).stdout.split()
        for directory in _DIRECTORIES:
            os.makedirs(os.path.join(target, directory), 0o755, exist_ok=True)
        os.chmod(os.path.join(target, "tmp"), 0o1777)
        shutil.copy(source, os.path.join(target, "bin/busybox"))
        for applet in applets:
            if applet not in ("busybox", "init"):
                os.symlink("busybox", os.path.join(target, "bin", applet))
        os.symlink("../bin/busybox", os.path.join(target, "sbin/init"))
        for path, text in {**_FILES, "etc/hostname": f"{name}\n"}.items():
            with open(os.path.join(target, path), "w", encoding="utf-8") as file:
                file.write(text)
        for path in ("etc/init.d/rcS", "etc/udhcpc/default.script"):
            os.chmod(os.path.join(target, path), 0o755)
        with open(os.path.join(target, "etc/shadow"), "w") as shadow:
            os.fchmod(shadow.fileno(), 0o600)
            shadow.write("root:*:10000::::::\n")
    except (OSError, subprocess.CalledProcessError) as error:
        words = meaning(error) if isinstance(error, OSError) else str(error)
        raise BootstrapError(f'cannot make the busybox system in "{target}": {words}') from error
    return [
        "lxc.signal.halt = SIGUSR1",
        "lxc.signal.reboot = SIGTERM",
        f"lxc.uts.name = {name}",
        "lxc.tty.max = 5",
        "lxc.pty.max = 1024",
        "lxc.cap.drop = sys_module mac_admin mac_override sys_time",
        "lxc.mount.auto = cgroup:mixed proc:mixed sys:mixed",
        "lxc.mount.entry = tmpfs dev/shm tmpfs rw,nosuid,nodev,create=dir 0 0",
    ]
