"""Who may log in: no password that anybody knows, keys, a user of the host."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from lxcpy.bootstrap import users
from lxcpy.errors import UsageError


def test_no_password_unless_asked() -> None:
    given = users.values({}, "ubuntu", mapped=False)
    assert given == {"user": "ubuntu", "bindhome": None, "password": "", "auth_key": ""}
    assert users.told(given, {}).startswith("ubuntu has no password and no SSH key: lxcpy-attach leads in")
    assert users.values({"password": "ubuntu"}, "ubuntu", mapped=False)["password"] == "ubuntu"


def test_a_random_password_is_told_and_never_the_same() -> None:
    options = {"password": "-"}
    first, second = (users.values(options, "", mapped=False) for _ in range(2))
    assert len(str(first["password"])) == 16
    assert first["password"] != second["password"]
    assert users.told(first, options) == f"the password of root is {first['password']}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"password": "a:b"}, "--password: it must not hold a colon or a control character"),
        ({"password": "a\nroot:b"}, "--password: it must not hold"),
        ({"user": "a b"}, '--user: "a b" is no name of a user'),
        ({"user": "x:0:0"}, "is no name of a user"),
        ({"user": "-x"}, "is no name of a user"),
        ({"bindhome": "no-such-user"}, '--bindhome: the host has no user "no-such-user"'),
        ({"bindhome": "root", "password": "x"}, "are for a user that the host does not have"),
        ({"auth-key": "/nowhere"}, '--auth-key: cannot read "/nowhere": No such file or directory'),
    ],
)
def test_nonsense_is_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        users.values(options, "ubuntu", mapped=False)
    assert said in caught.value.what


def test_a_user_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pwd.struct_passwd(("me", "x", 1234, 1234, "Me", "/home/my home", "/usr/bin/zsh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda _: entry)
    given = users.values({"bindhome": "me"}, "ubuntu", mapped=False)
    bound = given["bindhome"]
    assert isinstance(bound, dict)
    assert bound["passwd"] == "me:x:1234:1234:Me:/home/my home:/usr/bin/zsh"
    assert bound["shadow"] == "me:!:::::::"
    assert bound["group"] == "me:x:1234:"
    assert bound["mount"] == "/home/my\\040home"
    assert given["user"] == "me"
    assert users.packages(given) == ["zsh"]
    with pytest.raises(UsageError, match="a container with an id map"):
        users.values({"bindhome": "me"}, "ubuntu", mapped=True)


def test_a_private_key_is_not_given_away(tmp_path: Path) -> None:
    private = tmp_path / "id"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    with pytest.raises(UsageError, match="is a private key"):
        users.values({"auth-key": str(private)}, "", mapped=False)
    assert os.path.exists(private)
