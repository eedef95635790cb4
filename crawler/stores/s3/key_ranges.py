"""The ranges of keys that one listing is divided into, and the states of a range. Pure: no threads, no requests.

A range is cut in two while it is walked. At first it is only a guess that keys lie right of the cut
(`crawler.stores.s3.key_space`). So the right part is TENTATIVE until its first page arrives. The left part is
CUT_PENDING: it may have to list the keys of both parts, and must not pass the cut before the guess is settled::

    right part:   cut_off --> TENTATIVE -- confirm: it has keys ----> WALKING
                                        -- reject: it has no keys --> FINISHED

    left part:    WALKING -- cut_off --> CUT_PENDING -- confirm, reject: it now stops at the cut --> WALKING
                                                     -- remove_limit: the cut is undone -----------> WALKING

    either part:  any state -- finish: the last page, a key beyond the range, or the cut is undone --> FINISHED

A listing starts with one range, which has no limits and is WALKING.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

import pyarrow as pa

from crawler.stores.s3.key_space import Alphabet, Cut, choose_cut

_PAGES_BETWEEN_CUTS = 1
"""Pages of a range that arrive before the range is cut, or cut again."""

_LONGEST_KEY = 1024
"""Longest key, in bytes ("Naming Amazon S3 objects", Amazon S3 User Guide)."""


class RangeState(Enum):
    """State of a range; the module's docstring shows the transitions."""

    TENTATIVE = auto()
    """Cut off, and no page of it has arrived that has keys or is the last. Its left part may list its keys too."""

    WALKING = auto()
    """Page after page is requested. The range can be cut."""

    CUT_PENDING = auto()
    """As WALKING, but the range has a tentative right part: it must not pass the cut, and cannot be cut again."""

    FINISHED = auto()
    """No more pages are requested. A page that still arrives is dropped."""


@dataclass(slots=True, eq=False)
class KeyRange:
    """Consecutive keys, in the order of their bytes, that one lister walks. Methods are the transitions.

    Attributes
    ----------
    after, stop : str or None
        Keys of the range are greater than ``after`` and not greater than ``stop``. None means no limit.
    state : RangeState
    left : KeyRange or None
        While TENTATIVE: the range that this range was cut off from.
    cut : Cut or None
        From the cut until it is settled: where the tentative right part begins.
    confirmed : int or None
        Position (see `Cut`) of the last confirmed cut that made this range its left or right part.
    last_key : str
        The last key that was listed.
    finest : int
        The first position at which the keys of the last page differ.
    token : str or None
        Continuation token of the next page; None before the first page and after the last one.
    pages_since_cut : int
        Pages since the range began or was cut.
    pages : list of RecordBatch
        Pages that have not been put into a run yet.
    yielded : list of str
        First and last URL of what has been put into runs; empty before the first run.
    """

    after: str | None = None
    stop: str | None = None
    state: RangeState = RangeState.WALKING
    left: KeyRange | None = None
    cut: Cut | None = None
    confirmed: int | None = None
    last_key: str = ""
    finest: int = 0
    token: str | None = None
    pages_since_cut: int = 0
    pages: list[pa.RecordBatch] = field(default_factory=list)
    yielded: list[str] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether the range needs no more pages."""
        return self.state is RangeState.FINISHED

    @property
    def can_be_cut(self) -> bool:
        """Whether the range has a next page, and enough pages since its last cut."""
        walking = self.state is RangeState.WALKING and self.token is not None
        return walking and self.pages_since_cut >= _PAGES_BETWEEN_CUTS

    def cut_off(self, cut: Cut) -> KeyRange:
        """Cut the range: WALKING -> CUT_PENDING. Return the right part, which is TENTATIVE."""
        self.state, self.cut, self.pages_since_cut = RangeState.CUT_PENDING, cut, 0
        return KeyRange(after=cut.key, stop=self.stop, state=RangeState.TENTATIVE, left=self, confirmed=self.confirmed)

    def confirm(self) -> None:
        """Settle the cut that made this range, which has keys: TENTATIVE -> WALKING."""
        self._settle(RangeState.WALKING, confirmed=True)

    def reject(self) -> None:
        """Settle the cut that made this range, which has no keys: TENTATIVE -> FINISHED."""
        self._settle(RangeState.FINISHED, confirmed=False)

    def _settle(self, state: RangeState, *, confirmed: bool) -> None:
        """Let the left part stop at the cut, and go on."""
        left, self.left = self.left, None
        self.state = state
        if left is None or left.cut is None:
            return
        if confirmed:
            self.confirmed = left.confirmed = left.cut.position
        left.stop, left.cut = self.after, None
        if left.state is RangeState.CUT_PENDING:  # it may have finished before it reached the cut
            left.state = RangeState.WALKING

    def finish(self) -> None:
        """Request no more pages: any state -> FINISHED."""
        self.state, self.left = RangeState.FINISHED, None

    def remove_limit(self) -> None:
        """Undo all cuts: CUT_PENDING -> WALKING. The tentative right part must be finished, too."""
        self.stop = self.cut = None
        if self.state is RangeState.CUT_PENDING:
            self.state = RangeState.WALKING


def find_cut(ranges: Iterable[KeyRange], prefix_length: int, alphabet: Alphabet) -> tuple[KeyRange, Cut] | None:
    """Return the range with the most keys left, as far as can be guessed, and its cut; None if no range can be cut.

    The further left the position of a cut, the more keys share what stands before it.
    """
    best: tuple[tuple[int, int], KeyRange, Cut] | None = None
    for one in ranges:
        if not one.can_be_cut:
            continue
        cut = choose_cut(
            one.last_key,
            one.stop,
            prefix_length=prefix_length,
            finest=one.finest,
            confirmed=one.confirmed,
            alphabet=alphabet,
        )
        # Stores repeat the key in XML, which holds no control characters: Ceph answers 500.
        if cut is None or len(cut.key.encode()) > _LONGEST_KEY or not cut.key.isprintable():
            continue
        rank = (cut.position, -cut.choices)
        if best is None or rank < best[0]:
            best = rank, one, cut
    return None if best is None else best[1:]
