"""Sizes and shapes of FITS units: the arithmetic of the FITS Standard 4.0, and nothing else.

Knows no I/O and no storage.
"""

from __future__ import annotations

BLOCK = 2880
"""Bytes in a FITS block (FITS Standard 4.0, section 3.1)."""

CARD = 80
"""Bytes in a card image (FITS Standard 4.0, section 3.3.1)."""

INT64_MAX = 2**63 - 1
"""Largest offset that the catalogue can hold; also the largest file any known store can hold."""


def padded(size: int) -> int:
    """Return ``size`` bytes rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK
