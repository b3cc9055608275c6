"""An ordinary user of a machine of its own: in the sandbox of LXC's tests, with ids, a bridge and delegated groups.

Run as a program it is the sandbox's: it makes the users, then runs what it is told, a line of JSON each.
"""

from __future__ import annotations

import json
import os
import pty
import pwd
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

FIRST, COUNT = 910000, 10000  # the user's subordinate ids, in the sandbox's /etc/subuid
DEFAULT_CONFIG = f"""\
lxc.net.0.type = empty
lxc.idmap = u 0 {FIRST} {COUNT}
lxc.idmap = g 0 {FIRST} {COUNT}
"""


class Done(NamedTuple):
    """How a command ended; output holds standard error too."""

    status: int
    output: str


class Place:
    """The sandbox, from outside. group: its control groups' name in each hierarchy."""

    def __init__(self, process: subprocess.Popen[str], group: str) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.stdin: IO[str] = process.stdin
        self.stdout: IO[str] = process.stdout
        self.group = group

    def call(self, *argv: str, user: str = "ann", **options: Any) -> Done:
        """Run a command to its end. options: stdin, a text; env, more variables; terminal, whether it gets one."""
        self.stdin.write(json.dumps({"argv": argv, "user": user, **options}) + "\n")
        self.stdin.flush()
        line = self.stdout.readline()
        assert line.startswith("{"), line + self.stdout.read()
        return Done(**json.loads(line))

    def run(self, command: str, *argv: str, **options: Any) -> str:
        """As `call`, of one of our commands that has to succeed; its output."""
        done = self.call(f"lxc-{command}", *argv, **options)
        assert done.status == 0, (command, argv, done)
        return done.output

    def root(self, script: str) -> str:
        """A shell script as root that has to succeed; its output."""
        done = self.call("sh", "-ec", script, user="root")
        assert done.status == 0, done
        return done.output


@contextmanager
def place(links: str, keep: list[str], group: str) -> Iterator[Place]:
    """A sandbox with the commands of `links` as lxc-*."""
    from lxctests import runner

    settings = json.dumps({"links": links, "keep": keep, "timeout": 900})
    with runner.groups(group) as groups:
        enter = "".join(f"echo $$ >{one}/cgroup.procs; " for one in groups)
        inside = [sys.executable, "-B", str(runner.SANDBOX), settings, sys.executable, "-B", __file__]
        argv = ["sh", "-ec", f'{enter} exec {runner.NAMESPACES} "$@"', "sh", *inside]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            made = Place(process, group)
            first = made.stdout.readline()
            assert first == "ready\n", first + made.stdout.read()
            yield made
        finally:
            made.stdin.close()
            process.wait(30)
            made.stdout.close()


# -- inside --------------------------------------------------------------------------------------------------------


def prepare() -> None:
    """Two users; ann has ids, and the groups of every v1 hierarchy but one, or of the v2 one."""
    for name in ("ann", "bob"):
        subprocess.run(["useradd", name], check=True, stdout=sys.stderr)
        user = pwd.getpwnam(name)
        for path in (f"/home/{name}/.config/lxc", f"/run/user/{user.pw_uid}"):
            os.makedirs(path)
        Path(f"/home/{name}/.config/lxc/default.conf").write_text(DEFAULT_CONFIG)
        subprocess.run(["chown", "-R", f"{name}:", f"/home/{name}", f"/run/user/{user.pw_uid}"], check=True)
        os.chmod(f"/run/user/{user.pw_uid}", 0o700)
        for file in ("/etc/subuid", "/etc/subgid"):  # useradd(8) grants what login.defs(5) says
            subprocess.run(["sed", "-i", f"/^{name}:/d", file], check=True)
    last = FIRST + COUNT - 1
    subprocess.run(["usermod", "-v", f"{FIRST}-{last}", "-w", f"{FIRST}-{last}", "ann"], check=True)
    for group in Path("/sys/fs/cgroup").iterdir():
        if not (group / "tasks").exists() or group.name == "blkio":
            continue
        if (group / "cgroup.clone_children").exists():
            (group / "cgroup.clone_children").write_text("1")
        (group / "ann").mkdir(exist_ok=True)
        subprocess.run(["chown", "-R", "ann:", str(group / "ann")], check=True)
        (group / "ann/tasks").write_text(str(os.getpid()))


def obey(order: dict[str, Any]) -> dict[str, Any]:
    """Run one command."""
    argv, user = order["argv"], pwd.getpwnam(order["user"])
    ids: dict[str, Any] = {}
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": user.pw_dir, "USER": user.pw_name}
    if user.pw_uid:
        ids = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        environment["XDG_RUNTIME_DIR"] = f"/run/user/{user.pw_uid}"
    environment.update(order.get("env", {}))
    if order.get("terminal"):
        return on_terminal(argv, env=environment, cwd="/", **ids)
    done = subprocess.run(
        argv, input=order.get("stdin", ""), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
        env=environment, cwd="/", errors="replace", **ids,
    )  # fmt: skip
    return {"status": done.returncode, "output": done.stdout}


def on_terminal(argv: list[str], **options: Any) -> dict[str, Any]:
    """Run one command with a terminal as its standard descriptors."""
    master, slave = pty.openpty()
    os.fchown(slave, options.get("user", 0), -1)
    process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, **options)
    os.close(slave)
    output = b""
    try:
        while part := os.read(master, 4096):
            output += part
    except OSError:  # EIO: nobody has the other side any more
        pass
    os.close(master)
    return {"status": process.wait(60), "output": output.decode(errors="replace")}


def main() -> None:
    prepare()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
