"""Partitions on Dask.

A Dask task is a partition, never a file: thousands of keys out, one small receipt back. Rows never cross the
scheduler; workers write fragments into the catalogue's own storage.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress

import pyarrow as pa
from distributed import Client

from crawler.cluster.tasks import Ended, Given, Killed, Underway
from crawler.errors import ClusterError
from crawler.job.crawl_job import CrawlJob
from crawler.worker.deadline import Deadline
from crawler.worker.partition import Receipt, crashed_file, discard

PIECES = 16
"""Into how many a partition is cut that killed worker after worker: the one file of 2,000 that does it is found after
three cuts."""

TRIALS = 2
"""How often a file must end its workers, alone: one of their deaths may have had another cause."""

LOOK_BACK, LOSSES = 32, 12
"""Of so many partitions and pieces that ended last, how many may be lost before the workers are taken to be at fault,
rather than files: one bad file in a partition loses one piece of sixteen."""


class DaskExecutor:
    """The executor that is a Dask cluster of any kind.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def width(self) -> int:
        """Return how many threads the workers have."""
        with suppress(OSError, RuntimeError, AttributeError):  # that the scheduler is lost is found out soon enough
            return max(1, int(sum(self._client.nthreads().values())))
        return 1

    def map_unordered(self, job: CrawlJob, todo: Iterator[pa.Table | None], stop: threading.Event) -> Iterator[Receipt]:
        """See `crawler.driver.executor.Executor`.

        Raises
        ------
        ClusterError
            The scheduler was lost, or the workers can do nothing: they are short of memory, say.
        """
        underway = Underway(self._client, job)
        deadline = Deadline(job, stop)
        work = _Work(job, todo)
        failure: Exception | None = None  # raised once what is under way is collected
        quiet = logging.getLogger("asyncio")
        quiet.addFilter(_is_news)
        try:
            while True:
                while not (failure or stop.is_set()) and underway.has_room():
                    try:
                        given = work.next(alone=not underway.running)
                    except Exception as error:
                        failure = error
                        break
                    if given is None:
                        break
                    underway.begin(given)
                if stop.is_set():
                    underway.stop()
                if not underway.running or deadline.is_over():
                    break
                ended = underway.take()
                if ended is None:
                    continue
                try:
                    yield from work.ended(ended)
                except Exception as error:
                    failure = failure or error
        finally:
            underway.close()
            quiet.removeFilter(_is_news)
        if failure is not None:
            raise failure


def _is_news(record: logging.LogRecord) -> bool:
    """Tell whether a line of asyncio's log says anything: a result that is lost as it is fetched leaves an AllExit."""
    return not (record.exc_info and type(record.exc_info[1]).__name__ == "AllExit")


class _Work:
    """What is to be crawled next, and what to do about partitions that are lost with worker after worker.

    Those are cut into pieces, down to single files, the suspects. These wait until nothing else is under way, and are
    then walked one at a time. One that still ends its workers, `TRIALS` times, while a file that was walked before does
    not, does it itself: it becomes a row of status ``crashed``. Where that other file ends them too, the workers are at
    fault.

    Parameters
    ----------
    job : CrawlJob
    todo : iterator of pyarrow.Table or None
        See `crawler.driver.executor.Executor`.
    """

    def __init__(self, job: CrawlJob, todo: Iterator[pa.Table | None]) -> None:
        self._job = job
        self._todo = todo
        self._pieces: deque[pa.Table] = deque()
        self._suspects: deque[pa.Table] = deque()
        self._accused: Ended | None = None
        self._trials: Counter[str] = Counter()  # that ended badly, by url
        self._innocent: pa.Table | None = None  # one file that was walked
        self._lately: deque[bool] = deque(maxlen=LOOK_BACK)  # lost or not

    def next(self, *, alone: bool) -> Given | None:
        """Return the next; None where there is none, or none that may begin before what is under way has ended."""
        if self._pieces:
            return Given(self._pieces.popleft())
        if (partition := next(self._todo, None)) is not None:
            return Given(partition)
        if not alone:
            return None
        if self._accused is not None and self._innocent is not None:
            return Given(self._innocent, "control")
        return Given(self._suspects.popleft(), "suspect") if self._suspects else None

    def ended(self, ended: Ended) -> Iterator[Receipt]:
        """Yield what came of a partition, once that is known.

        Raises
        ------
        Exception
            What its task raised; `ClusterError` where the workers are at fault.
        """
        given, outcome = ended.given, ended.outcome
        self._lately.append(isinstance(outcome, Killed))
        if isinstance(outcome, Killed):
            yield self._lost(ended, outcome)
        elif isinstance(outcome, Exception):
            raise outcome
        elif given.role == "control":
            discard(self._job, outcome)
            accused, self._accused = self._accused, None
            if accused is not None and isinstance(accused.outcome, Killed):
                yield from self._judged(accused.given.partition, accused.outcome)
        else:
            if self._innocent is None and outcome.complete and outcome.statuses["ok"]:
                self._innocent = given.partition.slice(0, 1)
            yield outcome

    def _judged(self, suspect: pa.Table, killed: Killed) -> Iterator[Receipt]:
        url = suspect["url"][0].as_py()
        self._trials[url] += 1
        if self._trials[url] < TRIALS:
            self._suspects.append(suspect)
        else:
            yield crashed_file(self._job, suspect, killed.reason)

    def _lost(self, ended: Ended, killed: Killed) -> Receipt:
        partition = ended.given.partition
        if ended.given.role == "partition" and sum(self._lately) < LOSSES:
            if partition.num_rows == 1:
                self._suspects.append(partition)
            else:
                step = -(-partition.num_rows // PIECES)
                self._pieces.extend(partition.slice(at, step) for at in range(0, partition.num_rows, step))
            return Receipt(lost=1)
        if ended.given.role == "suspect" and self._innocent is not None:
            self._accused = ended
            return Receipt(lost=1)
        raise ClusterError(
            "workers die of most of what they are given: "
            "look into their logs; mostly they are short of memory, and half a GB each is enough"
        )
