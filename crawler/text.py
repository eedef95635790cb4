"""Figures as text for a person: counts, bytes, dollars and durations in three digits, and intervals of them.

Pure: imports nothing of the crawler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_COUNTS = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
_BYTES = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_SECONDS = ((2 * 86400.0, 86400.0, "days"), (2 * 3600.0, 3600.0, "h"), (120.0, 60.0, "min"))

_LEAST_USD = 1e-6
_LEAST_SECONDS = 1e-3


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


def format_count(value: float) -> str:
    """Return a count: in full up to a million, then in three digits."""
    return _scaled(value, _COUNTS) if value >= 999_999.5 else f"{value:,.0f}"


def format_bytes(value: float) -> str:
    """Return a number of bytes, in decimal units."""
    return _scaled(value, _BYTES) if value >= 999.5 else counted(round(value), "byte")


def format_usd(value: float) -> str:
    """Return an amount in dollars: to the cent, or in two digits where that is less than ten cents."""
    if 0 < value < _LEAST_USD:
        return f"under ${_LEAST_USD:.6f}"
    if value >= 0.0995 or value == 0:
        return f"${value:,.2f}" if value else "$0"
    return "$" + f"{float(f'{value:.2g}'):.8f}".rstrip("0")


def format_duration(seconds: float) -> str:
    """Return a duration in the largest unit of which there are two: s, min, h or days."""
    if 0 < seconds < _LEAST_SECONDS:
        return f"under {_LEAST_SECONDS} s"
    for least, unit, name in _SECONDS:
        if seconds >= least:
            return f"{_three_digits(seconds / unit)} {name}"
    return f"{_three_digits(seconds)} s"


def format_interval(low: float, high: float, form: Callable[[float], str]) -> str:
    """Return an interval as ``LOW to HIGH UNIT``; one figure where both ends read the same.

    Parameters
    ----------
    low, high : float
    form : callable
        Formats either end: one of the functions above.
    """
    first, last = form(low), form(high)
    if first == last:
        return first
    figure, _, unit = first.partition(" ")
    return f"{figure} to {last}" if unit and last.endswith(f" {unit}") and figure != "under" else f"{first} to {last}"


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> str:
    rounded = float(f"{value:.3g}")  # before the unit is chosen: 999,999 bytes are 1 MB
    size, name = next(((size, name) for size, name in units if rounded >= size), units[-1])
    return f"{_three_digits(value / size)} {name}"


def _three_digits(value: float) -> str:
    """Return three digits, or all digits before the point."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"
