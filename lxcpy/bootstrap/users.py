"""Who may log in to a new system: passwords, SSH keys, the template's first user, a user of the host."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping

from lxcpy.errors import UsageError, meaning

_PASSWORD = re.compile(r"[^\x00-\x1f\x7f:]+")
_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_ALPHABET = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # without those that look alike
_LENGTH = 16  # of a random password: 93 bits


def values(options: Mapping[str, str], default_user: str, *, mapped: bool) -> dict[str, object]:
    """What a template's files are told of users. Raises UsageError.

    user: the first user, "" where the template makes none. bindhome: the host's entries of a user, or nothing.
    """
    bound = _host_user(options["bindhome"]) if "bindhome" in options else None
    if bound and mapped:
        raise UsageError("--bindhome: a container with an id map cannot have a home directory of the host's users")
    if bound and {"user", "auth-key", "password"} & options.keys():
        raise UsageError("--bindhome: --user, --password and --auth-key are for a user that the host does not have")
    user = bound["name"] if bound else options.get("user", default_user)
    if not bound and user and not _NAME.fullmatch(user):
        raise UsageError(f'--user: "{user}" is no name of a user', hint="small letters, digits, - and _")
    return {
        "user": user,
        "bindhome": bound,
        "password": _password(options.get("password", "")),
        "auth_key": read_key(options["auth-key"]) if "auth-key" in options else "",
    }


def _password(asked: str) -> str:
    if asked == "-":
        return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
    if asked and not _PASSWORD.fullmatch(asked):
        raise UsageError("--password: it must not hold a colon or a control character")
    return asked


def _host_user(name: str) -> dict[str, str]:
    """A user of the host as the lines of its tables. Raises UsageError."""
    import grp
    import pwd

    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise UsageError(f'--bindhome: the host has no user "{name}"') from None
    try:
        group = grp.getgrgid(user.pw_gid)
        group_line = f"{group.gr_name}:x:{group.gr_gid}:"
    except KeyError:
        group_line = f"{name}:x:{user.pw_gid}:"
    return {
        "name": name,
        "passwd": ":".join((name, "x", str(user.pw_uid), str(user.pw_gid), user.pw_gecos, user.pw_dir, user.pw_shell)),
        "shadow": f"{name}:{_hash(name)}:::::::",
        "group": group_line,
        "gid": str(user.pw_gid),
        "shell": user.pw_shell,
        "home": user.pw_dir,
        # fields of a mount entry are separated by blanks, as in fstab(5)
        "mount": user.pw_dir.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011"),
    }


def _hash(name: str) -> str:
    """The password's hash out of the host's shadow; a locked one where there is none."""
    try:
        with open("/etc/shadow", encoding="utf-8", errors="replace") as file:
            for line in file:
                fields = line.rstrip("\n").split(":")
                if fields[0] == name and len(fields) > 1:
                    return fields[1]
    except OSError:
        pass
    return "!"


def packages(given: Mapping[str, object]) -> list[str]:
    """What may have the shell of a bound user: the package named as the shell."""
    bound = given["bindhome"]
    return [os.path.basename(bound["shell"])] if isinstance(bound, dict) else []


def told(given: Mapping[str, object], asked: Mapping[str, str]) -> str:
    """What the caller must learn of logging in; nothing where there is nothing to say."""
    who = given["user"] or "root"
    if given["bindhome"]:
        return f"log in as {who}, with the password and the home directory of the host"
    if asked.get("password") == "-":
        return f"the password of {who} is {given['password']}"
    if given["password"] or given["auth_key"]:
        return ""
    return f"{who} has no password and no SSH key: lxcpy-attach leads in, passwd there sets one"


def read_key(path: str) -> str:
    """An SSH public key for authorized_keys. Raises UsageError."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 16)
    except OSError as error:
        raise UsageError(f'--auth-key: cannot read "{path}": {meaning(error)}') from error
    if "PRIVATE KEY" in text:
        raise UsageError(f'--auth-key: "{path}" is a private key', hint="give the public one, which ends in .pub")
    return text if text.endswith("\n") else text + "\n"
