"""The grammar of one logical card, as ``astropy.io.fits.Card`` reads it.

A logical card is a card image and the CONTINUE images that follow it (FITS Standard 4.0, section 4.2.1.2). `read_card`
accepts any bytes and never raises: text that matches no grammar becomes a card of type ``invalid``. This module is the
reference for `crawler.fits.cards`, which reads plain cards many at a time and calls `read_card` for all others.

No I/O, no storage and no Arrow. Python's ``str`` methods are used where astropy uses them. On text decoded from latin-1
they also strip tabs, NEL and no-break spaces. This is intended, because astropy strips them.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple, TypeAlias

from crawler.fits.units import CARD, INT64_MAX, KEYWORD

CardType: TypeAlias = Literal["string", "logical", "integer", "real", "complex", "undefined", "commentary", "invalid"]

COMMENTARY: Final = frozenset({"", "COMMENT", "HISTORY", "END"})
"""Keywords without a value (FITS Standard 4.0, section 4.4.2.4). astropy adds END, if it is not the end of a header."""

_HIERARCH: Final = "HIERARCH"
_CONTINUE: Final = "CONTINUE"
_INDICATOR: Final = "= "  # value indicator, columns 9 and 10 (FITS Standard 4.0, section 4.1.2.2)

# The first quote before a comment, or before the end of the text, closes the string. The Standard differs (section
# 4.2.1.1: quotes inside a string are doubled), but astropy reads strings in this way, also those with single quotes
# inside. The empty string is the last alternative: in `'' / 'x'` the text between the outer quotes is the value.
_STRING: Final = re.compile(r"'([ -~]+?|)'(?= *(?:/|\Z))")

# More than the Standard allows (sections 4.2.3 to 4.2.6): blanks next to the sign and the exponent, and exponents in
# lower case. Some cards written by hand or by old Fortran programs need this.
_NUMBER: Final = r"[+-]? *(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?) *(?:[deDE] *[+-]? *[0-9]+)?"
_INTEGER_VALUE: Final = re.compile(r"[+-]? *[0-9]+")
_NUMBER_VALUE: Final = re.compile(_NUMBER)
_COMPLEX_VALUE: Final = re.compile(rf"\( *{_NUMBER} *, *{_NUMBER} *\)")
_PLAIN_EXPONENT: Final = str.maketrans("dD", "eE", " ")  # deletes blanks, too


class Card(NamedTuple):
    """A logical card. The fields are columns of the table ``cards``."""

    keyword: str
    type: CardType
    value: str | None = None
    integer: int | None = None
    real: float | None = None
    logical: bool | None = None
    comment: str | None = None


class _Split(NamedTuple):
    """The parts of a card image.

    Attributes
    ----------
    keyword : str
    field : str or None
        The value field and the comment, stripped; None if the card has no value indicator.
    rest : int
        The column of the first character after the keyword and the indicator.
    """

    keyword: str
    field: str | None
    rest: int


def read_card(image: bytes) -> Card:
    """Read one logical card.

    Parameters
    ----------
    image : bytes
        A card image and its CONTINUE images, if it has any: a multiple of 80 bytes, with any values.

    Returns
    -------
    Card
        Never raises: a card that cannot be read has the type ``invalid``, and its text as ``value``.
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
    """Split a card image into its keyword and its value field."""
    keyword = text[:KEYWORD].strip()
    upper = keyword.upper()
    if upper == _CONTINUE:
        # astropy splits at the first blank of the card, and cannot read a card without a blank.
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
        # An indicator left of column 9 ends the keyword. astropy counts this column before it strips leading blanks.
        upper = upper[:indicator]
    return _Split(upper, text[rest:].strip(), rest)


def _split_hierarch(text: str) -> _Split:
    """Split a card of the HIERARCH convention at the first ``=`` of the card; any text may precede it."""
    equals = text.index("=")
    keyword = text[KEYWORD + 1 : equals].strip()
    if keyword == _CONTINUE:
        return _Split(keyword, text[KEYWORD + 1 :].strip(), equals + 1)
    if equals > KEYWORD + 2 and not text.startswith(_HIERARCH):
        # astropy finds the value of a long keyword only if the word HIERARCH is in upper case.
        return _Split(keyword, text[KEYWORD:].strip(), equals + 1)
    return _Split(keyword, text[equals + 1 :].strip(), equals + 1)


def _odd_comment(text: str, keyword: str) -> str | None:
    """Return the comment of ``HIERARCH comment = ...``. astropy reads it, though it treats the card as commentary."""
    if keyword in COMMENTARY:
        return None
    field = (_join_run(text) if len(text) > CARD else _split(text).field) or ""
    card = _read_field(keyword, field)
    if card is not None:
        return card.comment
    return field.partition("/")[2].strip() or None


def _join_run(text: str) -> str | None:
    """Return the value field of a long string, or None if one of the card images contains no string.

    Doubled quotes stay doubled, so that the joined field can be read like any other.
    """
    values = []
    comments = []
    for start in range(0, len(text), CARD):
        piece = _split(text[start : start + CARD]).field
        match = _STRING.match(piece) if piece else None
        if piece is None or match is None:
            return None
        # astropy also removes the `&` of the last image.
        values.append(match[1].rstrip().removesuffix("&"))
        comments.append(_comment(piece[match.end() :]))
    return f"'{''.join(values)}' / {' '.join(filter(None, comments))}"


def _read_field(keyword: str, field: str) -> Card | None:
    """Read a stripped value field with its comment. Return None if it matches no grammar."""
    if field.startswith("'"):
        match = _STRING.match(field)
        if match is None:
            return None
        value = match[1].replace("''", "'").rstrip()
        return Card(keyword, "string", value, comment=_comment(field[match.end() :]))
    # No other type of value can contain a slash, so the first slash begins the comment.
    written, slash, after = field.partition("/")
    return _read_written(keyword, written.rstrip(" "), _comment(slash + after))


def _read_written(keyword: str, written: str, comment: str | None) -> Card | None:
    """Read a value that is not a string from its text."""
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
    """Return the comment. ``text`` follows the value: blanks, and then nothing or a slash and the comment."""
    return text.lstrip(" ")[1:].lstrip(" ").rstrip() or None
