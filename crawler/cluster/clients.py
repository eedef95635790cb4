"""Clients of Dask clusters: of one that is started on this machine, and of one that runs elsewhere."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from multiprocessing import resource_tracker
from typing import Any

import dask
from distributed import Client, LocalCluster, Security, SpecCluster
from distributed.comm import connect
from distributed.utils import LoopRunner

from crawler.cluster.tls import Tls, tls_fault
from crawler.errors import ClusterError
from crawler.stores.urls import one_line

_CONNECT = 10
"""Seconds in which a scheduler must answer."""

_WORKER_PROCESS = "Dask Worker process"
"""What Dask calls processes of workers on this machine."""

_DASHBOARD = 8787
"""Port where people look for Dask's dashboard."""

_LOCAL = {
    # After so long another worker takes the place of one that could not be begun again. Not sooner: one that is being
    # begun for the second time would be ended in the middle of it.
    "distributed.deploy.lost-worker-timeout": "60s",
    # After how many more deaths of workers a partition is cut into pieces: here workers die of what they are given.
    "distributed.scheduler.allowed-failures": 1,
}


@contextmanager
def local_client(workers: int | None = None, *, dashboard: bool = False, **options: Any) -> Iterator[Client]:
    """Start a cluster on this machine, on loopback only, and stop it at the end.

    Parameters
    ----------
    workers : int, optional
        Processes; one a core by default. Each crawls one partition at a time: its walks are threads of their own.
        There are always so many: who dies is begun again.
    dashboard : bool
        Serve Dask's dashboard, on loopback too, where bokeh is installed, which draws it.
    **options
        More of `distributed.LocalCluster`.
    """
    count = workers or os.cpu_count() or 1
    drawn = dashboard and find_spec("bokeh") is not None
    given: dict[str, Any] = {
        "n_workers": count,
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": None,
        # Without a dashboard, too, the scheduler serves HTTP, and warns where its usual port is taken.
        "scheduler_kwargs": {
            "dashboard": drawn,
            "dashboard_address": f"127.0.0.1:{_free(_DASHBOARD) if drawn else 0}",
        },
        # What a worker loses on its way out is not news to who reads the terminal: what comes of it is told by the
        # crawl.
        "silence_logs": logging.CRITICAL,
        # Loaded as workers begin, all of them at once, and not by the first partition.
        "preload": ["crawler.cluster.underway"],
        **options,
    }
    with (
        dask.config.set(_LOCAL),
        loop_deaf_to_ctrl_c() as loop,
        started(LocalCluster) as cluster,
    ):
        cluster.__init__(**given, loop=loop)
        with client_of(cluster) as client:
            cluster.adapt(minimum=count, maximum=count)
            yield client


def _free(port: int) -> int:
    """Return a port of loopback, or 0, for any other, where somebody has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port


@contextmanager
def started(kind: Any) -> Iterator[Any]:
    """Give a cluster before it is started, and stop it at the end, however far it came until somebody interrupted."""
    cluster = kind.__new__(kind)
    try:
        yield cluster
    except KeyboardInterrupt:
        # Workers whose start was interrupted fail. Nobody waits for that, and asyncio logs it whenever it finds out.
        logging.getLogger("asyncio").addFilter(_is_not_of_a_start)
        raise
    finally:
        # What came of the crawl matters more than any of this.
        try:
            cluster.close()
        except Exception:  # as Dask's own where workers never began: it asserts that they ended, and stops there
            with suppress(Exception):
                cluster.sync(super(SpecCluster, cluster)._close)


def _is_not_of_a_start(record: logging.LogRecord) -> bool:
    """Tell whether a line of a log is not about a worker that failed to start."""
    return not (record.exc_info and "failed to start" in str(record.exc_info[1]))


@contextmanager
def client_of(cluster: Any, **options: Any) -> Iterator[Client]:
    """Give a client of a cluster, or of an address; what Dask says of a scheduler that is lost, the crawl says."""
    logger = logging.getLogger("distributed.client")
    before = logger.level
    with _ctrl_c_later():  # a client that is half connected cannot be closed
        client = Client(cluster, set_as_default=False, **options)
    logger.setLevel(logging.CRITICAL)
    try:
        with client:
            yield client
    finally:
        logger.setLevel(before)


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Hold Ctrl-C back for a moment."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def loop_deaf_to_ctrl_c() -> Iterator[Any]:
    """Run an event loop in a thread that leaves Ctrl-C to the driver, as do all processes that are started from it.

    A terminal sends SIGINT to every process of the group, from their very beginning. The driver then asks the workers
    for what they have. Threads and processes inherit which signals are held back from those who start them.
    """
    # It would let the signal through again in the thread that happens to need it first.
    resource_tracker.ensure_running()
    with _ctrl_c_later():
        runner = LoopRunner()
        runner.start()
    before = set(multiprocessing.active_children())
    try:
        yield runner.loop
    finally:
        runner.stop()
        # A worker whose start was interrupted: its cluster does not know of it, and it would fail when we exit.
        for process in set(multiprocessing.active_children()) - before:
            if process.name.startswith(_WORKER_PROCESS):
                process.kill()
                process.join()


@contextmanager
def remote_client(address: str, tls: Tls | None = None) -> Iterator[Client]:
    """Connect to a running scheduler, and leave it running at the end.

    Parameters
    ----------
    address : str
        Such as ``tcp://head-node:8786`` or ``tls://head-node:8786``.
    tls : Tls, optional
        By default what Dask's own configuration says.

    Raises
    ------
    ClusterError
        Nothing answers there, or what answers is no scheduler that this release of Dask understands, or it and we do
        not trust each other.
    UsageError
        The certificates are not what the address wants, or cannot be read.
    """
    security = (tls or Tls()).security(address)
    with ExitStack() as stack:
        # A client that found nobody cannot be closed, waits in its destructor and prints a traceback: look first.
        try:
            asyncio.run(_knock(address, security))
            client = stack.enter_context(client_of(address, timeout=_CONNECT, security=security))
        except (OSError, ValueError, ImportError, RuntimeError, TypeError) as error:
            if fault := tls_fault(address, security):
                raise ClusterError(f"the scheduler at {one_line(address)}: {one_line(fault)}") from None
            reason = str(error) or type(error).__name__
            raise ClusterError(f"no Dask scheduler answers at {one_line(address)}: {one_line(reason)}") from None
        yield client


async def _knock(address: str, security: Security) -> None:
    """Connect to an address, and see that Dask answers."""
    arguments = security.get_connection_args("client")
    await (await connect(address, timeout=_CONNECT, **arguments)).close()
