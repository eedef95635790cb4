"""Crawling on Dask: the only place that knows it.

A Dask task is a partition, never a file: thousands of keys out, one small receipt back. Rows never cross the
scheduler; workers write fragments into the catalogue's own storage.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from distributed import Client, LocalCluster
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from crawler.crawl import Receipt, crawl_partition
from crawler.errors import ClusterError
from crawler.job import CrawlJob

_POLL = 0.2
"""Seconds after which the driver looks whether it should stop: a signal does not wake a thread that waits."""

_stopped: set[str] = set()
"""On a worker: ids of the crawls that begin no further walk."""


@contextmanager
def local_client(workers: int | None = None) -> Iterator[Client]:
    """Start a cluster on this machine, on loopback only, and stop it at the end.

    Parameters
    ----------
    workers : int, optional
        Processes; one a core by default. Each crawls one partition at a time: its walks are threads of their own.
    """
    # What a worker loses on its way out is not news to who reads the terminal; errors still are.
    with (
        LocalCluster(
            n_workers=workers or os.cpu_count(),
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


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
        done: queue.Queue[Any] = queue.Queue()
        running: dict[str, Any] = {}
        stopping = False
        failure: BaseException | None = None
        exhausted = False
        number = 0
        while True:
            while not (exhausted or stopping) and len(running) < self._capacity():
                try:
                    partition = next(todo)
                except StopIteration:
                    exhausted = True
                except Exception as error:  # raised below, after what runs is collected
                    failure, exhausted = error, True
                else:
                    key = f"{job.crawl}-partition-{number}"
                    number += 1
                    running[key] = self._client.submit(_crawl, job, partition, key=key, pure=False)
                    running[key].add_done_callback(done.put)
            if not running:
                break
            if stop.is_set() and not stopping:
                stopping = True
                self._ask_workers_to_stop(job.crawl)
            try:
                future = done.get(timeout=_POLL)
            except queue.Empty:
                continue
            del running[future.key]
            yield self._receipt(future)
        if failure is not None:
            raise failure

    def _capacity(self) -> int:
        """Partitions that are under way at once: every thread has one, and one that waits."""
        threads: dict[str, int] = self._client.nthreads()
        return max(2, 2 * sum(threads.values()))

    def _ask_workers_to_stop(self, crawl: str) -> None:
        self._client.run(_stopped.add, crawl)

    def _receipt(self, future: Any) -> Receipt:
        try:
            receipt: Receipt = future.result()
        except KilledWorker as error:
            raise ClusterError(f"a partition was lost with worker after worker: {error}") from None
        except (FutureCancelledError, CommClosedError, OSError) as error:
            raise ClusterError(f"the cluster was lost: {error}") from None
        return receipt


def _crawl(job: CrawlJob, partition: pa.Table) -> Receipt:
    """Crawl one partition on a worker."""
    return crawl_partition(job, partition, lambda: job.crawl in _stopped)
