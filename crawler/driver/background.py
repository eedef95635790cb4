"""A listing that runs ahead of the driver, on a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

_POLL = 0.1  # seconds after which a thread that waits looks whether it should go on: a signal does not wake it

_LEAVE = 2.0  # seconds that the listing is given to end where nobody wants the rest of it

Item = TypeVar("Item")


@contextmanager
def ahead(
    items: Iterator[Item], depth: int, stop: threading.Event, idle: Callable[[], None] = lambda: None
) -> Iterator[Iterator[Item]]:
    """Iterate on a thread of its own, at most ``depth`` items ahead of who takes them; errors come in their place.

    Once ``stop`` is set, who waits for an item is told that there are no more. Until then that thread calls ``idle``
    every `_POLL` seconds.
    """
    ready: queue.Queue[Item | BaseException | None] = queue.Queue(depth)
    leaving = threading.Event()

    def put(item: Item | BaseException | None) -> bool:
        while not leaving.is_set():
            try:
                ready.put(item, timeout=_POLL)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:  # not swallowed: raised where the item would have come
            put(error)
        else:
            put(None)

    def take() -> Iterator[Item]:
        while True:
            try:
                item = ready.get(timeout=_POLL)
            except queue.Empty:
                idle()
                if stop.is_set():
                    return
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=produce, name="listing", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        leaving.set()
        thread.join(_LEAVE)  # not longer: it may be waiting for a store
