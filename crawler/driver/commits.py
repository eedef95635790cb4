"""What a run changes in its catalogue: rows added, replaced and removed, and small files merged, commit by commit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from crawler.catalogue.fragments import Fragment
from crawler.catalogue.log import CatalogueLog, Change
from crawler.catalogue.merge import merge_small, without_repeats, without_urls
from crawler.catalogue.missing import gone
from crawler.catalogue.orphans import delete_orphans
from crawler.catalogue.records.saved_listing import KeptListing
from crawler.catalogue.snapshot import Snapshot
from crawler.job.settings import Settings
from crawler.worker.partition import Receipt


class Commits:
    """The commits of one run.

    Parameters
    ----------
    log : CatalogueLog
    crawl : str
        Id of the run.
    committed : callable
        Given the version of each commit.
    settings : Settings
        When a commit is made, and how much a run removes without being asked to.
    """

    def __init__(self, log: CatalogueLog, crawl: str, committed: Callable[[int], None], settings: Settings) -> None:
        self._log = log
        self._crawl = crawl
        self._committed = committed
        self._settings = settings
        self._waiting: list[Receipt] = []
        self._last = time.monotonic()
        self._took = 0.0

    def take(self, receipt: Receipt) -> None:
        """Commit what came of a partition: now, or with others."""
        self._waiting.append(receipt)
        waited, limits = time.monotonic() - self._last, self._settings
        late = waited >= max(limits.commit_seconds, limits.commit_share * self._took)
        if late or len(self._waiting) >= limits.commit_receipts:
            self.settle()

    def settle(self) -> None:
        """Commit the fragments of all receipts that wait, in place of what the catalogue holds of the same files."""
        added = [fragment for receipt in self._waiting for fragment in receipt.fragments]
        replaced = {url for receipt in self._waiting for url in receipt.replaced}
        self._waiting = []
        begun = time.monotonic()
        if added:
            self._change(added, lambda now: without_urls(self._log.folder, now, replaced, self._crawl))
        self._last = time.monotonic()
        self._took = self._last - begun

    def drop_repeats(self) -> None:
        """Leave each object in once: key files may name it twice."""
        self._change([], lambda now: without_repeats(self._log.folder, now, self._crawl))

    def remove_gone(
        self, before: Snapshot, kept: KeptListing, covers: Callable[[str], bool], *, all_of_them: bool
    ) -> tuple[int, int]:
        """Remove what the catalogue held when the run began and a listing that ended did not find again.

        Parameters
        ----------
        before : Snapshot
        kept : KeptListing
        covers : callable
            Tells whether the listing would have found a url, had it been there.
        all_of_them : bool
            Even where they are more than `Settings.removable` of the catalogue.

        Returns
        -------
        tuple of int
            Files that were removed, and that were withheld.
        """
        folder = self._log.folder
        removed = 0
        try:
            found = gone(folder, before, kept, covers, kept.began)
        except FileNotFoundError:
            return 0, 0  # another run ended meanwhile, and deleted files that it merged: the next run sees what is gone
        with found:
            if found.count > self._settings.removable * found.held and not all_of_them:
                return 0, found.count
            for urls in found.batches():
                self._change([], lambda now, urls=urls: without_urls(folder, now, urls, self._crawl))  # type: ignore[misc]
                removed += len(urls)
        return removed, 0

    def merge(self, stop: threading.Event) -> None:
        """Leave no crumbs, unless asked to stop: nothing is wrong with them."""
        folder, seconds = self._log.folder, self._settings.commit_seconds
        while self._change([], lambda now: merge_small(folder, now, self._crawl, stop.is_set, seconds=seconds)):
            pass

    def tidy(self) -> None:
        """Delete what lost workers wrote."""
        delete_orphans(self._log, self._crawl)

    def _change(self, added: list[Fragment], rewrite: Callable[[Snapshot], Change]) -> bool:
        """Commit new files together with what is rewritten because of them; tell whether there was anything to do.

        Files of this run that are superfluous then are deleted once the commit is in: no finished run left them.
        """
        rewritten = Change()

        def plan(snapshot: Snapshot) -> Change:
            nonlocal rewritten
            self._log.delete_files(rewritten.add)  # of an attempt that another run's commit overtook
            rewritten = rewrite(snapshot)
            return Change(added + rewritten.add, rewritten.remove)

        before = self._log.commit(plan, {"crawl": self._crawl})
        if before is None:
            return False
        self._log.delete_files(one for one in rewritten.remove if one.batch.startswith(self._crawl))
        self._committed(before.version + 1)
        return True
