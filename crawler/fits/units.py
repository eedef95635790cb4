"""Header and data units: what they are measured in, and where a header ends (FITS Standard 4.0, section 3).

Knows no I/O and no storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

BLOCK = 2880
"""Bytes in a FITS block (section 3.1)."""

CARD = 80
"""Bytes in a card image (section 3.3.1)."""

INT64_MAX = 2**63 - 1
"""Largest offset that the catalogue can hold, and the largest that any known store can."""

KEYWORD = 8
"""Columns of the keyword (section 4.1.2.1)."""


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

    *If none later*: astropy reads on to the next card that is END and 77 blanks, through data and further headers.
    Where the file has none, or a byte over 0x7F before it, astropy falls back on the first card that begins with END
    and has no keyword character next. So the libraries agree where both read on, and where astropy falls back.

    Where they do not agree, CFITSIO is followed, because reading on loses the HDUs that follow; but not for text in
    columns 4 to 8, which makes another keyword (section 4.1.2.1). `parse_hdu` ends a header at such a card
    all the same where astropy falls back, and both libraries end it.

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
            if not data[at + 3 : at + KEYWORD].strip(b" \0"):
                return at
        at = data.find(b"END", at + 3)
    return -1
