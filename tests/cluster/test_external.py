"""A cluster that others started: a scheduler and two workers, processes of their own, any of which may die."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from crawler.catalogue.reader import Catalogue
from crawler.cluster import DaskExecutor, remote_client
from crawler.driver.driver import Crawl
from crawler.driver.executor import Executor, InProcess
from crawler.driver.report import Report
from crawler.errors import ClusterError
from crawler.job.crawl_job import CrawlJob
from crawler.job.settings import Settings
from tests.conftest import TREE_FILES
from tests.tables import same_tables

ROOT = Path(__file__).parents[2]
LOST_SECONDS = 60.0
"""In which a driver must have understood that its scheduler is gone."""


MANY = Settings(first_partition=2, growth=1, partition=2, commit_receipts=1)
"""Many partitions, and many commits of few files."""


class Cluster:
    """``dask scheduler`` and two ``dask worker`` on 127.0.0.1, from ``with`` to its end.

    Attributes
    ----------
    address : str
        Of the scheduler, as it printed it.
    scheduler : subprocess.Popen
    workers : list of subprocess.Popen
    """

    def __enter__(self) -> Cluster:
        self._threads: list[threading.Thread] = []
        self.workers: list[subprocess.Popen[str]] = []
        self.scheduler = self._started(subprocess.PIPE, "scheduler", "--port", "0")
        try:
            self.address = self._said(self.scheduler, r"Scheduler at:\s+(tcp://\S+)")
            for _ in range(2):
                # Without a nanny: who is killed stays dead.
                words = ("worker", self.address, "--nthreads", "1", "--no-nanny", "--death-timeout", "60")
                self.workers.append(self._started(subprocess.DEVNULL, *words))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()
        for thread in self._threads:
            thread.join()
        assert self.scheduler.stderr is not None
        self.scheduler.stderr.close()

    def _started(self, stderr: int, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "dask", *words, "--host", "127.0.0.1", "--no-dashboard"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, stderr=stderr, stdout=subprocess.DEVNULL, text=True, env=environment)

    def _said(self, process: subprocess.Popen[str], pattern: str) -> str:
        """Wait for a line, and leave a thread that reads what follows, so that the process never waits for it."""
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(pattern, line):
                self._threads.append(threading.Thread(target=process.stderr.read))
                self._threads[-1].start()
                return found[1]
        raise AssertionError(f"it ended: {''.join(lines)}")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as started:
        yield started


def ready(client: Client) -> Executor:
    client.wait_for_workers(2, timeout=60)
    return DaskExecutor(client)


def job(location: Path, tree: Path) -> CrawlJob:
    return CrawlJob(roots=(str(tree),), catalogue=str(location), settings=MANY)


def in_process(location: Path, tree: Path) -> Catalogue:
    """Return the catalogue after a crawl that nothing disturbs."""
    Crawl(job(location, tree), InProcess(), lambda _: None).run()
    return Catalogue(str(location))


class KillAtFirst:
    """Ends a process as by ``kill -9`` when the first partition is committed, and the others are not."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.walked = 0

    def __call__(self, report: Report) -> None:
        if report.version and report.files and not self.walked:
            self.walked = report.files
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


def test_gives_the_same_tables_as_in_process(tmp_path: Path, tree: Path, cluster: Cluster) -> None:
    location = tmp_path / "catalogue"
    with remote_client(cluster.address) as client:
        report = Crawl(job(location, tree), ready(client), lambda _: None).run()
        again = Crawl(job(location, tree), DaskExecutor(client), lambda _: None).run()

    assert (report.files, again.skipped) == (TREE_FILES, TREE_FILES)
    assert cluster.scheduler.poll() is None  # it is not ours to stop
    assert [worker.poll() for worker in cluster.workers] == [None, None]
    same_tables(Catalogue(str(location)), in_process(tmp_path / "undisturbed", tree))


def test_a_worker_that_is_killed_costs_nothing(tmp_path: Path, tree: Path, cluster: Cluster) -> None:
    location = tmp_path / "catalogue"
    kill = KillAtFirst(cluster.workers[0])
    with remote_client(cluster.address) as client:
        report = Crawl(job(location, tree), ready(client), kill).run()

    assert 0 < kill.walked < TREE_FILES
    assert report.files == TREE_FILES
    assert [worker.poll() for worker in cluster.workers] == [-signal.SIGKILL, None]
    same_tables(Catalogue(str(location)), in_process(tmp_path / "undisturbed", tree))


def test_a_scheduler_that_is_killed_is_an_error_and_the_crawl_can_go_on(
    tmp_path: Path, tree: Path, cluster: Cluster
) -> None:
    location = tmp_path / "catalogue"
    kill = KillAtFirst(cluster.scheduler)
    with remote_client(cluster.address) as client:
        executor = ready(client)
        begun = time.monotonic()
        with pytest.raises(ClusterError) as caught:
            Crawl(job(location, tree), executor, kill).run()
    assert time.monotonic() - begun < LOST_SECONDS
    assert str(caught.value).isprintable()
    assert 0 < kill.walked < TREE_FILES
    assert kill.walked <= Catalogue(str(location)).files.count_rows() < TREE_FILES

    # What was walked and committed is kept, and not walked again.
    same_tables(in_process(location, tree), in_process(tmp_path / "undisturbed", tree))


def test_nobody_there(cluster: Cluster) -> None:
    cluster.scheduler.kill()
    cluster.scheduler.wait()
    begun = time.monotonic()

    with pytest.raises(ClusterError, match="no Dask scheduler answers") as caught, remote_client(cluster.address):
        pass
    assert str(caught.value).isprintable()
    assert time.monotonic() - begun < LOST_SECONDS
