"""Where to cut a range of keys in two, knowing only where a listing of it has come to. Pure.

Keys are compared as S3 sorts them, by their bytes as UTF-8 ("ListObjectsV2", Amazon S3 API Reference), which is the
order of Python's strings: both are that of code points.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

_DIGITS = "0123456789"


class Cut(NamedTuple):
    """A place to cut.

    Attributes
    ----------
    level : int
        The position of the character that differs between what is left of the cut and what is right of it.
    gap : int
        How many characters that keys are known to have lie there within the range.
    key : str
        The cut: keys greater than it are right of it. There need not be such an object.
    """

    level: int
    gap: int
    key: str


class Alphabet:
    """The characters that keys have had so far, and all digits once there was one."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._sorted = ""

    def learn(self, keys: Iterable[str]) -> None:
        """Take note of the characters of some keys."""
        if new := set().union(*keys) - self._seen:
            self._seen |= new
            if new & set(_DIGITS):
                self._seen |= set(_DIGITS)
            self._sorted = "".join(sorted(self._seen))

    def between(self, low: str, high: str | None) -> str:
        """Return the known characters greater than ``low`` and less than ``high`` (None: any)."""
        stop = len(self._sorted) if high is None else bisect_left(self._sorted, high)
        return self._sorted[bisect_right(self._sorted, low) : stop]


def common(one: str, other: str) -> int:
    """Return how many characters two strings begin with alike."""
    if one == other:
        return len(one)
    for position, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return position
    return min(len(one), len(other))


def place_to_cut(
    at: str, stop: str | None, *, begin: int, fine: int, level: int | None, alphabet: Alphabet
) -> Cut | None:
    """Choose where to cut the keys from ``at``, exclusive, to ``stop``, inclusive (None: to the last).

    Keys are numbers and dates more often than words, so that characters of the kind that is there are tried first,
    digits before all. Where nothing is known of the range, the position is searched for by halves: a cut that turns out
    to have nothing right of it says that the keys differ further right, one that has something, further left.

    Parameters
    ----------
    at, stop : str
    begin : int
        Length of the prefix that all keys have.
    fine : int
        Position at which the keys of the last page differ: cuts further right than that are of less than a page.
    level : int or None
        Of a cut before that had something on both sides, if there was one.
    alphabet : Alphabet

    Returns
    -------
    Cut or None
        Its key is greater than ``at`` and less than ``stop``; None where no place is better than another.
    """
    start = begin if stop is None else max(begin, common(at, stop))
    above: dict[int, str] = {}
    for position in range(start, min(fine + 1, len(at))):
        high = stop[position] if stop is not None and position == start and position < len(stop) else None
        above[position] = alphabet.between(at[position], high)
    for levels in _preferred(at, above, level):
        if levels:
            positions = list(levels)
            chosen = positions[(len(positions) - 1) // 2]
            chars = levels[chosen]
            return Cut(chosen, len(chars), at[:chosen] + chars[(len(chars) - 1) // 2])
    return None


def _preferred(at: str, above: dict[int, str], level: int | None) -> Iterator[dict[int, str]]:
    """Yield positions with the characters to cut at, those to be tried first before others."""

    def of(positions: Iterable[int], fits: Callable[[str, str], bool]) -> dict[int, str]:
        kept = {one: "".join(char for char in above[one] if fits(at[one], char)) for one in positions}
        return {one: chars for one, chars in kept.items() if chars}

    left = [one for one in above if level is not None and one < level]
    right = [one for one in above if level is None or one > level]
    here = [one for one in above if one == level]
    yield of(left, _both_digits)
    yield of(left, _same_kind)
    yield of(here, _same_kind)
    yield of(here, _any)
    for fits in (_both_digits, _same_kind, _any):
        found = of(right, fits)
        # Levels right of one at which keys differ are taken in turn.
        yield found if level is None else dict(list(found.items())[:1])
    yield of(left, _any)


def _both_digits(one: str, other: str) -> bool:
    return one in _DIGITS and other in _DIGITS


def _same_kind(one: str, other: str) -> bool:
    return _kind(one) == _kind(other)


def _kind(char: str) -> int:
    return 0 if char in _DIGITS else 1 if char.islower() else 2 if char.isupper() else 3 if char.isascii() else 4


def _any(_one: str, _other: str) -> bool:
    return True
