"""Where to cut a range of keys in two, when only the last key listed so far is known. Pure.

S3 sorts keys by their bytes as UTF-8 ("ListObjectsV2", Amazon S3 API Reference). Python compares strings by code
points. Both orders are the same.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

_DIGITS = "0123456789"


class Cut(NamedTuple):
    """A point at which a range of keys can be cut in two.

    Attributes
    ----------
    position : int
        Index of the first character that differs between the keys left and right of the cut.
    choices : int
        Number of known characters at this position between the last key listed and the end of the range.
    key : str
        The cut itself: greater keys are right of it, all others left. No object needs to have this key.
    """

    position: int
    choices: int
    key: str


class Alphabet:
    """The characters seen in keys so far. All ten digits are known as soon as one digit has been seen."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._sorted = ""

    def add_keys(self, keys: Iterable[str]) -> None:
        """Add the characters of some keys."""
        if new := set().union(*keys) - self._seen:
            self._seen |= new
            if new & set(_DIGITS):
                self._seen |= set(_DIGITS)
            self._sorted = "".join(sorted(self._seen))

    def between(self, low: str, high: str | None) -> str:
        """Return the known characters greater than ``low`` and less than ``high``; None means no upper limit."""
        stop = len(self._sorted) if high is None else bisect_left(self._sorted, high)
        return self._sorted[bisect_right(self._sorted, low) : stop]


def shared_prefix_length(one: str, other: str) -> int:
    """Return the number of leading characters that two strings share."""
    if one == other:
        return len(one)
    for position, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return position
    return min(len(one), len(other))


def choose_cut(
    last_key: str,
    stop: str | None,
    *,
    prefix_length: int,
    finest: int,
    confirmed: int | None,
    alphabet: Alphabet,
) -> Cut | None:
    """Choose where to cut the keys greater than ``last_key`` and not greater than ``stop``.

    Keys hold numbers and dates more often than words. So a digit is replaced by a digit first, then a character by one
    of the same kind, then by any other. Among positions of equal rank the middle one is taken, which makes the choice
    a search by halves: a cut with no keys right of it shows that the keys differ further right; a cut with keys on both
    sides, that they differ at this position or further left.

    Parameters
    ----------
    last_key : str
        The last key listed.
    stop : str or None
        The last possible key of the range; None if the range has no upper limit.
    prefix_length : int
        Length of the prefix that all keys share.
    finest : int
        Rightmost position to consider: the first one at which the keys of the last page differ. A cut further right
        would cut off less than a page.
    confirmed : int or None
        Position of an earlier cut with keys on both sides, of which this range is one side; None before such a cut.
    alphabet : Alphabet
        The characters to choose from.

    Returns
    -------
    Cut or None
        The key of the cut is greater than ``last_key`` and less than ``stop``. None if no character fits anywhere.
    """
    start = prefix_length if stop is None else max(prefix_length, shared_prefix_length(last_key, stop))
    above: dict[int, str] = {}
    for position in range(start, min(finest + 1, len(last_key))):
        high = stop[position] if stop is not None and position == start and position < len(stop) else None
        above[position] = alphabet.between(last_key[position], high)
    for candidates in _by_preference(last_key, above, confirmed):
        if candidates:
            positions = list(candidates)
            chosen = positions[(len(positions) - 1) // 2]
            characters = candidates[chosen]
            return Cut(chosen, len(characters), last_key[:chosen] + characters[(len(characters) - 1) // 2])
    return None


def _by_preference(last_key: str, above: dict[int, str], confirmed: int | None) -> Iterator[dict[int, str]]:
    """Yield groups of positions, each with its possible characters; the most promising group comes first."""

    def select(positions: Iterable[int], fits: Callable[[str, str], bool]) -> dict[int, str]:
        kept = {one: "".join(char for char in above[one] if fits(last_key[one], char)) for one in positions}
        return {one: characters for one, characters in kept.items() if characters}

    left = [one for one in above if confirmed is not None and one < confirmed]
    right = [one for one in above if confirmed is None or one > confirmed]
    same = [one for one in above if one == confirmed]
    yield select(left, _are_digits)
    yield select(left, _are_same_kind)
    yield select(same, _are_same_kind)
    yield select(same, _are_any)
    for fits in (_are_digits, _are_same_kind, _are_any):
        group = select(right, fits)
        # Right of a confirmed cut, positions are tried one by one and not by halves.
        yield group if confirmed is None else dict(list(group.items())[:1])
    yield select(left, _are_any)


def _are_digits(one: str, other: str) -> bool:
    return one in _DIGITS and other in _DIGITS


def _are_same_kind(one: str, other: str) -> bool:
    return _kind(one) == _kind(other)


def _are_any(_one: str, _other: str) -> bool:
    return True


def _kind(char: str) -> int:
    return 0 if char in _DIGITS else 1 if char.islower() else 2 if char.isupper() else 3 if char.isascii() else 4
