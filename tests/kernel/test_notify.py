"""`notify`: a stopped call is answered by the proxy, over liblxc's wire."""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from probes import requires

from lxcpy.errors import SecurityError
from lxcpy.kernel import seccomp as kernel
from lxcpy.kernel.fd import Fd
from lxcpy.security import notify, seccomp

pytestmark = requires("root", "libseccomp")
Isolated = Callable[..., Any]
POLICY = "2\ndenylist\ngetppid notify\n"
HEADER = struct.Struct("=Qii3HxxQ")


def _filtered(calls: int) -> tuple[int, Fd, int]:
    """A child under the policy that calls getppid: (pid, listener, reader of what it got)."""
    program = seccomp.compile(seccomp.parse(POLICY, "f"))
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            listener = seccomp.apply(program)
            assert listener is not None
            socket.send_fds(theirs, [b"x"], [listener.steal()])
            for _ in range(calls):
                os.write(writer, f"{os.getppid()}\n".encode())
        finally:
            os._exit(0)
    os.close(writer)
    theirs.close()
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    ours.close()
    return pid, Fd(fds[0]), reader


def _proxy(path: str, answers: list[int], heard: int) -> None:
    """Serve one connection an answer each (a return value), telling what it heard, then hang up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(path)
        server.listen()
        os.write(heard, b"r")
        for value in answers:
            connection, _ = server.accept()
            with connection:
                message, rights, _, _ = connection.recvmsg(4096, 256)
                fds = array.array("i", rights[0][2])
                size = HEADER.size + kernel.NOTIFICATION.size + kernel.RESPONSE.size
                header = HEADER.unpack_from(message)
                number, pid, *_ = kernel.NOTIFICATION.unpack_from(message, HEADER.size)
                names = [os.readlink(f"/proc/self/fd/{fd}").rpartition("/")[2] for fd in fds]
                os.write(heard, f"{header[1:3]} {message[size:].decode()} {names} {pid}\n".encode())
                answer = bytearray(message[:size])
                kernel.RESPONSE.pack_into(answer, size - kernel.RESPONSE.size, number, value, 0, 0)
                connection.send(answer)


def test_calls_are_answered_and_a_lost_proxy_is_found_again(isolated: Isolated, tmp_path: Path) -> None:
    def inside() -> tuple[int, list[str], list[str]]:
        path = str(tmp_path / "proxy")
        heard, tell = os.pipe()
        server = os.fork()
        if server == 0:
            try:
                _proxy(path, [4242, 4243], tell)
            finally:
                os._exit(0)
        os.close(tell)
        os.read(heard, 1)
        pid, listener, reader = _filtered(2)
        proxy = notify.Proxy(listener, f"unix:{path}", init=11, monitor=12, cookie="a cookie")
        proxy.serve()  # ends with the child
        proxy.close()
        os.waitpid(pid, 0)
        os.waitpid(server, 0)
        return pid, os.fdopen(reader).read().split(), os.fdopen(heard).read().splitlines()

    pid, got, heard = isolated(inside)
    assert got == ["4242", "4243"]
    assert heard == [f"(12, 11) a cookie ['{pid}', 'mem', 'anon_inode:seccomp notify'] {pid}"] * 2


def test_without_a_proxy_the_call_fails(isolated: Isolated, tmp_path: Path) -> None:
    def inside() -> list[str]:
        pid, listener, reader = _filtered(1)
        notify.Proxy(listener, f"unix:{tmp_path}/none", init=1, monitor=1).serve()
        os.waitpid(pid, 0)
        return os.fdopen(reader).read().split()

    assert isolated(inside) == [str(-errno.ENOSYS)]  # getppid cannot fail, so the C library hands on what it got


@pytest.mark.parametrize("text", ["/run/x", "unix:", "unix:relative", "unix:/", f"unix:/{'x' * 107}"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(SecurityError, match="is not unix:/PATH or unix:@NAME"):
        notify.address(text)


def test_addresses() -> None:
    assert notify.address("unix:/run/x") == "/run/x" and notify.address("unix:@name") == "\0name"
