"""Many walks at once: a number of requests under way that is kept full, whatever each walk waits for.

Threads do whatever is next: a range that a walk wants, or else the begin of another walk. So a walk that wants several
ranges gets them at the same time, the requests under way are as many as was asked for and no more, and no more walks
are open than that.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeAlias

from crawler.errors import StoreError
from crawler.stores.base import Fetched, ObjectRef, ObjectStore
from crawler.walk import Answers, FileResult, Reads

Steps: TypeAlias = Generator[Reads, Answers, FileResult]

_AHEAD = 4096
"""Results that wait for whoever asked for them."""

_HELD_BYTES = 8 * 2**20
"""Header bytes of results that wait."""

_LOOK = 64
"""Files among which one is looked for that may begin."""


class Flight:
    """Threads that read for many walks, of any number of callers.

    Parameters
    ----------
    slots : int
        Requests under way at once.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # there may be something to do
        self._reads: deque[tuple[_Walk, int]] = deque()
        self._crews: list[_Crew] = []
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False

    def walk(
        self,
        refs: Sequence[ObjectRef],
        begin: Callable[[ObjectRef], tuple[ObjectStore, Steps] | None],
        stop: Callable[[], bool],
    ) -> Iterator[FileResult]:
        """Walk files, and yield what became of them in their order.

        Parameters
        ----------
        refs : sequence of ObjectRef
        begin : callable
            Given a file, return its store and the steps of its walk; None to be asked again when another walk has
            ended. Called under a lock.
        stop : callable
            Asked before each walk; once it is true no further walk begins, and only those that were are yielded.
        """
        crew = _Crew(refs, begin, stop, threading.Condition(self._lock))
        with self._lock:
            self._crews.append(crew)
            self._wake(len(refs))
        try:
            while True:
                with self._lock:
                    while not (outcomes := crew.take()) and not crew.is_over():
                        crew.came.wait()
                    if crew.starved:
                        self._wake(self._slots)
                if not outcomes:
                    return
                outcomes.reverse()
                while outcomes:
                    if isinstance(outcome := outcomes.pop(), BaseException):
                        raise outcome
                    yield outcome
        finally:
            with self._lock:
                self._crews.remove(crew)

    def close(self) -> None:
        """Have the threads end, those that read once they have read."""
        with self._lock:
            self._closed = True
            self._idle = 0
            self._work.notify_all()

    def _wake(self, count: int) -> None:
        """Have up to ``count`` threads look for work."""
        woken = min(count, self._idle)
        self._idle -= woken
        self._work.notify(woken)
        for _ in range(min(count - woken, self._slots - len(self._threads))):
            thread = threading.Thread(target=self._run, name="walk", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self) -> None:
        """Do whatever is next, until closed."""
        while True:
            with self._lock:
                while (task := self._next()) is None and not self._closed:
                    self._idle += 1  # `_wake` takes it off again
                    self._work.wait()
                if task is None:
                    self._threads.remove(threading.current_thread())
                    return
            walk, index = task
            self._go_on(walk, index)

    def _next(self) -> tuple[_Walk, int] | None:
        """Return a read that is wanted, or a walk to begin: index -1."""
        if self._reads:
            return self._reads.popleft()
        for crew in self._crews:
            walk = crew.begin()
            if walk is not None:
                return walk, -1
        return None

    def _go_on(self, walk: _Walk, index: int) -> None:
        """Read for a walk, as long as it wants just one thing; leave what else it wants to other threads."""
        while True:
            if index >= 0:
                answer = walk.read(index)
                with self._lock:
                    if not walk.answer(index, answer):
                        return
            wanted = walk.advance()
            with self._lock:
                if not wanted:
                    self._land(walk)
                    return
                if wanted > 1:
                    self._reads.extend((walk, other) for other in range(1, wanted))
                    self._wake(wanted - 1)
            index = 0

    def _land(self, walk: _Walk) -> None:
        walk.crew.landed(walk)
        held_back = [crew for crew in self._crews if crew.held_back]
        for crew in held_back:
            crew.held_back = False
        if held_back:  # what waited for a walk to end may begin
            self._wake(self._slots)


