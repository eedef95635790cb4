"""Partitions on Dask.

A Dask task is a partition, never a file: thousands of keys out, one small receipt back. Rows never cross the
scheduler; workers write fragments into the catalogue's own storage.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
from distributed import Client
from distributed.scheduler import KilledWorker

from crawler.crawl import Receipt, crawl_partition
from crawler.errors import ClusterError
from crawler.job import CrawlJob
from crawler.stores.urls import one_line

_POLL = 0.2
"""Seconds after which the driver looks whether it should stop: a signal does not wake a thread that waits."""

_LOST = (CancelledError, OSError, RuntimeError)
"""What Dask raises where it cannot reach the scheduler; its CommClosedError and time-outs are OSErrors."""

_stopped: set[str] = set()
"""On a worker: ids of the crawls that begin no further walk."""


class DaskExecutor:
    """The executor that is a Dask cluster of any kind.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def map_unordered(self, job: CrawlJob, todo: Iterator[pa.Table], stop: threading.Event) -> Iterator[Receipt]:
        """See `crawler.run.Executor`.

        Raises
        ------
        ClusterError
            The scheduler was lost, or a partition killed worker after worker.
        """
        underway = _Underway(self._client, job)
        exhausted = False
        failure: Exception | None = None  # raised once what is under way is collected
        try:
            while True:
                while not (exhausted or failure or stop.is_set()) and underway.has_room():
                    try:
                        partition = next(todo, None)
                    except Exception as error:
                        failure = error
                    else:
                        exhausted = not underway.begin(partition)
                if stop.is_set():
                    underway.stop()
                if not underway.running:
                    break
                outcome = underway.take()
                if isinstance(outcome, Receipt):
                    yield outcome
                else:
                    failure = failure or outcome
        finally:
            underway.abandon()
        if failure is not None:
            raise failure


class _Underway:
    """The partitions of one crawl that the cluster was given, and has not given back.

    Every method but `abandon` raises `ClusterError` where the scheduler was lost.

    Parameters
    ----------
    client : distributed.Client
    job : CrawlJob

    Attributes
    ----------
    running : dict
        Futures by their key.
    """

    def __init__(self, client: Client, job: CrawlJob) -> None:
        self._client = client
        self._job = job
        self._begun = 0
        self._stopped = False
        self._done: queue.Queue[Any] = queue.Queue()
        self.running: dict[str, Any] = {}

    def has_room(self) -> bool:
        """Tell whether another may begin: every thread has one, and one that waits."""
        with self._scheduler():
            threads: dict[str, int] = self._client.nthreads()
        return len(self.running) < max(2, 2 * sum(threads.values()))

    def begin(self, partition: pa.Table | None) -> bool:
        """Hand out a partition; False where there is none."""
        if partition is None:
            return False
        key = f"{self._job.crawl}-partition-{self._begun}"
        self._begun += 1
        with self._scheduler():
            future = self._client.submit(_crawl, self._job, partition, key=key, pure=False)
        self.running[key] = future
        future.add_done_callback(self._done.put)
        return True

    def take(self) -> Receipt | Exception | None:
        """Wait a moment for a partition to end; return what came of it, or the error of its task."""
        try:
            future = self._done.get(timeout=_POLL)
        except queue.Empty:
            return None
        del self.running[future.key]
        with self._scheduler():
            error: Exception | None = future.exception()
            if error is None:
                receipt: Receipt = future.result()
                return receipt
        if isinstance(error, KilledWorker):
            return ClusterError(f"a partition was lost with worker after worker: {one_line(str(error))}")
        return error

    def stop(self) -> None:
        """Have those that run cut short, and those that wait begin nothing."""
        if not self._stopped:
            self._stopped = True
            with self._scheduler():
                self._client.run(_stopped.add, self._job.crawl, on_error="ignore")  # who dies meanwhile has stopped

    def abandon(self) -> None:
        """Have nothing go on that nobody waits for any more."""
        if self.running:
            with suppress(ClusterError), self._scheduler():
                self.stop()
                self._client.cancel(list(self.running.values()))

    @contextmanager
    def _scheduler(self) -> Iterator[None]:
        """Turn what Dask raises where there is no scheduler any more into `ClusterError`."""
        try:
            yield
        except _LOST as error:
            raise ClusterError(f"the cluster was lost: {one_line(str(error) or type(error).__name__)}") from None
        except AttributeError:  # of None: a client that was closed forgets its scheduler
            if self._client.scheduler is not None:
                raise
            raise ClusterError("the cluster was lost: its client was closed") from None


def _crawl(job: CrawlJob, partition: pa.Table) -> Receipt:
    """Crawl one partition on a worker."""
    return crawl_partition(job, partition, lambda: job.crawl in _stopped)
