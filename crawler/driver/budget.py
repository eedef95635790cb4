"""What a run spends at the store, and whether it may go on."""

from __future__ import annotations

import math

from crawler.driver.report import Report
from crawler.errors import UsageError
from crawler.fits.policy import Costs
from crawler.job.crawl_job import CrawlJob
from crawler.stores.urls import scheme_of

_REQUESTS_A_FILE, _BYTES_A_FILE = 10.0, 200e3
"""Requests and bytes of a file of which nothing is known yet: more than nearly all files take."""

_CAUTION = 2.0
"""Cost of a file that is under way, as a multiple of the mean cost of the files before it."""


class Budget:
    """Dollars that a run has spent, has under way, and may spend.

    Parameters
    ----------
    job : CrawlJob

    Attributes
    ----------
    is_charged : bool
        The store charges for requests and transfer. Local disks and web servers do not.

    Raises
    ------
    UsageError
        The limit does not even pay for one page of a listing and one file.
    """

    def __init__(self, job: CrawlJob) -> None:
        self._costs: Costs = job.costs
        listed = any(scheme_of(root) not in {"", "file", "http", "https"} for root in job.roots if root[:1] != "@")
        self.is_charged = listed or any(root.startswith("@") for root in job.roots)
        self._limit = job.max_usd if self.is_charged else None
        self._given = 0
        least = self._unknown_file() + listed * self._costs.usd_per_list
        if self._limit is not None and self._limit < least:
            raise UsageError(
                f"--max-usd {dollars(self._limit)} does not pay for a single file: at least "
                f"{dollars(least, up=True)} is needed"
            )

    def spent(self, report: Report) -> float:
        """Return what a run has spent so far, in dollars."""
        return self._on_files(report) + self._on_listing(report)

    def affordable(self, report: Report) -> float:
        """Return how many more files there is money for, those under way counted as paid."""
        if self._limit is None:
            return math.inf
        each = self._next_file(report)
        left = self._limit - self.spent(report) - self.under_way(report) * each
        return math.floor(max(0.0, left) / each + 1e-9) if each else math.inf

    def hand_out(self, files: int) -> None:
        """Take note that files were handed out."""
        self._given += files

    def under_way(self, report: Report) -> int:
        """Return how many files were handed out and are not done."""
        return self._given - report.files - report.skipped - report.vanished

    def is_spent(self, report: Report) -> bool:
        """Tell whether all is spent, what is under way not counted."""
        return self._limit is not None and self.spent(report) >= self._limit

    def exhausted(self, report: Report) -> str:
        """Return in one line why the run stops and, where the same command would come no further, what it needs."""
        spent, limit = dollars(self.spent(report)), dollars(self._limit or 0.0)
        if report.files > report.rewalked:
            return f"{spent} of --max-usd {limit} is spent"
        needed = dollars(self.spent(report) + self._next_file(report), up=True)
        if report.files:
            return (
                f"--max-usd {limit} was spent on {report.files:,} files that the catalogue had already, and that each "
                f"run walks again because they were unreadable or have no ETag: more than {needed} is needed to go on"
            )
        if report.listing_ended:
            return f"--max-usd {limit} does not pay for the next file: at least {needed} is needed to go on"
        return (
            f"--max-usd {limit} does not pay for the listing, which has cost {spent} and is not at its end: more than "
            f"{needed} is needed to go on"
        )

    def _on_files(self, report: Report) -> float:
        requests = report.requests + report.retries.total()
        return self.is_charged * (
            requests * self._costs.usd_per_request + report.bytes_read / 1e9 * self._costs.usd_per_gb
        )

    def _on_listing(self, report: Report) -> float:
        return self.is_charged * report.listing_requests * self._costs.usd_per_list

    def _next_file(self, report: Report) -> float:
        """Return what one more file may cost: that of a request at least, though empty files take none."""
        if not (done := report.files + report.vanished):
            return self._unknown_file()
        return max(_CAUTION * self._on_files(report) / done, self._costs.usd_per_request)

    def _unknown_file(self) -> float:
        return _REQUESTS_A_FILE * self._costs.usd_per_request + _BYTES_A_FILE / 1e9 * self._costs.usd_per_gb


def dollars(amount: float, *, up: bool = False) -> str:
    """Return an amount for a person: in cents from a dollar on, and three digits of less than a dollar.

    Parameters
    ----------
    amount : float
    up : bool
        Round up, so that the amount that is shown is enough.
    """
    places = 2 if amount >= 1 or not amount else 2 - math.floor(math.log10(amount))
    steps = amount * 10**places
    text = f"{(math.ceil(steps - 1e-6) if up else round(steps)) / 10**places:,.{places}f}"
    whole, _, rest = text.partition(".")
    return f"${whole}.{rest.rstrip('0'):0<2}"
