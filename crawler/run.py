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
from itertools import chain

import pyarrow as pa

import crawler
from crawler.background import ahead, stopped_by_signals
from crawler.budget import Budget
from crawler.catalogue.fragments import Fragment, read_fragment
from crawler.catalogue.log import CatalogueLog, Change, Snapshot, first_line
from crawler.catalogue.orphans import delete_orphans
from crawler.catalogue.rewrite import merge_small, without_repeats, without_urls
from crawler.catalogue.runs import Run, keep_run
from crawler.catalogue.urls import Urls
from crawler.crawl import Receipt
from crawler.errors import CatalogueError, CrawlerError
from crawler.executors import Executor
from crawler.job import CrawlJob
from crawler.listing import Listing, list_roots, partitions
from crawler.report import Report
from crawler.stores import Traffic, open_store
from crawler.stores.urls import printable

FIRST_PARTITION, GROWTH, PARTITION = 100, 2, 2000
"""Files of the first partition, how partitions grow, and files of all later ones: small crawls are spread over the
workers, large ones make few tasks."""

COMMIT_SECONDS, COMMIT_RECEIPTS = 30.0, 500
"""A commit is made when so much time passed or so many receipts came since the last: each costs some 40 ms."""

REMOVABLE = 0.1
"""Share of a catalogue's files that a run removes unasked. More of them gone at once is more often a disk that is not
mounted, or a prefix that was renamed, than files that were deleted."""

_LISTERS = 16  # pages that are asked for at once

_AHEAD = 64  # partitions that are listed ahead of the crawl


