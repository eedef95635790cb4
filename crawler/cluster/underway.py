"""What a cluster was given and has not given back: submitting, waiting, steering, and what goes wrong with it."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from distributed import Client
from distributed.client import ClosedClientError
from distributed.scheduler import KilledWorker

from crawler.context import abandon_run, release, set_rate_limit, stop_run, worker_context
from crawler.crawl import Receipt, crawl_partition
from crawler.errors import ClusterError, CrawlerError
from crawler.interrupts import REPEAT_SECONDS
from crawler.job import CrawlJob
from crawler.stores.urls import one_line

_POLL = 0.2
"""Seconds after which the driver looks whether it should stop: a signal does not wake a thread that waits."""

_GATHER = 5.0
"""Seconds in which a worker must hand over a receipt."""

_TELL = 2.0
"""Seconds that the driver waits for workers to hear that the run stops or has ended."""

SIGTERM_SECONDS = 30.0
"""Seconds after a SIGTERM in which a worker of this machine still hands over its partition."""

_LOST = (CancelledError, ClosedClientError, OSError, RuntimeError)
"""What Dask raises where it cannot reach the scheduler; its CommClosedError and time-outs are OSErrors."""

PAUSED_SECONDS = 3.0
"""For how long all workers may be paused before they are begun anew. Dask pauses a worker whose process holds four
fifths of its memory; one that does nothing lets none of it go, and would be paused for ever."""

REVIVALS = 3
"""How often all workers are begun anew without a partition ending in between."""


@dataclass(frozen=True, slots=True)
class Given:
    """A partition to crawl.

    Attributes
    ----------
    partition : pyarrow.Table
    role : {'partition', 'suspect', 'control'}
        What for: see `crawler.cluster.executor`.
    """

    partition: pa.Table
    role: Literal["partition", "suspect", "control"] = "partition"


@dataclass(frozen=True, slots=True)
class Killed:
    """What came of a partition that was lost with worker after worker.

    Attributes
    ----------
    reason : str
        One line.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a partition.

    Attributes
    ----------
    given : Given
    outcome : Receipt or Killed or Exception
        The exception is the one that its task raised.
    """

    given: Given
    outcome: Receipt | Killed | Exception


class Underway:
    """The partitions of one crawl that the cluster was given, and has not given back.

    Every method but `abandon` and `close` raises `ClusterError` where the scheduler was lost.

    Parameters
    ----------
    client : distributed.Client
    job : CrawlJob

    Attributes
    ----------
    running : dict
        What was given, by the key of its task.
    """

    def __init__(self, client: Client, job: CrawlJob) -> None:
        self._client = client
        self._job = job
        self._begun = 0
        self._stopped = False
        self._share: float | None = None
        self._done: queue.Queue[Any] = queue.Queue()
        self._health = _Health(client)
        self._futures: dict[str, Any] = {}
        self.running: dict[str, Given] = {}

    def has_room(self) -> bool:
        """Tell whether another may begin: every thread has one, and one that waits."""
        with self._scheduler():
            threads: dict[str, int] = self._client.nthreads()
            self._steer(len(threads))
        return len(self.running) < max(2, 2 * sum(threads.values()))

    def begin(self, given: Given) -> None:
        """Hand out a partition."""
        key = f"{self._job.crawl}-partition-{self._begun}"
        self._begun += 1
        with self._scheduler():
            future = self._client.submit(_crawl, self._job, given.partition, self._share, key=key, pure=False)
        self.running[key] = given
        self._futures[key] = future
        future.add_done_callback(self._done.put)

    def take(self) -> Ended | None:
        """Wait a moment for a partition to end."""
        try:
            future = self._done.get(timeout=_POLL)
        except queue.Empty:
            with self._scheduler():
                if self._stopped and not self._client.nthreads():  # nobody is left who could end it
                    self.abandon()
                self._health.look()
            return None
        given = self.running.get(future.key)
        if given is None:
            return None  # abandoned
        with self._scheduler():
            outcome: Receipt | Killed | Exception
            try:
                outcome = future.exception() if future.status == "error" else future.result(timeout=_GATHER)
            except KilledWorker as killed:
                outcome = killed
            except TimeoutError:  # it was lost with its worker before it could be fetched: it is crawled again
                future.add_done_callback(self._done.put)
                return None
        del self.running[future.key], self._futures[future.key]
        if isinstance(outcome, KilledWorker):
            outcome = Killed(f"its walk ended {outcome.allowed_failures + 1} worker processes")
        else:
            self._health.well()
        return Ended(given, outcome)

    def stop(self) -> None:
        """Have those that run cut short, and those that wait begin nothing."""
        if not self._stopped:
            self._stopped = True
            self._tell_workers(stop_run)

    def abandon(self) -> None:
        """Have nothing go on that nobody waits for any more."""
        if self.running:
            self._stopped = True
            self._tell_workers(abandon_run)
            with suppress(ClusterError), self._scheduler():
                self._client.cancel(list(self._futures.values()))
            self.running.clear()
            self._futures.clear()

    def close(self) -> None:
        """Cancel the partitions that still run, if any; else have the workers release what the run has there."""
        if self.running:
            self.abandon()
            return
        self._tell_workers(release)

    def _tell_workers(self, function: Callable[[str], None]) -> None:
        """Call a function of the run's id on all workers; wait a moment, and not for a worker that hangs."""

        def tell() -> None:
            with suppress(Exception):  # a worker that is lost needs to know nothing
                self._client.run(function, self._job.crawl, on_error="ignore")

        thread = threading.Thread(target=tell, name="workers", daemon=True)
        thread.start()
        thread.join(_TELL)

    def _steer(self, workers: int) -> None:
        """Tell each worker its share of the requests that all may make, where their number has changed."""
        if self._job.max_requests_per_second is None:
            return
        share = self._job.max_requests_per_second / max(1, workers)
        if share != self._share:
            self._share = share
            self._client.run(set_rate_limit, self._job.crawl, share, wait=False, on_error="ignore")

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


