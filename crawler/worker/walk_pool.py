"""A pool of threads that walk files, for any number of partitions at once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeAlias

from crawler.errors import CrawlerError, StoreError
from crawler.stores.base import ByteRange, Fetched, ObjectRef, ObjectStore
from crawler.worker.file_walk import Answers, Reads
from crawler.worker.walk import FileResult, Read, read_in_turn

Walk: TypeAlias = Callable[[Read], FileResult]
"""The walk of one file. It reads through the function that it is given."""

AHEAD = 96
"""Walks that wait for a thread: they keep the threads busy while the caller writes results."""

HELD_BYTES = 8 * 2**20
"""Header bytes of results that wait for an earlier result. From then on the pool begins only the earliest walk."""

LOOK = 64
"""Number of files among which the pool looks for one whose walk may begin."""

_POLL = 0.1
"""Poll interval, in seconds, for the stop flag of a caller and for files that wait for the walk of another caller."""


class AbandonedError(CrawlerError):
    """A walk read after its result was no longer wanted."""


class WalkPool:
    """Daemon threads that walk files. Safe to use from many threads.

    A walk occupies one thread. When no walk waits for a thread, idle threads read some of the ranges of a walk that
    knows several, so that the last walks of a partition take no longer than they must.

    Parameters
    ----------
    slots : int
        Maximum number of threads, and so of requests in flight. Threads start when there is work for them.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._closed = False

    def walk(
        self,
        refs: Sequence[ObjectRef],
        begin: Callable[[ObjectRef], Walk | None],
        stop: Callable[[], bool],
        stop_seconds: float = float("inf"),
    ) -> Iterator[FileResult]:
        """Walk files, and yield their results in the order of ``refs``.

        Parameters
        ----------
        refs : sequence of ObjectRef
        begin : callable
            Given a file, returns its walk, which the pool then calls whatever happens; or None, to be called again for
            this file when another walk has ended.
        stop : callable
            Called before each walk, on its thread, and while the caller waits. After it has returned True, no walk
            begins.
        stop_seconds : float
            Seconds after ``stop`` in which walks may end. Those that last longer are abandoned: they have no result,
            and read no further range.

        Raises
        ------
        BaseException
            The exception of a walk, in place of its result.
        """
        caller = _Caller(refs, begin, stop, self._slots + AHEAD)
        deadline = float("inf")
        try:
            while (caller.todo or caller.walking) and time.monotonic() < deadline and not self._closed:
                if deadline == float("inf") and stop():
                    caller.todo.clear()
                    deadline = time.monotonic() + stop_seconds
                for task in caller.tasks(self._read):
                    self._submit(task)
                caller.land()
                yield from caller.take()
            yield from caller.take(gaps=True)
        finally:
            caller.abandoned = True

    def close(self) -> None:
        """Abandon all walks, and end each thread when it has nothing more to read."""
        with self._lock:
            self._closed = True
            for _ in range(self._threads):
                self._tasks.put(None)

    def _submit(self, task: Callable[[], None]) -> None:
        self._tasks.put(task)
        with self._lock:
            if self._threads < self._slots and not self._closed:
                self._threads += 1
                threading.Thread(target=self._run, name="walk", daemon=True).start()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            del task

    def _read(self, caller: _Caller, store: ObjectStore, reads: Reads) -> Answers:
        """Read the ranges of a walk: the first one here, each other one here or on a thread that is idle."""
        if caller.abandoned or self._closed:
            raise AbandonedError("walk abandoned")
        if len(reads.spans) == 1 or not self._tasks.empty():
            return read_in_turn(store, reads)
        first, *offers = (_Offer(store, reads.ref, span) for span in reads.spans)
        for offer in offers:
            self._submit(offer.fulfil)
        answers = [first.get()]
        # Other threads take the offers from the first to the last: this one takes them from the last to the first.
        later = [offer.get() if offer.future.cancel() else offer.future.result() for offer in reversed(offers)]
        return answers + later[::-1]


class _Caller:
    """One call of `WalkPool.walk`, on one thread but for the walks.

    Attributes
    ----------
    todo : deque of (int, ObjectRef)
        Files whose walks were not submitted, in order.
    walking : int
        Number of walks that were submitted and have not ended.
    abandoned : bool
        The caller takes no further result.
    """

    def __init__(
        self, refs: Sequence[ObjectRef], begin: Callable[[ObjectRef], Walk | None], stop: Callable[[], bool], most: int
    ) -> None:
        self.todo = deque(enumerate(refs))
        self.walking = 0
        self.abandoned = False
        self._begin, self._stop, self._most = begin, stop, most
        self._landed: SimpleQueue[tuple[int, FileResult | BaseException]] = SimpleQueue()
        self._done: dict[int, FileResult | BaseException] = {}
        self._held = 0
        self._awaited = 0  # index of the result that is taken next

    def tasks(self, read: Callable[[_Caller, ObjectStore, Reads], Answers]) -> Iterator[Callable[[], None]]:
        """Yield the walks that may begin, as long as there is room for their results."""
        while self.todo and self.walking < self._most:
            # The result that is awaited always has room, or all would wait for ever.
            if self._held >= HELD_BYTES and self.todo[0][0] != self._awaited:
                return
            for place in range(min(LOOK, len(self.todo))):
                index, ref = self.todo[place]
                if (walk := self._begin(ref)) is not None:
                    del self.todo[place]
                    self.walking += 1
                    yield partial(self._walk, index, walk, partial(read, self))
                    break
            else:
                return

    def _walk(self, index: int, walk: Walk, read: Read) -> None:
        outcome: FileResult | BaseException
        try:
            outcome = walk(_refuse if self._stop() else read)
        except BaseException as error:  # not swallowed: raised in place of the result
            outcome = error
        self._landed.put((index, outcome))

    def land(self) -> None:
        """Wait for a walk to end, and keep the outcomes of all walks that have ended."""
        with suppress(Empty):
            index, outcome = self._landed.get(timeout=_POLL)
            while True:
                self.walking -= 1
                if not isinstance(outcome, AbandonedError):
                    self._done[index] = outcome
                    self._held += _header_bytes(outcome)
                index, outcome = self._landed.get_nowait()

    def take(self, *, gaps: bool = False) -> Iterator[FileResult]:
        """Yield the results that are next in order; with gaps, all results."""
        while self._done and (gaps or self._awaited in self._done):
            self._awaited = min(self._done) if gaps else self._awaited
            outcome = self._done.pop(self._awaited)
            self._awaited += 1
            self._held -= _header_bytes(outcome)
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
            del outcome  # or it stays in memory while the next one is waited for


class _Offer:
    """A range that a walk offers to idle threads. The walk cancels ``future`` to read the range itself."""

    def __init__(self, store: ObjectStore, ref: ObjectRef, span: ByteRange) -> None:
        self.future: Future[Fetched | StoreError] = Future()
        self._get = partial(store.get, ref, span)

    def get(self) -> Fetched | StoreError:
        """Read the range."""
        try:
            return self._get()
        except StoreError as error:
            return error

    def fulfil(self) -> None:
        """Read the range for the walk, unless the walk reads it itself."""
        if self.future.set_running_or_notify_cancel():
            try:
                self.future.set_result(self.get())
            except BaseException as error:  # not swallowed: raised to the walk
                self.future.set_exception(error)


def _refuse(_store: ObjectStore, _reads: Reads) -> Answers:
    raise AbandonedError("walk not begun")


def _header_bytes(outcome: FileResult | BaseException) -> int:
    return outcome.header_bytes if isinstance(outcome, FileResult) else 0
