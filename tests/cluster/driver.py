"""`crawler.index` in a process of its own, which gets a signal at a point that is named: for tests that kill.

Takes one argument, JSON of

- ``roots``, ``catalogue``, ``workers`` (0 for none), or ``address`` of a scheduler;
- ``at``: one of `POINTS`; or ``wait``, to print `WALKING` after the first receipt and go on once a signal came;
- ``number``: the signal comes at this call of the point;
- ``signal``: its name, ``SIGKILL`` by default;
- ``partition``: files of a partition; ``job``: attributes of the job, ``handover``: `executors.HANDOVER_SECONDS`.

Prints counts of the report as JSON, if it gets there, ``raised`` being true where KeyboardInterrupt brought it. With an
address it then waits for a line on standard input, indexes again with the same client, and prints the same again.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import distributed

from crawler import api, commits, crawl, executors, run
from crawler.catalogue import log, rewrite
from crawler.cluster import remote_client
from crawler.report import Interrupted, Report

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


def arm(at: str, number: int, name_of_signal: str) -> None:
    """Have this process get a signal at a point."""
    owner, name, before = POINTS[at]
    function: Callable[..., Any] = getattr(owner, name)
    calls = count(1)

    def call(*args: Any, **kwargs: Any) -> Any:
        now = next(calls) == number
        if now and before:
            os.kill(os.getpid(), signal.Signals[name_of_signal])
        result = function(*args, **kwargs)
        if now:
            os.kill(os.getpid(), signal.Signals[name_of_signal])
        return result

    setattr(owner, name, call)


def main() -> None:
    """Crawl."""
    told = json.loads(sys.argv[1])
    # Many partitions and many commits of few files.
    size = told.get("partition", 5)
    run.FIRST_PARTITION, run.GROWTH, run.PARTITION, run.COMMIT_RECEIPTS = size, 1, size, 1
    rewrite.MERGE_FROM = 2
    build_job = api.build_job
    api.build_job = lambda *args, **kwargs: replace(build_job(*args, **kwargs), **told.get("job", {}))
    executors.HANDOVER_SECONDS = told.get("handover", executors.HANDOVER_SECONDS)
    if told["at"] in POINTS:
        arm(told["at"], told["number"], told.get("signal", "SIGKILL"))
    if "address" not in told:
        print(index(told, workers=told["workers"]))
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
