"""What crawls partitions: the protocol, and the executor that is this process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from crawler.job.crawl_job import CrawlJob
from crawler.worker.context import release, set_rate_limit, worker_context
from crawler.worker.deadline import Deadline
from crawler.worker.partition import Receipt, crawl_partition

_AT_ONCE = 2  # partitions in this process

_POLL = 0.2
"""Poll interval, in seconds, for the end of the time that partitions have after the run was asked to stop."""

_LEAVE_SECONDS = 1.0
"""Seconds in which a partition that nothing waits for may end."""


class Executor(Protocol):
    """Something that crawls partitions."""

    def width(self) -> int:
        """Return how many partitions it crawls at the same time, and how many should end at about the same time."""
        ...

    def map_unordered(self, job: CrawlJob, todo: Iterator[pa.Table | None], stop: threading.Event) -> Iterator[Receipt]:
        """Crawl every partition, in any order, taking few of them ahead.

        Where ``todo`` gives None, it is asked again once the receipt of a partition has been yielded: it only gives
        None while there are partitions whose receipts have not been yielded.

        Once ``stop`` is set no partition is begun, those that were begun are cut short, and their receipts are
        yielded too.
        """
        ...


class InProcess:
    """The executor that is this process: two partitions at a time, so that one is walked while the other is written."""

    def width(self) -> int:
        """Return 1: of its two partitions one waits for the other's rows to be written."""
        return 1

    def map_unordered(self, job: CrawlJob, todo: Iterator[pa.Table | None], stop: threading.Event) -> Iterator[Receipt]:
        """See `Executor`."""
        ended: queue.SimpleQueue[Receipt | BaseException] = queue.SimpleQueue()

        def crawl(partition: pa.Table) -> None:
            try:
                ended.put(crawl_partition(job, partition, stop.is_set))
            except BaseException as error:  # not swallowed: raised once the other partition is collected
                ended.put(error)

        failure: BaseException | None = None
        threads: list[threading.Thread] = []
        running = 0
        deadline = Deadline(job, stop)
        set_rate_limit(job.crawl, job.max_requests_per_second)
        with worker_context(job):
            try:
                while True:
                    while running < _AT_ONCE and not (failure or stop.is_set()):
                        try:
                            partition = next(todo, None)
                        except Exception as error:
                            failure = error
                            break
                        if partition is None:
                            break
                        # Daemons: a process that exits does not wait for a store that does not answer.
                        thread = threading.Thread(target=crawl, args=(partition,), name="partition", daemon=True)
                        thread.start()
                        threads = [other for other in threads if other.is_alive()] + [thread]
                        running += 1
                    if not running or deadline.is_over():
                        break
                    try:
                        outcome = ended.get(timeout=_POLL)
                    except queue.Empty:
                        continue
                    running -= 1
                    if isinstance(outcome, BaseException):
                        failure = failure or outcome
                    else:
                        yield outcome
            finally:
                release(job.crawl)  # which abandons walks in flight
                for thread in threads:
                    thread.join(_LEAVE_SECONDS)
        if failure is not None:
            raise failure
