"""How requests are made: how many at once, how fast, and again when a store could not answer.

The libraries below try nothing twice, so that each try is counted, keeps to the limits, and waits as all others do.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from crawler.errors import CredentialsExpiredError, StoreDownError, StoreUnavailableError
from crawler.stores.base import ByteRange, Fetched, ObjectRef, ObjectStore

Answer = TypeVar("Answer")

_UNLIKELY = frozenset({"refused", "no-host", "tls"})
"""What rarely passes where the store never answered yet: its address is wrong."""

_CUT_SECONDS = 1.0
"""The limit of requests under way is cut once in so long: what was under way when a store was overrun counts once."""

_MANY = 4
"""Requests that fail at the same time, before it may be the store rather than an object."""


@dataclass(frozen=True, slots=True)
class Patience:
    """For how long a request is tried again.

    Attributes
    ----------
    request_seconds : float
        A request that fails while others do not.
    down_seconds : float
        All requests, none succeeding: the store is down.
    first_seconds : float
        Where the store never answered yet.
    unlikely_seconds : float
        The same, its address being wrong most likely.
    first_pause, longest_pause : float
        Seconds that are waited at most before the second try, and before any: they double between.
    """

    request_seconds: float = 60.0
    down_seconds: float = 120.0
    first_seconds: float = 15.0
    unlikely_seconds: float = 3.0
    first_pause: float = 0.2
    longest_pause: float = 5.0


class Traffic:
    """The requests of one process to the stores of one run. Safe to use from many threads.

    Parameters
    ----------
    slots : int
        Requests under way at once, at most. Where a store says that it is too many, half as many from then on, and one
        more for every so many that succeed (additive increase, multiplicative decrease: RFC 5681, section 3.1).
    rate : float or None
        Requests begun in a second, at most; may be set at any time.
    patience : Patience
    clock, wait, draw : callable
        Seconds that go by; waiting some; a number from 0 to 1.
    """

    def __init__(
        self,
        slots: int,
        rate: float | None = None,
        patience: Patience = Patience(),
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.rate = rate
        self._slots = slots
        self._patience = patience
        self._clock, self._wait, self._draw = clock, wait, draw
        self._room = threading.Condition()
        self._limit = float(slots)
        self._under_way = 0
        self._next_begin = 0.0  # when the rate allows the next request
        self._last_cut = float("-inf")
        self._last_success = float("-inf")
        self._failing = 0  # requests that failed, and neither succeeded nor were given up since
        self._failing_since = 0.0
        self._down: StoreDownError | None = None
        self._again: Counter[str] = Counter()

    @property
    def limit(self) -> int:
        """Requests that may be under way now."""
        return int(self._limit)

    def taken(self) -> Counter[str]:
        """Return how many requests were made again since this was last asked, by what was wrong with those before."""
        with self._room:
            again, self._again = self._again, Counter()
        return again

    def ask(self, request: Callable[[], Answer]) -> Answer:
        """Make a request, and again while that may help.

        Raises
        ------
        StoreUnavailableError
            It failed for too long, others having succeeded.
        StoreDownError
            None has succeeded for too long.
        """
        begun = self._clock()
        tries = 0
        while True:
            self._admit()
            try:
                answer = request()
            except StoreUnavailableError as error:
                tries += 1
                pause = self._after_failure(error, tries, begun)
            except BaseException:
                self._leave(answered=True, failed_before=tries > 0)  # it is the object, not the store
                raise
            else:
                self._leave(answered=True, failed_before=tries > 0)
                return answer
            # Full jitter: "Exponential Backoff and Jitter", AWS Architecture Blog.
            self._wait(pause * self._draw())

    def _admit(self) -> None:
        with self._room:
            if self._down is not None:
                raise self._down
            while self._under_way >= self.limit:
                self._room.wait()
            self._under_way += 1
            if self.rate is None:
                return
            now = self._clock()
            begin = max(now, self._next_begin)
            self._next_begin = begin + 1 / self.rate
        if begin > now:
            self._wait(begin - now)

    def _leave(self, *, answered: bool, failed_before: bool) -> None:
        with self._room:
            self._under_way -= 1
            if failed_before:
                self._failing -= 1
            if answered:
                self._last_success = self._clock()
                self._failing_since = self._last_success
                if self._limit < self._slots:
                    self._limit = min(float(self._slots), self._limit + 1 / self._limit)
            self._room.notify()

    def _after_failure(self, error: StoreUnavailableError, tries: int, begun: float) -> float:
        """Return for how long to wait at most, or raise what is to be given up."""
        patience = self._patience
        with self._room:
            self._under_way -= 1
            self._room.notify()
            now = self._clock()
            if tries == 1:
                if not self._failing and self._failing_since <= self._last_success:
                    self._failing_since = begun
                self._failing += 1
            if error.kind == "slow-down" and now - self._last_cut >= _CUT_SECONDS:
                self._limit = max(1.0, self._limit / 2)
                self._last_cut = now
            fault = self._fault(error, begun, now)
            if fault is not None:
                self._failing -= 1
                raise fault from (None if fault is error else error)
            self._again[error.kind] += 1
        return min(patience.longest_pause, patience.first_pause * 2.0 ** min(tries - 1, 16))

    def _fault(self, error: StoreUnavailableError, begun: float, now: float) -> Exception | None:
        """Return what to raise, or None where it is worth another try."""
        patience = self._patience
        if self._down is not None:
            return self._down
        if self._last_success == float("-inf"):
            first = patience.unlikely_seconds if error.kind in _UNLIKELY else patience.first_seconds
            if now - begun >= first:
                return error
        others = now - self._last_success < patience.request_seconds / 4  # succeed
        if others or self._failing < min(_MANY, self._slots):
            return error if now - begun >= patience.request_seconds else None
        if now - self._failing_since >= patience.down_seconds:
            self._down = StoreDownError(error.url, f"{error.reason}, for {now - self._failing_since:.0f} s now")
        return self._down


class Patient:
    """A store whose requests keep to the limits of the traffic, and are made again where that may help.

    Parameters
    ----------
    store : ObjectStore
    traffic : Traffic
    """

    def __init__(self, store: ObjectStore, traffic: Traffic) -> None:
        self._store = store
        self._traffic = traffic

    def list(self, url: str) -> Iterator[pa.RecordBatch]:
        """See `crawler.stores.base.ObjectStore.list`. Stores that list in pages are patient with each by themselves."""
        return self._store.list(url)

    def head(self, url: str) -> ObjectRef:
        """See `crawler.stores.base.ObjectStore.head`."""
        return self._traffic.ask(lambda: self._store.head(url))

    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        """See `crawler.stores.base.ObjectStore.get`.

        Raises
        ------
        StoreDownError
            No request of the traffic has succeeded for too long, or the credentials have expired.
        """
        try:
            return self._traffic.ask(lambda: self._store.get(ref, span))
        except CredentialsExpiredError as error:  # no other object can be read either
            raise StoreDownError(error.url, error.reason) from error
