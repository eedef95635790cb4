"""How long a crawl takes: as long as what it has least of.

Walks, reads and writes overlap, so that a crawl takes no less than any of them, and no more than all of them one after
the other: that is the interval, widened by how much machines differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from crawler.job import CrawlJob
from crawler.quoting.statistics import Interval

_CPU_SPREAD = 1.5
"""How many times faster or slower the cores of workers are than this one, and how much more a long run may take."""

_STORE_SPREAD = 1.5
"""The same for the store's first byte and its bandwidth: `crawler.fits.policy.Costs` says what is usual."""

_BEGIN_SECONDS = 10.0
"""Until workers are there, and for the last commit."""


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to be done.

    Attributes
    ----------
    requests, bytes_read : Interval
    cpu : Interval
        Seconds of a core like this one.
    listing : float
        Seconds, at least.
    local : bool
        All files are on a local disk: a read hardly waits.
    """

    requests: Interval
    bytes_read: Interval
    cpu: Interval
    listing: float
    local: bool


def hours_of(job: CrawlJob, work: Work, workers: int, slots: int) -> tuple[Interval, str]:
    """Return how long a crawl takes, and what binds it.

    Parameters
    ----------
    job : CrawlJob
    work : Work
    workers : int
        Processes, each with a core.
    slots : int
        Requests that each has under way.
    """
    costs = job.costs
    waits = 0.0 if work.local else costs.first_byte_seconds
    bandwidth = 0.0 if work.local else 1 / (costs.mb_per_second * 1e6)
    bounds = {
        "CPU": work.cpu.times(1 / workers).spread(_CPU_SPREAD),
        "latency": work.requests.times(waits / workers / slots).spread(_STORE_SPREAD),
        "bandwidth": work.bytes_read.times(bandwidth / workers).spread(_STORE_SPREAD),
        "the listing": Interval.exactly(work.listing).spread(_STORE_SPREAD),
    }
    if job.max_requests_per_second:
        bounds["the requests a second that are allowed"] = work.requests.times(1 / job.max_requests_per_second)
    bound = max(bounds, key=lambda name: bounds[name].value)
    low = max(one.low for one in bounds.values())
    high = sum(one.high for one in bounds.values()) + _BEGIN_SECONDS
    return Interval(bounds[bound].value, low, high).times(1 / 3600), bound
