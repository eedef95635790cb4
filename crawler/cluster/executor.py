"""Partitions on Dask.

A Dask task is a partition, never a file: thousands of keys out, one small receipt back. Rows never cross the
scheduler; workers write fragments into the catalogue's own storage.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

import pyarrow as pa
from distributed import Client

from crawler.cluster.underway import Given, Killed, Underway
from crawler.crawl import Receipt, crashed_file
from crawler.job import CrawlJob

PIECES = 16
"""Into how many a partition is cut that killed worker after worker: the one file of 2,000 that does it is found after
three cuts."""


class DaskExecutor:
    """The executor that is a Dask cluster of any kind.

    A partition that is lost with worker after worker is cut into pieces, down to single files. Those wait until nothing
    else is under way, and are then walked one at a time: one that still kills its workers does it itself, and
    becomes a row of status ``crashed``.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def map_unordered(self, job: CrawlJob, todo: Iterator[pa.Table], stop: threading.Event) -> Iterator[Receipt]:
        """See `crawler.executors.Executor`.

        Raises
        ------
        ClusterError
            The scheduler was lost, or no worker has the memory to work.
        """
        underway = Underway(self._client, job)
        queue = _Queue(todo)
        failure: Exception | None = None  # raised once what is under way is collected
        try:
            while True:
                while not (failure or stop.is_set()) and underway.has_room():
                    try:
                        given = queue.next(alone=not underway.running)
                    except Exception as error:
                        failure = error
                        break
                    if given is None:
                        break
                    underway.begin(given)
                if stop.is_set():
                    underway.stop()
                if not underway.running:
                    break
                outcome = underway.take()
                if isinstance(outcome, Receipt):
                    yield outcome
                elif isinstance(outcome, Killed):
                    yield queue.lost(job, outcome)
                else:
                    failure = failure or outcome
        finally:
            underway.abandon()
        if failure is not None:
            raise failure


class _Queue:
    """What is to be crawled next: pieces of partitions that were lost, then new ones, then files that are suspected.

    Parameters
    ----------
    todo : iterator of pyarrow.Table
    """

    def __init__(self, todo: Iterator[pa.Table]) -> None:
        self._todo = todo
        self._pieces: deque[pa.Table] = deque()
        self._suspects: deque[pa.Table] = deque()

    def next(self, *, alone: bool) -> Given | None:
        """Return the next; None where there is none, or none that may begin before what is under way has ended."""
        if self._pieces:
            return Given(self._pieces.popleft())
        if (partition := next(self._todo, None)) is not None:
            return Given(partition)
        return Given(self._suspects.popleft(), alone=True) if self._suspects and alone else None

    def lost(self, job: CrawlJob, killed: Killed) -> Receipt:
        """Have a partition that was lost with its workers crawled in pieces, and return the receipt of that."""
        partition = killed.given.partition
        if killed.given.alone:
            return crashed_file(job, partition, killed.reason)
        if partition.num_rows == 1:
            self._suspects.append(partition)
        else:
            step = -(-partition.num_rows // PIECES)
            self._pieces.extend(partition.slice(at, step) for at in range(0, partition.num_rows, step))
        return Receipt(lost=1)