class _Health:
    """Workers that are short of memory: Dask gives them nothing to do, and says nothing of it.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._paused_since: float | None = None
        self._revived = 0

    def well(self) -> None:
        """Take note that a partition ended."""
        self._revived = 0

    def look(self) -> None:
        """Begin all workers anew where all are paused.

        Raises
        ------
        ClusterError
            That was tried, and helps no more.
        """
        workers = self._client.scheduler_info()["workers"]
        paused = [address for address, worker in workers.items() if worker.get("status") == "paused"]
        now = time.monotonic()
        if not paused or len(paused) < len(workers):
            self._paused_since = None
        elif self._paused_since is None:
            self._paused_since = now
        elif now - self._paused_since >= PAUSED_SECONDS:
            self._paused_since = None
            self._revived += 1
            limit = min(worker["memory_limit"] for worker in workers.values()) // 2**20
            short = (
                f"no worker can go on: each has used up its memory ({limit:,} MiB). "
                "Give workers more memory, or fewer requests at once (--concurrency)"
            )
            if self._revived > REVIVALS:
                raise ClusterError(short)
            try:
                self._client.restart_workers(paused)
            except (ValueError, TimeoutError):  # without a nanny nobody begins it again
                raise ClusterError(short) from None


def _crawl(job: CrawlJob, partition: pa.Table, share: float | None) -> Receipt:
    """Crawl one partition on a worker."""
    if share is not None:
        set_rate_limit(job.crawl, share)
    try:
        with worker_context(job) as context:
            return crawl_partition(job, partition, context.is_stopped)
    except CrawlerError as error:
        # What libraries below raised may not survive the way to the driver: it is told already.
        error.__cause__ = error.__context__ = None
        raise


def dask_setup(_worker: object) -> None:
    """Have a worker process outlive a SIGTERM for a while. Dask calls this where a worker preloads this module.

    A SIGTERM to a process group, as GNU timeout sends it, reaches the driver too. The driver asks its workers for their
    partitions, and ends them.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _Sigterm())


class _Sigterm:
    """Ends this process `SIGTERM_SECONDS` after a first signal, and at once on another one a while later."""

    def __init__(self) -> None:
        self._first: float | None = None

    def __call__(self, *_: object) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
            timer = threading.Timer(SIGTERM_SECONDS, os._exit, (128 + signal.SIGTERM,))
            timer.daemon = True
            timer.start()
        elif now - self._first >= REPEAT_SECONDS:
            os._exit(128 + signal.SIGTERM)
