"""One file: a walker that knows which bytes it wants, and a store that gives them, put together.

A walk is a generator that yields the ranges it wants next and is sent what the store gave for them. So it does not know
which thread reads, and how many ranges at once: `hdus_of` reads one range after the other, and `walk_file` with the
function that it is given, such as that of `crawler.worker.walk_pool`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from crawler.errors import (
    FormatError,
    ObjectChangedError,
    ObjectNotFoundError,
    StoreError,
)
from crawler.fits.layouts import NOTHING, Guess
from crawler.fits.units import Hdu
from crawler.job.scope import Scope
from crawler.stores.base import ObjectRef, ObjectStore
from crawler.worker.file_walk import Answers, FileWalk, Reads

_CHANGES = 3
"""How often a file may be replaced under the walk before the walk is given up."""


Read: TypeAlias = Callable[[ObjectStore, Reads], Answers]
"""Reads the ranges that a walk wants. Failures of the store are answers; any other error ends the walk."""


@dataclass(slots=True)
class FileResult:
    """What became of one file: the columns of its row, and its HDUs.

    Attributes
    ----------
    ref : ObjectRef
        The object that was read, as the store last described it.
    status : str
        As in the catalogue: ``ok``, ``truncated``, ``corrupt``, ``not-fits``, ``partial``, ``unreadable`` or
        ``archived``.
    error : str or None
        One line: what, and at which byte.
    missing : bool
        The store says that there is no such object.
    compression : str or None
    hdus : list of Hdu
        Also those found before a fault.
    trailing_bytes : int or None
        After the last data unit; None where the walk did not get there.
    pinned : bool
        Every byte was of one ETag.
    requests, bytes_read : int
    round_trips : int
        Times that the walk waited for requests, those made at once counted once.
    """

    ref: ObjectRef
    status: str = "ok"
    error: str | None = None
    missing: bool = False
    compression: str | None = None
    hdus: list[Hdu] = field(default_factory=list)
    trailing_bytes: int | None = None
    pinned: bool = False
    requests: int = 0
    bytes_read: int = 0
    round_trips: int = 0

    @property
    def header_bytes(self) -> int:
        """Bytes of all headers that are held."""
        return sum(len(hdu.header) for hdu in self.hdus)


def walk_steps(
    store: ObjectStore,
    ref: ObjectRef,
    scope: Scope = Scope(),
    guess: Guess = NOTHING,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Reads, Answers, FileResult]:
    """Walk one file as far as its scope goes, and return what became of it.

    A file that is replaced under the walk is walked again as what it now is, so that no row ever mixes two.

    Parameters
    ----------
    store : ObjectStore
        Asked only what a file is that was replaced.
    ref : ObjectRef
    scope : Scope
    guess : Guess
    clock : callable
        Seconds that go by.

    Raises
    ------
    Nothing that the file or its store could cause, the errors sent in among it.
    """
    requests = bytes_read = round_trips = 0
    begun = clock()
    for attempt in range(1, _CHANGES + 1):
        walk = FileWalk(ref, scope, guess, lambda: clock() - begun > scope.timeout)
        result = FileResult(walk.ref)
        changed = False
        try:
            yield from _collected(walk, result.hdus)
        except FormatError as fault:
            result.status, result.error = fault.status, str(fault)
        except ObjectChangedError as fault:
            result.status, result.error, result.hdus, changed = "unreadable", fault.reason, [], True
        except StoreError as fault:
            result.status, result.error = fault.status, fault.reason
            result.missing = isinstance(fault, ObjectNotFoundError)
        requests += walk.requests
        bytes_read += walk.bytes_read
        round_trips += walk.round_trips
        if not changed or attempt == _CHANGES:
            break
        try:
            ref = store.head(ref.url)
        except StoreError as fault:  # deleted, most likely: the row says so
            result.error = fault.reason
            result.missing = isinstance(fault, ObjectNotFoundError)
            break
        finally:
            requests += 1
            round_trips += 1
    if walk.stopped:
        result.status = "partial"
    result.ref = walk.ref
    result.compression = walk.compression
    result.trailing_bytes = walk.trailing_bytes
    result.pinned = walk.ref.etag is not None
    result.requests, result.bytes_read, result.round_trips = requests, bytes_read, round_trips
    return result


def _collected(walk: FileWalk, hdus: list[Hdu]) -> Generator[Reads, Answers, None]:
    """Pass on the reads of a walk, and keep its HDUs."""
    steps = walk.steps()
    answers: Answers | None = None
    while True:
        try:
            step = next(steps) if answers is None else steps.send(answers)
        except StopIteration:
            return
        if isinstance(step, Hdu):
            hdus.append(step)
            answers = None
        else:
            answers = yield step


def hdus_of(store: ObjectStore, ref: ObjectRef, scope: Scope = Scope()) -> Iterator[Hdu]:
    """Yield the HDUs of one file, each as soon as it is read.

    Raises
    ------
    FormatError, StoreError
        The walk ends badly; what was yielded before stands.
    """
    steps = FileWalk(ref, scope).steps()
    step: Hdu | Reads | None = next(steps, None)
    while step is not None:
        try:
            if isinstance(step, Hdu):
                yield step
                step = next(steps)
            else:
                step = steps.send(read_in_turn(store, step))
        except StopIteration:
            return


def read_in_turn(store: ObjectStore, reads: Reads) -> Answers:
    """Read one range after the other, up to the first that fails."""
    answers: Answers = []
    for span in reads.spans:
        try:
            answers.append(store.get(reads.ref, span))
        except StoreError as error:
            answers.append(error)
            break
    return answers


def walk_file(
    store: ObjectStore, ref: ObjectRef, scope: Scope = Scope(), guess: Guess = NOTHING, *, read: Read = read_in_turn
) -> FileResult:
    """Walk one file, reading on this thread what ``read`` does not give to others. See `walk_steps`."""
    steps = walk_steps(store, ref, scope, guess)
    try:
        reads = next(steps)
        while True:
            reads = steps.send(read(store, reads))
    except StopIteration as end:
        result: FileResult = end.value
        return result