class _Crew:
    """The walks of one caller. All its methods want the flight's lock.

    Attributes
    ----------
    todo : deque of (int, ObjectRef)
        Files whose walks did not begin, in order.
    came : threading.Condition
        What the caller waits for was done.
    held_back : bool
        A file was not allowed to begin yet.
    starved : bool
        No walk began because too much waits for the caller.
    """

    def __init__(
        self,
        refs: Sequence[ObjectRef],
        begin: Callable[[ObjectRef], tuple[ObjectStore, Steps] | None],
        stop: Callable[[], bool],
        came: threading.Condition,
    ) -> None:
        self.todo = deque(enumerate(refs))
        self.came = came
        self.held_back = False
        self.starved = False
        self._begin = begin
        self._stop = stop
        self._open: set[int] = set()
        self._done: dict[int, FileResult | BaseException] = {}
        self._awaited = 0  # the index that the caller takes next
        self._held = 0

    def begin(self) -> _Walk | None:
        """Begin the next walk that may; None where there is none, or no room for what it would bring."""
        self.starved = False
        if self.todo and self._stop():
            self.todo.clear()
            self.came.notify()
        if not self.todo:
            return None
        # What the caller waits for always has room, or all would wait for ever.
        room = self._has_room()
        self.starved = not room and self.todo[0][0] != self._awaited
        if self.starved:
            return None
        for place in range(min(_LOOK if room else 1, len(self.todo))):
            index, ref = self.todo[place]
            try:
                begun = self._begin(ref)
            except BaseException as error:  # not swallowed: raised where the result would have come
                del self.todo[place]
                self._keep(index, error)
                return None
            if begun is not None:
                del self.todo[place]
                self._open.add(index)
                return _Walk(self, index, *begun)
        self.held_back = True
        return None

    def _has_room(self) -> bool:
        return len(self._open) + len(self._done) < _AHEAD and self._held < _HELD_BYTES

    def landed(self, walk: _Walk) -> None:
        """Take what became of a walk."""
        self._open.discard(walk.index)
        self._keep(walk.index, walk.outcome)

    def _keep(self, index: int, outcome: FileResult | BaseException) -> None:
        self._done[index] = outcome
        self._held += _header_bytes(outcome)
        if index == self._awaited or self.is_over():
            self.came.notify()

    def take(self) -> list[FileResult | BaseException]:
        """Give the caller what is done, as far as it is done without a gap."""
        outcomes = []
        while (index := self._awaited) in self._done:
            outcomes.append(self._done.pop(index))
            self._held -= _header_bytes(outcomes[-1])
            self._awaited += 1
        if not (outcomes or self.todo or self._open) and self._done:  # stopped, with gaps
            self._awaited = min(self._done)
            return self.take()
        return outcomes

    def is_over(self) -> bool:
        """Tell whether all is done."""
        return not (self.todo or self._open)


class _Walk:
    """A walk that is under way, and the answers that it waits for."""

    __slots__ = ("_answers", "_error", "_missing", "_reads", "_steps", "_store", "crew", "index", "outcome")

    def __init__(self, crew: _Crew, index: int, store: ObjectStore, steps: Steps) -> None:
        self.crew = crew
        self.index = index
        self.outcome: Any = None
        self._store = store
        self._steps = steps
        self._reads: Reads | None = None
        self._answers: list[Any] = []
        self._error: BaseException | None = None
        self._missing = 0

    def read(self, index: int) -> Fetched | BaseException:
        """Read one of the ranges that are wanted."""
        assert self._reads is not None  # noqa: S101 - for the type checker: only a walk that wants something is read
        try:
            return self._store.get(self._reads.ref, self._reads.spans[index])
        except BaseException as error:
            return error

    def answer(self, index: int, answer: Fetched | BaseException) -> bool:
        """Keep an answer; tell whether it was the last one missing."""
        if isinstance(answer, Fetched | StoreError):
            self._answers[index] = answer
        else:
            self._error = self._error or answer
        self._missing -= 1
        return not self._missing

    def advance(self) -> int:
        """Go on with what was read; return how many ranges are wanted next, 0 where the walk is over."""
        try:
            if self._reads is None:
                reads = next(self._steps)
            elif self._error is not None:
                reads = self._steps.throw(self._error)
            else:
                reads = self._steps.send(self._answers)
        except StopIteration as end:
            self.outcome = end.value
            return 0
        except BaseException as error:  # not swallowed: raised to whoever asked for the walk
            self.outcome = error
            return 0
        self._reads, self._error = reads, None
        self._missing = len(reads.spans)
        self._answers = [None] * self._missing
        return self._missing


def _header_bytes(outcome: FileResult | BaseException) -> int:
    return outcome.header_bytes if isinstance(outcome, FileResult) else 0
