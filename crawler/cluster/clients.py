"""Clients of Dask clusters: of one that is started here, or of one that runs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client, LocalCluster, Security
from distributed.comm import connect

from crawler.errors import ClusterError
from crawler.stores.urls import one_line

_CONNECT = 10
"""Seconds in which a scheduler must answer."""


@contextmanager
def local_client(workers: int | None = None) -> Iterator[Client]:
    """Start a cluster on this machine, on loopback only, and stop it at the end.

    Parameters
    ----------
    workers : int, optional
        Processes; one a core by default. Each crawls one partition at a time: its walks are threads of their own.
    """
    # What a worker loses on its way out is not news to who reads the terminal; errors still are.
    with (
        LocalCluster(
            n_workers=workers or os.cpu_count(),
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            # Without a dashboard, too, the scheduler serves HTTP, and warns where its usual port is taken.
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.ERROR,
            preload=[__name__],
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def remote_client(address: str) -> Iterator[Client]:
    """Connect to a running scheduler, and leave it running at the end.

    Parameters
    ----------
    address : str
        Such as ``tcp://head-node:8786``.

    Raises
    ------
    ClusterError
        Nothing answers there, or what answers is no scheduler that this release of Dask understands.
    """
    # A client that found nobody cannot be closed, waits in its destructor and prints a traceback: look first.
    try:
        asyncio.run(_knock(address))
        client = Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError, ImportError) as error:
        raise ClusterError(f"no Dask scheduler answers at {address}: {one_line(str(error))}") from None
    with client:
        yield client


async def _knock(address: str) -> None:
    """Connect to an address, and see that Dask answers."""
    arguments = Security().get_connection_args("client")
    await (await connect(address, timeout=_CONNECT, **arguments)).close()


def dask_setup(_worker: object) -> None:
    """Leave Ctrl-C to the driver, on a worker that has its terminal: Dask calls this as `local_client` starts one.

    A terminal sends SIGINT to every process of the group. The driver then asks the workers for what they have.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
