"""One measurement in a process of its own: ``python -m tests.benchmarks.contender`` takes a task, prints a result.

Imports, connections and first calls are made on other objects before anything is measured. What is measured lies
between two marks in the log of the server.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import crawler
from crawler import api
from crawler.job.crawl_job import CrawlJob
from crawler.job.settings import Settings
from tests.benchmarks.nginx import mark
from tests.benchmarks.peers import PEERS, Bucket, quiet

BEGIN, END = "begin", "end"


@dataclass(frozen=True)
class Task:
    """What to measure.

    Attributes
    ----------
    reader : str
        A name of `PEERS`, or ``crawler``.
    endpoint : str
        Of the server; empty where buckets are local folders.
    bucket, keys : str, list of str
        What to read; the crawler reads all of the bucket.
    warm, warm_keys : str, list of str
        What to read before.
    threads : int
        Objects that a peer reads at once.
    with_data : dict
        See `Bucket`.
    index : dict
        Further arguments of `crawler.index`.
    catalogue : str
        Where to leave the crawler's catalogue; in a folder that goes away, if empty.
    one_partition : bool
        All objects in one partition, as those of a large crawl are.
    """

    reader: str
    endpoint: str
    bucket: str
    keys: list[str] = field(default_factory=list)
    warm: str = ""
    warm_keys: list[str] = field(default_factory=list)
    threads: int = 1
    with_data: Mapping[str, list[int]] = field(default_factory=dict)
    index: Mapping[str, Any] = field(default_factory=dict)
    catalogue: str = ""
    one_partition: bool = False


@dataclass
class Result:
    """What came of it.

    Attributes
    ----------
    files, failed, hdus, cards : int
    error : str
        Of the first object that failed.
    cpu, seconds : float
    base, peak : int
        Bytes of memory: before, and the most that there ever was.
    report : dict
        Of the crawler's `Report`, every count.
    """

    files: int = 0
    failed: int = 0
    hdus: int = 0
    cards: int = 0
    error: str = ""
    cpu: float = 0.0
    seconds: float = 0.0
    base: int = 0
    peak: int = 0
    report: dict[str, Any] = field(default_factory=dict)


def run_peer(task: Task) -> Result:
    """Read some objects one by one, or by threads."""
    peer = PEERS[task.reader]
    warm = peer.open(Bucket(task.endpoint, task.warm, task.with_data))
    for key in task.warm_keys:
        warm(key)
    result = Result()
    with ThreadPoolExecutor(task.threads) as pool, _Measured(task, result):
        read = peer.open(Bucket(task.endpoint, task.bucket, task.with_data))

        def attempt(key: str) -> tuple[int, int] | str:
            try:
                return read(key)
            except Exception as error:  # each reader refuses files in its own way
                return f"{type(error).__name__}: {error}".splitlines()[0]

        for one in pool.map(attempt, task.keys) if task.threads > 1 else map(attempt, task.keys):
            result.files += 1
            if isinstance(one, str):
                result.failed, result.error = result.failed + 1, result.error or one
            else:
                result.hdus, result.cards = result.hdus + one[0], result.cards + one[1]
    return result


def run_crawler(task: Task) -> Result:
    """Index a bucket or a folder."""
    local = not task.endpoint
    options = {} if local else {"storage_options": Bucket(task.endpoint, task.bucket).options}
    arguments: dict[str, Any] = {"include": ["*"], **options, **task.index}
    if task.one_partition:
        api.CrawlJob = partial(CrawlJob, settings=Settings(first_partition=Settings().partition))
    result = Result()
    with tempfile.TemporaryDirectory(prefix="catalogue-") as temporary:
        if task.warm:
            crawler.index(task.warm if local else f"s3://{task.warm}", str(Path(temporary) / "warm"), **arguments)
        catalogue = task.catalogue or str(Path(temporary) / "catalogue")
        with _Measured(task, result):
            report = crawler.index(task.bucket if local else f"s3://{task.bucket}", catalogue, **arguments)
    result.files, result.hdus, result.cards = report.files, report.hdus, report.cards
    result.failed = report.walked["unreadable"]
    result.error = report.first_error or ""
    result.report = {key: value for key, value in asdict(report).items() if isinstance(value, int | float)}
    return result


class _Measured:
    """Takes the time, the CPU time of all threads and the memory of what runs in it."""

    def __init__(self, task: Task, result: Result) -> None:
        self._endpoint = task.endpoint
        self._result = result

    def __enter__(self) -> None:
        self._result.base = memory("VmRSS")
        if self._endpoint:
            mark(self._endpoint, BEGIN)
        self._cpu, self._begun = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._result.cpu = time.process_time() - self._cpu
        self._result.seconds = time.perf_counter() - self._begun
        if self._endpoint:
            mark(self._endpoint, END)
        self._result.peak = memory("VmHWM")


def memory(name: str) -> int:
    """Return a figure of this process in bytes, as Linux tells it.

    Not ``ru_maxrss``, which a process inherits from the one that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    """Do the task on stdin."""
    task = Task(**json.load(sys.stdin))
    quiet()
    result = run_crawler(task) if task.reader == "crawler" else run_peer(task)
    print(json.dumps(asdict(result)), flush=True)
    os._exit(0)  # what libraries do as they end is not measured


if __name__ == "__main__":
    main()
