"""SIGINT and SIGTERM: the first one stops a run in order, a second one stops it at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from queue import SimpleQueue
from types import FrameType

REPEAT_SECONDS = 1.0
"""Seconds after a signal in which further signals count as the same one: GNU timeout sends two SIGTERM in a row."""

CLOSING_SECONDS = 15.0
"""Seconds in which signals cannot disturb the closing of a cluster and of files."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Phase(Enum):
    STARTING = auto()
    """Nothing is worth keeping: a signal raises KeyboardInterrupt."""
    RUNNING = auto()
    """A signal asks the run to stop in order."""
    STOPPING = auto()
    """The run was asked to stop: a signal raises KeyboardInterrupt."""
    CLOSING = auto()
    """A cluster and files are being closed: signals do nothing for `CLOSING_SECONDS`."""


class Interrupts:
    """The effect of SIGINT and SIGTERM on a run. Made by `interruptible`.

    Attributes
    ----------
    stop : threading.Event
        Set by the first signal of `in_order`.
    interrupted : bool
        A signal came.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.interrupted = False
        self._phase = _Phase.STARTING
        self._since = self._last = float("-inf")
        self._asked: SimpleQueue[bool] = SimpleQueue()  # which a signal handler may use at any time

    @contextmanager
    def in_order(self, acknowledge: Callable[[], None]) -> Iterator[None]:
        """Have the first signal set `stop`, and a second one raise KeyboardInterrupt.

        Parameters
        ----------
        acknowledge : callable
            Called once, on another thread, as soon as `stop` is set by a signal.
        """

        def watch() -> None:
            if self._asked.get():
                self.stop.set()
                acknowledge()

        thread = threading.Thread(target=watch, name="interrupts", daemon=True)
        thread.start()
        self._phase = _Phase.RUNNING
        try:
            yield
        finally:
            self._close()
            self._asked.put(False)
            thread.join()

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        now = time.monotonic()
        if now - self._last < REPEAT_SECONDS:
            return
        self._last = now
        self.interrupted = True
        if self._phase is _Phase.RUNNING:
            self._phase = _Phase.STOPPING
            self._asked.put(True)
        elif self._phase is not _Phase.CLOSING or now - self._since >= CLOSING_SECONDS:
            self._close()
            raise KeyboardInterrupt

    def _close(self) -> None:
        self._phase, self._since = _Phase.CLOSING, time.monotonic()


@contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Handle SIGINT and SIGTERM for as long as the block lasts, and restore the handlers from before.

    A signal that the process ignores stays ignored (``nohup``, ``&`` in a script). In a thread other than the main one,
    which gets no signals, only the event `Interrupts.stop` is of use.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in {None, signal.SIG_IGN}}
    try:
        for number in before:
            signal.signal(number, interrupts.on_signal)
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
