"""Key partitions on their way from a listing to whoever crawls them, by way of the catalogue's folder.

A listing is ten to a hundred times faster than the crawl. So that it can end, and be kept, long before the crawl does,
it is never waited for: what nobody takes yet is on disk, and is read from there once the listing has ended.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from crawler.catalogue.records.saved_listing import KeptListing, ListingWriter

_POLL = 0.1  # seconds after which a thread that waits looks whether it should go on: a signal does not wake it

_LEAVE = 2.0  # seconds that the listing is given to end where nobody wants the rest of it


class Spool:
    """Partitions that were listed, in the order in which they can be had.

    Attributes
    ----------
    kept : KeptListing or None
        The listing, once it has ended.
    """

    def __init__(
        self, writer: ListingWriter, depth: int, stop: threading.Event, idle: Callable[[], None] = lambda: None
    ) -> None:
        self.kept: KeptListing | None = None
        self._writer = writer
        self._stop = stop
        self._idle = idle
        self._ready: queue.Queue[pa.Table] = queue.Queue(depth)
        self._later = bytearray()  # by partition: 1 where it is read from the disk in the end
        self._ended = threading.Event()
        self._failure: BaseException | None = None

    def fill(self, partitions: Iterator[pa.Table], ended: Callable[[], tuple[int, list[str]] | None]) -> None:
        """Write partitions as they come, and hand over those that somebody waits for.

        Parameters
        ----------
        partitions : iterator of pyarrow.Table
        ended : callable
            Returns what `ListingWriter.end` wants; None where the listing did not come to its end.
        """
        try:
            for partition in partitions:
                self._writer.write(partition)
                try:
                    self._ready.put_nowait(partition)
                    self._later.append(0)
                except queue.Full:
                    self._later.append(1)
            found = ended()
            if found is not None:
                self.kept = self._writer.end(*found)
        except BaseException as error:  # not swallowed: raised to whoever takes
            self._failure = error
        finally:
            if self.kept is None:
                self._writer.close()
            self._ended.set()

    def __iter__(self) -> Iterator[pa.Table]:
        while not (self._ended.is_set() and self._ready.empty()):
            try:
                yield self._ready.get(timeout=_POLL)
            except queue.Empty:
                self._idle()
                if self._stop.is_set():
                    return
        if self._failure is not None:
            raise self._failure
        if self.kept is not None and any(self._later):
            for later, partition in zip(self._later, self.kept.partitions(), strict=True):
                if later:
                    yield partition


@contextmanager
def spooled(
    partitions: Iterator[pa.Table],
    ended: Callable[[], tuple[int, list[str]] | None],
    writer: ListingWriter,
    depth: int,
    stop: threading.Event,
    idle: Callable[[], None] = lambda: None,
) -> Iterator[Spool]:
    """Give a spool that a thread fills; see `Spool.fill`.

    Parameters
    ----------
    depth : int
        Partitions in memory.
    stop : threading.Event
        Once it is set, who waits for a partition is told that there are no more.
    idle : callable
        Called every `_POLL` seconds by the thread that waits for a partition.
    """
    spool = Spool(writer, depth, stop, idle)
    thread = threading.Thread(target=spool.fill, args=(partitions, ended), name="spool", daemon=True)
    thread.start()
    try:
        yield spool
    finally:
        thread.join(_LEAVE)  # not longer: it may be waiting for a store
