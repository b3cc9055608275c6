"""Messages between two processes, and their ends."""

from __future__ import annotations

import os

import pytest

from lxcpy.runtime.channel import Channel, Closed


def test_a_message_with_a_descriptor() -> None:
    one, other = Channel.pair()
    reader, writer = os.pipe()
    one.send({"a": [1, "é"]}, [reader])
    message, fds = other.receive()
    os.write(writer, b"x")
    assert (message, os.read(fds[0], 1)) == ({"a": [1, "é"]}, b"x")
    for fd in (reader, writer, *fds):
        os.close(fd)
    one.close()
    with pytest.raises(Closed):
        other.receive()
    with pytest.raises(Closed):
        other.send({})
    other.close()


def test_the_last_words_of_a_peer_that_did_not_listen() -> None:
    """Who leaves with something unread resets the connection; what it has said before counts."""
    one, other = Channel.pair()
    other.send({"go": "on"})
    one.send({"failed": "why"})
    one.close()
    assert other.receive() == ({"failed": "why"}, [])
    with pytest.raises(Closed):
        other.receive()
    other.close()
