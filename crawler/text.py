"""Text for people: plural forms."""

from __future__ import annotations


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """Return a noun in the singular for one thing, and in the plural for any other number of them.

    Parameters
    ----------
    count : int
    noun : str
        In the singular.
    nouns : str, optional
        In the plural; the singular with an ``s`` by default.
    """
    return noun if count == 1 else nouns or f"{noun}s"


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """Return a number and the noun that it counts: see `plural`.

    Examples
    --------
    >>> counted(1, "file"), counted(12_000, "file"), counted(0, "core of this machine", "cores of this machine")
    ('1 file', '12,000 files', '0 cores of this machine')
    """
    return f"{count:,} {plural(count, noun, nouns)}"
