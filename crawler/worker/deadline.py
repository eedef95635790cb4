"""The time that partitions have after a run was asked to stop."""

from __future__ import annotations

import threading
import time

from crawler.job.crawl_job import CrawlJob

HANDOVER_SECONDS = 10.0
"""Seconds, beyond `CrawlJob.stop_seconds`, in which partitions of a run that was asked to stop must be written."""


class Deadline:
    """The time by which partitions must be handed over after the run was asked to stop.

    Parameters
    ----------
    job : CrawlJob
    stop : threading.Event
    """

    def __init__(self, job: CrawlJob, stop: threading.Event) -> None:
        self._seconds = job.stop_seconds + HANDOVER_SECONDS
        self._stop = stop
        self._at: float | None = None

    def is_over(self) -> bool:
        """Tell whether the time has passed. It begins with the first call that finds the stop event set."""
        if self._at is None and self._stop.is_set():
            self._at = time.monotonic() + self._seconds
        return self._at is not None and time.monotonic() >= self._at
