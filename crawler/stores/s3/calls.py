"""Calls on the event loop of s3fs that threads wait for, and that can be given up from another thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any


class Calls:
    """Calls of one listing that wait for their answers, to be given up together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: set[Future[Any]] = set()
        self._given_up = False

    def wait(self, call: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> Any:
        """Return what a call answers.

        Raises
        ------
        CancelledError
            They were given up.
        """
        with self._lock:
            if self._given_up:
                call.close()
                raise CancelledError
            answer = asyncio.run_coroutine_threadsafe(call, loop)
            self._under_way.add(answer)
        try:
            return answer.result()
        finally:
            answer.cancel()  # who waits for it may be interrupted
            with self._lock:
                self._under_way.discard(answer)

    def give_up(self) -> None:
        """End the calls that wait, and all that come."""
        with self._lock:
            self._given_up = True
            under_way = list(self._under_way)
        for answer in under_way:
            answer.cancel()
