"""What a user sees of a cluster during a run: its dashboard, Dask's performance report, warnings about workers."""

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
"""Seconds without workers, while partitions wait, before a warning is logged."""

_POLL_SECONDS = 5.0
"""Seconds between two checks for workers."""

_DASHBOARD_SECONDS = 2.0
"""Maximum wait, in seconds, for an answer of the dashboard."""


def dashboard_of(client: Client) -> str | None:
    """Return the address of a cluster's dashboard, or None if the cluster has none.

    Dask has an address for every scheduler, even if bokeh is missing and no page has plots.
    """
    link: str | None = client.dashboard_link
    if not link:
        return None
    # Without a proxy, since schedulers are in the local network. If nothing answers, the user's browser may still have
    # access to the address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urljoin(link, "individual-plots.json"), timeout=_DASHBOARD_SECONDS) as plots:
            return link if json.load(plots) else None
    except (OSError, ValueError):
        return link


def check_report(path: str | None) -> None:
    """Check that the performance report can be written, before a cluster is started.

    Raises
    ------
    UsageError
        bokeh is not installed, or the file cannot be written.
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
def performance_report(client: Client, path: str | None, tell: Callable[[str], None]) -> Iterator[None]:
    """Write Dask's performance report of the time inside the ``with`` block, as HTML.

    Parameters
    ----------
    client : distributed.Client
    path : str or None
        The file to write; None for no report.
    tell : callable
        Called with one line if the report cannot be written at the end. The crawl is complete all the same.

    Raises
    ------
    ClusterError
        The scheduler cannot make the report, because bokeh is not installed there.
    """
    if path is None:
        yield
        return
    started = time.time()
    try:
        _render_report(client, started)  # from the first call on, the scheduler records tasks
    except Exception as error:  # any error of the scheduler, which may lack packages
        reason = f"the scheduler cannot make the report ({one_line(str(error))})"
        raise ClusterError(f"--performance-report: {reason}: install bokeh there") from None
    try:
        yield
    finally:
        try:
            Path(path).write_text(_render_report(client, started), encoding="utf-8")
        except Exception as error:
            tell(f"the performance report cannot be written: {one_line(str(error) or type(error).__name__)}")


def _render_report(client: Client, started: float) -> str:
    """Return Dask's report since a time. Dask's own context manager would add the source code of the caller."""
    text: str = client.sync(client.scheduler.performance_report, start=started, last_count=0, code="", mode=None)
    return text


@contextmanager
def warn_without_workers(
    client: Client,
    tell: Callable[[str], None],
    seconds: float = NO_WORKERS_SECONDS,
    poll_seconds: float = _POLL_SECONDS,
) -> Iterator[None]:
    """Warn when partitions wait and no worker is connected. Each such period has one warning.

    Parameters
    ----------
    client : distributed.Client
    tell : callable
        Called with one line, from another thread.
    seconds : float
        Length of the period before the warning.
    poll_seconds : float
        Interval between two checks.
    """
    ended = threading.Event()
    address = one_line(client.scheduler.address)
    line = f"no workers at {address} for {seconds:.0f} s: the crawl waits until workers connect"

    def watch() -> None:
        since: float | None = time.monotonic()
        warned = False
        while not ended.wait(poll_seconds):
            try:
                waiting = bool(client.futures) and not client.nthreads()
            except Exception:  # the connection to the cluster is lost; the crawl raises its own error
                return
            if not waiting:
                since, warned = None, False
            elif since is None:
                since = time.monotonic()
            elif not warned and time.monotonic() - since >= seconds:
                warned = True
                tell(line)

    thread = threading.Thread(target=watch, name="workers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_POLL_SECONDS)
