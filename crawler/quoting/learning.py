"""Which files of a listing a crawl will know the layout of, before any is read.

What a file costs depends on what was walked before it: `crawler.fits.layouts` remembers, by product, the headers of the
last few sizes. Sizes are in the listing. So the crawl is played through, size by size, as its workers would take it.

Knows no I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import StrEnum
from typing import NamedTuple

SIZES = 8
"""Layouts of one product that a crawl remembers (`crawler.fits.layouts`)."""

PRODUCTS = 4096
"""Products that one worker remembers (there)."""

HELD = 65_536
"""Products that are remembered here, all workers together: 40 MB. Of more, some are counted as learned anew."""

COMPRESSED = (".gz", ".bz2")
"""Names that a crawl takes for compressed files: the siblings of such a one do not wait for its walk."""


class Kind(StrEnum):
    """What a worker knows of a file as its walk begins."""

    FIRST = "first"
    """Nothing: it is among the first of its product."""
    NEW = "new"
    """No sibling of its size was walked, but of others: what those have in common."""
    KNOWN = "known"
    """A sibling of its size was walked."""


_CONFIRMED = 2
"""Layouts of other sizes that have to be known before anything is guessed of a new one (there)."""


class Met(NamedTuple):
    """What is told of one file.

    Attributes
    ----------
    kind : Kind
    crowded : bool
        A walk that would have told more is under way: whether it ends first is a matter of milliseconds.
    """

    kind: Kind
    crowded: bool = False


class Learning:
    """Workers that learn the layouts of products as they go through a listing.

    Parameters
    ----------
    workers : int
        Each learns for itself.
    slots : int
        Files that each has under way at once: nothing is known of a walk before it ends.
    """

    def __init__(self, workers: int, slots: int) -> None:
        self._slots = slots
        self._most = min(HELD, PRODUCTS * workers)
        self._begun = [0] * workers
        self._products: OrderedDict[tuple[int, str], _Product] = OrderedDict()

    def meet(self, worker: int, product: str, url: str, size: int | None) -> Met:
        """Have a worker take a file, and tell what it knows of it.

        A size that is not told is one of its own.
        """
        now = self._begun[worker]
        self._begun[worker] += 1
        key = worker, product
        known = self._products.get(key)
        packed = url.lower().endswith(COMPRESSED)
        if known is None:
            # Siblings wait for the first file to end, unless it is compressed: then as many are begun as can be.
            self._products[key] = _Product(size, now + self._slots * packed)
            if len(self._products) > self._most:
                self._products.popitem(last=False)
            return Met(Kind.FIRST)
        self._products.move_to_end(key)
        if packed:  # it is only remembered that they are
            return Met(Kind.KNOWN) if known.since <= now else Met(Kind.FIRST, crowded=True)
        return known.meet(size, now, now + self._slots)


class _Product:
    """What one worker knows of one product.

    Attributes
    ----------
    since : int
        Files after which something is known.
    """

    __slots__ = ("_sizes", "_under_way", "since")

    def __init__(self, size: int | None, since: int) -> None:
        self.since = since
        self._sizes: OrderedDict[int | None, None] = OrderedDict({size: None})
        self._under_way: OrderedDict[int | None, int] = OrderedDict()  # sizes, and when their walk is over

    def meet(self, size: int | None, now: int, over: int) -> Met:
        """Take a file, whose walk is over when ``over`` files have begun."""
        self._land(now)
        if size is not None and size in self._sizes:
            self._sizes.move_to_end(size)
            return Met(Kind.KNOWN)
        waited = size is not None and size in self._under_way
        if not waited:
            self._under_way[size] = over
        if len(self._sizes) < _CONFIRMED:
            return Met(Kind.FIRST, crowded=waited or len(self._under_way) > 1)
        return Met(Kind.NEW, crowded=waited)

    def _land(self, now: int) -> None:
        """Have the walks end that do by now."""
        while self._under_way:
            size, over = next(iter(self._under_way.items()))
            if over > now:
                return
            del self._under_way[size]
            self._sizes[size] = None
            if len(self._sizes) > SIZES:
                self._sizes.popitem(last=False)
