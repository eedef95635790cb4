"""More of what `test_violence` and `test_run` do, at random: ``python -m tests.cluster.violence [FILES] [SEED]``.

Kills the driver at ten random moments, the workers every two seconds, the scheduler three times; each time the same
command again, and the tables are those of a run that nothing disturbed. Prints a line for each.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from crawler.catalogue.reader import Catalogue
from crawler.cluster import DaskExecutor, local_client
from crawler.driver.driver import Crawl
from crawler.driver.executor import InProcess
from crawler.errors import ClusterError
from crawler.job.crawl_job import CrawlJob
from tests.cluster.test_external import Cluster, remote_client
from tests.conftest import sibling
from tests.tables import same_tables

_COMMAND = (sys.executable, "-c", "from crawler.cli import main; main()")
_CONTENTS = 50


def main() -> None:
    """Run all of it."""
    files, seed = (int(word) for word in (*sys.argv[1:], *("2000", "1")[len(sys.argv) - 1 :]))
    drawn = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        root = folder / "files"
        root.mkdir()
        contents = [sibling(number) for number in range(_CONTENTS)]
        for number in range(files):
            (root / f"exp{number:06}.fits").write_bytes(contents[number % _CONTENTS])
        undisturbed = crawled(root, folder / "undisturbed")
        for number in range(10):
            driver_killed(root, folder / f"driver{number}", undisturbed, drawn, workers=2 * (number % 2))
        workers_killed(root, folder / "workers", undisturbed, drawn)
        for number in range(3):
            scheduler_killed(root, folder / f"scheduler{number}", undisturbed, drawn)


def crawled(root: Path, location: Path) -> Catalogue:
    """Crawl in this process, to the end."""
    Crawl(CrawlJob(roots=(str(root),), catalogue=str(location)), InProcess(), lambda _: None).run()
    return Catalogue(str(location))


def as_undisturbed(what: str, location: Path, root: Path, undisturbed: Catalogue) -> None:
    """Crawl again, and compare."""
    before = Catalogue(str(location)).files.count_rows() if (location / "_delta_log").exists() else 0
    same_tables(crawled(root, location), undisturbed)
    print(f"{what}: {before} files were there; after the same again all is as undisturbed", flush=True)


def driver_killed(root: Path, location: Path, undisturbed: Catalogue, drawn: random.Random, workers: int) -> None:
    """Kill the command somewhere between its start and its end."""
    command = [*_COMMAND, "index", str(root), "-c", str(location), "--workers", str(workers)]
    seconds = drawn.uniform(1.0, 4.0 + 4.0 * workers)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            process.communicate(timeout=seconds)
            what = "ended before it was killed"
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            what = "killed"
    as_undisturbed(f"driver, {workers} workers, {what} after {seconds:.1f} s", location, root, undisturbed)


def workers_killed(root: Path, location: Path, undisturbed: Catalogue, drawn: random.Random) -> None:
    """Kill a worker every two seconds."""
    over = threading.Event()
    killed = 0
    with local_client(2) as client:

        def kill() -> None:
            nonlocal killed
            while not over.wait(2.0):
                if pids := [nanny.pid for nanny in client.cluster.workers.values() if nanny.pid]:
                    os.kill(drawn.choice(pids), signal.SIGKILL)
                    killed += 1

        thread = threading.Thread(target=kill)
        thread.start()
        try:
            job = CrawlJob(roots=(str(root),), catalogue=str(location))
            Crawl(job, DaskExecutor(client), lambda _: time.sleep(0.05)).run()
        finally:
            over.set()
            thread.join()
    as_undisturbed(f"workers, {killed} killed", location, root, undisturbed)


def scheduler_killed(root: Path, location: Path, undisturbed: Catalogue, drawn: random.Random) -> None:
    """Kill the scheduler somewhere in the run."""
    with Cluster() as cluster, remote_client(cluster.address) as client:
        client.wait_for_workers(2, timeout=60)
        timer = threading.Timer(drawn.uniform(0.2, 2.0), cluster.scheduler.kill)
        timer.start()
        what = "ended before it was killed"
        try:
            job = CrawlJob(roots=(str(root),), catalogue=str(location))
            Crawl(job, DaskExecutor(client), lambda _: None).run()
        except ClusterError as error:
            what = str(error)
        timer.join()
    as_undisturbed(f"scheduler, {what}", location, root, undisturbed)


if __name__ == "__main__":
    main()
