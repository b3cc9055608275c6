"""What is known of each live container, kept in the run directory so that the supervisor may die.

One JSON file a container, `RUN/containers/KEY/NAME.json`, KEY made of the lxcpath, replaced atomically. It is written
before anything is made, and names everything that will be made, so that whoever finds it can undo it (teardown.py).
Import-light: the commands' client reads it too.
"""

from __future__ import annotations

import os

from lxcpy import paths
from lxcpy.runtime import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RESTART = ".restart"
STATES = ("STOPPED", "STARTING", "RUNNING", "STOPPING", "ABORTING", "FREEZING", "FROZEN", "THAWED")

Record = dict[str, "Any"]
"""name, lxcpath, config (path), state, options (of the start), launcher and init ([pid, start time in ticks] or
None), asked (whether its end was), cgroups and network (the records of those packages), text (the effective config)."""


def directory() -> str:
    """The directory of all records."""
    return os.path.join(paths.run_dir(), "containers")


def lxcpath_key(lxcpath: str) -> str:
    """A file name that stands for an lxcpath: itself with `/` as `+`; long ones end in a digest."""
    key = lxcpath.replace("%", "%25").replace("+", "%2B").replace("/", "+")
    if len(key.encode(errors="surrogateescape")) > 200:
        import hashlib

        key = key[:100] + "%" + hashlib.sha256(lxcpath.encode(errors="surrogateescape")).hexdigest()[:32]
    return key


def record_path(lxcpath: str, name: str) -> str:
    """Where the record of a container stands."""
    return os.path.join(directory(), lxcpath_key(lxcpath), name + ".json")


def restart_path(lxcpath: str, name: str) -> str:
    """Where it stands when a container is to be started again (restart.py)."""
    return os.path.join(directory(), lxcpath_key(lxcpath), name + RESTART)


def gave_up_path(lxcpath: str, name: str) -> str:
    """Where it stands that a container is not started again any more (restart.py)."""
    return os.path.join(paths.run_dir(), "gave-up", lxcpath_key(lxcpath), name + ".json")


def save(record: Record) -> None:
    """Write a record in place of an older one, atomically. Raises OSError."""
    write(record_path(record["lxcpath"], record["name"]), record)


def write(path: str, record: Record) -> None:
    """Write plain data to a file in place of an older one, atomically. Raises OSError."""
    temporary = f"{path}.{os.getpid()}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    while True:
        try:
            fd = os.open(temporary, flags, 0o600)
            break
        except FileNotFoundError:
            # made at need, for `remove` takes an empty one away; another process's may do so in between
            try:
                os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            except FileNotFoundError:
                continue
    try:
        data = fastjson.dumps(record).encode()
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)
    os.rename(temporary, path)


def gave_up(lxcpath: str, name: str) -> int:
    """After how many tries a container was given up; 0: it was not."""
    found = _read(gave_up_path(lxcpath, name))
    return int(found["tries"]) if found else 0


def forget_restart(lxcpath: str, name: str) -> None:
    """No restart is due, none was given up. A supervisor that waits with one finds that out."""
    unlink(restart_path(lxcpath, name))
    unlink(gave_up_path(lxcpath, name))


def restarts() -> list[tuple[str, Record]]:
    """(path, content) of everything that stands at a `restart_path`."""
    found = []
    for folder, _folders, files in os.walk(directory()):
        for file in files:
            content = _read(os.path.join(folder, file)) if file.endswith(RESTART) else None
            if content is not None:
                found.append((os.path.join(folder, file), content))
    return found


def load(lxcpath: str, name: str) -> Record | None:
    """The record of a container; None where there is none."""
    return _read(record_path(lxcpath, name))


def remove(record: Record) -> None:
    """Forget a container: nothing of it is left to undo."""
    unlink(record_path(record["lxcpath"], record["name"]))


def forget_writer(lxcpath: str, name: str, pid: int) -> None:
    """A process was killed that may have been about to `save`."""
    unlink(f"{record_path(lxcpath, name)}.{pid}.new")


def unlink(path: str) -> None:
    """Remove a file, and its directories where nothing is left in them."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    _remove_empty(os.path.dirname(path), os.path.dirname(os.path.dirname(path)))


def _remove_empty(*folders: str) -> None:
    try:
        for folder in folders:
            os.rmdir(folder)
    except OSError:
        pass  # others are in there; `save` makes it again


def load_all() -> list[Record]:
    """Every record there is; leftovers of a write that was cut short are removed."""
    records = []
    for folder, _folders, files in os.walk(directory(), topdown=False):
        for file in files:
            path = os.path.join(folder, file)
            if file.endswith(".json"):
                record = _read(path)
                if record is not None:
                    records.append(record)
            elif file.endswith(".new") and not _writer_lives(file):
                os.unlink(path)
        _remove_empty(folder)
    return records


def any_records() -> bool:
    """Is there a record at all? The cheap question of a command that found no supervisor."""
    try:
        folders = os.listdir(directory())
    except OSError:
        return False
    return any(os.listdir(os.path.join(directory(), folder)) for folder in folders)


def _read(path: str) -> Record | None:
    try:
        with open(path, "rb") as file:
            record: Record = fastjson.loads(file.read())
            return record
    except (FileNotFoundError, ValueError):
        return None


def _writer_lives(temporary: str) -> bool:
    pid = temporary.split(".")[-2]
    return pid.isdigit() and os.path.exists(f"/proc/{pid}")


def process_lives(identity: list[int] | None) -> bool:
    """Does the process [pid, start time in ticks] still run? A pid alone may have been given to another."""
    if not identity:
        return False
    pid, started = identity
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # proc_pid_stat(5): the state is field 3, the start time field 22
    return int(fields[19]) == started and fields[0] not in (b"Z", b"X")
