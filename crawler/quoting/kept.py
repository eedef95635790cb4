"""Quotes beside the catalogue, so that a crawl can be compared with what was quoted for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from crawler.errors import CatalogueError
from crawler.job import CrawlJob
from crawler.quoting.quote import Quote
from crawler.quoting.statistics import Interval
from crawler.report import Report
from crawler.stores.storage import Folder
from crawler.stores.urls import one_line

QUOTES = "_crawler/quotes"
"""Folder below the catalogue's. Readers of Parquet folders skip what begins with an underscore."""


def fingerprint_of(job: CrawlJob) -> str:
    """Return a name for what a job crawls and how: roots, filters and scope; in whatever order, and no options.

    A root may be signed, and its signature cannot be had from this.
    """
    told = {
        "roots": sorted(set(job.roots)),
        "include": None if job.include is None else sorted(set(job.include)),
        "exclude": sorted(set(job.exclude)),
        "max_hdus": job.scope.max_hdus,
        "policy": asdict(job.scope.policy),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def keep_quote(folder: Folder, quote: Quote) -> None:
    """Write a quote below a catalogue's folder, in place of an earlier one of the same job.

    Raises
    ------
    CatalogueError
        It cannot be written.
    """
    try:
        folder.put(f"{QUOTES}/{quote.fingerprint}.json", quote.to_json().encode())
    except OSError as error:
        said = one_line(error.strerror or str(error), limit=300)
        raise CatalogueError(folder.url, f"cannot be written: {said}") from None


def kept_quote(folder: Folder, fingerprint: str) -> Quote | None:
    """Return the latest quote of a job; None where there is none that can be read."""
    with suppress(OSError, ValueError):
        return Quote.from_json(folder.get(f"{QUOTES}/{fingerprint}.json"))
    return None


def compared(quote: Quote, report: Report, catalogue_bytes: int | None = None) -> list[str]:
    """Return what a crawl took beside what was quoted for it, a line a figure.

    Parameters
    ----------
    quote : Quote
    report : Report
        Of a crawl that ended.
    catalogue_bytes : int, optional
        That it added to the catalogue.
    """
    charged = quote.usd_requests + quote.usd_transfer
    figures: list[tuple[str, float, Interval, Callable[[float], str]]] = [
        ("files", report.files, Interval.exactly(quote.files), whole),
        ("requests", report.requests, quote.requests, whole),
        ("read", report.bytes_read, quote.bytes_read, in_bytes),
        ("HDUs", report.hdus, quote.hdus, whole),
        ("cards", report.cards, quote.cards, whole),
        ("dollars", report.usd, charged, in_dollars),
        ("hours", report.seconds / 3600, quote.hours, in_hours),
    ]
    if catalogue_bytes is not None:
        figures.append(("catalogue", catalogue_bytes, quote.catalogue_bytes, in_bytes))
    more = "" if quote.complete else " of a part of the files"
    return [f"{name:10} {form(actual)} (quoted {spanned(span, form)}{more})" for name, actual, span, form in figures]


def spanned(span: Interval, form: Callable[[float], str]) -> str:
    """Return an interval for a person: from its low end to its high one, or one figure where both look the same."""
    low, high = form(span.low), form(span.high)
    if low == high:
        return low
    (first, _, unit), (second, _, other) = low.partition(" "), high.partition(" ")
    return f"{first if unit == other else low} to {second} {unit}".rstrip() if unit == other else f"{low} to {high}"


_SHORT = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))


def whole(value: float) -> str:
    """Return a count: in full up to a million, then in three digits."""
    for size, name in _SHORT:
        if value >= size:
            return f"{value / size:.3g} {name}" if value < 1000 * size else f"{value / size:,.0f} {name}"
    return f"{value:,.0f}"


def in_bytes(value: float) -> str:
    """Return a number of bytes, in decimal units."""
    for size, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{_three(value / size)} {name}"
    return f"{value:,.0f} bytes"


def in_dollars(value: float) -> str:
    """Return dollars; cents where there are any, and two digits of what is less."""
    return f"${value:,.2f}" if value >= 0.1 or value == 0 else f"${float(f'{value:.2g}'):f}".rstrip("0")


def in_hours(value: float) -> str:
    """Return hours; minutes or seconds where there are less than two."""
    if value >= 2:
        return f"{_three(value)} hours"
    return f"{_three(value * 60)} minutes" if value * 60 >= 2 else f"{_three(value * 3600)} seconds"


def _three(value: float) -> str:
    """Return three digits, or all of a number before its point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
