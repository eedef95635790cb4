"""`crawler.index` in a process of its own, which gets a signal at a point that is named: for tests that kill.

Takes one argument, JSON of

- ``roots``, ``catalogue``, ``workers`` (0 by default), or ``address`` of a scheduler;
- ``at``: one of `POINTS`; or ``wait``, to print `WALKING` after the first receipt and go on once a signal came;
- ``number``: the signal comes at this call of the point, the first one by default;
- ``listed``: whether the point waits for the end of the listing before the signal comes;
- ``signal``: its name, ``SIGKILL`` by default;
- ``partition``: files of a partition; ``settings`` and ``job``: attributes of `Settings` and of the job;
- ``handover``: `deadline.HANDOVER_SECONDS`.

Prints counts of the report as JSON, if it gets there, ``raised`` being true where KeyboardInterrupt brought it. With an
address it then waits for a line on standard input, indexes again with the same client, and prints the same again.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import distributed

from crawler import api
from crawler.catalogue import log
from crawler.catalogue import merge as rewrite
from crawler.catalogue.records.saved_listing import ListingWriter
from crawler.cluster import remote_client
from crawler.driver import commits
from crawler.driver import driver as run
from crawler.driver.report import Interrupted, Report
from crawler.job.crawl_job import CrawlJob
from crawler.job.settings import Settings
from crawler.worker import deadline
from crawler.worker import partition as crawl

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
    "before nanny": (distributed.Nanny, "start_unsafe", True),
    "before client": (distributed.Client, "__init__", True),
    "before close": (distributed.LocalCluster, "close", True),
}
"""Where a run may get a signal: at the n-th call of a function, before or after it did what it does."""

WALKING = "walking"


def arm(at: str, number: int, name_of_signal: str, listed: bool) -> None:
    """Have this process get a signal at a point."""
    owner, name, before = POINTS[at]
    function: Callable[..., Any] = getattr(owner, name)
    calls = count(1)
    ended = ListingWriter.end
    listing_ended = threading.Event()

    def end(*args: Any, **kwargs: Any) -> Any:
        result = ended(*args, **kwargs)
        listing_ended.set()
        return result

    def send() -> None:
        assert not listed or listing_ended.wait(60), "the listing did not end"
        os.kill(os.getpid(), signal.Signals[name_of_signal])

    def call(*args: Any, **kwargs: Any) -> Any:
        now = next(calls) == number
        if now and before:
            send()
        result = function(*args, **kwargs)
        if now:
            send()
        return result

    setattr(ListingWriter, "end", end)  # noqa: B010 - a method may not be assigned to
    setattr(owner, name, call)


def main() -> None:
    """Crawl."""
    told = json.loads(sys.argv[1])
    # Many partitions and many commits of few files.
    size = told.get("partition", 5)
    small = {"first_partition": size, "growth": 1, "partition": size, "commit_receipts": 1}
    settings = Settings(**{**small, **told.get("settings", {})})
    build = api.build_job

    def build_job(*args: Any, **kwargs: Any) -> CrawlJob:
        return replace(build(*args, **kwargs), settings=settings, **told.get("job", {}))

    api.build_job = build_job
    rewrite.MERGE_FROM = 2
    deadline.HANDOVER_SECONDS = told.get("handover", deadline.HANDOVER_SECONDS)
    if told["at"] in POINTS:
        arm(told["at"], told.get("number", 1), told.get("signal", "SIGKILL"), told.get("listed", False))
    if "address" not in told:
        print(index(told, workers=told.get("workers", 0)))
        return
    with remote_client(told["address"]) as client:
        print(index(told, client=client), flush=True)
        sys.stdin.readline()
        print(index(told, client=client))


def index(told: dict[str, Any], **where: Any) -> str:
    """Index, and return what came of it as JSON."""
    waited = False

    def progress(report: Report) -> None:
        nonlocal waited
        if told["at"] == "wait" and report.files and not waited:
            waited = True
            print(WALKING, flush=True)
            while report.stopping is None:
                time.sleep(0.01)

    raised = False
    try:
        report = api.index(told["roots"], told["catalogue"], progress=progress, **where)
    except Interrupted as interrupted:
        raised, report = True, interrupted.report
    except KeyboardInterrupt:
        return json.dumps({"raised": True})
    return json.dumps(
        {"files": report.files, "interrupted": report.interrupted, "version": report.version, "raised": raised}
    )


if __name__ == "__main__":
    main()
