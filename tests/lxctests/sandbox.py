"""One of LXC's own tests in a sandbox: this is the first process of new mount, network, pid and cgroup namespaces.

    sandbox.py SETTINGS PROGRAM [ARGUMENT...]

SETTINGS is JSON: `keep`, paths that stay visible wherever they are; `links`, a directory of commands that goes before
all others, or null; `timeout`, seconds. The sandbox has empty directories where LXC and lxcpy keep things, an /etc that
may be written, control groups whose root is its own, and the bridge lxcbr0 with a DHCP server. Exits as the program;
124 after a time-out, 125 if the sandbox cannot be made. Whatever the program leaves is gone with this process: the
kernel ends all others of the pid namespace, and the mounts and links with them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

EMPTY = {"/tmp": "1777", "/run": "755", "/home": "755", "/var/cache": "755", "/var/lib/lxc": "711"}
WRITABLE = ("/etc", "/usr/local/bin", "/var/lib", "/var/log")
NO_SANDBOX = 125
BRIDGE = (
    "ip link set lo up",
    "ip link add lxcbr0 type bridge",
    "ip addr add 10.0.3.1/24 dev lxcbr0",
    "ip link set lxcbr0 up",
    # where nobody gives an address busybox's start script waits for one, and its init takes no signal meanwhile
    "dnsmasq --conf-file=/dev/null --user=root --pid-file=/run/dnsmasq.pid --port=0 --bind-interfaces"
    " --interface=lxcbr0 --except-interface=lo --dhcp-range=10.0.3.2,10.0.3.254 --dhcp-leasefile=/run/leases"
    " --no-ping --dhcp-authoritative",
)
# A machine without sudo: the tests call it to become somebody else, or nobody else.
SUDO = """\
#!/bin/sh
user=root home=
while :; do
    case $1 in
    -u | -Hu | -iu) user=$2; shift 2 ;;
    -i | -H | -E | -n) shift ;;
    *=*) export "$1"; shift ;;
    *) break ;;
    esac
done
HOME=$(getent passwd "$user" | cut -d: -f6) USER=$user LOGNAME=$user
export HOME USER LOGNAME
exec setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups -- "$@"
"""


def run(command: str) -> None:
    subprocess.run(command, shell=True, check=True)


def mount_cgroups() -> None:
    """The host's hierarchies again, as their roots are seen from here."""
    with open("/proc/self/mountinfo") as file:
        lines = [line.split(" - ") for line in file if " - cgroup" in line]
    found = [(left.split()[4], right.split()[0], right.split()[2]) for left, right in lines]
    run("mount -t sysfs -o nosuid,nodev,noexec sysfs /sys")  # the network devices of this namespace
    if any(place != "/sys/fs/cgroup" for place, _, _ in found):
        run("mount -t tmpfs -o mode=755 cgroups /sys/fs/cgroup")
    for place, kind, options in found:
        names = ",".join(word for word in options.split(",") if word not in ("rw", "ro", "xattr", "clone_children"))
        if kind == "cgroup" and "name=" in names:
            names = f"none,{names}"
        os.makedirs(place, exist_ok=True)
        if kind == "cgroup2":
            # processes and controllers do not go together in one group but in the machine's root
            run(f"mount -t cgroup2 cgroup2 {place} && mkdir {place}/sandbox && echo 1 >{place}/sandbox/cgroup.procs")
            run(f"for one in $(cat {place}/cgroup.controllers); do echo +$one >{place}/cgroup.subtree_control; done")
        else:
            run(f"mount -t cgroup -o {names} cgroup {place}")


def empty(place: str, mode: str, keep: list[str]) -> None:
    """A new filesystem over `place`, with those paths of `keep` that are below it."""
    run(f"mount -t tmpfs -o mode={mode} tmpfs /mnt")
    for path in keep:
        if path.startswith(f"{place}/"):
            os.makedirs(f"/mnt{path[len(place) :]}", exist_ok=True)
            run(f"mount --rbind {path} /mnt{path[len(place) :]}")
    os.makedirs(place, exist_ok=True)
    run(f"mount --no-mtab --move /mnt {place}")  # a note of it would go to /run


def make_writable() -> None:
    """Copies on write of the host's directories."""
    run("mount -t tmpfs -o mode=755 tmpfs /mnt")
    for number, place in enumerate(WRITABLE):
        layers = f"lowerdir={place},upperdir=/mnt/{number},workdir=/mnt/{number}w"
        run(f"mkdir /mnt/{number} /mnt/{number}w && mount -t overlay overlay -o {layers} {place}")
    run("umount -l /mnt")


def prepare(keep: list[str], links: str | None) -> None:
    run("mount -t proc proc /proc")
    mount_cgroups()
    make_writable()
    for place, mode in EMPTY.items():
        empty(place, mode, keep)
    os.makedirs("/run/lock")
    if not shutil.which("sudo"):
        with open("/usr/local/bin/sudo", "w") as file:
            file.write(SUDO)
        os.chmod("/usr/local/bin/sudo", 0o755)
    if links:
        run(f"cp -P {links}/* /usr/local/bin/")
        for name in os.listdir(links):  # a dangling one would let real LXC's be found
            os.stat(f"/usr/local/bin/{name}")
    for command in BRIDGE:
        run(command)


def reap_until(pid: int) -> int:
    """Every orphan of the namespace comes here."""
    while True:
        found, status = os.wait()
        if found == pid:
            return os.waitstatus_to_exitcode(status)


def main() -> int:
    settings = json.loads(sys.argv[1])
    try:
        prepare(settings["keep"], settings["links"])
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no sandbox: {error}", flush=True)
        return NO_SANDBOX
    environment = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
                   "TERM": "vt100", "LANG": "C.UTF-8"}  # fmt: skip

    def expired(*_: object) -> None:
        print(f"timed out after {settings['timeout']} s", flush=True)
        os._exit(124)

    signal.signal(signal.SIGALRM, expired)
    signal.alarm(settings["timeout"])
    program = subprocess.Popen(sys.argv[2:], env=environment, cwd="/", start_new_session=True)
    status = reap_until(program.pid)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
