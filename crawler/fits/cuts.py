"""Where plain card images are cut into keyword, value and comment, for many images at once.

A card is plain when it is printable ASCII, its keyword and value indicator are where the Standard or the HIERARCH
convention has them, and its string, if it is one, has no quotes inside. Then a handful of columns say all; they are
found with numpy on the (cards, 80) matrix of bytes. Everything else is left to `grammar`, which is the definition of
what is right.

Knows no I/O and no storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from crawler.fits.grammar import COMMENTARY
from crawler.fits.units import CARD, KEYWORD

Bytes: TypeAlias = npt.NDArray[np.uint8]
Columns: TypeAlias = npt.NDArray[np.uint8]
"""One column of the card image for each card, counted from 0; 80 is past the end."""
Mask: TypeAlias = npt.NDArray[np.bool_]

TYPES: Final = ("string", "logical", "integer", "real", "complex", "undefined", "commentary", "invalid")
STRING, LOGICAL, INTEGER, REAL, COMPLEX, UNDEFINED, COMMENT, INVALID = range(len(TYPES))

_VALUE: Final = KEYWORD + 2  # the value field follows the indicator (FITS Standard 4.0, section 4.1.2.2)
_COLUMN: Final = np.arange(CARD, dtype=np.uint8)
_BLANK, _QUOTE, _SLASH, _EQUALS = (np.uint8(ord(character)) for character in " '/=")
_LAST: Final = np.uint8(ord("~") - ord(" "))
_SMALL_A, _SMALL_Z = np.uint8(ord("a")), np.uint8(ord("z"))


def word(keyword: str) -> Any:
    """Return a keyword, padded to eight columns, as one machine word to compare with `words`."""
    return np.frombuffer(keyword.ljust(KEYWORD).encode(), np.uint64)[0]


def words(images: Bytes) -> npt.NDArray[np.uint64]:
    """Return the keyword fields of card images, each as one machine word."""
    return np.ascontiguousarray(images[:, :KEYWORD]).view(np.uint64)[:, 0]


_HIERARCH: Final = word("HIERARCH")
_CONTINUE: Final = word("CONTINUE")
_COMMENTARY: Final = tuple(word(keyword) for keyword in COMMENTARY)


@dataclass(frozen=True)
class Cuts:
    """Columns at which card images are cut; begins are inclusive, ends exclusive.

    Keyword and value may have blanks after them, the comment on both sides. A card that is not plain is cut into
    nothing: all its columns are 80.
    """

    images: Bytes
    """(cards, 80): the images that were cut, but with standard keywords in upper case."""
    kind: npt.NDArray[np.int8]
    """Index into `TYPES`; INVALID where the card is not plain, REAL for any token but none: it is not looked at."""
    keyword: Columns
    keyword_end: Columns
    value: Columns
    value_end: Columns
    comment: Columns


def cut_cards(images: Bytes) -> Cuts:
    """Cut card images where that takes no grammar.

    Parameters
    ----------
    images : ndarray of uint8, shape (cards, 80)
        Single card images, any bytes.
    """
    images, commentary, standard = _standard_forms(images)
    hierarch, equals = _hierarch_forms(images, ~(standard | commentary))
    keyword = np.where(standard | commentary, 0, CARD).astype(np.uint8)
    keyword_end = np.where(standard | commentary, KEYWORD, CARD).astype(np.uint8)
    field = np.where(standard, _VALUE, CARD).astype(np.uint8)
    keyword[hierarch], keyword_end[hierarch], field[hierarch] = KEYWORD + 1, equals, equals + 1
    kind = np.full(len(images), INVALID, np.int8)
    kind[commentary] = COMMENT
    kind[standard] = kind[hierarch] = REAL

    nonblank = images != _BLANK
    begin = _first(nonblank & (field[:, None] <= _COLUMN))
    strings = np.flatnonzero((_at(images, begin) == _QUOTE) & (begin < CARD))
    end = begin.copy()
    end[strings], closed = _closing_quotes(images[strings], begin[strings])
    slash = _first((images == _SLASH) & (end[:, None] <= _COLUMN))
    # A quote closes the string only where nothing but blanks stands before the comment.
    between = (end[strings, None] < _COLUMN) & (slash[strings, None] > _COLUMN) & nonblank[strings]
    kind[strings] = np.where(closed & ~between.any(axis=1), STRING, INVALID)
    kind[(kind == REAL) & (begin == slash)] = UNDEFINED

    begin[strings] += 1
    begin[commentary] = KEYWORD
    end = np.where(kind == STRING, end, slash)
    cuts = (keyword, keyword_end, begin, end, np.minimum(slash + 1, CARD).astype(np.uint8))
    for cut in cuts:
        cut[kind == INVALID] = CARD
    return Cuts(images, kind, *cuts)


def _standard_forms(images: Bytes) -> tuple[Bytes, Mask, Mask]:
    """Tell commentary cards and cards with an indicator in columns 9 and 10; upper their keywords."""
    unprintable = (images - _BLANK) > _LAST
    printable = ~unprintable.any(axis=1) if unprintable.any() else np.ones(len(images), bool)
    fields = images[:, :KEYWORD]
    small = (fields >= _SMALL_A) & (fields <= _SMALL_Z)
    upper = words(fields - small.view(np.uint8) * _BLANK) if small.any() else words(fields)
    commentary = printable & np.logical_or.reduce([upper == other for other in _COMMENTARY])
    # Another `=` in the keyword field may make an earlier indicator. Leading blanks shift the keyword.
    standard = printable & (images[:, KEYWORD] == _EQUALS) & (images[:, KEYWORD + 1] == _BLANK)
    standard &= (images[:, 0] != _BLANK) & (upper != _CONTINUE) & ~commentary
    standard &= ~(fields == _EQUALS).any(axis=1)
    shout = (commentary | standard) & small.any(axis=1)
    if shout.any():
        images = images.copy()
        images[shout, :KEYWORD] = upper[shout, None].view(np.uint8)
    return images, commentary, standard & printable


def _hierarch_forms(images: Bytes, rest: Mask) -> tuple[npt.NDArray[np.intp], Columns]:
    """Find the cards of the HIERARCH convention among the rest, and the column of each one's ``=``."""
    rows = np.flatnonzero(rest & (words(images) == _HIERARCH) & (images[:, KEYWORD] == _BLANK))
    cards = images[rows]
    equals = _first(cards == _EQUALS)
    # Keywords of up to eight columns may be COMMENT and the like, which astropy treats by name.
    inside = (cards != _BLANK) & (equals[:, None] > _COLUMN)
    long = (cards[:, KEYWORD + 1] != _BLANK) & inside[:, 2 * KEYWORD + 1 :].any(axis=1)
    plain = long & (equals < CARD) & ((cards - _BLANK) <= _LAST).all(axis=1)
    return rows[plain], equals[plain]


def _closing_quotes(cards: Bytes, opening: Columns) -> tuple[Columns, Mask]:
    """Find the quote after the opening one, and tell whether it may close the string."""
    quotes = (cards == _QUOTE) & (opening[:, None] < _COLUMN)
    close = _first(quotes)
    # Two quotes in a row are an empty string only where no later quote could close a longer one.
    later = quotes & (close[:, None] < _COLUMN)
    empty = close == opening + 1
    return close, (close < CARD) & ~(empty & later.any(axis=1))


def _first(mask: Mask) -> Columns:
    """Return the first column that is set, 80 where none is."""
    first: Columns = mask.argmax(axis=1).astype(np.uint8)
    first[~_at(mask, first)] = CARD
    return first


def _at(matrix: npt.NDArray[Any], columns: Columns) -> npt.NDArray[Any]:
    """Return one element of each row; the last where the column is past the end."""
    flat = np.arange(len(matrix)) * CARD + np.minimum(columns, CARD - 1)
    return matrix.reshape(-1)[flat]
