"""A proxy that does to requests what a busy store and a bad network do, and counts it."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from typing import ClassVar

from tests.s3.proxy import PassOn, Proxy

_SLOW_DOWN = (
    b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'
)
_INTERNAL_ERROR = b'<?xml version="1.0"?><Error><Code>InternalError</Code><Message>Please try again.</Message></Error>'
_STALL_SECONDS = 20.0


class _Faulty(PassOn):
    def answer(self) -> None:
        owner = self.server.owner
        time.sleep(owner.delay)  # what a network takes, not a wait for something
        fault = owner.next_fault()
        if fault == "slow-down":
            self.send(*owner.refusal, {"Content-Type": "application/xml"})
        elif fault == "server-error":
            self.send(500, _INTERNAL_ERROR, {"Content-Type": "application/xml"})
        elif fault == "time-out":
            self.close_connection = True  # and nothing said: who asked has long hung up when this is over
            owner.over.wait(_STALL_SECONDS)
        elif fault == "reset":
            # A socket that is closed with nothing to linger for sends RST.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        else:
            self.cut = fault == "short-body"
            super().answer()

    cut = False

    def send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:  # type: ignore[override]
        if not self.cut or self.command == "HEAD" or len(body) < 2:
            super().send(status, body, headers, length)
            return
        self.cut = False
        self.server.owner.done("short-body")
        super().send(status, body[: len(body) // 2], headers, len(body))
        self.wfile.flush()
        self.close_connection = True


class FaultProxy(Proxy):
    """Hands requests on to ``upstream``, some of them with a fault.

    Parameters
    ----------
    upstream : str
    slow_down, server_error, reset, short_body, time_out : float
        Shares of requests that are answered 503 SlowDown, that are answered 500, whose connection is reset, whose body
        is cut in the middle, that are not answered.
    delay : float
        Seconds before anything is answered.
    seed : int

    Attributes
    ----------
    after, refuse : int
        Once so many requests were handed on, so many are all refused; -1 for all there will be.
    refusal : tuple of int and bytes
        Status and body that they are refused with.
    faults : Counter
        What was done, by kind.
    """

    handler: ClassVar[type[PassOn]] = _Faulty

    def __init__(
        self,
        upstream: str,
        *,
        slow_down: float = 0.0,
        server_error: float = 0.0,
        reset: float = 0.0,
        short_body: float = 0.0,
        time_out: float = 0.0,
        delay: float = 0.0,
        seed: int = 1,
    ) -> None:
        super().__init__(upstream)
        self.delay = delay
        self.after = 0
        self.refuse = 0
        self.refusal = (503, _SLOW_DOWN)
        self.faults: Counter[str] = Counter()
        self.over = threading.Event()
        self._shares = {
            "slow-down": slow_down,
            "server-error": server_error,
            "reset": reset,
            "short-body": short_body,
            "time-out": time_out,
        }
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def __exit__(self, *given: object) -> None:
        self.over.set()
        super().__exit__(*given)

    def done(self, fault: str) -> None:
        """Count a fault."""
        with self._lock:
            self.faults[fault] += 1

    def next_fault(self) -> str | None:
        """Return what to do to the next request; counted but for bodies, which may be too short to be cut."""
        with self._lock:
            self.after -= 1
            if self.refuse and self.after < 0:
                self.refuse -= 1
                self.faults["slow-down"] += 1
                return "slow-down"
            drawn = self._random.random()
            for fault, share in self._shares.items():
                if drawn < share:
                    self.faults[fault] += fault != "short-body"
                    return fault
                drawn -= share
            return None
