"""Header and data units: where they end, and what shape they are (FITS Standard 4.0, sections 3 and 4.4.1).

The arithmetic of the Standard on the bytes of one header. Knows no I/O and no storage.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from crawler.errors import CorruptError

BLOCK = 2880
"""Bytes in a FITS block (section 3.1)."""

CARD = 80
"""Bytes in a card image (section 3.3.1)."""

INT64_MAX = 2**63 - 1
"""Largest offset that the catalogue can hold, and the largest that any known store can."""

MAX_NAXIS = 999
"""Largest NAXIS that the Standard allows (section 4.4.1.1)."""

_BLANK_END = b"END".ljust(CARD)
"""The END card as the Standard wants it (section 4.4.1.2)."""

_KEYWORD = 8
"""Columns of the keyword (section 4.1.2.1)."""

# Free format (section 4.2): blanks, then the token, which ends at a blank, the comment's slash, or the card's end.
# Words may follow it without a slash, as in old files; but digits after a blank are part of the token, so that `1 0`
# is refused instead of read as 1 or as 10 (section 4.2.3). At most 70 bytes follow the value indicator, so the match
# is bounded.
_VALUE = re.compile(rb" *('(?:[^']|'')*'|[^ /\x00']+(?: +[0-9][^ /\x00']*)*)")
_INTEGER = re.compile(r"[+-]?\d+\.?", re.ASCII)
_STRUCTURAL = re.compile(rb" *(XTENSION|BITPIX|NAXIS(?:[1-9][0-9]{0,2})?|PCOUNT|GCOUNT|GROUPS) *=")

_INITIALS = frozenset(b" XBNPG")
"""First columns of cards that can match `_STRUCTURAL`: most cards need no further look."""

_NAME = 10
"""Columns that make out which keyword a card has: eight of the keyword, two of the value indicator (section 4.1.2)."""

_CACHED = 1000 * CARD
"""Bytes of the longest header whose structural keywords are remembered: siblings have them in the same places, and
most often with the same values."""


class Span(NamedTuple):
    """A run of bytes: the first, and one past the last."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Hdu:
    """One header and data unit, where it lies and what shape it is.

    All offsets are bytes from the start of the file; of the decompressed stream where the file is compressed.

    Attributes
    ----------
    index : int
        0 is the primary.
    kind : str
        ``primary``, ``groups``, or the value of XTENSION as written.
    header_offset, header_size : int
        First byte, and length in whole blocks.
    data_offset, data_size : int
        First byte (the end of the header), and length in bytes without padding; 0 for none.
    bitpix : int
    shape : tuple of int
        NAXIS1, NAXIS2, ... in this order; empty for NAXIS = 0.
    pcount, gcount : int
        As written, or the Standard's defaults 0 and 1.
    header : bytes
        Card images from the first up to, not including, END; a multiple of 80 bytes.
    """

    index: int
    kind: str
    header_offset: int
    header_size: int
    data_offset: int
    data_size: int
    bitpix: int
    shape: tuple[int, ...]
    pcount: int
    gcount: int
    header: bytes

    @property
    def end(self) -> int:
        """One past the last byte of the data unit, padding included: where the next HDU begins."""
        return self.data_offset + padded(self.data_size)


