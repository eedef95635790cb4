"""Text for people: plural forms."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return a number and what it counts, in the singular for one.

    Parameters
    ----------
    count : int
    noun : str
        In the singular.
    plural : str, optional
        The noun with an ``s`` by default.

    Examples
    --------
    >>> counted(1, "file"), counted(12_000, "file"), counted(0, "core of this machine", "cores of this machine")
    ('1 file', '12,000 files', '0 cores of this machine')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
