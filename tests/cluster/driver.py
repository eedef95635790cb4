"""A crawl in a process of its own, which dies or waits at a point that is named: for tests that kill.

``python driver.py '{"roots": [...], "catalogue": ..., "executor": ..., "at": ..., "then": ...}'``

Prints the report as JSON, if it gets there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from typing import Any, NoReturn

from crawler import crawl, run
from crawler.catalogue import rewrite
from crawler.catalogue.log import CatalogueLog
from crawler.job import CrawlJob
from crawler.run import Crawl, InProcess, Report


def die(*_: object) -> NoReturn:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def calls(owner: Any, name: str, number: int, *, before: bool = False) -> None:
    """Die at the ``number``-th call of a function, before or after it did what it does."""
    function: Callable[..., Any] = getattr(owner, name)
    numbers = count(1)

    def call(*args: Any, **kwargs: Any) -> Any:
        now = next(numbers) == number
        if now and before:
            die()
        result = function(*args, **kwargs)
        if now:
            die()
        return result

    setattr(owner, name, call)


def arm(at: str, number: int) -> None:
    """Arrange for death at a point."""
    if at == "fragment":
        calls(crawl, "write_fragment", number)
    elif at == "create":
        calls(CatalogueLog, "create", number)
    elif at == "before commit":
        calls(run.DeltaTable if hasattr(run, "DeltaTable") else _transactions(), "create_write_transaction", number, before=True)
    elif at == "after commit":
        calls(_transactions(), "create_write_transaction", number)
    elif at == "rewritten fragment":
        calls(rewrite, "write_fragment", number)
    elif at == "merged":
        calls(run, "merge_small", number)
    elif at == "before deleting":
        # Of the merge: `delete_files` is asked before each plan, too, for files of a plan that failed.
        calls(run, "merge_small", 10**9)
        original = CatalogueLog.delete_files

        def delete_files(self: CatalogueLog, fragments: Any) -> None:
            fragments = list(fragments)
            if fragments:
                die()
            original(self, fragments)

        CatalogueLog.delete_files = delete_files  # type: ignore[method-assign]
    else:
        raise AssertionError(at)


def _transactions() -> Any:
    from crawler.catalogue import log  # noqa: PLC0415

    return log.DeltaTable
