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
_WARM = 1_000
_DIFFERENT = 200  # contents; files that share one are links to it


def run(folder: Path, counts: Counts) -> Section:
    """Crawl buckets of small files on a cluster that is started for it, and on one that runs."""
    sizes = sorted({counts.at_most(size) for size in _FILES})
    for size in {_WARM, *sizes}:
        _write(folder, size)
    rows: list[list[object]] = []
    with nginx(folder / "buckets") as server, _scheduler() as address:
        for cluster, scheduler in (("local", None), ("scheduler", address)):
            crawls: dict[int, list[_Crawled]] = {size: [] for size in sizes}
            # Machines are not the same from minute to minute: the small bucket is crawled before and after the large.
            for size in (sizes[0], *sizes, sizes[0]):
                crawls[size].append(_crawled(server.fast, size, scheduler))
            first = _usual(crawls[sizes[0]])
            for size in sizes:
                usual = _usual(crawls[size])
                ratio, runs = usual.rate / first.rate, len(crawls[size])
                shown = [usual.begin, usual.rate, ratio, usual.requests / size, usual.peak / 1e6]
                rows.append([cluster, size, runs, *shown])
    columns = ("cluster", "files", "runs", "begin s", "files/s", "of the first", "requests a file", "driver's peak MB")
    text = f"""
{WORKERS} workers on this machine, which serves the files, too: started for the run, and at a scheduler that runs. The
driver of a local cluster is its scheduler as well. Each driver crawls {_WARM:,} other files first, which is the
begin: what is loaded once is not measured again. Of several runs the one of median speed is shown.

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
    """A crawl: seconds of the one before it, files a second, requests, and the most memory of its driver, in bytes."""

    begin: float
    rate: float
    requests: int
    peak: int


def _usual(crawls: list[_Crawled]) -> _Crawled:
    return sorted(crawls, key=lambda crawl: crawl.rate)[len(crawls) // 2]


def _crawled(endpoint: str, size: int, scheduler: str | None) -> _Crawled:
    """Crawl a bucket in a process of its own."""
    buckets = [f"small{_WARM}", f"small{size}"]
    task = {"endpoint": endpoint, "buckets": buckets, "workers": WORKERS, "scheduler": scheduler}
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tests.benchmarks.driver"]
    ended = subprocess.run(
        command, input=json.dumps(task), env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(ended.stdout)
    warm, crawl = found["crawls"]
    if crawl["walked"] != {"ok": size}:
        raise SystemExit(f"not all of {size} files are good: {crawl}")
    return _Crawled(warm["seconds"], size / crawl["seconds"], crawl["requests"], found["peak"])


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
