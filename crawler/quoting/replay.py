"""Walks of files that were walked before, from their headers alone: what they would ask for, had more been known.

A walk asks for the same ranges whether a store answers it or a memory of the headers does. So each file of a sample,
walked once, shows what it costs as the first of its product, as one of a new size, and as one whose layout is known;
and the crawl's own code says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from crawler.fits.layouts import NOTHING, Guess, Layouts
from crawler.fits.units import Hdu
from crawler.quoting.learning import SIZES, Kind
from crawler.stores import ObjectRef, ObjectStore
from crawler.stores.base import ByteRange, Fetched
from crawler.walk import _STREAM_READ as STREAM_READ
from crawler.walk import FileResult, Scope, walk_steps

_PRODUCT = ""  # the only one of the layouts here

_TRUSTED = 4
"""Guesses that held in a row, after which a product's layouts are believed all they can be."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one walk asks for.

    Attributes
    ----------
    requests, bytes_read : int
    """

    requests: int
    bytes_read: int


@dataclass(slots=True)
class Walked:
    """One file of the sample.

    Attributes
    ----------
    listed : ObjectRef
        As it was listed.
    result : FileResult
        Of its walk.
    first : bool
        Nothing was known of its product when it was walked.
    """

    listed: ObjectRef
    result: FileResult
    first: bool

    @property
    def can_be_replayed(self) -> bool:
        """Whether its headers tell all that a walk of it would meet."""
        return self.result.status in {"ok", "partial"} and self.result.compression is None


class _Memory:
    """One object: its headers where they are, and zeros elsewhere."""

    def __init__(self, ref: ObjectRef, hdus: Sequence[Hdu]) -> None:
        self._ref = ref
        self._units = [
            (hdu.header_offset, (hdu.header + b"END").ljust(hdu.header_size)) for hdu in hdus if hdu.header_size
        ]

    def get(self, span: ByteRange) -> Fetched:
        """Return what a store would."""
        stop = min(span.stop, self._ref.size or 0)
        data = bytearray(max(0, stop - span.start))
        for at, unit in self._units:
            begin, end = max(at, span.start), min(at + len(unit), stop)
            if begin < end:
                data[begin - span.start : end - span.start] = unit[begin - at : end - at]
        return Fetched(bytes(data), self._ref)


def replayed(one: Walked, scope: Scope, guess: Guess) -> Cost:
    """Return what a file costs of which this much is known."""
    memory = _Memory(one.result.ref, one.result.hdus)
    # The walk asks its store only what a file has become that was replaced, as this one cannot be.
    steps = walk_steps(cast("ObjectStore", None), one.listed, scope, guess)
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send([memory.get(span) for span in wanted.spans])
    except StopIteration as end:
        result: FileResult = end.value
    return Cost(result.requests, result.bytes_read)


def costs_of(one: Walked, siblings: Sequence[Walked], scope: Scope, *, by_chance: bool = False) -> dict[Kind, Cost]:
    """Return what a file of a sample costs, by what is known of it.

    Parameters
    ----------
    one : Walked
    siblings : sequence of Walked
        Of its product, it among them.
    scope : Scope
    by_chance : bool
        Files of the product that are of one size are so by chance, and have their headers in different places.
    """
    if one.result.compression is not None:
        return _of_compressed(one, scope)
    if not one.can_be_replayed:
        return dict.fromkeys(Kind, Cost(one.result.requests, one.result.bytes_read))
    size = one.result.ref.size or 0
    others = [other for other in siblings if other.can_be_replayed and other is not one]
    alike = [other for other in others if other.result.ref.size == size]
    unlike = [other for other in others if other.result.ref.size != size]
    layouts = Layouts()
    for other in unlike[-SIZES + 1 :]:
        layouts.learn(_PRODUCT, other.result.ref.size or 0, other.result.hdus)
    new = layouts.guess(_PRODUCT, one.listed.size)
    before = (alike or (unlike if by_chance else ()) or (one,))[-1]
    for _ in range(1 if by_chance else _TRUSTED):
        layouts.learn(_PRODUCT, size, before.result.hdus)
    known = layouts.guess(_PRODUCT, one.listed.size)
    return {
        Kind.FIRST: replayed(one, scope, NOTHING),
        Kind.NEW: replayed(one, scope, new),
        Kind.KNOWN: replayed(one, scope, known),
    }


def _of_compressed(one: Walked, scope: Scope) -> dict[Kind, Cost]:
    """Return what a compressed file costs, which is read from its begin: all at once if that is known of it."""
    took = Cost(one.result.requests, one.result.bytes_read)
    whole = Cost(max(1, -(-took.bytes_read // STREAM_READ)), took.bytes_read)
    sniffed = Cost(whole.requests + (took.bytes_read > scope.policy.first), took.bytes_read)
    first, known = (took, whole) if one.first else (sniffed, took)
    return {Kind.FIRST: first, Kind.NEW: known, Kind.KNOWN: known}