class Crawl:
    """One run.

    Parameters
    ----------
    job : CrawlJob
    executor : Executor
    progress : callable
        Given the report after everything that changed it; on the thread that runs the crawl.

    Attributes
    ----------
    report : Report
    """

    def __init__(self, job: CrawlJob, executor: Executor, progress: Callable[[Report], None]) -> None:
        self._job = job
        self._executor = executor
        self._progress = progress
        self._log = CatalogueLog(job.catalogue, job.catalogue_options)
        self._stop = threading.Event()
        self._halted = False  # it was not a signal that set it
        self._waiting: list[Receipt] = []
        self._urls = Urls()
        self._last_commit = time.monotonic()
        self._begun = self._last_commit
        self._budget = Budget(job)
        what = {"roots": [printable(root) for root in job.roots], "include": job.include, "exclude": job.exclude}
        self._run = Run(job.crawl, f"crawler {crawler.__version__}", what)
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
        """
        job = self._job
        traffic = Traffic(_LISTERS, job.max_requests_per_second, job.patience)
        listing = list_roots(
            job.roots,
            include=job.include,
            exclude=job.exclude,
            open_store=lambda url: open_store(url, job.options_for(url), adapter=job.adapter, traffic=traffic),
        )
        cut = partitions(listing, first=FIRST_PARTITION, growth=GROWTH, size=PARTITION)
        with stopped_by_signals(self._stop), ahead(cut, _AHEAD, self._stop) as todo:
            first = next(todo, None)  # what cannot be listed is not worth a new catalogue
            self.report.interrupted = first is None and self._stop.is_set()
            self._listed(listing)
            if first is None and not self.report.interrupted:
                self.report.nothing_found = listing.nothing_found()
            if first is None and (self.report.interrupted or not job.allow_removals):
                return self._tell()
            self._log.create()
            with self._recorded():
                before = self._log.snapshot()
                self.report.version = before.version
                if before.fragments:
                    job = self._job = replace(job, known=before.version)
                self._walk(self._handed_out(first, todo, listing))
                if not (self.report.interrupted or self.report.stopped):
                    self._remove_gone(before, listing)
                self._merge()
                delete_orphans(self._log, job.crawl)
        return self._tell()

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
            run.outcome = "failed"
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
                self._take(receipt)
                failure = failure or receipt.failure
                if self._budget.is_spent(self.report):
                    self.report.stopped = self._over_budget()
                if (failure or self.report.stopped) and not self._stop.is_set():
                    self._halted = True
                    self._stop.set()
        finally:
            self._commit()
            self._drop_repeats()
        if failure is not None:
            raise failure
        self.report.interrupted = self._stop.is_set() and not self._halted

    def _over_budget(self) -> str:
        return f"${self.report.usd:,.2f} of the ${self._job.max_usd:,.2f} that it may spend are spent"

    def _handed_out(self, first: pa.Table | None, rest: Iterator[pa.Table], listing: Listing) -> Iterator[pa.Table]:
        """Yield the partitions, remembering what was listed where that tells what is gone."""
        for partition in chain(() if first is None else (first,), rest):
            self._listed(listing)
            if self._job.known is not None:
                self._urls.add(partition["url"].to_pylist())
            if not self._budget.allows(partition.num_rows, self.report):
                self.report.stopped = self._over_budget()
                return
            yield partition
        self._listed(listing)

    def _listed(self, listing: Listing) -> None:
        self.report.seen, self.report.listed = listing.seen, listing.matched
        self.report.listing_ended = listing.ended
        self._tell()

    def _tell(self) -> Report:
        self.report.seconds = time.monotonic() - self._begun
        self.report.usd = self._budget.spent(self.report)
        self._progress(self.report)
        return self.report

    def _take(self, receipt: Receipt) -> None:
        self._waiting.append(receipt)
        self.report.add(receipt)
        self._tell()
        waited = time.monotonic() - self._last_commit
        if waited >= COMMIT_SECONDS or len(self._waiting) >= COMMIT_RECEIPTS:
            self._commit()

    def _commit(self) -> None:
        """Commit the fragments of all receipts that wait, in place of what the catalogue holds of the same files."""
        added = [fragment for receipt in self._waiting for fragment in receipt.fragments]
        replaced = {url for receipt in self._waiting for url in receipt.replaced}
        self._waiting = []
        self._last_commit = time.monotonic()
        if not added:
            return

        self._change(
            added, lambda snapshot: without_urls(self._log.folder, snapshot.fragments, replaced, self._job.crawl)
        )

    def _drop_repeats(self) -> None:
        """Leave each object in once: key files may name it twice."""
        if any(root.startswith("@") for root in self._job.roots):
            self._change([], lambda snapshot: without_repeats(self._log.folder, snapshot, self._job.crawl))

    def _remove_gone(self, before: Snapshot, listing: Listing) -> None:
        """Remove what the catalogue held when the run began and a listing that ended did not find again."""
        if not listing.ended or not before.fragments:
            return
        folder = self._log.folder
        try:
            held = [read_fragment(folder, one, columns=["url"])["url"].to_pylist() for one in before.of("files")]
        except FileNotFoundError:
            return  # another run ended meanwhile, and deleted files that it merged: the next run sees what is gone
        except (OSError, pa.ArrowException) as error:
            raise CatalogueError(self._log.url, f"cannot be read: {first_line(error)}") from None
        gone = {url for urls in held for url in self._urls.missing(urls) if listing.covers(url)}
        if len(gone) > REMOVABLE * sum(map(len, held)) and not self._job.allow_removals:
            self.report.withheld = len(gone)
        elif gone:
            self._change([], lambda snapshot: without_urls(folder, snapshot.fragments, gone, self._job.crawl))
            self.report.removed = len(gone)

    def _merge(self) -> None:
        """Leave no crumbs, unless asked to stop: nothing is wrong with them."""
        self._change([], lambda snapshot: merge_small(self._log.folder, snapshot, self._job.crawl, self._stop.is_set))

    def _change(self, added: list[Fragment], rewrite: Callable[[Snapshot], Change]) -> None:
        """Commit new files together with what is rewritten because of them.

        Files of this run that are superfluous then are deleted once the commit is in: no finished run left them.
        """
        crawl = self._job.crawl
        rewritten = Change()

        def plan(snapshot: Snapshot) -> Change:
            nonlocal rewritten
            self._log.delete_files(rewritten.add)  # of an attempt that another run's commit overtook
            rewritten = rewrite(snapshot)
            return Change(added + rewritten.add, rewritten.remove)

        if before := self._log.commit(plan, {"crawl": crawl}):
            self._log.delete_files(one for one in rewritten.remove if one.batch.startswith(crawl))
            self.report.version = before.version + 1
            self._tell()
            self._run.counts = self.report.counts()
            keep_run(self._log.folder, self._run)
