"""What a header says of the data unit behind it (FITS Standard 4.0, section 4.4.1).

The arithmetic of the Standard on the structural keywords of one header. Knows no I/O and no storage.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from crawler.errors import CorruptError
from crawler.fits.units import CARD, INT64_MAX, KEYWORD, Hdu, padded

MAX_NAXIS = 999
"""Largest NAXIS that the Standard allows (section 4.4.1.1)."""

_BLANK_END = b"END".ljust(CARD)
"""The END card as the Standard wants it (section 4.4.1.2)."""

_ODD_ENDS = (b"END ", b"END=", b"END\0")
"""How a card begins that is no END, but that CFITSIO takes for one: see `find_end`."""

_STRUCTURAL = re.compile(r" *(XTENSION|BITPIX|NAXIS(?:[1-9][0-9]{,2})?|PCOUNT|GCOUNT|GROUPS)(?: *(=)|(?= ))")

_INITIALS = frozenset(" XBNPG")
"""First columns of structural cards: most cards need no further look."""

_UNREADABLE = -1
"""Stands for the place of the value field of a card that has none."""

_NAME = 10
"""Columns that make out which keyword a card has: eight of the keyword, two of the value indicator (section 4.1.2)."""

# Free format (section 4.2): blanks, then the token, which ends at a blank, the comment's slash, or the card's end.
# Digits after a blank are part of the token, so that `1 0` is refused instead of read as 1 or as 10 (section 4.2.3). At
# most 70 bytes follow the value indicator, so the match is bounded.
_VALUE = re.compile(rb" *('(?:[^']|'')*'|[^ /\x00']+(?: +[0-9][^ /\x00']*)*)")
_INTEGER = re.compile(r"\t*([+-]?[0-9]+)\t*")  # neither library reads `5.`
_PLAIN_INTEGER = re.compile(rb" *([0-9]{1,18}) *(?:/|\Z)")

_CACHED = 1000 * CARD
"""Bytes of the longest header whose structural keywords are remembered: siblings have them in the same places, and
most often with the same values."""


def parse_hdu(index: int, offset: int, header: bytes, end: bytes = _BLANK_END) -> Hdu:
    """Work out what one header says of itself and of the data unit behind it.

    The size of a data unit needs only BITPIX, NAXIS, NAXISn, PCOUNT, GCOUNT and GROUPS (equations 1, 2 and 4 of
    the Standard), so that an extension of a type nobody has heard of can be walked across.

    Parameters
    ----------
    index : int
        Of the HDU in its file.
    offset : int
        First byte of the header in the file.
    header : bytes
        Card images from the first up to, not including, END.
    end : bytes
        The card image of END, and the padding behind it: all of it where the header `is_doubtful`.

    Raises
    ------
    CorruptError
        A structural keyword is missing or nonsense, or the data unit would end beyond what 64 bits can name.
    """
    cached = len(header) <= _CACHED
    layout = _layout_of_header(header)
    fell_back = layout.is_doubtful and not (end.startswith(_BLANK_END) and end.isascii() and header.isascii())
    if fell_back and layout.odd_end >= 0:  # see `find_end`
        at = CARD * layout.odd_end
        return parse_hdu(index, offset, header[:at], header[at : at + CARD])
    images = b"".join([header[at : at + CARD] for at in layout.places])
    described = _described_before(images, layout, fell_back) if cached else None
    if described is None:
        described = _described(images, layout, fell_back, offset)  # raises, with the offset: it is not remembered
    data_offset = offset + padded(len(header) + CARD)
    if data_offset + padded(described.data_size) > INT64_MAX:
        raise CorruptError("data unit would end beyond 2^63 bytes", offset)
    return Hdu(
        index=index,
        kind=described.kind,
        header_offset=offset,
        header_size=data_offset - offset,
        data_offset=data_offset,
        data_size=described.data_size,
        bitpix=described.bitpix,
        shape=described.shape,
        pcount=described.pcount,
        gcount=described.gcount,
        header=header,
    )


def is_doubtful(header: bytes) -> bool:
    """Return whether what a header says depends on the reader of astropy, and so on all bytes of its blocks.

    Parameters
    ----------
    header : bytes
        Card images from the first up to, not including, END.
    """
    return _layout_of_header(header).is_doubtful


def _layout_of_header(header: bytes) -> _Layout:
    names = b"".join([header[column::CARD] for column in range(_NAME)])
    return _layout_of(names) if len(header) <= _CACHED else _layout_of.__wrapped__(names)


@dataclass(slots=True, eq=False)
class _Layout:
    """What the first columns of a header's cards tell.

    Attributes
    ----------
    places : tuple of int
        Where cards with structural keywords begin.
    keywords : tuple of str
        In upper case, as ``places``.
    first, last : dict of str to int
        Where the value field of each keyword begins when these cards are put together: of repeated keywords, in the
        first card, and in the last.
    extension : bool
        The first card is XTENSION.
    is_upper : bool
        All keywords are written in upper case, from the first column on.
    odd_end : int
        Index of the first card that begins with one of `_ODD_ENDS`; -1 for none.
    is_doubtful : bool
        There is such a card, or a keyword is repeated, so that the two readers of astropy differ.
    """

    places: tuple[int, ...]
    keywords: tuple[str, ...]
    first: dict[str, int]
    last: dict[str, int]
    extension: bool
    is_upper: bool
    odd_end: int
    is_doubtful: bool

    @property
    def in_order(self) -> bool:
        """Whether the keywords are in upper case, and where the Standard wants them, each once.

        That is BITPIX, NAXIS and NAXISn from the second card on, and in an extension PCOUNT and GCOUNT behind them,
        where it has them.
        """
        keywords, places = self.keywords[self.extension :], self.places[self.extension :]
        axes = sum(keyword.startswith("NAXIS") for keyword in keywords) - 1
        expected = ["BITPIX", "NAXIS", *[f"NAXIS{axis}" for axis in range(1, axes + 1)]]
        if self.extension:
            expected += [keyword for keyword in ("PCOUNT", "GCOUNT") if keyword in keywords]
        return (
            self.is_upper
            and len(set(keywords)) == len(keywords)
            and list(keywords[: len(expected)]) == expected
            and list(places[: len(expected)]) == [CARD * card for card in range(1, len(expected) + 1)]
        )


@lru_cache(maxsize=512)
def _layout_of(names: bytes) -> _Layout:
    """Look for structural keywords.

    Parameters
    ----------
    names : bytes
        The first column of all cards, then the second, and so on, `_NAME` of them.
    """
    count = len(names) // _NAME
    upper = names.upper().decode("latin-1")
    cards: list[int] = []
    keywords: list[str] = []
    fields: list[int] = []  # where the value field begins, or `_UNREADABLE` where there is no indicator
    odd: set[int] = set()  # of the keywords, those with an indicator that `fits.open` does not see, or none
    is_upper = True
    odd_end = -1
    for card, initial in enumerate(upper[:count]):
        if initial in _INITIALS and (match := _STRUCTURAL.match(name := upper[card::count])):
            keyword, column = match.group(1), match.end()
            early = column < KEYWORD and name[: column + 1] == keyword + "= "
            if not match.group(2) or not (early or name[KEYWORD:] == "= "):
                odd.add(len(cards))
            is_upper = is_upper and names[card::count].startswith(keyword.encode("ascii"))
            fields.append(CARD * len(cards) + column if match.group(2) else _UNREADABLE)
            cards.append(card)
            keywords.append(keyword)
        elif initial == "E" and odd_end < 0 and names[card::count].startswith(_ODD_ENDS):
            odd_end = card
    last = dict(zip(keywords, fields, strict=True))
    repeated = len(last) < len(keywords)
    layout = _Layout(
        places=tuple([CARD * card for card in cards]),
        keywords=tuple(keywords),
        first=dict(zip(reversed(keywords), reversed(fields), strict=True)) if repeated else last,
        last=last,
        extension=names[::count].startswith(b"XTENSION") if count else False,
        is_upper=is_upper,
        odd_end=odd_end,
        is_doubtful=repeated or odd_end >= 0 or bool(odd),
    )
    if odd:
        _sort_out(layout, fields, odd, [upper[card::count] for card in cards])
    return layout


def _sort_out(layout: _Layout, fields: list[int], odd: set[int], names: list[str]) -> None:
    """Leave out of a layout the cards that are none of their keyword to those whose reading is followed.

    Parameters
    ----------
    layout : _Layout
    fields : list of int
        Where the value field begins in each of its cards.
    odd : set of int
        Cards with an indicator that `fits.open` does not see, or none.
    names : list of str
        The first columns of its cards, in upper case.
    """
    every = list(zip(layout.keywords, fields, names, strict=True))
    if layout.in_order:  # CFITSIO takes any indicator; a keyword without one has no value
        layout.first = layout.last = {keyword: field for keyword, field, _ in every if field != _UNREADABLE}
        return
    layout.last = {keyword: field for at, (keyword, field, _) in enumerate(every) if at not in odd}
    # The reader that astropy falls back on splits a card at `= `, and takes the text of a card without it for a value.
    layout.first = {}
    for keyword, field, name in every:
        before, indicator, _ = name.partition("= ")
        if (before if indicator else name[:KEYWORD]).strip() == keyword:
            layout.first.setdefault(keyword, field if indicator else _UNREADABLE)


class _Described(NamedTuple):
    """What the structural keywords of a header say. See `Hdu`."""

    kind: str
    bitpix: int
    shape: tuple[int, ...]
    pcount: int
    gcount: int
    data_size: int


@lru_cache(maxsize=512)
def _described_before(images: bytes, layout: _Layout, fell_back: bool) -> _Described | None:
    """Remember what structural cards say; None where they are nonsense."""
    try:
        return _described(images, layout, fell_back, 0)
    except CorruptError:
        return None


def _described(images: bytes, layout: _Layout, fell_back: bool, offset: int) -> _Described:
    """Return what structural cards say of a primary HDU or an extension."""
    structure = _Structure(images, layout, fell_back, offset)
    # Random groups are a form of primary HDU (section 6): in an extension GROUPS is a keyword like any other.
    marked = not layout.extension and structure.logical("GROUPS")
    if marked and not fell_back:
        structure = _Structure(images, layout, True, offset)
    # Extensions without NAXIS exist (HMI and MDI tables); like astropy, take them for headers without data.
    naxis = structure.integer("NAXIS", 0, MAX_NAXIS, default=None if structure.has("NAXIS") else 0)
    # Any BITPIX that its column can hold will do: what the data mean is for their reader to refuse.
    bitpix = structure.integer("BITPIX", -(2**15), 2**15 - 1, default=None if naxis else 8)
    shape = tuple([structure.integer(f"NAXIS{axis}", 0, INT64_MAX) for axis in range(1, naxis + 1)])
    pcount = structure.integer("PCOUNT", 0, INT64_MAX, default=0)
    gcount = structure.integer("GCOUNT", 0, INT64_MAX, default=None if structure.has("GCOUNT") else 1)

    marked = marked and naxis > 0
    groups = marked and shape[0] == 0
    if marked and not groups:
        # No random groups (section 6.1.1 wants NAXIS1 = 0) but a GEIS header of HST: PCOUNT and GCOUNT tell of groups
        # in another file, and the data are the array of equation 1, as the length of real ones shows.
        elements = _product(shape)
    else:
        # With NAXIS = 0 there are no data whatever PCOUNT says (equation 1 is of arrays); astropy reads it so too.
        elements = gcount * (pcount + _product(shape[1:] if groups else shape)) if naxis else 0
    primary = "groups" if groups else "primary"
    kind = structure.string("XTENSION") if layout.extension else primary
    return _Described(kind, bitpix, shape, pcount, gcount, abs(bitpix) * elements // 8)


def _product(lengths: tuple[int, ...]) -> int:
    """Return the product, cut short once beyond 64 bits: 999 axes would make a number of 19,000 digits."""
    if 0 in lengths:
        return 0
    product = 1
    for length in lengths:
        product *= length
        if product > INT64_MAX:
            break
    return product


class _Structure:
    """The structural keywords of one header (section 4.4.1).

    Keywords in lower case and behind blanks count, as in astropy. The value indicator is ``= `` in columns 9 and 10, or
    right behind a keyword of up to six columns.

    Where a keyword is repeated, the Standard calls its value indeterminate. astropy's ``fits.open`` takes the last
    card; but it falls back on a reader that takes the first where the blocks of the header hold a byte over 0x7F, where
    its END is odd, and for random groups. CFITSIO takes the first of BITPIX, NAXIS and NAXISn always. So both agree
    on the first where astropy falls back. Elsewhere they agree on what astropy reads or not at all: then astropy is
    followed, which most files were tested with.

    CFITSIO reads some values that astropy refuses: behind an ``=`` without a blank or left of column 9, with words and
    no slash behind them, or missing. But it does so only in headers whose structural cards are in the Standard's order.
    So do we: what neither library reads is corrupt.

    Parameters
    ----------
    images : bytes
        The cards that the layout names.
    layout : _Layout
    takes_first : bool
        Of repeated cards the first counts, not the last.
    offset : int
        Of the header in the file, for messages.
    """

    def __init__(self, images: bytes, layout: _Layout, takes_first: bool, offset: int) -> None:
        self._header = images
        self._fields = layout.first if takes_first else layout.last
        self._layout = layout
        self._offset = offset

    def has(self, keyword: str) -> bool:
        """Return whether there is such a card."""
        return keyword in self._fields

    def _value(self, keyword: str) -> tuple[str | None, bool]:
        """Return a value's token, None where there is none, and whether nothing but a comment follows it."""
        at = self._fields.get(keyword, _UNREADABLE)
        if at == _UNREADABLE:
            return None, False
        stop = at - at % CARD + CARD
        token = _VALUE.match(self._header, at, stop)
        if token is None:
            return None, False
        rest = self._header[token.end() : stop].lstrip(b" ")
        return token.group(1).decode("latin-1"), not rest or rest.startswith(b"/")

    def integer(self, keyword: str, low: int, high: int, default: int | None = None) -> int:
        """Return an integer from ``low`` to ``high``, both inclusive.

        Raises
        ------
        CorruptError
            It is missing and has no default, is written as something else, or lies outside.
        """
        at = self._fields.get(keyword)
        if at is not None and at != _UNREADABLE:
            plain = _PLAIN_INTEGER.match(self._header, at, at - at % CARD + CARD)
            if plain is not None and low <= (value := int(plain.group(1))) <= high:
                return value
        token, is_alone = self._value(keyword)
        if token is None:
            if default is None or not (at is None or self._layout.in_order):
                raise CorruptError(f"header has {'no' if at is None else 'no value of'} {keyword}", self._offset)
            return default
        match = _INTEGER.fullmatch(token)
        if match is None:
            raise CorruptError(f"{keyword} is no integer: {token!a}", self._offset)
        if not (is_alone or self._layout.in_order):
            raise CorruptError(f"{keyword} has more than a comment behind its value", self._offset)
        value = int(match.group(1))
        if not low <= value <= high:
            raise CorruptError(f"{keyword} = {match.group(1)} is not from {low} to {high}", self._offset)
        return value

    def logical(self, keyword: str) -> bool:
        """Return whether a logical is written as T."""
        return self._value(keyword)[0] == "T"

    def string(self, keyword: str) -> str:
        """Return a string without its quotes and trailing blanks; empty where it is missing."""
        token = self._value(keyword)[0] or ""
        if token.startswith("'"):
            token = token[1:-1].replace("''", "'")
        return token.rstrip()
