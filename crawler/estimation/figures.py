"""What a crawl takes besides requests and bytes, by the sample: its duration, and its part of the catalogue."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from crawler.catalogue.folder import Folder, open_folder
from crawler.catalogue.fragments import new_batch, write_fragment
from crawler.catalogue.merge import GOOD_ROWS, MERGE_FROM
from crawler.estimation.statistics import Interval
from crawler.worker.tables import tables_of
from crawler.worker.walk import FileResult

_SPREAD = 1.5
"""Factor by which workers, the store and a listing may be faster or slower than in the sample."""

_START_SECONDS, _MOST_START_SECONDS = 1.0, 10.0
"""Seconds until workers run, and for the last commit: usually, and at most."""

_ROWS_SPREAD = 1.5
"""Factor by which rows of a whole crawl may compress better or worse than the fit to the sample says."""

_MOST_OVERHEAD = 0.97
"""Largest share of a small Parquet file that does not grow with its rows."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What rows take in one table: ``each`` of them, and every Parquet file besides (``overhead``), in bytes."""

    rows: int
    each: float
    overhead: float


def write_rows(run_id: str, results: Sequence[FileResult]) -> dict[str, Rows]:
    """Write the rows of some files as a crawl would: all of them, and half of them. Return what they take, by table.

    Names and values repeat, so that a row takes less in a larger file. What n files take is close to ``a + b n``: of
    HST, Rubin and survey files, ``b`` of 40 files is within 12 % of what a row takes among 600. Two sizes give both.
    """
    results = sorted(results, key=lambda one: one.ref.url)
    with tempfile.TemporaryDirectory(prefix="crawler-estimate-") as temporary:
        folder = open_folder(temporary)
        whole, half = (_write(folder, run_id, part) for part in (results, results[::2]))
    found = {}
    for table, (rows, size) in whole.items():
        fewer, smaller = half[table]
        slope = (size - smaller) / (rows - fewer) if rows > fewer else 0.0
        overhead = min(max(0.0, size - slope * rows), _MOST_OVERHEAD * size)
        found[table] = Rows(rows, (size - overhead) / rows if rows else 0.0, overhead)
    return found


def _write(folder: Folder, run_id: str, results: Sequence[FileResult]) -> dict[str, tuple[int, int]]:
    """Return the rows and bytes of each table."""
    name = new_batch(run_id)
    sizes = {}
    for table, rows in tables_of(results, run_id, datetime.now(UTC)).items():
        written = write_fragment(folder, table, rows, name)
        sizes[table] = (0, 0) if written is None else (written.rows, written.size)
    return sizes


def catalogue_bytes(parts: Sequence[tuple[float, dict[str, Rows]]], batches: int) -> float:
    """Return the bytes that a crawl adds to the catalogue.

    Parameters
    ----------
    parts : sequence of (float, dict of str to Rows)
        What the rows of a part of the files take, by table, and how many times as many such files there are.
    batches : int
        Parquet files of each table, before files are merged.
    """
    value = 0.0
    for table, good in GOOD_ROWS.items():
        rows = math.fsum(times * part[table].rows for times, part in parts)
        if rows:
            value += math.fsum(times * part[table].rows * part[table].each for times, part in parts)
            overhead = math.fsum(times * part[table].rows * part[table].overhead for times, part in parts) / rows
            value += overhead * (batches if batches < MERGE_FROM else math.ceil(rows / good))
    return value


def duration_of(bounds: dict[str, Interval], listing_seconds: float) -> tuple[Interval, str]:
    """Return the seconds that a crawl takes, and the name of what limits it.

    Listing, reads, walks and writes overlap: a crawl takes at least as long as the slowest of them, and at most as long
    as all of them one after the other.

    Parameters
    ----------
    bounds : dict of str to Interval
        Seconds that each takes by itself, by name, as measured in the sample.
    listing_seconds : float
    """
    spread = {name: one.widen(_SPREAD) for name, one in bounds.items()}
    least = max(0.0, listing_seconds - _MOST_START_SECONDS) / _SPREAD
    spread["the listing"] = Interval(listing_seconds, least, listing_seconds * _SPREAD)
    limit = max(spread, key=lambda name: spread[name].value)
    low = max(one.low for one in spread.values())
    high = sum(one.high for one in spread.values())
    return Interval(spread[limit].value + _START_SECONDS, low, high + _MOST_START_SECONDS), limit


def scaled(interval: Interval, value: float) -> Interval:
    """Return a value that is as uncertain as an interval, and as rows are."""
    return (interval.times(value / interval.value) if interval.value else Interval.exact(value)).widen(_ROWS_SPREAD)
