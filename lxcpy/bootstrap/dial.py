"""Connections to a name that has several addresses: the next one is tried when the last has not answered in a moment.

So a network that has addresses of IPv6 and no way to them costs a quarter of a second, not a timeout (RFC 8305, happy
eyeballs). And a name is looked up once, not for each connection: there are gateways that lose one of two questions
which come at once, and each loss costs the resolver's timeout of five seconds (resolv.conf(5)).
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

_STAGGER = 0.25  # seconds between the beginnings of two attempts; section 8 of the RFC
_Address = tuple[int, int, int, Any]  # family, type, protocol, address


class Dialler:
    """Opens connections, for several threads, and remembers the addresses of names as long as they answer."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], list[_Address]] = {}
        self._locks: dict[tuple[str, int], threading.Lock] = {}

    def dial(self, address: tuple[str, int], timeout: float, *_: object) -> socket.socket:
        """As socket.create_connection: a connected socket with that timeout. Raises OSError, socket.gaierror."""
        found = self._look_up(address)
        try:
            one, place = _connect(found, timeout)
        except OSError:
            self._known.pop(address, None)
            raise
        # what answered is the first to be tried the next time
        self._known[address] = [place, *(other for other in found if other != place)]
        return one

    def _look_up(self, address: tuple[str, int]) -> list[_Address]:
        with self._locks.setdefault(address, threading.Lock()):
            known = self._known.get(address)
            if known is None:
                found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
                known = self._known[address] = _by_turns([(*one[:3], one[4]) for one in found])
            return known


def _connect(addresses: Sequence[_Address], timeout: float) -> tuple[socket.socket, _Address]:
    """The first connection that comes about, and to where. Raises OSError."""
    waiting = list(addresses)
    attempts: dict[int, tuple[socket.socket, _Address]] = {}
    failure: OSError | None = None
    end = time.monotonic() + timeout
    next_one = 0.0
    try:
        while waiting or attempts:
            now = time.monotonic()
            if now >= end:
                raise failure or TimeoutError
            if waiting and (now >= next_one or not attempts):
                next_one = now + _STAGGER
                problem = _begin(waiting.pop(0), attempts)
                failure = failure or problem
                continue
            poller = select.poll()
            for descriptor in attempts:
                poller.register(descriptor, select.POLLOUT)
            for descriptor, _events in poller.poll(1000 * (min(end, next_one if waiting else end) - now) + 1):
                one, place = attempts.pop(descriptor)
                number = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not number:
                    one.settimeout(timeout)
                    return one, place
                one.close()
                failure = failure or OSError(number, os.strerror(number))
        raise failure or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    finally:
        for one, _ in attempts.values():
            one.close()


def _by_turns(found: list[_Address]) -> list[_Address]:
    """The resolver's order, but no two of one family in a row where there are others."""
    families = [[one for one in found if one[0] == family] for family in dict.fromkeys(one[0] for one in found)]
    return [one for turn in itertools.zip_longest(*families) for one in turn if one is not None]


def _begin(address: _Address, attempts: dict[int, tuple[socket.socket, _Address]]) -> OSError | None:
    """Begin to connect; the failure, if it fails at once."""
    family, kind, protocol, place = address
    try:
        one = socket.socket(family, kind, protocol)
    except OSError as error:  # such as a kernel without IPv6
        return error
    one.setblocking(False)
    number = one.connect_ex(place)
    if number not in (0, errno.EINPROGRESS):
        one.close()
        return OSError(number, os.strerror(number))
    attempts[one.fileno()] = one, address
    return None
