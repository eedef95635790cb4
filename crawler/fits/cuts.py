"""Cut plain card images into keyword, value and comment, many images at once.

A card is plain if it is printable ASCII, its keyword and value indicator are at the columns of the Standard or of the
HIERARCH convention, and its string value, if any, contains no quotes. A few column numbers describe a plain card. numpy
finds them on the (cards, 80) matrix of bytes. `grammar` reads all other cards, and defines what is correct.

No I/O and no storage.
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
"""One column number for each card, counted from 0; 80 is past the end of the card image."""
Mask: TypeAlias = npt.NDArray[np.bool_]

TYPES: Final = ("string", "logical", "integer", "real", "complex", "undefined", "commentary", "invalid")
STRING, LOGICAL, INTEGER, REAL, COMPLEX, UNDEFINED, COMMENT, INVALID = range(len(TYPES))

_VALUE: Final = KEYWORD + 2  # the value field follows the indicator (FITS Standard 4.0, section 4.1.2.2)
_COLUMN: Final = np.arange(CARD, dtype=np.uint8)
_BLANK, _QUOTE, _SLASH, _EQUALS = (np.uint8(ord(character)) for character in " '/=")
_LAST: Final = np.uint8(ord("~") - ord(" "))
_SMALL_A, _SMALL_Z = np.uint8(ord("a")), np.uint8(ord("z"))


def word(keyword: str) -> Any:
    """Return a keyword, padded to eight columns, as one 64-bit word. Compare it with `words`."""
    return np.frombuffer(keyword.ljust(KEYWORD).encode(), np.uint64)[0]


def words(images: Bytes) -> npt.NDArray[np.uint64]:
    """Return the keyword field of each card image as one 64-bit word."""
    return np.ascontiguousarray(images[:, :KEYWORD]).view(np.uint64)[:, 0]


_HIERARCH: Final = word("HIERARCH")
_CONTINUE: Final = word("CONTINUE")
_COMMENTARY: Final = tuple(word(keyword) for keyword in COMMENTARY)


@dataclass(frozen=True)
class Cuts:
    """Columns at which card images are cut. Start columns are inclusive, end columns exclusive.

    A keyword or value may end with blanks; a comment may begin and end with blanks. For a card that is not plain, all
    columns are 80.
    """

    images: Bytes
    """Array of shape (cards, 80): the images that were cut, with standard keywords in upper case."""
    kind: npt.NDArray[np.int8]
    """Index into `TYPES`. INVALID for a card that is not plain; REAL for any value that is not empty and not a string.
    Such a value is not read here."""
    keyword: Columns
    keyword_end: Columns
    value: Columns
    value_end: Columns
    comment: Columns


def cut_cards(images: Bytes) -> Cuts:
    """Cut the plain card images.

    Parameters
    ----------
    images : ndarray of uint8, shape (cards, 80)
        Single card images with any bytes.
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
    # A quote closes the string only if nothing but blanks lies between the quote and the comment.
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
    """Find commentary cards, and cards with a value indicator in columns 9 and 10.

    Returns the images with the keywords of these cards in upper case, and one mask for each of the two kinds.
    """
    unprintable = (images - _BLANK) > _LAST
    printable = ~unprintable.any(axis=1) if unprintable.any() else np.ones(len(images), bool)
    fields = images[:, :KEYWORD]
    small = (fields >= _SMALL_A) & (fields <= _SMALL_Z)
    upper = words(fields - small.view(np.uint8) * _BLANK) if small.any() else words(fields)
    commentary = printable & np.logical_or.reduce([upper == other for other in _COMMENTARY])
    # Not plain: an `=` in the keyword field may be an earlier indicator, and leading blanks shift the keyword.
    standard = printable & (images[:, KEYWORD] == _EQUALS) & (images[:, KEYWORD + 1] == _BLANK)
    standard &= (images[:, 0] != _BLANK) & (upper != _CONTINUE) & ~commentary
    standard &= ~(fields == _EQUALS).any(axis=1)
    mixed = (commentary | standard) & small.any(axis=1)
    if mixed.any():
        images = images.copy()
        images[mixed, :KEYWORD] = upper[mixed, None].view(np.uint8)
    return images, commentary, standard & printable


def _hierarch_forms(images: Bytes, rest: Mask) -> tuple[npt.NDArray[np.intp], Columns]:
    """Find the plain cards of the HIERARCH convention in ``rest``. Return their rows and the columns of the ``=``."""
    rows = np.flatnonzero(rest & (words(images) == _HIERARCH) & (images[:, KEYWORD] == _BLANK))
    cards = images[rows]
    equals = _first(cards == _EQUALS)
    # Not plain: a keyword of up to eight columns may be COMMENT or another name that astropy treats specially.
    inside = (cards != _BLANK) & (equals[:, None] > _COLUMN)
    long = (cards[:, KEYWORD + 1] != _BLANK) & inside[:, 2 * KEYWORD + 1 :].any(axis=1)
    plain = long & (equals < CARD) & ((cards - _BLANK) <= _LAST).all(axis=1)
    return rows[plain], equals[plain]


def _closing_quotes(cards: Bytes, opening: Columns) -> tuple[Columns, Mask]:
    """Return the column of the quote after the opening one, and whether it may close the string."""
    quotes = (cards == _QUOTE) & (opening[:, None] < _COLUMN)
    close = _first(quotes)
    # Two adjacent quotes are an empty string only if no later quote could close a longer string.
    later = quotes & (close[:, None] < _COLUMN)
    empty = close == opening + 1
    return close, (close < CARD) & ~(empty & later.any(axis=1))


def _first(mask: Mask) -> Columns:
    """Return the first column of each row that is set; 80 if no column is set."""
    first: Columns = mask.argmax(axis=1).astype(np.uint8)
    first[~_at(mask, first)] = CARD
    return first


def _at(matrix: npt.NDArray[Any], columns: Columns) -> npt.NDArray[Any]:
    """Return one element of each row: the one at its column, or the last one if the column is past the end."""
    flat = np.arange(len(matrix)) * CARD + np.minimum(columns, CARD - 1)
    return matrix.reshape(-1)[flat]
