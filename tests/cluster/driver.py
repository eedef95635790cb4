"""A crawl in a process of its own, which dies or waits at a point that is named: for tests that kill.

Takes one argument, JSON of ``roots``, ``catalogue``, ``workers`` (0 for none), ``at`` (see `POINTS`; or ``wait``, to
print a line after the first receipt and go on once SIGINT came), ``number``. Prints the report as JSON, if it gets
there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

from crawler import commits, crawl, run
from crawler.catalogue import log, rewrite
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


def arm(at: str, number: int) -> None:
    """Have this process end as by ``kill -9`` at a point."""
    owner, name, before = POINTS[at]
    function: Callable[..., Any] = getattr(owner, name)
    calls = count(1)

    def call(*args: Any, **kwargs: Any) -> Any:
        now = next(calls) == number
        if now and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, call)


def main() -> None:
    """Crawl."""
    told = json.loads(sys.argv[1])
    # Many partitions and many commits of few files.
    settings = Settings(first_partition=5, growth=1, partition=5, commit_receipts=1)
    rewrite.MERGE_FROM = 2
    job = CrawlJob(roots=tuple(told["roots"]), catalogue=told["catalogue"], settings=settings)
    if told["at"] in POINTS:
        arm(told["at"], told["number"])

    waited = False

    def progress(report: Report) -> None:
        nonlocal waited
        if told["at"] == "wait" and report.files and not waited:
            waited = True
            print(WALKING, flush=True)
            assert crawl_of_job._stop.wait(60), "no signal came"

    if told["workers"]:
        with local_client(told["workers"]) as client:
            crawl_of_job = Crawl(job, DaskExecutor(client), progress)
            report = crawl_of_job.run()
    else:
        crawl_of_job = Crawl(job, InProcess(), progress)
        report = crawl_of_job.run()
    print(json.dumps({"files": report.files, "interrupted": report.interrupted, "version": report.version}))


if __name__ == "__main__":
    main()
