"""A crawl in a process of its own, which dies or waits at a point that is named: for tests that kill.

Takes one argument, JSON of ``roots``, ``catalogue``, ``at`` (see `POINTS`; or ``wait``, to print a line after the first
receipt and go on once SIGINT came) and, where they differ from the default, ``number`` (of the call at which it dies),
``workers`` (none), ``listed`` (whether it waits for the end of the listing before it dies) and ``settings``. Prints the
report as JSON, if it gets there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from itertools import count
from typing import Any

from crawler import commits, crawl, run
from crawler.catalogue import log, rewrite
from crawler.catalogue.kept import ListingWriter
from crawler.cluster import DaskExecutor, local_client
from crawler.executors import InProcess
from crawler.job import CrawlJob
from crawler.report import Report
from crawler.run import Crawl
from crawler.settings import Settings

POINTS: dict[str, tuple[Any, str, bool]] = {
    "before create": (log.DeltaTable, "create", True),
    "after create": (log.DeltaTable, "create", False),
    "before fragment": (crawl, "write_fragment", True),
    "after fragment": (crawl, "write_fragment", False),
    "before commit": (log.DeltaTable, "create_write_transaction", True),
    "after commit": (log.DeltaTable, "create_write_transaction", False),
    "before rewritten fragment": (rewrite, "write_fragment", True),
    "after rewritten fragment": (rewrite, "write_fragment", False),
    "before merge": (commits, "merge_small", True),
    "after merge": (commits, "merge_small", False),
    "before drop": (commits, "without_repeats", True),
    "after drop": (commits, "without_repeats", False),
    "before delete": (run.CatalogueLog, "delete_files", True),
    "after delete": (run.CatalogueLog, "delete_files", False),
}
"""Where a run may die: at the n-th call of a function, before or after it did what it does."""

WALKING = "walking"


def arm(at: str, number: int, listed: bool) -> None:
    """Have this process end as by ``kill -9`` at a point."""
    owner, name, before = POINTS[at]
    function: Callable[..., Any] = getattr(owner, name)
    calls = count(1)
    ended = ListingWriter.end

    def end(*args: Any, **kwargs: Any) -> Any:
        result = ended(*args, **kwargs)
        listing_ended.set()
        return result

    def die() -> None:
        assert not listed or listing_ended.wait(60), "the listing did not end"
        os.kill(os.getpid(), signal.SIGKILL)

    def call(*args: Any, **kwargs: Any) -> Any:
        now = next(calls) == number
        if now and before:
            die()
        result = function(*args, **kwargs)
        if now:
            die()
        return result

    listing_ended = threading.Event()
    setattr(ListingWriter, "end", end)  # noqa: B010 - a method may not be assigned to
    setattr(owner, name, call)


def main() -> None:
    """Crawl."""
    told = json.loads(sys.argv[1])
    # Many partitions and many commits of few files.
    small = {"first_partition": 5, "growth": 1, "partition": 5, "commit_receipts": 1}
    settings = Settings(**{**small, **told.get("settings", {})})
    rewrite.MERGE_FROM = 2
    job = CrawlJob(roots=tuple(told["roots"]), catalogue=told["catalogue"], settings=settings)
    if told["at"] in POINTS:
        arm(told["at"], told.get("number", 1), told.get("listed", False))

    waited = False

    def progress(report: Report) -> None:
        nonlocal waited
        if told["at"] == "wait" and report.files and not waited:
            waited = True
            print(WALKING, flush=True)
            assert crawl_of_job._stop.wait(60), "no signal came"

    if workers := told.get("workers", 0):
        with local_client(workers) as client:
            crawl_of_job = Crawl(job, DaskExecutor(client), progress)
            report = crawl_of_job.run()
    else:
        crawl_of_job = Crawl(job, InProcess(), progress)
        report = crawl_of_job.run()
    print(json.dumps({"files": report.files, "interrupted": report.interrupted, "version": report.version}))


if __name__ == "__main__":
    main()