def padded(size: int) -> int:
    """Return ``size`` bytes rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def find_end(data: bytes, base: int, start: int) -> int:
    r"""Return where the END card of a header lies in ``data``, whole, or -1.

    END counts only on a card boundary, and only where each of columns 4 to 8 is a blank or a NUL. The rest of its card
    is not looked at: real files have NULs and text there, although the Standard wants blanks (section 4.4.1.2). The
    first END counts, whatever follows it in its block.

    What ends a header in astropy 8.0 (``fits.open``), in CFITSIO 4.6 and here:

    ===================================================  =============  =======  ====
    card                                                 astropy        CFITSIO  here
    ===================================================  =============  =======  ====
    ``END`` and 77 blanks                                yes            yes      yes
    blanks or NULs in columns 4 to 8, then anything      if none later  yes      yes
    ``END TEXT``, ``END\0TEXT``, ``END  = 1``, ``END=``  if none later  yes      no
    ``END/``, ``END,``, ``END\n``, ``END\t``             if none later  no       no
    ``ENDTIME``, ``END_``, ``end``, ``END`` in column 2  no             no       no
    no END: what follows the header is read as header    yes            yes      yes
    ===================================================  =============  =======  ====

    *If none later*: astropy reads on to the next card that is END and 77 blanks, through data and further headers. Only
    where the file has none, or a byte over 0x7F before it, astropy takes the first card that begins with END and has
    no keyword character behind blanks. So the libraries agree where both read on, and in the last header of a file.
    Where they do not, CFITSIO is followed, because reading on loses the HDUs that follow; but not for text in columns
    4 to 8, which makes another keyword (section 4.1.2.1).

    Parameters
    ----------
    data : bytes
        Bytes of the file, the header's among them; need not end with a whole card.
    base : int
        Index of the header's first card.
    start : int
        Index of the card from which to look.
    """
    at = data.find(b"END", start)
    while at >= 0:
        if (at - base) % CARD == 0:
            if at + CARD > len(data):
                return -1
            if not data[at + 3 : at + _KEYWORD].strip(b" \0"):
                return at
        at = data.find(b"END", at + 3)
    return -1


class _Structure:
    """The structural keywords of one header (section 4.4.1).

    Keywords in lower case and behind blanks count, as in astropy. The value indicator is ``= `` in columns 9 and 10, or
    right behind a keyword of up to six columns. Another ``=`` behind the keyword counts only where no card has such
    an indicator.

    Where a keyword is repeated, the Standard calls its value indeterminate. astropy's ``fits.open`` takes the last
    card; but it falls back on a reader that takes the first where the header holds bytes over 0x7F, where its END
    is odd, and for random groups. CFITSIO takes the first of BITPIX, NAXIS and NAXISn always. So both agree
    on the first where astropy falls back. Elsewhere they agree on what astropy reads or not at all: then astropy is
    followed, which most files were tested with.

    Parameters
    ----------
    images : bytes
        Those cards of the header that `_structural_cards` names.
    offset : int
        Of the header in the file, for messages.
    takes_first : bool
        Of repeated cards the first counts, not the last.
    """

    def __init__(self, images: bytes, offset: int, takes_first: bool) -> None:
        self._offset = offset
        self._header = images
        strict: dict[bytes, int] = {}  # where the value field begins, by keyword
        loose: dict[bytes, int] = {}
        order = range(0, len(images), CARD)
        for at in reversed(order) if takes_first else order:
            match = _STRUCTURAL.match(images[at : at + _NAME].upper())
            assert match is not None  # noqa: S101 - for the type checker: the caller looked
            column = match.end()
            blank = images[at + column : at + column + 1] == b" "
            usual = blank and (column == _NAME - 1 or (column < _KEYWORD and match.span(1) == (0, column - 1)))
            (strict if usual else loose)[match.group(1)] = at + column
        self._fields = {**loose, **strict}

    def _token(self, keyword: str) -> str | None:
        """Return the value field's token as written; None where the card or its value is missing."""
        at = self._fields.get(keyword.encode("ascii"))
        if at is None:
            return None
        token = _VALUE.match(self._header, at, at - at % CARD + CARD)
        return token.group(1).decode("latin-1") if token else None

    def has(self, keyword: str) -> bool:
        """Return whether there is such a card."""
        return keyword.encode("ascii") in self._fields

    def integer(self, keyword: str, low: int, high: int, default: int | None = None) -> int:
        """Return an integer from ``low`` to ``high``, both inclusive.

        Raises
        ------
        CorruptError
            It is missing and has no default, is written as something else, or lies outside.
        """
        at = self._fields.get(keyword.encode("ascii"))
        if at is not None and at % CARD == _NAME - 1:
            fixed = self._header[at + 1 : at + 21].strip()  # fixed format (section 4.2.3): right up to column 30
            if fixed.isdigit() and self._header[at + 21 : at + 22] in (b" ", b"/") and low <= int(fixed) <= high:
                return int(fixed)
        token = self._token(keyword)
        if token is None:
            if default is None:
                missing = "no value of" if at is not None else "no"
                raise CorruptError(f"header has {missing} {keyword}", self._offset)
            return default
        if not _INTEGER.fullmatch(token):
            raise CorruptError(f"{keyword} is no integer: {token!a}", self._offset)
        value = int(token.rstrip("."))
        if not low <= value <= high:
            raise CorruptError(f"{keyword} = {token} is not from {low} to {high}", self._offset)
        return value

    def logical(self, keyword: str) -> bool:
        """Return whether a logical is written as T."""
        return self._token(keyword) == "T"

    def string(self, keyword: str) -> str:
        """Return a string without its quotes and trailing blanks; empty where it is missing."""
        token = self._token(keyword) or ""
        if token.startswith("'"):
            token = token[1:-1].replace("''", "'")
        return token.rstrip()


