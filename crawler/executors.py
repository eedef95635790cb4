"""What crawls partitions: the protocol, and the executor that is this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol

import pyarrow as pa

from crawler.crawl import Receipt, crawl_partition, leave, steer
from crawler.job import CrawlJob

_AT_ONCE = 2  # partitions in this process


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
        given_up = threading.Event()
        steer(job.crawl, job.max_requests_per_second)

        def enough() -> bool:
            return stop.is_set() or given_up.is_set()

        failure: BaseException | None = None  # raised once what is under way is collected
        running: set[Future[Receipt]] = set()
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="partition") as pool:
            try:
                while True:
                    while len(running) < _AT_ONCE and not (failure or stop.is_set()):
                        try:
                            partition = next(todo, None)
                        except Exception as error:
                            failure = error
                            break
                        if partition is None:
                            break
                        running.add(pool.submit(crawl_partition, job, partition, enough))
                    if not running:
                        break
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        if (fault := future.exception()) is None:
                            yield future.result()
                        else:
                            failure = failure or fault
            finally:
                given_up.set()
                leave(job.crawl)
        if failure is not None:
            raise failure
