"""What siblings of a file look like, so that their headers can be asked for at once.

Files of one product repeat the sizes and places of their headers. What a walk finds is remembered by product; the next
file of that product is asked for all its headers in one go, exact to the block. A guess is only ever a list of reads:
the walker goes from header to header by the Standard's arithmetic whatever was guessed, so that a wrong one costs
requests and changes no result.

Knows no I/O and no storage. Safe to use from many threads.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

from crawler.fits.units import Hdu, Span

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Guess:
    """Where the headers of a file may be.

    Attributes
    ----------
    headers : tuple of Span
        Header units that are worth asking for before the walk gets there: the first ones of the file.
    lengths : tuple of int
        Bytes of the header of each HDU, should the walk get there.
    compressed : bool
        Siblings are compressed, so that the file will be read from its begin to its end.
    """

    headers: tuple[Span, ...] = ()
    lengths: tuple[int, ...] = ()
    compressed: bool = False


NOTHING = Guess()
"""What is known of a file whose siblings were not seen."""

PRODUCTS = 4096
"""Products that are remembered; those that were not asked for longest are forgotten first."""

SIZES = 8
"""Layouts of one product that are remembered, by the size of the file."""

_HEADERS = 1000
"""Headers of a file that are remembered. One of 225 HDUs is the largest seen."""

_SPANS = 200_000
"""Headers that are remembered, of all products together: some 25 MB."""

_DOUBT = -2
"""Guesses that failed beyond those that held, from which on a product's places are not guessed."""

_TRUST = 4
"""The same for guesses that held: no past is so good that failing would not count soon."""

_WORD = re.compile(r"(?<![^\W_])[^\W\d_]*\d[^\W_]*")


def product_of(url: str) -> str:
    """Return what a url has in common with those of its siblings.

    Every word with a digit in it is left out (dates, exposure numbers, hexadecimal ids, HST's rootnames), in the name
    and in its folders.

    Examples
    --------
    >>> product_of("s3://stpubdata/hst/public/j8pu/j8pu0y010/j8pu0y010_drz.fits")
    '#://stpubdata/hst/public/#/#/#_drz.fits'
    """
    return _WORD.sub("#", url)


class Layouts:
    """What was learned of the products of a crawl."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._products: OrderedDict[str, _Product] = OrderedDict()
        self._spans = 0  # of all products

    def begin(self, product: str) -> bool:
        """Ask whether a file of a product may be walked now; whoever is told so must call `end`.

        It may not where nothing is known of the product yet and its first file is under way: a moment later its
        layout is known.
        """
        with self._lock:
            known = self._products.get(product)
            if known is None:
                self._of(product)
                return True
            self._products.move_to_end(product)
            return known.scouted

    def end(self, product: str) -> None:
        """Say that a walk is over, whatever came of it."""
        with self._lock:
            if product in self._products:
                self._products[product].scouted = True

    def guess(self, product: str, size: int | None) -> Guess:
        """Return where the headers of a file of ``size`` bytes may be."""
        with self._lock:
            known = self._products.get(product)
            return NOTHING if known is None else known.guess(size)

    def learn(self, product: str, size: int, hdus: Sequence[Hdu]) -> None:
        """Remember what the walk of a file of ``size`` bytes found, and whether a guess would have held.

        Parameters
        ----------
        product : str
        size : int
        hdus : sequence of Hdu
            All of them, or the first ones where no more are wanted of any file.
        """
        headers = tuple(Span(hdu.header_offset, hdu.data_offset) for hdu in hdus[:_HEADERS])
        with self._lock:
            known = self._of(product)
            self._spans -= known.spans
            known.learn(size, headers)
            self._spans += known.spans
            self._forget()

    def learn_compressed(self, product: str) -> None:
        """Remember that files of a product are compressed."""
        with self._lock:
            self._of(product).compressed = True

    def _of(self, product: str) -> _Product:
        known = self._products.get(product)
        if known is None:
            known = self._products[product] = _Product()
            self._forget()
        return known

    def _forget(self) -> None:
        while len(self._products) > PRODUCTS or (self._spans > _SPANS and len(self._products) > 1):
            self._spans -= self._products.popitem(last=False)[1].spans


class _Product:
    """What is known of one product.

    Attributes
    ----------
    scouted : bool
        A walk of one of its files is over.
    compressed : bool
    spans : int
        Headers that are remembered.
    """

    __slots__ = ("_layouts", "_score", "compressed", "scouted", "spans")

    def __init__(self) -> None:
        self.scouted = False
        self.compressed = False
        self.spans = 0
        self._layouts: OrderedDict[int, tuple[Span, ...]] = OrderedDict()
        self._score = 0

    def guess(self, size: int | None) -> Guess:
        """Return what is known of a file: all, where one of its size was seen, else what files of all sizes share."""
        if self.compressed:
            return Guess(compressed=True)
        alike = self._layouts.get(size) if size is not None else None
        lengths = [stop - start for start, stop in alike] if alike else self._shared_lengths()
        return Guess(tuple(self._places(size)), tuple(lengths))

    def _shared_lengths(self) -> list[int]:
        layouts = [[stop - start for start, stop in spans] for spans in self._layouts.values()]
        return _shared_begin(layouts)

    def _places(self, size: int | None) -> Sequence[Span]:
        """Return the headers whose places can be known."""
        if self._score <= _DOUBT or size is None:
            return ()
        if size in self._layouts:
            return self._layouts[size]
        return [span for span in _shared_begin(list(self._layouts.values())) if span.stop <= size]

    def learn(self, size: int, headers: tuple[Span, ...]) -> None:
        places = self._places(size) or self._layouts.get(size, ())
        if places:
            held = tuple(places) == headers[: len(places)]
            self._score = min(self._score + 1, _TRUST) if held else max(self._score - 1, _DOUBT)
        self.compressed = False
        self._layouts[size] = headers
        self._layouts.move_to_end(size)
        if len(self._layouts) > SIZES:
            self._layouts.popitem(last=False)
        self.spans = sum(map(len, self._layouts.values()))


def _shared_begin(rows: Sequence[Sequence[Item]]) -> list[Item]:
    """Return the items that sequences begin with in common; nothing of one alone, which nothing confirms."""
    if len(rows) == 1:
        return []
    same = takewhile(lambda items: all(item == items[0] for item in items), zip(*rows, strict=False))
    return [items[0] for items in same]
