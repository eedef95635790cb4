"""Many small files on clusters: does a file cost the same where there are ten times as many?"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.markdown import table
from tests.benchmarks.measure import REPOSITORY
from tests.benchmarks.nginx import nginx
from tests.benchmarks.parts.base import Counts, Section
from tests.conftest import sibling

WORKERS = 2
_FILES = (20_000, 200_000)
_DIFFERENT = 200  # contents; files that share one are links to it
_CRAWLER = (sys.executable, "-c", "from crawler.cli import main; main()")


def run(folder: Path, counts: Counts) -> Section:
    """Crawl buckets of small files on a cluster that is started for it, and on one that runs."""
    sizes = sorted({counts.at_most(size) for size in _FILES})
    for size in sizes:
        _write(folder, size)
    rows: list[list[object]] = []
    with nginx(folder / "buckets") as server, _scheduler() as address:
        for cluster, flags in (("local", ["--workers", str(WORKERS)]), ("scheduler", ["--scheduler", address])):
            crawls: dict[int, list[_Crawled]] = {size: [] for size in sizes}
            # Machines are not the same from minute to minute: the small bucket is crawled before and after the large.
            for number, size in enumerate([sizes[0], *sizes, sizes[0]]):
                crawls[size].append(_crawled(server.fast, size, folder / f"{cluster}{number}", flags))
            first = _usual(crawls[sizes[0]])
            for size in sizes:
                usual = _usual(crawls[size])
                ratio, runs = usual.rate / first.rate, len(crawls[size])
                rows.append([cluster, size, runs, usual.rate, ratio, usual.requests / size, usual.peak / 1e6])
    columns = ("cluster", "files", "runs", "files/s", "of the first", "requests a file", "driver's peak MB")
    text = f"""
{WORKERS} workers on this machine, which serves the files, too: started for the run, and at a scheduler that runs. The
driver of a local cluster is its scheduler as well. Of several runs the one of median speed is shown.

{table(columns, rows)}
"""
    return Section("Fleets", text)


def _write(folder: Path, count: int) -> None:
    contents = folder / "contents"
    contents.mkdir(exist_ok=True)
    for number in range(_DIFFERENT):
        (contents / f"{number}").write_bytes(sibling(number))
    bucket = folder / "buckets" / f"small{count}"
    for number in range(count):
        night = bucket / f"night{number // 1000:04}"
        if number % 1000 == 0:
            night.mkdir(parents=True)
        os.link(contents / f"{number % _DIFFERENT}", night / f"exp{number:07}.fits")


class _Crawled(NamedTuple):
    """A crawl: files a second, requests, and the most memory that its driver took, in bytes."""

    rate: float
    requests: int
    peak: int


def _usual(crawls: list[_Crawled]) -> _Crawled:
    return sorted(crawls)[len(crawls) // 2]


def _crawled(endpoint: str, size: int, catalogue: Path, flags: list[str]) -> _Crawled:
    """Run the command."""
    where = ["--anon", "--endpoint-url", endpoint, "--region", "us-east-1"]
    command = [*_CRAWLER, "index", f"s3://small{size}/", "-c", str(catalogue), "--json", *where, *flags]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        report = json.loads(process.stdout.read())
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or report["walked"] != {"ok": size}:
        raise SystemExit(f"the crawl of {size} files ended with {process.returncode}: {report}")
    return _Crawled(size / report["seconds"], report["requests"], used.ru_maxrss * 1024)


@contextmanager
def _scheduler() -> Iterator[str]:
    """Start a scheduler and its workers as processes of their own; give its address."""
    dask = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "PYTHONPATH": str(REPOSITORY)}, "text": True}
    here = ["--host", "127.0.0.1", "--no-dashboard"]
    started = [subprocess.Popen([*dask, "scheduler", "--port", "0", *here], stderr=subprocess.PIPE, **quiet)]  # type: ignore[call-overload]
    try:
        found = next(match for line in started[0].stderr if (match := re.search(r"Scheduler at:\s+(\S+)", line)))
        address = found[1]
        worker = [*dask, "worker", address, "--nthreads", "1", "--nworkers", str(WORKERS), *here]
        started.append(subprocess.Popen(worker, stderr=subprocess.DEVNULL, **quiet))  # type: ignore[call-overload]
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()
        started[0].stderr.close()
