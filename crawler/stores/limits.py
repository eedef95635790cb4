"""How many requests may be under way, and how fast they may begin. Decides only: who waits, and how, is of `traffic`.

Safe to use from many threads where each call holds the same lock.
"""

from __future__ import annotations

_CUT_SECONDS = 1.0
"""The limit is cut once in so long: what was under way when a store was overrun counts once."""

_TOO_MANY = 0.1
"""Share of requests that a store refuses before it counts as overrun. Less is what a well one does at any load, and
halving for each of those would bring a crawl nearly to rest."""

_MEMORY = 128
"""Requests of which that share is, the last ones weighing most: fourteen refusals in a row are too many."""

_CLIMB_SECONDS = 20.0
"""In which the limit climbs from nothing to all. Much faster, and a store that can bear half of it refuses every other
request; much slower, and what it can bear is not made use of."""


class Places:
    """Requests under way at once: fewer where a store says that they are too many.

    Half as many once it says so to a tenth of them, and slowly more while requests succeed (additive increase,
    multiplicative decrease: RFC 5681, section 3.1; for a share, as in RFC 8257, section 3.3).

    Parameters
    ----------
    slots : int
        At most.

    Attributes
    ----------
    taken : int
        Requests under way now.
    limit : float
        Those that may be, 1 to ``slots``; a part of one is none yet.
    """

    __slots__ = ("_last_cut", "_moved", "_refused", "_slots", "limit", "taken")

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.taken = 0
        self.limit = float(slots)
        self._refused = 0.0  # share of requests, lately
        self._moved = self._last_cut = float("-inf")

    @property
    def free(self) -> int:
        """Requests that may begin now."""
        return max(0, int(self.limit) - self.taken)

    @property
    def is_settled(self) -> bool:
        """Whether a success would change nothing."""
        return not self._refused and self.limit >= self._slots

    def refused(self, now: float) -> None:
        """Take note that a store says that it is asked too much.

        Where none has succeeded since the limit was cut it is not a matter of how many: the store takes none.
        """
        self._refused += (1 - self._refused) / _MEMORY
        climbed = self._moved > self._last_cut or self.limit >= self._slots
        if self._refused > _TOO_MANY and climbed and now - self._last_cut >= _CUT_SECONDS:
            self.limit = max(1.0, self.limit / 2)
            self._refused = 0.0
            self._last_cut = self._moved = now

    def succeeded(self, now: float) -> None:
        """Take note that a request has succeeded."""
        self._refused -= self._refused / _MEMORY
        if self._refused < 1 / (8 * _MEMORY):
            self._refused = 0.0
        more = min(1 / self.limit, (now - self._moved) * self._slots / _CLIMB_SECONDS)
        self.limit = min(float(self._slots), self.limit + more)
        self._moved = now


class Rate:
    """Requests begun in a second. None are saved up: who comes late has lost a turn.

    Parameters
    ----------
    per_second : float or None
        At most; None for as many as come.

    Attributes
    ----------
    changes : int
        How often it was set to something else. Turns that were given before are void.
    """

    __slots__ = ("_next", "changes", "per_second")

    def __init__(self, per_second: float | None) -> None:
        self.per_second = per_second
        self.changes = 0
        self._next = float("-inf")

    def set(self, per_second: float | None) -> None:
        """Have requests begin faster or slower."""
        if per_second != self.per_second:
            self.per_second = per_second
            self.changes += 1
            self._next = float("-inf")

    def turn(self, now: float) -> float:
        """Return when one more request may begin."""
        if self.per_second is None:
            return now
        turn = max(now, self._next)
        self._next = turn + 1 / self.per_second
        return turn
