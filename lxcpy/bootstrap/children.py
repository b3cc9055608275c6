"""Work in a child process that will leave the host's root: it tells how far it is, then its result or its failure."""

from __future__ import annotations

import json
import os
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from lxcpy.errors import BootstrapError, LxcpyError, from_dict
from lxcpy.kernel import process


def check(answer: dict[str, Any]) -> None:
    """Raise the failure that an answer tells, if it does: OSError, LxcpyError."""
    if "errno" in answer:
        raise OSError(answer["errno"], answer["text"])
    if "error" in answer:
        raise from_dict(answer["error"])


class Child:
    """One process that calls `work(channel)`, whose result is the last answer; it dies with this one, at the latest."""

    def __init__(self, work: Callable[[socket.socket], dict[str, Any]]) -> None:
        """Forks. Raises OSError."""
        ours, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            _run(theirs, work)
        theirs.close()
        self._socket = ours

    @staticmethod
    def say(channel: socket.socket, answer: dict[str, Any]) -> None:
        """In the child: one more answer."""
        channel.sendall(json.dumps(answer).encode() + b"\n")

    def answers(self) -> Iterator[dict[str, Any]]:
        """What it says, as it comes. Raises OSError and LxcpyError as `work` did."""
        with self._socket.makefile("rb") as reader:
            for line in reader:
                answer: dict[str, Any] = json.loads(line)
                check(answer)
                yield answer
        raise BootstrapError("the process that does the work died", hint="the kernel's log may tell why")

    def close(self) -> None:
        """End it, also in the middle of its work."""
        self._socket.close()
        if self._pid:
            process.kill_child(self._pid)
            self._pid = 0

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _run(channel: socket.socket, work: Callable[[socket.socket], dict[str, Any]]) -> None:
    """The process's whole life."""
    try:
        process.set_pdeathsig(signal.SIGKILL)
        try:
            answer = work(channel)
        except LxcpyError as error:
            answer = {"error": error.to_dict()}
        except OSError as error:
            answer = {"errno": error.errno or 0, "text": error.strerror or str(error)}
        Child.say(channel, answer)
    except BrokenPipeError:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)