class _Described(NamedTuple):
    """What the structural keywords of a header say. See `Hdu`."""

    kind: str
    bitpix: int
    shape: tuple[int, ...]
    pcount: int
    gcount: int
    data_size: int


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
        The card image of END.

    Raises
    ------
    CorruptError
        A structural keyword is missing or nonsense, or the data unit would end beyond what 64 bits can name.
    """
    names = b"".join([header[column::CARD] for column in range(_NAME)])
    cached = len(header) <= _CACHED
    places, repeated = (_structural_cards if cached else _structural_cards.__wrapped__)(names)
    images = b"".join([header[at : at + CARD] for at in places])
    extension = header.startswith(b"XTENSION")
    takes_first = repeated and (end != _BLANK_END or not header.isascii())
    described = _described_before(images, extension, takes_first) if cached else None
    if described is None:
        described = _described(images, extension, takes_first, offset)  # raises with the offset: it is not remembered
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


@lru_cache(maxsize=512)
def _structural_cards(names: bytes) -> tuple[tuple[int, ...], bool]:
    """Return where the cards with structural keywords begin in a header, and whether one of them is repeated.

    Parameters
    ----------
    names : bytes
        The first column of all cards, then the second, and so on, `_NAME` of them.
    """
    count = len(names) // _NAME
    names = names.upper()
    places: list[int] = []
    keywords: set[bytes] = set()
    for card, initial in enumerate(names[:count]):
        if initial in _INITIALS and (match := _STRUCTURAL.match(names[card::count])):
            places.append(CARD * card)
            keywords.add(match.group(1))
    return tuple(places), len(keywords) < len(places)


@lru_cache(maxsize=512)
def _described_before(images: bytes, extension: bool, takes_first: bool) -> _Described | None:
    """Remember what structural cards say; None where they are nonsense."""
    try:
        return _described(images, extension, takes_first, 0)
    except CorruptError:
        return None


def _described(images: bytes, extension: bool, takes_first: bool, offset: int) -> _Described:
    """Return what structural cards say of a primary HDU or an extension."""
    structure = _Structure(images, offset, takes_first)
    # Random groups are a form of primary HDU (section 6): in an extension GROUPS is a keyword like any other.
    marked = not extension and structure.logical("GROUPS")
    if marked and not takes_first:
        structure = _Structure(images, offset, takes_first=True)
    # Extensions without NAXIS exist (HMI and MDI tables); like astropy, take them for headers without data.
    naxis = structure.integer("NAXIS", 0, MAX_NAXIS, default=None if structure.has("NAXIS") else 0)
    # Any BITPIX that its column can hold will do: what the data mean is for their reader to refuse.
    bitpix = structure.integer("BITPIX", -(2**15), 2**15 - 1, default=None if naxis else 8)
    shape = tuple(structure.integer(f"NAXIS{axis}", 0, INT64_MAX) for axis in range(1, naxis + 1))
    pcount = structure.integer("PCOUNT", 0, INT64_MAX, default=0)
    gcount = structure.integer("GCOUNT", 0, INT64_MAX, default=1)

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
    kind = structure.string("XTENSION") if extension else primary
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
