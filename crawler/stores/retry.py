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

from crawler.errors import CredentialsExpiredError, StoreDownError, StoreError, StoreUnavailableError
from crawler.stores.base import ByteRange, Fetched, ObjectRef, ObjectStore
from crawler.stores.limits import Places, Rate

Answer = TypeVar("Answer")

_UNLIKELY = frozenset({"refused", "no-host", "tls"})
"""What rarely passes where the store never answered yet: its address is wrong."""

_ANSWERS = frozenset({"slow-down", "server-error", "short-body"})
"""What only a store can say that is there."""

_MANY = 4
"""Requests that failed since one succeeded, before it may be the store rather than an object."""

_LONGEST_ADVICE = 30.0
"""Seconds up to which a store is heard that says for how long to wait."""

_LOOK_SECONDS = 1.0
"""Who waits for its turn looks so often whether the rate has changed."""


@dataclass(frozen=True, slots=True)
class Patience:
    """For how long a request is tried again, once at least. Time that it is held back by a limit does not count.

    Attributes
    ----------
    request_seconds : float
        A request that fails while others do not.
    down_seconds : float
        All requests, none succeeding: the store is down. Also a request of which the store says that it is one too many
        now, which says nothing of the object.
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


@dataclass(slots=True)
class _Trouble:
    """A request that has failed.

    Attributes
    ----------
    begun : float
        When it was first made; later by whatever it was held back since.
    tries : int
        Those that failed.
    counted : int
        How many requests had succeeded when this one was last counted among those that fail.
    """

    begun: float
    tries: int = 0
    counted: int = -1


class Traffic:
    """The requests of one process to the stores of one run. Safe to use from many threads.

    Parameters
    ----------
    slots : int
        Requests under way at once, at most; fewer where a store says that they are too many.
    rate : float or None
        Requests begun in a second, at most. May be set at any time, also for those that wait.
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
        self._patience = patience
        self._clock, self._wait, self._draw = clock, wait, draw
        self._lock = threading.Lock()
        self._places = Places(slots)
        self._rate = Rate(rate)
        self._room = threading.Condition(self._lock)  # for one more request under way, or none ever
        self._waiting = 0  # for room
        self._answered = False
        self._successes = 0
        self._failing = 0  # requests that failed since one succeeded
        self._failing_since = 0.0
        self._known_good: Callable[[], object] | None = None  # a read that succeeded, and may be made at any time
        self._checked = float("-inf")  # when that was last made again
        self._down: tuple[str, str] | None = None
        self._again: Counter[str] = Counter()

    @property
    def limit(self) -> int:
        """Requests that may be under way now."""
        return int(self._places.limit)

    @property
    def rate(self) -> float | None:
        """Requests begun in a second, at most."""
        return self._rate.per_second

    @rate.setter
    def rate(self, rate: float | None) -> None:
        with self._lock:
            self._rate.set(rate)

    def taken(self) -> Counter[str]:
        """Return how many requests were made again since this was last asked, by what was wrong with those before."""
        with self._lock:
            again, self._again = self._again, Counter()
        return again

    def close(self) -> None:
        """Have all requests that wait, and all later ones, fail with `StoreDownError`."""
        with self._lock:
            self._down = self._down or ("", "the run has ended")
            self._room.notify_all()

    def ask(self, request: Callable[[], Answer], *, is_read: bool = False) -> Answer:
        """Make a request, and again while that may help.

        Parameters
        ----------
        request : callable
        is_read : bool
            It may be made again later, to see whether the store still answers where only other requests fail.

        Raises
        ------
        StoreUnavailableError
            It failed for too long, others having succeeded, or none ever.
        StoreDownError
            None has succeeded for too long. All that wait are told.
        """
        self._admit()
        begun = self._clock()
        trouble: _Trouble | None = None
        while True:
            try:
                answer = request()
            except StoreUnavailableError as error:
                trouble = trouble or _Trouble(begun)
                pause = self._after_failure(error, trouble)
            except StoreError:  # it is the object, not the store
                self._leave(answered=True)
                raise
            except BaseException:
                self._leave(answered=False)
                raise
            else:
                self._leave(answered=True)
                if is_read:
                    self._known_good = request
                return answer
            self._wait(pause)
            trouble.begun += self._admit()
            self._check()

    def _admit(self) -> float:
        """Let a request begin; return for how many seconds it was held back."""
        places = self._places
        with self._lock:
            if places.taken + 1 <= places.limit and self._rate.per_second is None and self._down is None:
                places.taken += 1
                return 0.0
        return self._admit_later()

    def _admit_later(self) -> float:
        asked = self._clock()
        with self._lock:
            self._waiting += 1
            while not self._places.free and self._down is None:
                self._room.wait()
            self._waiting -= 1
            self._raise_if_down()
            self._places.taken += 1
            turn, changes = self._rate.turn(self._clock()), self._rate.changes
        while (left := turn - self._clock()) > 0:
            self._wait(min(left, _LOOK_SECONDS))
            with self._lock:
                if self._down is not None:
                    self._places.taken -= 1
                self._raise_if_down()
                if changes != self._rate.changes:
                    turn, changes = self._rate.turn(self._clock()), self._rate.changes
        return self._clock() - asked

    def _leave(self, *, answered: bool) -> None:
        """Take note that a request has ended, with what no other try would change."""
        places = self._places
        with self._lock:
            places.taken -= 1
            if answered:
                self._answered = True
                self._successes += 1
                self._failing = 0
                if not places.is_settled:
                    places.succeeded(self._clock())
            if self._waiting:
                self._room.notify(max(1, places.free))

    def _after_failure(self, error: StoreUnavailableError, trouble: _Trouble) -> float:
        """Return for how long to wait, or raise what is to be given up."""
        patience = self._patience
        with self._lock:
            self._places.taken -= 1
            now = self._clock()
            trouble.tries += 1
            self._answered = self._answered or error.kind in _ANSWERS
            if trouble.counted != self._successes:
                trouble.counted = self._successes
                if not self._failing:
                    self._failing_since = now
                self._failing += 1
            if error.kind == "slow-down":
                self._places.refused(now)
            given_up = self._is_given_up(error, trouble, now)
            if self._down is None and not given_up:
                self._again[error.kind] += 1
            if self._waiting:
                self._room.notify(self._waiting if self._down is not None else 1)
            self._raise_if_down(error)
            if given_up:
                raise error
        longest = min(patience.longest_pause, patience.first_pause * 2.0 ** min(trouble.tries - 1, 16))
        # Full jitter: "Exponential Backoff and Jitter", AWS Architecture Blog.
        return longest * self._draw() + min(error.retry_after or 0.0, _LONGEST_ADVICE)

    def _check(self) -> None:
        """Where many fail and none succeeds, find out whether that is the store or these objects.

        A crawl ends with the objects that fail for ever, all others being done: then nothing else would tell.
        """
        often = self._patience.request_seconds / 4
        with self._lock:
            now, known_good = self._clock(), self._known_good
            is_due = self._failing >= _MANY and min(now - self._failing_since, now - self._checked) >= often
            if not is_due or known_good is None:
                return
            self._checked = now
        try:
            known_good()
        except StoreUnavailableError as error:
            with self._lock:
                self._again[error.kind] += 1
            return
        except StoreError:
            pass  # an answer, too
        with self._lock:
            self._successes += 1
            self._failing = 0

    def _is_given_up(self, error: StoreUnavailableError, trouble: _Trouble, now: float) -> bool:
        """Tell whether another try is not worth it; where that is so of the store, note that it is down."""
        patience = self._patience
        # For how long none has succeeded, where that is no matter of single objects.
        none = now - self._failing_since if self._failing >= _MANY else float("-inf")
        if not self._answered:
            enough = patience.unlikely_seconds if error.kind in _UNLIKELY else patience.first_seconds
        else:
            enough = patience.down_seconds if error.kind == "slow-down" else patience.request_seconds
        # Where one has ever succeeded, and none does now, it is the store that is waited for.
        its_own = none < patience.request_seconds / 4 or not self._successes
        if its_own and trouble.tries > 1 and now - trouble.begun >= enough:
            return True
        is_checked = self._known_good is None or self._checked > self._failing_since
        if none >= patience.down_seconds and is_checked and self._down is None:
            self._down = error.url, f"{error.reason}, for {none:.0f} s now"
        return False

    def _raise_if_down(self, cause: StoreUnavailableError | None = None) -> None:
        if self._down is not None:  # an error of its own for each thread: an exception keeps whom it was raised to
            raise StoreDownError(*self._down) from cause


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

    @property
    def list_requests(self) -> int:
        """Pages of listings that were asked for, each try counted; 0 of stores that do not count them."""
        return int(getattr(self._store, "list_requests", 0))

    def list(self, url: str, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """See `crawler.stores.base.ObjectStore.list`. Stores that list in pages are patient with each by themselves."""
        return self._store.list(url, limit)

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
            return self._traffic.ask(lambda: self._store.get(ref, span), is_read=True)
        except CredentialsExpiredError as error:  # no other object can be read either
            raise StoreDownError(error.url, error.reason) from None
