"""What happens to whole fleets: workers that are killed, that die of a file, that are short of memory; a full disk.

`tests.cluster.violence` does more of it for longer.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import Client

from crawler.catalogue.reader import Catalogue
from crawler.cluster import DaskExecutor, local_client
from crawler.cluster import quarantine as executor
from crawler.driver.driver import Crawl
from crawler.driver.executor import InProcess
from crawler.driver.report import Report
from crawler.errors import ClusterError
from crawler.job.crawl_job import CrawlJob
from crawler.job.settings import Settings
from tests.conftest import TREE_FILES, sibling
from tests.tables import parquet_files, same_tables

MANY = Settings(first_partition=4, growth=1, partition=4, commit_receipts=1)
"""Many partitions, and many commits of few files."""


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "catalogue"


@pytest.fixture
def undisturbed(tmp_path: Path, tree: Path) -> Catalogue:
    job = CrawlJob(roots=(str(tree),), catalogue=str(tmp_path / "undisturbed"), settings=MANY)
    Crawl(job, InProcess(), lambda _: None).run()
    return Catalogue(job.catalogue)


def as_undisturbed(location: Path, undisturbed: Catalogue) -> None:
    """Assert that a catalogue is as it should be, for those who read the folder's Parquet files, too."""
    found = Catalogue(str(location))
    same_tables(found, undisturbed)
    assert parquet_files(location) == {one.path for one in found.fragments}


class KillAWorker:
    """Ends one worker process after another as by ``kill -9``, each time that so many more files are walked."""

    def __init__(self, client: Client, files: int) -> None:
        self._client = client
        self._files = files
        self.killed = 0

    def __call__(self, report: Report) -> None:
        if report.files < (self.killed + 1) * self._files:
            return
        pids = [nanny.pid for nanny in self._client.cluster.workers.values() if nanny.pid]
        if pids:
            os.kill(pids[self.killed % len(pids)], signal.SIGKILL)
            self.killed += 1


def test_workers_that_are_killed_again_and_again(location: Path, tree: Path, undisturbed: Catalogue) -> None:
    with local_client(2) as client:
        kill = KillAWorker(client, 12)
        report = Crawl(
            CrawlJob(roots=(str(tree),), catalogue=str(location), settings=MANY), DaskExecutor(client), kill
        ).run()

    assert kill.killed >= 2
    assert report.files == TREE_FILES
    as_undisturbed(location, undisturbed)


def test_a_file_that_kills_its_workers_becomes_a_row(location: Path, tree: Path, undisturbed: Catalogue) -> None:
    poison = tree / "night2" / "exp025poison.fits"
    poison.write_bytes(sibling(5))
    with local_client(2, preload=["tests.cluster.poison"]) as client:
        job = CrawlJob(roots=(str(tree),), catalogue=str(location), settings=MANY)
        report = Crawl(job, DaskExecutor(client), lambda _: None).run()

    assert report.walked["crashed"] == 1
    assert report.files == TREE_FILES + 1
    rows = Catalogue(str(location)).sql("SELECT url, error, size FROM files WHERE status = 'crashed'").to_pylist()
    assert [(row["url"], row["size"]) for row in rows] == [(poison.as_uri(), poison.stat().st_size)]
    assert "worker processes" in rows[0]["error"]
    # It is not tried again, and when it is gone all is as if it had never been.
    assert crawled_again(location, tree).skipped == TREE_FILES + 1
    poison.unlink()
    assert crawled_again(location, tree).removed == 1
    same_tables(Catalogue(str(location)), undisturbed)


def crawled_again(location: Path, tree: Path) -> Report:
    return Crawl(
        CrawlJob(roots=(str(tree),), catalogue=str(location), settings=MANY), InProcess(), lambda _: None
    ).run()


def test_workers_that_die_of_everything_end_the_run(
    location: Path, tree: Path, undisturbed: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "LOSSES", 2)
    moved = shutil.move(tree, tree.with_name("poison"))
    with local_client(2, preload=["tests.cluster.poison"]) as client:
        job = CrawlJob(roots=(str(moved),), catalogue=str(location), settings=MANY)
        with pytest.raises(ClusterError, match="short of memory") as caught:
            Crawl(job, DaskExecutor(client), lambda _: None).run()

    assert str(caught.value).isprintable()
    assert Catalogue(str(location)).files.count_rows() == 0
    shutil.move(moved, tree)
    crawled_again(location, tree)
    as_undisturbed(location, undisturbed)


def test_workers_short_of_memory_are_begun_anew(
    location: Path, tree: Path, undisturbed: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(MANY, first_partition=30, partition=30)
    with local_client(1, preload=["tests.cluster.ballast"], memory_limit="1GiB") as client:
        job = CrawlJob(roots=(str(tree),), catalogue=str(location), settings=settings)
        report = Crawl(job, DaskExecutor(client), lambda _: None).run()

    assert report.files == TREE_FILES
    as_undisturbed(location, undisturbed)


def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(
    tmp_path: Path, tree: Path, undisturbed: Catalogue
) -> None:
    """On a disk of its own, which ends with the process that made it: what is on it is copied out."""
    disk, location = tmp_path / "disk", tmp_path / "copied"
    disk.mkdir()
    program = f"{sys.executable} -W error -c 'from crawler.cli import main; main()'"
    index = f"{program} index {tree} --catalogue {disk}/catalogue --workers 0"
    script = f"""
        mount -t tmpfs -o size=20k tmpfs {disk} || exit 77
        {index}; echo "first $?"
        mount -o remount,size=100m {disk}
        {index}; echo "second $?"
        cp -r {disk}/catalogue {location}
    """
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no disk can be mounted here: {done.stderr}")

    assert "first 1\n" in done.stdout, done.stdout + done.stderr
    assert "second 0\n" in done.stdout, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "No space left on device" in done.stderr
    same_tables(Catalogue(str(location)), undisturbed)
