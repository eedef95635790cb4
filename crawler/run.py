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
from typing import Any

import pyarrow as pa

from crawler.background import ahead
from crawler.budget import Budget
from crawler.catalogue.kept import KeptListing, ListingWriter, fingerprint
from crawler.catalogue.listings import delete_old, unfinished
from crawler.catalogue.log import CatalogueLog
from crawler.catalogue.runs import Run, keep_run
from crawler.catalogue.snapshot import Snapshot
from crawler.catalogue.vacuum import ORPHAN_HOURS
from crawler.commits import Commits
from crawler.errors import CatalogueError, CrawlerError
from crawler.executors import Executor
from crawler.job import CrawlJob
from crawler.listing import Listing, list_roots, partitions
from crawler.report import Report
from crawler.spool import spooled
from crawler.stores import Traffic, open_store
from crawler.stores.urls import printable

FIRST_PARTITION, GROWTH, PARTITION = 100, 2, 2000
"""Files of the first partition, how partitions grow, and files of all later ones: small crawls are spread over the
workers, large ones make few tasks."""

SHARES = 2
"""Of what is left at the end, each worker is given no more than such a share of what would be its own at once; and no
fewer files than `FIRST_PARTITION`, since a partition costs some 50 ms."""

COMMIT_SECONDS, COMMIT_RECEIPTS = 30.0, 500
"""A commit is made when so much time passed or so many receipts came since the last: each costs some 40 ms."""

REUSED_KEYS, REUSED_HOURS = 100_000, 24.0
"""A listing of so many keys, no older, is gone on with where its run did not end. A smaller one is soon made anew, and
then has what was added since."""

LISTERS = 16
"""Pages of a listing that are requested at once."""

_AHEAD = 64  # partitions that wait in memory


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
        self._executor = executor
        self._progress = progress
        self._log = CatalogueLog(job.catalogue, job.catalogue_options)
        self._commits = Commits(self._log, job.crawl, self._committed, seconds=COMMIT_SECONDS, receipts=COMMIT_RECEIPTS)
        self._telling = threading.Lock()
        self._stop = stop or threading.Event()
        self._given = 0  # files that were handed out
        self._halted = False  # it was not a signal that set it
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
        traffic = Traffic(LISTERS, job.max_requests_per_second, job.patience)
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
            listing.folders = kept.about["folders"]
            self.report.listed_at = kept.began
            self.report.seen = self.report.listed = kept.keys
            self.report.listing_ended = True
            with self._recorded():
                self._crawl(kept.partitions(), listing, lambda: kept)
        return self._tell()

    def acknowledge(self) -> None:
        """Report at once that the run was asked to stop."""
        self.report.stopping = self._job.stop_seconds
        self._tell()

    def _earlier_listing(self) -> KeptListing | None:
        """Return a listing that a run which did not end has left, and that took too long to be made again."""
        if self._job.relist or not self._log.exists():
            return None
        newer_than = datetime.now(UTC) - timedelta(hours=REUSED_HOURS)
        kept = unfinished(self._log.folder, self._of_listing(), newer_than)
        return kept if kept is not None and kept.keys >= REUSED_KEYS else None

    def _of_listing(self) -> str:
        return fingerprint(self._job.roots, self._job.include, self._job.exclude)

    def _list_and_crawl(self, listing: Listing) -> None:
        job = self._job
        cut = partitions(listing, first=FIRST_PARTITION, growth=GROWTH, size=PARTITION)
        with ahead(cut, _AHEAD, self._stop) as todo:
            first = next(todo, None)  # what cannot be listed is not worth a new catalogue
            self.report.interrupted = first is None and self._stop.is_set()
            self._listed(listing)
            if first is None and not self.report.interrupted:
                self.report.nothing_found = listing.nothing_found()
            if first is None and (self.report.interrupted or not job.allow_removals):
                return

            def ended() -> dict[str, Any] | None:
                return {"seen": listing.seen, "folders": listing.folders} if listing.ended else None

            self._log.create()
            writer = ListingWriter(self._log.folder, job.crawl, self._of_listing(), self._what)
            parts = chain(() if first is None else (first,), todo)
            with (
                self._recorded(),
                spooled(parts, ended, writer=writer, depth=_AHEAD, stop=self._stop) as spool,
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
        self._walk(self._handed_out(todo, listing))
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

    def _walk(self, todo: Iterator[pa.Table]) -> None:
        """Crawl the partitions, and commit what came of them, whatever ends it."""
        failure: CrawlerError | None = None
        try:
            for receipt in self._executor.map_unordered(self._job, todo, self._stop):
                self.report.add(receipt)
                self._tell()
                self._commits.take(receipt)
                failure = failure or receipt.failure
                if self._budget.is_spent(self.report):
                    self.report.stopped = self._over_budget()
                if (failure or self.report.stopped) and not self._stop.is_set():
                    self._halted = True
                    self._stop.set()
        finally:
            self._commits.settle()
            if any(root.startswith("@") for root in self._job.roots):
                self._commits.drop_repeats()
        if failure is not None:
            raise failure
        self.report.interrupted = self._stop.is_set() and not self._halted

    def _over_budget(self) -> str:
        return f"${self.report.usd:,.2f} of the ${self._job.max_usd:,.2f} that it may spend are spent"

    def _handed_out(self, todo: Iterator[pa.Table], listing: Listing) -> Iterator[pa.Table]:
        """Yield the partitions, as long as there is money for them."""
        for partition in todo:
            if self.report.listed_at is None:
                self._listed(listing)
            for piece in self._evened(partition):
                if not self._budget.allows(piece.num_rows, self.report):
                    self.report.stopped = self._over_budget()
                    return
                self._given += piece.num_rows
                yield piece
        if self.report.listed_at is None:
            self._listed(listing)

    def _evened(self, partition: pa.Table) -> Iterator[pa.Table]:
        """Yield a partition or, towards the end, pieces of it: so that all workers end at about the same time."""
        at = 0
        while at < partition.num_rows:
            size = partition.num_rows
            if self.report.listing_ended and (width := self._executor.width()) > 1:
                left = self.report.listed - self._given
                size = max(FIRST_PARTITION, left // (SHARES * width))
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

    def _listed(self, listing: Listing) -> None:
        self.report.seen, self.report.listed = listing.seen, listing.matched
        self.report.listing_requests = listing.requests
        self.report.listing_ended = listing.ended
        self._tell()

    def _committed(self, version: int) -> None:
        self.report.version = version
        self._tell()
        self._run.counts = self.report.counts()
        keep_run(self._log.folder, self._run)

    def _tell(self) -> Report:
        self.report.seconds = time.monotonic() - self._begun
        self.report.usd = self._budget.spent(self.report)
        with self._telling:
            self._progress(self.report)
        return self.report
