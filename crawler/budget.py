"""What a run spends at the store, and whether it may go on."""

from __future__ import annotations

from crawler.fits.policy import Costs
from crawler.job import CrawlJob
from crawler.report import Report
from crawler.stores.urls import scheme_of

_REQUESTS_A_FILE = 10.0
"""Of files of which nothing is known yet: more than nearly all take."""

_CAUTION = 2.0
"""Files that are under way are taken for so many times dearer than those before them."""


class Budget:
    """Dollars that a run has spent, has under way, and may spend.

    Parameters
    ----------
    job : CrawlJob

    Attributes
    ----------
    is_charged : bool
        The store charges for requests and transfer. Local disks and web servers do not.
    """

    def __init__(self, job: CrawlJob) -> None:
        self._costs: Costs = job.costs
        self._limit = job.max_usd
        charged = any(scheme_of(root.removeprefix("@")) not in {"", "file", "http", "https"} for root in job.roots)
        self.is_charged = charged or any(root.startswith("@") for root in job.roots)
        self._given = 0

    def spent(self, report: Report) -> float:
        """Return what a run has spent so far, in dollars."""
        if not self.is_charged:
            return 0.0
        costs = self._costs
        requests = report.requests + report.retries.total()
        return (
            requests * costs.usd_per_request
            + report.listing_requests * costs.usd_per_list
            + report.bytes_read / 1e9 * costs.usd_per_gb
        )

    def allows(self, files: int, report: Report) -> bool:
        """Tell whether so many more files may be handed out, and take them for handed out if so."""
        if self._limit is not None and self.is_charged:
            done = report.files + report.skipped + report.vanished
            each = self._costs.usd_per_request * _REQUESTS_A_FILE
            if report.files:
                each = _CAUTION * self.spent(report) / report.files
            if self.spent(report) + (self._given - done + files) * each > self._limit:
                return False
        self._given += files
        return True

    def is_spent(self, report: Report) -> bool:
        """Tell whether all is spent, what is under way not counted."""
        return self._limit is not None and self.spent(report) >= self._limit
