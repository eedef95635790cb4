r"""One logical card, read the way ``astropy.io.fits.Card`` reads it: the grammar, written out plainly.

A logical card is a card image with the CONTINUE images that follow it (FITS Standard 4.0, section 4.2.1.2). This
module takes any bytes and always answers; what no grammar matches becomes a card of type ``invalid``. It is the
reference for ``cards``, which reads common cards many at a time and leaves only the odd ones to `read_card`.

Knows no I/O, no storage and no Arrow. Python's ``str`` methods are used on purpose where astropy uses them: on text
decoded from latin-1 they also strip tabs, NEL and no-break spaces, and so must we.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple, TypeAlias

from crawler.fits.units import CARD, INT64_MAX, KEYWORD

CardType: TypeAlias = Literal["string", "logical", "integer", "real", "complex", "undefined", "commentary", "invalid"]

COMMENTARY: Final = frozenset({"", "COMMENT", "HISTORY", "END"})
"""Keywords without a value (FITS Standard 4.0, section 4.4.2.4). END is one to astropy when it ends no header."""

_HIERARCH: Final = "HIERARCH"
_CONTINUE: Final = "CONTINUE"
_INDICATOR: Final = "= "  # value indicator, columns 9 and 10 (FITS Standard 4.0, section 4.1.2.2)

# The first quote that is followed by a comment or by the end closes the string. Not quite the Standard (section
# 4.2.1.1: quotes inside are doubled), but what astropy does, and it reads strings with stray quotes too. The empty
# string comes last: in `'' / 'x'` the text between the outer quotes is the value.
_STRING: Final = re.compile(r"'([ -~]+?|)'(?= *(?:/|\Z))")

# More than the Standard allows (sections 4.2.3 to 4.2.6): blanks beside the sign and the exponent, exponents in lower
# case. Cards written by hand or by old Fortran have them.
_NUMBER: Final = r"[+-]? *(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?) *(?:[deDE] *[+-]? *[0-9]+)?"
_INTEGER_VALUE: Final = re.compile(r"[+-]? *[0-9]+")
_NUMBER_VALUE: Final = re.compile(_NUMBER)
_COMPLEX_VALUE: Final = re.compile(rf"\( *{_NUMBER} *, *{_NUMBER} *\)")
_PLAIN_EXPONENT: Final = str.maketrans("dD", "eE", " ")  # and blanks are deleted


class Card(NamedTuple):
    """A logical card; the columns of the ``cards`` table."""

    keyword: str
    type: CardType
    value: str | None = None
    integer: int | None = None
    real: float | None = None
    logical: bool | None = None
    comment: str | None = None


class _Split(NamedTuple):
    """Where a card image divides.

    ``field`` is the value field with the comment, stripped; ``None`` where there is no value indicator.
    ``rest`` is the column at which the text after the keyword and indicator begins.
    """

    keyword: str
    field: str | None
    rest: int


def read_card(image: bytes) -> Card:
    """Read one logical card.

    Parameters
    ----------
    image : bytes
        A card image, followed by its CONTINUE images if it has any; a multiple of 80 bytes, any bytes.

    Returns
    -------
    Card
        Never an exception: what cannot be read is of type ``invalid`` and keeps its text.
    """
    text = image.decode("latin-1")
    keyword, field, rest = _split(text)
    if keyword.upper() in COMMENTARY:
        return Card(keyword, "commentary", text[KEYWORD:].rstrip(), comment=_odd_comment(text, keyword))
    if field is not None and len(text) > CARD:
        field = _join_run(text)
    card = None if field is None else _read_field(keyword, field)
    return card or Card(keyword, "invalid", text[rest:].rstrip())


def _split(text: str) -> _Split:
    """Divide a card between its keyword and its value field."""
    keyword = text[:KEYWORD].strip()
    upper = keyword.upper()
    if upper == _CONTINUE:
        # astropy divides at the first blank, wherever that is, and cannot read the card without one.
        blank = text.find(" ")
        return _Split(upper, text[blank + 1 :].strip() if blank >= 0 else None, KEYWORD)
    if upper in COMMENTARY:
        return _Split(upper, None, KEYWORD)
    if upper == _HIERARCH and text[KEYWORD] == " " and "=" in text:
        return _split_hierarch(text)
    indicator = text.find(_INDICATOR)
    if not 0 <= indicator <= KEYWORD:
        return _Split(keyword, None, KEYWORD)
    rest = indicator + len(_INDICATOR)
    if indicator < KEYWORD:
        # Left of column 9 the indicator ends the keyword; one that begins with blanks is cut as astropy cuts it.
        upper = upper[:indicator]
    return _Split(upper, text[rest:].strip(), rest)


def _split_hierarch(text: str) -> _Split:
    """Divide a card of the HIERARCH convention: any text, then the first ``=`` of the card."""
    equals = text.index("=")
    keyword = text[KEYWORD + 1 : equals].strip()
    if keyword == _CONTINUE:
        return _Split(keyword, text[KEYWORD + 1 :].strip(), equals + 1)
    if equals > KEYWORD + 2 and not text.startswith(_HIERARCH):
        # astropy finds the value of a long keyword only when the word is in upper case.
        return _Split(keyword, text[KEYWORD:].strip(), equals + 1)
    return _Split(keyword, text[equals + 1 :].strip(), equals + 1)


def _odd_comment(text: str, keyword: str) -> str | None:
    """Return the comment of ``HIERARCH comment = ...``, which to astropy is commentary and has one all the same."""
    if keyword in COMMENTARY:
        return None
    field = (_join_run(text) if len(text) > CARD else _split(text).field) or ""
    card = _read_field(keyword, field)
    if card is not None:
        return card.comment
    return field.partition("/")[2].strip() or None


def _join_run(text: str) -> str | None:
    """Return the value field of a long string, or None where an image of the run holds no string.

    The pieces keep their doubled quotes, so that the joined field is read like any other.
    """
    values = []
    comments = []
    for start in range(0, len(text), CARD):
        piece = _split(text[start : start + CARD]).field
        match = _STRING.match(piece) if piece else None
        if piece is None or match is None:
            return None
        # Not only before another image: astropy drops the last `&` of a run as well.
        values.append(match[1].rstrip().removesuffix("&"))
        comments.append(_comment(piece[match.end() :]))
    return f"'{''.join(values)}' / {' '.join(filter(None, comments))}"


def _read_field(keyword: str, field: str) -> Card | None:
    """Read a stripped value field with its comment; None where it matches no grammar."""
    if field.startswith("'"):
        match = _STRING.match(field)
        if match is None:
            return None
        value = match[1].replace("''", "'").rstrip()
        return Card(keyword, "string", value, comment=_comment(field[match.end() :]))
    # A slash ends every other value: none of them has one inside.
    written, slash, after = field.partition("/")
    return _read_written(keyword, written.rstrip(" "), _comment(slash + after))


def _read_written(keyword: str, written: str, comment: str | None) -> Card | None:
    """Read a value that is not a string, from its text as written."""
    card = None
    if not written:
        card = Card(keyword, "undefined", comment=comment)
    elif written in ("T", "F"):
        card = Card(keyword, "logical", written, logical=written == "T", comment=comment)
    elif _INTEGER_VALUE.fullmatch(written):
        number = int(written.replace(" ", ""))
        integer = number if -INT64_MAX - 1 <= number <= INT64_MAX else None
        card = Card(keyword, "integer", written, integer, float(number), comment=comment)
    elif _NUMBER_VALUE.fullmatch(written):
        card = Card(keyword, "real", written, real=float(written.translate(_PLAIN_EXPONENT)), comment=comment)
    elif _COMPLEX_VALUE.fullmatch(written):
        card = Card(keyword, "complex", written, comment=comment)
    return card


def _comment(text: str) -> str | None:
    """Return the comment in what follows a value: ``text`` is blanks, then nothing or a slash and the comment."""
    return text.lstrip(" ")[1:].lstrip(" ").rstrip() or None
