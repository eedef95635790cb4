"""A crawl of a `HostileServer`, in a process of its own so that its memory can be measured.

    python -m tests.stores.hostile_crawl ORIGIN CATALOGUE ADAPTER NAME...

The last line of its output is the peak of its memory in bytes.
"""

from __future__ import annotations

import resource
import sys
from dataclasses import replace
from pathlib import Path

from crawler.driver.driver import Crawl
from crawler.driver.executor import InProcess
from crawler.job.crawl_job import CrawlJob
from crawler.stores import Adapter
from tests.stores.hostile import QUICK, options_of

SECONDS = 8.0
"""Of each request. The machine may be busy: a file that is good must not be too slow."""

PATIENCE = replace(QUICK, down_seconds=12.0)
"""Longer than two tries of those that answer nothing, while which no other succeeds: the store is not down."""


def main(origin: str, catalogue: str, adapter: Adapter, *names: str) -> None:
    keys = Path(catalogue).with_suffix(".txt")
    keys.write_text("".join(f"{origin}/{name}\n" for name in names))
    job = CrawlJob(
        roots=(f"@{keys}",),
        catalogue=catalogue,
        storage_options=options_of(adapter, SECONDS),
        adapter=adapter,
        patience=PATIENCE,
        concurrency=16,
    )
    Crawl(job, InProcess(), lambda _: None).run()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]  # the third is an adapter
