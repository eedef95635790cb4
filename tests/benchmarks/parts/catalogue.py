"""The catalogue at the scale of a hundred million files: opened, asked, added to; its listing; what is gone."""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from crawler.catalogue.fragments import Fragment, new_batch, write_fragment
from crawler.catalogue.log import CatalogueLog, Change
from crawler.catalogue.missing import gone
from crawler.catalogue.reader import Catalogue
from crawler.catalogue.records.listings import unfinished
from crawler.catalogue.records.saved_listing import ListingWriter, fingerprint
from crawler.catalogue.schema import TABLES
from crawler.stores.base import LISTING_SCHEMA
from tests.benchmarks.markdown import table
from tests.benchmarks.parts.base import Counts, Section
from tests.tables import rows_of, write_object

_FRAGMENTS = (500, 5_000, 50_000)
_KEYS = (1_000_000, 10_000_000)
_PARTITION = 2000
_COMMITS = 10
_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
_PRINT = fingerprint(["s3://survey/"], None, [])


def run(folder: Path, counts: Counts) -> Section:
    """Measure catalogues of more and more Parquet files, and listings of more and more keys."""
    columns = (
        "Parquet files",
        "open, s",
        "`to_pyarrow_dataset`, s",
        "one header, ms",
        "rows of a partition, ms",
        "one keyword, s",
        "commit, ms",
        "peak MB",
    )
    rows: list[list[object]] = []
    for size in _FRAGMENTS:
        where = str(folder / f"of {size}")
        url = _alone(_crowd, where, size)
        asked = _alone(_ask, where, url)
        theirs, commit = _alone(_by_delta, where), _alone(_commit, where)
        rows.append([size, asked.open, theirs, asked.header, asked.partition, asked.keyword, commit, asked.peak])
    listed: list[list[object]] = []
    for size in sorted({counts.at_most(size) for size in _KEYS}):
        where = str(folder / f"of {size} keys")
        written, peak = _alone(_list, where, size)
        _alone(_hold, where, size)
        seconds, missing, most = _alone(_gone, where)
        listed.append([size, size / written, peak, missing, seconds, most])
    keys = ("keys", "kept, keys/s", "peak MB", "gone", "found in, s", "peak MB")
    text = f"""
Three tables in so many Parquet files of {_PARTITION:,} files' rows each. Beside the opening of a catalogue stands
`DeltaTable(...).to_pyarrow_dataset()`, of all three tables as one. One keyword reads
a row group of each file of cards. A commit adds three files: median of {_COMMITS}.

{table(columns, rows)}

A listing kept in partitions of {_PARTITION:,} keys, and what is gone by it, one key of a hundred, of a catalogue that
holds them all.

{table(keys, listed)}
"""
    return Section("A large catalogue", text)


def _alone(task: Callable[..., Any], *arguments: object) -> Any:
    """Do a task in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(task, *arguments).result()


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # Linux: in kB


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _url(number: int) -> str:
    night = number // 1000
    return f"s3://survey/night{night:06}/instrument-of-usual-length/exposure-{number:010}_flt.fits.fz"


def _crowd(where: str, size: int) -> str:
    """Make a catalogue of so many files, one of each table written and the others links to these; return a url."""
    log = CatalogueLog(where)
    log.create()
    partitions = size // len(TABLES)
    real = partitions // 2
    written = write_object(log.folder, map(_url, range(real * _PARTITION, (real + 1) * _PARTITION)))
    added: list[Fragment] = list(written)
    for at in range(partitions):
        if at != real:
            batch = new_batch("run")
            first, last = _url(at * _PARTITION), _url((at + 1) * _PARTITION - 1)
            for one in written:
                linked = replace(one, path=f"table={one.table}/{batch}.parquet", first_url=first, last_url=last)
                os.link(log.folder.join(one.path), log.folder.join(linked.path))
                added.append(linked)
    step = len(added) // 50 + 1
    for begin in range(0, len(added), step):
        part = added[begin : begin + step]
        log.commit(lambda _, part=part: Change(part), {})  # type: ignore[misc]
    return _url(real * _PARTITION + 77)


@dataclass(frozen=True)
class _Asked:
    """Seconds to open and for a keyword, milliseconds for a header and a partition, and megabytes."""

    open: float
    header: float
    partition: float
    keyword: float
    peak: float


def _ask(where: str, url: str) -> _Asked:
    begun = time.perf_counter()
    catalogue = Catalogue(where)
    opened = time.perf_counter() - begun
    header = _timed(lambda: catalogue.header_bytes(url))
    first = int(url.rpartition("-")[2].partition("_")[0]) // _PARTITION * _PARTITION
    urls = pa.array(map(_url, range(first, first + _PARTITION)))
    columns = ["url", "size", "etag", "status", "n_hdus", "walker_version"]
    partition = _timed(lambda: catalogue.rows_of(urls, columns))
    peak = _peak_mb()
    keyword = pc.field("keyword") == "KEY1"
    found = _timed(lambda: catalogue.cards.count_rows(filter=keyword))
    return _Asked(opened, header * 1e3, partition * 1e3, found, peak)


def _by_delta(where: str) -> float:
    return _timed(lambda: DeltaTable(where).to_pyarrow_dataset())


def _commit(where: str) -> float:
    log = CatalogueLog(where)
    spent = []
    for number in range(_COMMITS):
        added = write_object(log.folder, [_url(10**9 + number)])
        spent.append(_timed(lambda added=added: log.commit(lambda _: Change(added), {"crawl": "run"})))  # type: ignore[misc]
    return statistics.median(spent) * 1e3


def _partitions(size: int) -> Iterator[list[int]]:
    for begin in range(0, size, _PARTITION):
        yield list(range(begin, min(begin + _PARTITION, size)))


def _list(where: str, size: int) -> tuple[float, float]:
    """Keep a listing; return the seconds of it, those of making the keys up aside, and the megabytes."""
    log = CatalogueLog(where)
    log.create()
    writer = ListingWriter(log.folder, "run", _PRINT, {})
    now = datetime.now(UTC)
    spent = 0.0
    for numbers in _partitions(size):
        there = [number for number in numbers if number % 100]
        columns = {
            "url": map(_url, there),
            "size": there,
            "etag": [os.urandom(16).hex() for _ in there],
            "version": [None] * len(there),
            "last_modified": [now] * len(there),
        }
        arrays = [pa.array(columns[field.name], field.type) for field in LISTING_SCHEMA]
        partition = pa.table(arrays, schema=LISTING_SCHEMA)
        spent += _timed(lambda partition=partition: writer.write(partition))  # type: ignore[misc]
    return spent + _timed(writer.end), _peak_mb()


def _hold(where: str, size: int) -> None:
    log = CatalogueLog(where)
    before = datetime.now(UTC) - timedelta(days=1)
    added = []
    for numbers in _partitions(size):
        rows = rows_of("files", url=map(_url, numbers), walked_at=[before] * len(numbers))
        added.append(write_fragment(log.folder, "files", rows, new_batch("run")))
    log.commit(lambda _: Change([one for one in added if one is not None]), {})


def _gone(where: str) -> tuple[float, int, float]:
    log = CatalogueLog(where)
    listing = unfinished(log.folder, _PRINT, _LONG_AGO)
    assert listing is not None
    begun = time.perf_counter()
    with gone(log.folder, log.snapshot(), listing, lambda _: True, listing.began) as found:
        count = sum(len(batch) for batch in found.batches())
        return time.perf_counter() - begun, count, _peak_mb()
