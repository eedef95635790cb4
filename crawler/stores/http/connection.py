"""Connections of `http.client` with a limit on all that comes.

Bytes are counted and the clock is read where the socket is read, so that no part of an answer goes without limits: not
interim answers, headers, the framing of chunks or what follows the body.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import time
from typing import Any

from crawler.stores.http.answer import HEAD_BYTES, INTERIM_ANSWERS

CONNECT_SECONDS = 3.0
"""Longest wait, in seconds, for a connection to one address, and for its TLS handshake."""

STALL_SECONDS = 10.0
"""Longest wait, in seconds, for the next bytes of an answer."""

TOTAL_SECONDS = 120.0
"""Longest time, in seconds, of one request: redirects and body included."""


class TooLongHeadError(http.client.HTTPException):
    """What comes before the body has more than `HEAD_BYTES` or `INTERIM_ANSWERS`."""


class Wire:
    """A socket that is read until a deadline only, and whose bytes are counted while headers are read.

    Stands where `http.client` expects a socket.

    Attributes
    ----------
    received : int
        Bytes since the request was begun.
    in_head : bool
        What is read belongs to the status line or to headers.
    """

    def __init__(self, sock: socket.socket, stall: float) -> None:
        self._socket = sock
        self._stall = stall
        self._deadline = float("inf")
        self.received = 0
        self.in_head = True

    def begin(self, deadline: float) -> None:
        """Take note that a request begins."""
        self._deadline, self.received, self.in_head = deadline, 0, True

    def hurry(self, seconds: float) -> None:
        """Move the deadline: what follows of the answer is not wanted."""
        self._deadline = min(self._deadline, time.monotonic() + seconds)

    def sendall(self, data: bytes) -> None:
        """Send bytes."""
        self._arm()
        self._socket.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a file of what comes. Closing it leaves the socket open."""
        return io.BufferedReader(_Incoming(self), 16 * 1024)

    def read_into(self, buffer: memoryview) -> int:
        """Read what is there, or wait for it."""
        self._arm()
        count = self._socket.recv_into(buffer)
        self.received += count
        if self.in_head and self.received > HEAD_BYTES:
            raise TooLongHeadError
        return count

    def is_silent(self) -> bool:
        """Tell whether nothing came and nobody hung up since the last answer."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Do nothing: `http.client` closes the socket before it reads a body that ends with the connection."""

    def hang_up(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _arm(self) -> None:
        left = min(self._stall, self._deadline - time.monotonic())
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


class _Incoming(io.RawIOBase):
    """The bytes of one answer."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read into a buffer; return how many bytes."""
        return self._wire.read_into(buffer)


class _Response(http.client.HTTPResponse):
    def begin(self) -> None:
        """Read the status line and headers, those of interim answers (RFC 9110, section 15.2) before them."""
        super().begin()
        interim = 0
        while 100 <= self.status < 200 and self.status != http.client.SWITCHING_PROTOCOLS:
            interim += 1
            if interim > INTERIM_ANSWERS:
                raise TooLongHeadError
            # What the constructor sets, and `begin` looks at.
            self.headers = self.msg = None  # type: ignore[assignment]
            self.length = None
            self.will_close = True
            super().begin()


class PlainConnection(http.client.HTTPConnection):
    """A connection on a `Wire`."""

    response_class = _Response
    stall = STALL_SECONDS
    idle_since = 0.0
    wire: Wire

    def connect(self) -> None:
        """Connect."""
        super().connect()
        self.sock: Any = self.sock
        self.sock = self.wire = Wire(self.sock, self.stall)


class SecureConnection(PlainConnection, http.client.HTTPSConnection):
    """The same over TLS."""
