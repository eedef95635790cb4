"""`crawler.estimate`: from roots to an estimate, in this process; writes no catalogue."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from crawler.catalogue.log import CatalogueLog
from crawler.driver.background import ahead
from crawler.driver.budget import Budget
from crawler.errors import CrawlerError
from crawler.estimation.census import Census
from crawler.estimation.figures import catalogue_bytes, duration_of, scaled, write_rows
from crawler.estimation.model import Estimate, Spent
from crawler.estimation.sample import Part, Sample, walk_sample
from crawler.estimation.saved import fingerprint_of, save_estimate
from crawler.estimation.statistics import Interval
from crawler.fits.policy import Goal
from crawler.fits.units import CARD
from crawler.job.crawl_job import CrawlJob, build_job, check_count
from crawler.listing import Listing, list_roots, partitions
from crawler.stores import Adapter, ObjectRef, Traffic, open_store
from crawler.stores.urls import PathOrUrl, scheme_of
from crawler.worker.context import LOCAL_CONCURRENCY, REMOTE_CONCURRENCY, release
from crawler.worker.partition import is_unchanged, load_indexed_rows

SAMPLE = 400
"""Files of the sample, by default."""

_AHEAD = 4  # partitions that are listed ahead


@dataclass(frozen=True, slots=True)
class EstimateProgress:
    """How far an estimate has come.

    Attributes
    ----------
    seen, listed : int
        Objects listed so far, and those of them that the filters take.
    sample, walked : int
        Files of the sample, 0 until the listing has ended; and those of them that were walked.
    """

    seen: int
    listed: int
    sample: int = 0
    walked: int = 0


def estimate(
    roots: PathOrUrl | Iterable[PathOrUrl],
    catalogue: PathOrUrl | None = None,
    *,
    workers: int | None = None,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] = (),
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
    progress: Callable[[EstimateProgress], None] | None = None,
) -> Estimate:
    """Estimate what `crawler.index` takes with the same arguments: requests, bytes, dollars, time, catalogue.

    Lists the roots, walks a random sample of the files, and multiplies. Writes nothing but the estimate, and that only
    beside a catalogue.

    Parameters
    ----------
    roots : str, path or iterable of these
        As of `crawler.index`.
    catalogue : str or path, optional
        Its unchanged files are not counted. The estimate is saved beside it, for `crawler.index` to compare with.
    workers : int, optional
        Processes of the crawl: one for each core of this machine by default; 0 is one process.
    include, exclude, concurrency, optimize, max_hdus, max_requests_per_second, file_timeout, store
        As of `crawler.index`.
    costs : mapping of str to float, optional
        As of `crawler.index`. ``first_byte_seconds`` replaces the duration of a request that the sample measures.
    storage_options, catalogue_options : mapping, optional
        As of `crawler.index`.
    sample : int
        Files of the sample, about.
    max_keys : int, optional
        Objects after which the listing stops. The estimate is for those that were listed.
    progress : callable, optional
        Called with an `EstimateProgress` as objects are listed, and after each walk of the sample.

    Raises
    ------
    UsageError
        An argument has a wrong type or value.
    ListingError
        A root cannot be listed.
    CatalogueError
        The catalogue cannot be read, or the estimate cannot be written.
    CrawlerError
        There are no files, or no file of the sample can be read.
    """
    files = check_count("sample", sample) or SAMPLE
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
    log = None
    if catalogue is not None:
        log, job = _with_catalogue(job)
    processes = max(1, (os.cpu_count() or 1) if workers is None else workers)
    estimator = _Estimator(job, processes, frozenset(costs or ()), progress or (lambda _: None))
    try:
        found = estimator.run(files, max_keys)
    finally:
        release(job.crawl)
    if log is not None:
        save_estimate(log.folder, found)
    return found


def _with_catalogue(job: CrawlJob) -> tuple[CatalogueLog, CrawlJob]:
    """Return the log of the catalogue, which need not exist, and the job that skips what the catalogue holds."""
    log = CatalogueLog(job.catalogue, job.catalogue_options)
    if log.exists():
        before = log.snapshot()
        return log, replace(job, known=before.version) if before.fragments else job
    log.check_place()
    return log, job


class _Estimator:
    """One estimate.

    Parameters
    ----------
    job : CrawlJob
    workers : int
    given : frozenset of str
        Names of the costs that the caller knows.
    progress : callable
    """

    def __init__(
        self, job: CrawlJob, workers: int, given: frozenset[str], progress: Callable[[EstimateProgress], None]
    ) -> None:
        self._job = job
        self._workers = workers
        self._given = given
        self._progress = progress
        local = all(scheme_of(root.removeprefix("@")) in {"", "file"} for root in job.roots)
        self._slots = job.concurrency or (LOCAL_CONCURRENCY if local else REMOTE_CONCURRENCY)
        self._begun = time.monotonic()
        self._listing_seconds = 0.0
        self._census = Census()
        self._unchanged = 0

    def run(self, files: int, max_keys: int | None) -> Estimate:
        """List the roots, walk a sample of so many files, and return the estimate."""
        job = self._job
        traffic = Traffic(job.settings.listers, job.max_requests_per_second, job.patience)
        listing = list_roots(
            job.roots,
            include=job.include,
            exclude=job.exclude,
            open_store=lambda url: open_store(url, job.options_for(url), adapter=job.adapter, traffic=traffic),
            limit=max_keys,
        )
        self._list(listing)
        if not listing.matched:
            raise CrawlerError(listing.nothing_found())
        groups = self._census.groups(files, self._workers)
        parts = [Part.of(group, self._slots) for group in groups]
        done = EstimateProgress(listing.seen, listing.matched, sum(len(refs) for part in parts for refs in part.refs))
        self._progress(done)
        sample = walk_sample(job, parts, lambda walked: self._progress(replace(done, walked=walked)))
        if sample.walks and sample.statuses["unreadable"] == sample.statuses.total():
            raise CrawlerError(f"no file of the sample could be read; the first: {sample.first_error}")
        return self._estimate(listing, sample)

    def _list(self, listing: Listing) -> None:
        """Count the files that the catalogue does not hold unchanged."""
        settings = self._job.settings
        cut = partitions(listing, first=settings.first_partition, growth=settings.growth, size=settings.partition)
        # On another thread, so that an interrupt need not wait for the store.
        with ahead(cut, _AHEAD, threading.Event()) as todo:
            for number, partition in enumerate(todo):
                known = load_indexed_rows(self._job, partition)
                for row in partition.to_pylist():
                    ref = ObjectRef(**row)
                    old = known.get(ref.url, [])
                    if len(old) == 1 and is_unchanged(self._job, ref, old[0]):
                        self._unchanged += 1
                    else:
                        self._census.add(number, ref)
                self._progress(EstimateProgress(listing.seen, listing.matched))
        self._listing_seconds = time.monotonic() - self._begun

    def _prices(self) -> tuple[bool, tuple[float, float, float]]:
        """Return whether the store charges, and the dollars for a request, a page of a listing and a byte."""
        charged, costs = Budget(self._job).is_charged, self._job.costs
        prices = costs.usd_per_request * charged, costs.usd_per_list * charged, costs.usd_per_gb / 1e9 * charged
        return charged, prices

    def _estimate(self, listing: Listing, sample: Sample) -> Estimate:
        job, costs, census = self._job, self._job.costs, self._census
        requests, bytes_read, hdus, images = map(sample.total, ("requests", "bytes_read", "hdus", "images"))
        cpu = time.process_time()
        parts = [
            (part.files / len(part.results), write_rows(job.crawl, part.results))
            for part in sample.parts
            if part.results
        ]
        # The rows of the sample were written once and a half.
        writing = (time.process_time() - cpu) / 1.5 / max(1, sum(len(part.results) for part in sample.parts))
        rows = sum(times * part["cards"].rows for times, part in parts)
        batches = max(job.settings.partitions_of(census.files), math.ceil(images.value * CARD / job.batch_bytes))
        stored = catalogue_bytes(parts, batches)
        cpu_seconds = requests.times(sample.cpu_seconds) + Interval.exact(writing * census.files)
        request_seconds = costs.first_byte_seconds if "first_byte_seconds" in self._given else sample.request_seconds
        duration, limit = duration_of(
            self._bounds(requests, bytes_read, cpu_seconds, request_seconds), self._listing_seconds
        )
        charged, (per_request, per_list, per_byte) = self._prices()
        lists = listing.requests
        spent_usd = (sample.requests + sample.retries) * per_request + lists * per_list + sample.bytes_read * per_byte
        return Estimate(
            fingerprint=fingerprint_of(job),
            estimated_at=datetime.now(UTC).isoformat(timespec="seconds"),
            complete=listing.ended,
            seen=listing.seen,
            listed=listing.matched,
            unchanged=self._unchanged,
            files=census.files,
            bytes_stored=census.size,
            products=census.products,
            statuses=dict(sample.statuses),
            first_error=sample.first_error,
            workers=self._workers,
            concurrency=self._slots,
            requests=requests,
            list_requests=lists,
            bytes_read=bytes_read,
            hdus=hdus,
            cards=images.times(1.0) if not images.value else images.times(rows / images.value),
            catalogue_bytes=scaled(images, stored),
            charged=charged,
            usd_requests=requests.times(per_request) + Interval.exact(lists * per_list),
            usd_transfer=bytes_read.times(per_byte),
            usd_compute=duration.times(self._workers * costs.usd_per_hour / 3600),
            duration=duration,
            limited_by=limit,
            request_seconds=request_seconds,
            spent=Spent(
                sample.walks,
                sample.requests,
                lists,
                sample.bytes_read,
                spent_usd,
                round(time.monotonic() - self._begun, 3),
            ),
        )

    def _bounds(
        self, requests: Interval, bytes_read: Interval, cpu_seconds: Interval, request_seconds: float
    ) -> dict[str, Interval]:
        """Return how long a crawl takes at least, by what it waits for."""
        job, workers = self._job, self._workers
        bounds = {
            "CPU": cpu_seconds.times(1 / workers),
            "the duration of requests": requests.times(request_seconds / workers / self._slots),
        }
        if "mb_per_second" in self._given:
            bounds["bandwidth"] = bytes_read.times(1 / (job.costs.mb_per_second * 1e6 * workers))
        if job.max_requests_per_second:
            bounds["max_requests_per_second"] = requests.times(1 / job.max_requests_per_second)
        return bounds
