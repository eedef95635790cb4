"""What people want to see of a cluster at work: its dashboard, Dask's report, and whether anybody works."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urljoin

from distributed import Client

from crawler.errors import ClusterError, UsageError
from crawler.stores.urls import one_line

NO_WORKERS_SECONDS = 60.0
"""For how long nobody may be there to take what waits before that is told."""

_LOOK_SECONDS = 5.0
_DASHBOARD_SECONDS = 2.0


def dashboard_of(client: Client) -> str | None:
    """Return the address of a cluster's dashboard; None where there is none.

    Dask names one for every scheduler, whether bokeh draws something there or not.
    """
    link: str | None = client.dashboard_link
    if not link:
        return None
    # Not by a proxy: schedulers are near. And what cannot be seen from here may be seen from elsewhere.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urljoin(link, "individual-plots.json"), timeout=_DASHBOARD_SECONDS) as plots:
            return link if json.load(plots) else None
    except (OSError, ValueError):
        return link


def check_report(path: str | None) -> None:
    """See that a report can be written, before anything is begun for it.

    Raises
    ------
    UsageError
        It cannot: bokeh is missing, or the folder is.
    """
    if path is None:
        return
    if find_spec("bokeh") is None:
        raise UsageError("--performance-report needs bokeh: pip install bokeh")
    try:
        Path(path).write_bytes(b"")
    except OSError as error:
        raise UsageError(f"--performance-report {one_line(path)}: {error.strerror}") from None


@contextmanager
def reported(client: Client, path: str | None, tell: Callable[[str], None]) -> Iterator[None]:
    """Have Dask write its report of what the cluster does meanwhile, as HTML, where a path is given.

    Parameters
    ----------
    client : distributed.Client
    path : str or None
    tell : callable
        Given a line where the report could not be written in the end: the crawl is none the worse for it.

    Raises
    ------
    ClusterError
        The scheduler cannot make it: bokeh is missing there.
    """
    if path is None:
        yield
        return
    begun = time.time()
    try:
        _made(client, begun)  # from now on the scheduler takes note of tasks
    except Exception as error:  # of Dask, or of what the scheduler lacks
        raise ClusterError(f"--performance-report: the scheduler cannot make it: {one_line(str(error))}") from None
    try:
        yield
    finally:
        try:
            Path(path).write_text(_made(client, begun), encoding="utf-8")
        except Exception as error:
            tell(f"the performance report is not written: {one_line(str(error) or type(error).__name__)}")


def _made(client: Client, begun: float) -> str:
    """Return Dask's report since a time. Its own context manager would add the source of whoever calls it."""
    text: str = client.sync(client.scheduler.performance_report, start=begun, last_count=0, code="", mode=None)
    return text


@contextmanager
def told_of_no_workers(client: Client, tell: Callable[[str], None]) -> Iterator[None]:
    """Tell, once each time, where partitions have waited for `NO_WORKERS_SECONDS` and no worker is there.

    Parameters
    ----------
    client : distributed.Client
    tell : callable
        Given a line, from another thread.
    """
    ended = threading.Event()
    address = one_line(client.scheduler.address)
    line = f"waiting for workers: there have been none at {address} for {NO_WORKERS_SECONDS:.0f} s"

    def watch() -> None:
        since: float | None = time.monotonic()
        told = False
        while not ended.wait(_LOOK_SECONDS):
            try:
                alone = bool(client.futures) and not client.nthreads()
            except Exception:  # the cluster is lost: the crawl says so
                return
            if not alone:
                since, told = None, False
            elif since is None:
                since = time.monotonic()
            elif not told and time.monotonic() - since >= NO_WORKERS_SECONDS:
                told = True
                tell(line)

    thread = threading.Thread(target=watch, name="workers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_LOOK_SECONDS)
