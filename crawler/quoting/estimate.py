"""`crawler.estimate`: from roots to a quote, in this process, with no catalogue written."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from crawler.background import ahead
from crawler.budget import Budget
from crawler.catalogue.log import CatalogueLog
from crawler.catalogue.rewrite import MERGE_FROM
from crawler.context import LOCAL_CONCURRENCY, REMOTE_CONCURRENCY
from crawler.crawl import is_unchanged, load_indexed_rows
from crawler.errors import CatalogueError, CrawlerError
from crawler.fits.layouts import product_of
from crawler.fits.policy import Goal
from crawler.fits.units import CARD
from crawler.job import CrawlJob, build_job, check_count
from crawler.listing import Listing, list_roots, partitions
from crawler.quoting.hours import Work, hours_of
from crawler.quoting.kept import fingerprint_of, keep_quote
from crawler.quoting.learning import Learning
from crawler.quoting.quote import Quote, Spent
from crawler.quoting.rows import catalogue_bytes
from crawler.quoting.sampling import Sample, strata_of, walk_sample
from crawler.quoting.statistics import Interval, total
from crawler.quoting.strata import Strata
from crawler.report import Report
from crawler.stores import Adapter, ObjectRef, open_store
from crawler.stores.urls import scheme_of

SAMPLE = 400
"""Files that are walked, where nothing else is asked for."""

FIRST_PARTITION, GROWTH, PARTITION = 100, 2, 2000  # as `crawler.run` cuts them
_PRODUCTS = 100_000  # that are told apart
_AHEAD = 4  # partitions that are listed ahead


def estimate(
    roots: str | Iterable[str],
    catalogue: str | None = None,
    *,
    workers: int | None = None,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    concurrency: int | None = None,
    optimize: Goal = "time",
    costs: Mapping[str, float] | None = None,
    max_hdus: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    catalogue_options: Mapping[str, Any] | None = None,
    max_requests_per_second: float | None = None,
    file_timeout: float | None = None,
    store: Adapter = "auto",
    sample: int = SAMPLE,
    max_keys: int | None = None,
) -> Quote:
    """Say what `crawler.index` with the same arguments would take: requests, bytes, dollars, hours, catalogue.

    Lists everything, walks some files of each product, and writes nothing but, beside the catalogue, the quote.

    Parameters
    ----------
    roots : str or iterable of str
        As of `crawler.index`.
    catalogue : str, optional
        What it holds unchanged is not counted. The quote is kept there, for `crawler.index` to compare with.
    workers : int, optional
        Processes that would crawl; one a core of this machine by default, and one for 0.
    include, exclude, concurrency, optimize, costs, max_hdus, file_timeout, store
        As of `crawler.index`.
    storage_options, catalogue_options
        As of `crawler.index`.
    max_requests_per_second : float, optional
        Of all workers together.
    sample : int
        Files that are walked, about.
    max_keys : int, optional
        Objects after which the listing stops. The quote is of those that were listed.

    Returns
    -------
    Quote
        Each figure has an interval that holds the truth nineteen times in twenty.

    Raises
    ------
    UsageError
        The arguments make no sense.
    ListingError
        A root cannot be listed.
    CatalogueError
        The catalogue cannot be read, or the quote not be kept there.
    CrawlerError
        There are no files, or none of the sample can be read.
    """
    sample = check_count("sample", sample) or SAMPLE
    max_keys = check_count("max_keys", max_keys)
    workers = check_count("workers", workers, least=0)
    job = build_job(
        roots,
        catalogue,
        include=include,
        exclude=exclude,
        concurrency=concurrency,
        optimize=optimize,
        costs=costs,
        max_hdus=max_hdus,
        max_requests_per_second=max_requests_per_second,
        file_timeout=file_timeout,
        storage_options=storage_options,
        catalogue_options=catalogue_options,
        store=store,
    )
    folder = None
    if catalogue is not None:
        folder, job = _beside(job)
    processes = max(1, (os.cpu_count() or 1) if workers is None else workers)
    quote = _Estimate(job, processes, sample, max_keys).made()
    if folder is not None:
        keep_quote(folder.folder, quote)
    return quote


def _beside(job: CrawlJob) -> tuple[CatalogueLog, CrawlJob]:
    """Return the log of the catalogue, which need not be there yet, and the job that knows what it holds.

    Raises
    ------
    CatalogueError
        No catalogue could be there, or it cannot be read.
    """
    log = CatalogueLog(job.catalogue, job.catalogue_options)
    if log.exists():
        before = log.snapshot()
        return log, replace(job, known=before.version) if before.fragments else job
    with suppress(FileNotFoundError):
        if log._foreign_entries():
            raise CatalogueError(
                log.url, "is a folder with other things in it and no catalogue; name a new or an empty one"
            )
    return log, job


@dataclass(slots=True)
class _Listed:
    """What the listing told.

    Attributes
    ----------
    strata : Strata
    products : int
    unchanged : int
    seconds : float
    """

    strata: Strata
    products: int = 0
    unchanged: int = 0
    seconds: float = 0.0


class _Estimate:
    """One estimate."""

    def __init__(self, job: CrawlJob, workers: int, sample: int, max_keys: int | None) -> None:
        self._job = job
        self._workers = workers
        self._sample = sample
        self._max_keys = max_keys
        self._local = all(scheme_of(root.removeprefix("@")) in {"", "file"} for root in job.roots)
        self._slots = job.concurrency or (LOCAL_CONCURRENCY if self._local else REMOTE_CONCURRENCY)
        self._begun = time.monotonic()

    def made(self) -> Quote:
        """Return the quote."""
        job = self._job
        listing = list_roots(
            job.roots,
            include=job.include,
            exclude=job.exclude,
            open_store=lambda url: open_store(url, job.options_for(url), adapter=job.adapter),
            limit=self._max_keys,
        )
        listed = self._listed(listing)
        if not listing.matched:
            raise CrawlerError(listing.nothing_found())
        sample = walk_sample(job, listed.strata.allotted(self._sample)) if listed.strata.files else Sample()
        if sample.files and sample.statuses["unreadable"] == sample.files:
            raise CrawlerError(f"none of {sample.files:,} files could be read; the first: {sample.first_error}")
        return self._quote(listing, listed, sample)

    def _listed(self, listing: Listing) -> _Listed:
        """Read the listing, or as much of it as is asked for."""
        begun = time.monotonic()
        listed = _Listed(Strata())
        learning = Learning(self._workers, self._slots)
        products: set[int] = set()
        cut = partitions(listing, first=FIRST_PARTITION, growth=GROWTH, size=PARTITION)
        # On another thread, so that whoever interrupts this one need not wait for the store.
        with ahead(cut, _AHEAD, threading.Event()) as todo:
            for number, partition in enumerate(todo):
                for ref in self._to_walk(partition.sort_by("url"), listed):
                    product = product_of(ref.url)
                    if len(products) < _PRODUCTS:
                        products.add(hash(product))
                    met = learning.meet(number % self._workers, product, ref.url, ref.size)
                    listed.strata.add(product, met.kind, met.crowded, ref)
        listed.products = len(products)
        listed.seconds = time.monotonic() - begun
        return listed

    def _to_walk(self, partition: pa.Table, listed: _Listed) -> Iterator[ObjectRef]:
        """Yield the files that the catalogue does not hold unchanged."""
        known = load_indexed_rows(self._job, partition)
        for row in partition.to_pylist():
            ref = ObjectRef(**row)
            old = known.get(ref.url, [])
            if len(old) == 1 and is_unchanged(self._job, ref, old[0]):
                listed.unchanged += 1
            else:
                yield ref

    def _quote(self, listing: Listing, listed: _Listed, sample: Sample) -> Quote:
        job = self._job
        requests, bytes_read, hdus, images = (
            _total(sample, what) for what in ("requests", "bytes_read", "hdus", "cards")
        )
        files = listed.strata.files
        rows = sum(size["cards"].rows for size in sample.sizes)
        batches = max(_partitions(files), math.ceil(images.value * CARD / job.batch_bytes))
        # What is merged is written once more.
        written = images.times(2 if batches >= MERGE_FROM else 1)
        work = Work(
            requests=requests,
            bytes_read=bytes_read,
            cpu=requests.times(sample.walking.each) + written.times(sample.writing.each),
            listing=listed.seconds,
            local=self._local,
        )
        hours, bound = hours_of(job, work, self._workers, self._slots)
        lists = listing.requests
        seconds = time.monotonic() - self._begun
        took = Report("", "", requests=sample.requests, listing_requests=lists, bytes_read=sample.bytes_read)
        return Quote(
            fingerprint=fingerprint_of(job),
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            complete=listing.ended,
            seen=listing.seen,
            listed=listing.matched,
            unchanged=listed.unchanged,
            files=files,
            bytes_stored=listed.strata.size,
            products=listed.products,
            statuses=dict(sample.statuses),
            first_error=sample.first_error,
            workers=self._workers,
            concurrency=self._slots,
            requests=requests,
            lists=lists,
            bytes_read=bytes_read,
            hdus=hdus,
            cards=images.times(rows / sample.cards if sample.cards else 1),
            catalogue_bytes=catalogue_bytes(sample.shares(), batches, images),
            usd_requests=self._usd(requests=requests, listing_requests=Interval.exactly(lists)),
            usd_transfer=self._usd(bytes_read=bytes_read),
            usd_compute=hours.times(self._workers * job.costs.usd_per_hour),
            hours=hours,
            bound=bound,
            spent=Spent(
                sample.files, sample.requests, lists, sample.bytes_read, Budget(job).spent(took), round(seconds, 3)
            ),
        )

    def _usd(self, **amounts: Interval) -> Interval:
        """Return what the store charges for counts of a report."""
        budget = Budget(self._job)

        def charged(end: str) -> float:
            report = Report("", "")
            for name, amount in amounts.items():
                setattr(report, name, getattr(amount, end))
            return budget.spent(report)

        return Interval(charged("value"), charged("low"), charged("high"))


def _total(sample: Sample, what: str) -> Interval:
    """Return the total of a figure; a walk makes one request at least."""
    if not sample.files:
        return Interval.exactly(0)
    strata, assumed = strata_of(sample, what)
    return total(strata, each=float(what == "requests"), model=assumed)


def _partitions(files: int) -> int:
    """Return into how many partitions so many files are cut."""
    count, size = 0, FIRST_PARTITION
    while files > 0:
        files -= size
        size = min(size * GROWTH, PARTITION)
        count += 1
    return count
