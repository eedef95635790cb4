"""What rows take in the catalogue, by those of a sample, written as the catalogue's own files.

Parquet files of more rows take less a row: names and values repeat, and are written once. Of 20 files of a product,
or of 40, a row takes up to twice what it does among 1,000. But what ``n`` files take is close to ``a + b n``: of HST,
Rubin and survey files, ``b`` of 40 is within 12 % of what a row takes among 600. So the sample is written whole and in
two halves; what these take more is ``a``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from crawler.catalogue.fragments import new_batch, write_fragment
from crawler.catalogue.rewrite import GOOD_ROWS, MERGE_FROM
from crawler.catalogue.rows import tables_of
from crawler.fits.units import CARD
from crawler.quoting.statistics import Interval
from crawler.stores.storage import Folder
from crawler.walk import FileResult

SPREAD = 1.4
"""By how much that is off: with 30 files of a product up to 28 % too high; neighbours may be more alike, or less."""

_MOST = 0.97
"""Of the bytes of a small file, those that it takes at most however many rows it has."""


@dataclass(slots=True)
class Effort:
    """CPU time that was measured on some of the work.

    Attributes
    ----------
    seconds : float
    amount : float
        Requests of walks, or card images that were written.
    """

    seconds: float = 0.0
    amount: float = 0.0

    def add(self, begun: float, amount: float) -> None:
        """Add what was done since ``begun`` (`time.process_time`)."""
        self.seconds += time.process_time() - begun
        self.amount += amount

    @property
    def each(self) -> float:
        """Seconds of one."""
        return self.seconds / self.amount if self.amount else 0.0


@dataclass(frozen=True, slots=True)
class Size:
    """What rows of one table take.

    Attributes
    ----------
    rows : int
    whole : int
        Bytes as one Parquet file.
    halves : int
        Bytes as two.
    """

    rows: int
    whole: int
    halves: int

    @property
    def once(self) -> float:
        """Bytes that each Parquet file takes, however many rows it has."""
        return max(0.0, min(self.halves - self.whole, _MOST * self.whole))

    @property
    def each(self) -> float:
        """Bytes that each row takes beside that."""
        return (self.whole - self.once) / self.rows if self.rows else 0.0


def sizes_of(folder: Folder, crawl: str, results: Sequence[FileResult], effort: Effort) -> dict[str, Size]:
    """Return what the rows of some files take, by table.

    Parameters
    ----------
    folder : Folder
        Where they are written.
    crawl : str
    results : sequence of FileResult
        In the order of their urls.
    effort : Effort
        Is told what writing takes.
    """
    begun = time.process_time()
    whole = _written(folder, crawl, results)
    effort.add(begun, sum(len(hdu.header) for one in results for hdu in one.hdus) // CARD)
    halves = [_written(folder, crawl, results[at::2]) for at in (0, 1) if results[at::2]]
    return {table: Size(rows, size, sum(half[table][1] for half in halves)) for table, (rows, size) in whole.items()}


def _written(folder: Folder, crawl: str, results: Sequence[FileResult]) -> dict[str, tuple[int, int]]:
    """Return the rows and bytes of each table."""
    name = new_batch(crawl)
    sizes = {}
    for table, rows in tables_of(results, crawl, datetime.now(UTC)).items():
        written = write_fragment(folder, table, rows, name)
        sizes[table] = (0, 0) if written is None else (written.rows, written.size)
    return sizes


def catalogue_bytes(sizes: Sequence[tuple[float, Mapping[str, Size]]], batches: int, cards: Interval) -> Interval:
    """Return what a crawl adds to the catalogue.

    Parameters
    ----------
    sizes : sequence of (float, dict of str to Size)
        Of each part of the sample what its rows take, by table, and how many times as many files there are.
    batches : int
        Parquet files of each table that the crawl writes before it merges them.
    cards : Interval
        Card images of all files: what is not known of them is not of their bytes.
    """
    value = 0.0
    for table, good in GOOD_ROWS.items():
        rows = sum(times * size[table].rows for times, size in sizes)
        if not rows:
            continue
        value += sum(times * size[table].rows * size[table].each for times, size in sizes)
        once = sum(times * size[table].rows * size[table].once for times, size in sizes) / rows
        value += once * (batches if batches < MERGE_FROM else math.ceil(rows / good))
    unsure = Interval(1.0, cards.low / cards.value, cards.high / cards.value) if cards.value else Interval.exactly(1.0)
    return unsure.times(value).spread(SPREAD)
