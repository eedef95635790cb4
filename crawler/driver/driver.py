"""A crawl from its roots to its last commit: the driver.

Lists ahead, hands partitions to an executor, collects receipts and commits them. Knows no Dask, no stores' libraries
and nothing of FITS, and prints nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain

import pyarrow as pa

from crawler.catalogue.log import CatalogueLog
from crawler.catalogue.records.listings import delete_old, unfinished
from crawler.catalogue.records.runs import Run, keep_run
from crawler.catalogue.records.saved_listing import KeptListing, ListingWriter, fingerprint
from crawler.catalogue.snapshot import Snapshot
from crawler.catalogue.vacuum import ORPHAN_HOURS
from crawler.driver.background import ahead
from crawler.driver.budget import Budget
from crawler.driver.commits import Commits
from crawler.driver.executor import Executor
from crawler.driver.report import Report
from crawler.driver.spool import spooled
from crawler.errors import CatalogueError, CrawlerError
from crawler.job.crawl_job import CrawlJob
from crawler.listing import Listing, list_roots, partitions
from crawler.stores import Traffic, open_store
from crawler.stores.urls import printable
from crawler.worker.context import release
from crawler.worker.partition import changed


class Crawl:
    """One run.

    Parameters
    ----------
    job : CrawlJob
    executor : Executor
    progress : callable
        Given the report after everything that changed it, one call at a time: on the thread that runs the crawl, or on
        that of `acknowledge`.
    stop : threading.Event, optional
        Once it is set, no walk begins, and what was walked is committed.

    Attributes
    ----------
    report : Report
    """

    def __init__(
        self,
        job: CrawlJob,
        executor: Executor,
        progress: Callable[[Report], None],
        stop: threading.Event | None = None,
    ) -> None:
        self._job = job
        self._settings = job.settings
        self._executor = executor
        self._progress = progress
        self._log = CatalogueLog(job.catalogue, job.catalogue_options)
        self._commits = Commits(self._log, job.crawl, self._committed, job.settings)
        self._telling = threading.Lock()
        self._stop = stop or threading.Event()
        self._given = 0  # files that were handed out
        self._all_given = False
        self._halted = False  # it was not a signal that set it
        self._fresh: Listing | None = None  # the listing, where none is resumed
        self._begun = time.monotonic()
        self._budget = Budget(job)
        self._what = {"roots": [printable(root) for root in job.roots], "include": job.include, "exclude": job.exclude}
        self._run = Run(job.crawl, self._what)
        self.report = Report(job.crawl, self._log.url)

    def run(self) -> Report:
        """Crawl. Whatever ends it, what was walked by then is committed.

        Raises
        ------
        ListingError, UsageError
            The roots cannot be listed.
        CatalogueError
            The catalogue cannot be read or written.
        ClusterError
            The executor failed.
        StoreDownError
            Nothing can be read of the store any more.
        """
        job = self._job
        traffic = Traffic(self._settings.listers, job.max_requests_per_second, job.patience)
        listing = list_roots(
            job.roots,
            include=job.include,
            exclude=job.exclude,
            open_store=lambda url: open_store(url, job.options_for(url), adapter=job.adapter, traffic=traffic),
        )
        kept = self._earlier_listing()
        if kept is None:
            self._list_and_crawl(listing)
        else:
            self._resume(listing, kept)
        return self._tell()

    def _resume(self, listing: Listing, kept: KeptListing) -> None:
        """Crawl what an earlier run listed."""
        self._job = replace(self._job, resumed=True)
        listing.folders = kept.folders
        self.report.listed_at = kept.began
        self.report.seen, self.report.listed = kept.seen, kept.keys
        self.report.listing_ended = True
        with self._recorded():
            self._crawl(kept.partitions(), listing, lambda: kept)

    def acknowledge(self) -> None:
        """Report at once that the run was asked to stop."""
        self.report.stopping = self._job.stop_seconds
        self._tell()

    def _earlier_listing(self) -> KeptListing | None:
        """Return the listing that a run which did not end has left, if listing again would take long."""
        if self._job.relist or not self._log.exists():
            return None
        newer_than = datetime.now(UTC) - timedelta(hours=self._settings.reused_hours)
        kept = unfinished(self._log.folder, self._of_listing(), newer_than)
        return kept if kept is not None and kept.keys >= self._settings.reused_keys else None

    def _of_listing(self) -> str:
        return fingerprint(self._job.roots, self._job.include, self._job.exclude)

    def _list_and_crawl(self, listing: Listing) -> None:
        job, settings = self._job, self._settings
        cut = partitions(listing, first=settings.first_partition, growth=settings.growth, size=settings.partition)
        self._fresh = listing
        main = threading.current_thread()

        def idle() -> None:
            if threading.current_thread() is main:
                self._look_at_spending()

        with ahead(cut, settings.partitions_in_memory, self._stop, idle) as todo:
            first = next(todo, None)  # what cannot be listed is not worth a new catalogue
            self._tell()
            self.report.interrupted = first is None and self._stop.is_set() and not self._halted
            cut_short = self.report.interrupted or self._halted
            if first is None and not cut_short:
                self.report.nothing_found = listing.nothing_found()
            if first is None and (cut_short or not job.allow_removals):
                return

            def ended() -> tuple[int, list[str]] | None:
                return (listing.seen, listing.folders) if listing.ended else None

            self._log.create()
            writer = ListingWriter(self._log.folder, job.crawl, self._of_listing(), self._what)
            parts = chain(() if first is None else (first,), todo)
            with (
                self._recorded(),
                spooled(parts, ended, writer, settings.partitions_in_memory, self._stop, idle) as spool,
            ):
                self._crawl(iter(spool), listing, lambda: spool.kept)

    def _crawl(self, todo: Iterator[pa.Table], listing: Listing, listed: Callable[[], KeptListing | None]) -> None:
        """Crawl partitions, and bring the catalogue in order.

        Parameters
        ----------
        todo : iterator of pyarrow.Table
        listing : Listing
        listed : callable
            Returns the listing once it has ended, else None.
        """
        before = self._log.snapshot()
        self.report.version = before.version
        if not before.empty:
            self._job = replace(self._job, known=before.version)
        self._walk(self._handed_out(todo))
        kept = listed()
        if kept is not None and not (self.report.interrupted or self.report.stopped):
            self._remove_gone(before, listing, kept)
            kept.finish()
            delete_old(self._log.folder, ORPHAN_HOURS)
        self._commits.merge(self._stop)
        self._commits.tidy()

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        """Keep a record of the run beside the catalogue, whatever ends it."""
        run = self._run
        keep_run(self._log.folder, run)
        try:
            yield
            run.outcome = "interrupted" if self.report.interrupted else "stopped" if self.report.stopped else "finished"
            run.error = self.report.stopped
        except BaseException as error:
            run.outcome = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            run.error = str(error) if isinstance(error, CrawlerError) else type(error).__name__
            raise
        finally:
            self._tell()
            run.counts = self.report.counts()
            with suppress(CatalogueError):  # what came of the run matters more than its record
                keep_run(self._log.folder, run)

    def _walk(self, todo: Iterator[pa.Table | None]) -> None:
        """Crawl the partitions, and commit what came of them, whatever ends it."""
        failure: CrawlerError | None = None
        try:
            for receipt in self._executor.map_unordered(self._job, todo, self._stop):
                self.report.add(receipt)
                self._commits.take(receipt)
                failure = failure or receipt.failure
                self._look_at_spending()
                if failure is not None:
                    self._halt()
        finally:
            release(self._job.crawl)
            self._commits.settle()
            if any(root.startswith("@") for root in self._job.roots):
                self._commits.drop_repeats()
        if failure is not None:
            raise failure
        self.report.interrupted = self._stop.is_set() and not self._halted

    def _halt(self) -> None:
        """Stop, and not because somebody interrupted the run."""
        if not self._stop.is_set():
            self._halted = True
            self._stop.set()

    def _look_at_spending(self) -> None:
        """Stop where the limit is reached and not all is done."""
        self._tell()
        done = self._all_given and not self._budget.under_way(self.report)
        if self._budget.is_spent(self.report) and not done and not self._stop.is_set():
            self.report.stopped = self._budget.exhausted(self.report)
            self._halt()

    def _handed_out(self, todo: Iterator[pa.Table]) -> Iterator[pa.Table | None]:
        """Yield the partitions, as far as there is money for them; None as `Executor.map_unordered` has it."""
        for partition in todo:
            self._tell()
            for piece in self._evened(partition):
                yield from self._paid(piece)
                if self.report.stopped:
                    return
        self._tell()
        self._all_given = True

    def _paid(self, piece: pa.Table) -> Iterator[pa.Table | None]:
        """Yield a partition, or as much of it at a time as there is money for; None where only receipts can tell."""
        rest, looked = piece, self._job.known is None
        while rest.num_rows:
            affordable = self._budget.affordable(self.report)
            if affordable < rest.num_rows and not looked:
                looked = True  # what the catalogue holds unchanged costs nothing
                rest = changed(self._job, rest)
                self.report.skipped += piece.num_rows - rest.num_rows
                self._hand_out(piece.num_rows - rest.num_rows)
            elif affordable < rest.num_rows and self._budget.under_way(self.report):
                yield None
                self._tell()
            elif affordable < 1:
                self.report.stopped = self._budget.exhausted(self.report)
                return
            else:
                part = rest.slice(0, int(min(affordable, rest.num_rows)))
                self._hand_out(part.num_rows)
                yield part
                rest = rest.slice(part.num_rows)

    def _hand_out(self, files: int) -> None:
        self._given += files
        self._budget.hand_out(files)

    def _evened(self, partition: pa.Table) -> Iterator[pa.Table]:
        """Yield a partition or, towards the end, pieces of it: so that all workers end at about the same time."""
        at = 0
        while at < partition.num_rows:
            size = partition.num_rows
            if self.report.listing_ended and (width := self._executor.width()) > 1:
                left = self.report.listed - self._given
                size = max(self._settings.first_partition, left // (self._settings.shares * width))
            rest = partition.num_rows - at
            size = -(-rest // -(-rest // size))  # pieces alike, no crumb among them
            yield partition.slice(at, size) if size < partition.num_rows else partition
            at += size

    def _remove_gone(self, before: Snapshot, listing: Listing, kept: KeptListing) -> None:
        if before.empty:
            return
        self.report.removed, self.report.withheld = self._commits.remove_gone(
            before, kept, listing.covers, all_of_them=self._job.allow_removals
        )

    def _committed(self, version: int) -> None:
        self.report.version = version
        self._tell()
        self._run.counts = self.report.counts()
        keep_run(self._log.folder, self._run)

    def _tell(self) -> Report:
        if (listing := self._fresh) is not None:
            self.report.listing_ended = listing.ended  # before the counts: where it is true they are final
            self.report.seen, self.report.listed = listing.seen, listing.matched
            self.report.listing_requests = listing.requests
        self.report.seconds = time.monotonic() - self._begun
        self.report.usd = self._budget.spent(self.report)
        with self._telling:
            self._progress(self.report)
        return self.report
