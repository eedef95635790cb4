"""Clients of Dask clusters: of one that is started here, of one that a job file describes, or of one that runs."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster, Security
from distributed.comm import connect

from crawler.errors import ClusterError, UsageError
from crawler.stores.urls import one_line

_CONNECT = 10
"""Seconds in which a scheduler must answer."""

_LOCAL = {
    # After so long another worker takes the place of one that could not be begun again. Not sooner: one that is being
    # begun for the second time would be ended in the middle of it.
    "distributed.deploy.lost-worker-timeout": "60s",
    # After how many more deaths of workers a partition is cut into pieces: here workers die of what they are given.
    "distributed.scheduler.allowed-failures": 1,
}

_PACKAGES = {"dask_jobqueue": "dask-jobqueue", "dask_kubernetes": "dask-kubernetes", "coiled": "coiled"}
"""What pip calls the packages that start clusters, where it is not as Python does."""


@contextmanager
def local_client(workers: int | None = None, **options: Any) -> Iterator[Client]:
    """Start a cluster on this machine, on loopback only, and stop it at the end.

    Parameters
    ----------
    workers : int, optional
        Processes; one a core by default. Each crawls one partition at a time: its walks are threads of their own.
        There are always so many: who dies is begun again.
    **options
        More of `distributed.LocalCluster`.
    """
    count = workers or os.cpu_count() or 1
    # What a worker loses on its way out is not news to who reads the terminal: what comes of it is told by the crawl.
    given: dict[str, Any] = {
        "n_workers": count,
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": None,
        # Without a dashboard, too, the scheduler serves HTTP, and warns where its usual port is taken.
        "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"},
        "silence_logs": logging.CRITICAL,
        **options,
    }
    given["preload"] = [__name__, *given.get("preload", ())]
    with (
        dask.config.set(_LOCAL),
        LocalCluster(**given) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        cluster.adapt(minimum=count, maximum=count)
        yield client


@dataclass(frozen=True, slots=True)
class Tls:
    """Files that prove who is who, as Dask names them ("TLS/SSL", Dask.distributed documentation).

    Attributes
    ----------
    ca_file, cert, key : str or None
        Paths of PEM files; None for what Dask's own configuration says (``distributed.comm.tls``).
    """

    ca_file: str | None = None
    cert: str | None = None
    key: str | None = None

    def security(self) -> Security:
        """Return what Dask calls it.

        Raises
        ------
        UsageError
            A file cannot be read.
        """
        given = {"tls_ca_file": self.ca_file, "tls_client_cert": self.cert, "tls_client_key": self.key}
        told = {name: path for name, path in given.items() if path is not None}
        for path in told.values():
            try:
                with open(path, "rb"):  # noqa: PTH123 - only whether it can be
                    pass
            except OSError as error:
                raise UsageError(f"TLS: {path}: {error.strerror}") from None
        return Security(**told, require_encryption=True) if told else Security()


@contextmanager
def remote_client(address: str, tls: Tls = Tls()) -> Iterator[Client]:
    """Connect to a running scheduler, and leave it running at the end.

    Parameters
    ----------
    address : str
        Such as ``tcp://head-node:8786`` or ``tls://head-node:8786``.
    tls : Tls

    Raises
    ------
    ClusterError
        Nothing answers there, or what answers is no scheduler that this release of Dask understands.
    UsageError
        A file of certificates cannot be read.
    """
    security = tls.security()
    # A client that found nobody cannot be closed, waits in its destructor and prints a traceback: look first.
    try:
        asyncio.run(_knock(address, security))
        client = Client(address, timeout=_CONNECT, security=security, set_as_default=False)
    except (OSError, ValueError, ImportError, RuntimeError, TypeError) as error:
        advice = " (its address begins with tls:// where it wants certificates)" if address.startswith("tcp:") else ""
        raise ClusterError(f"no Dask scheduler answers at {address}: {one_line(str(error))}{advice}") from None
    # What Dask says with a traceback as its scheduler is lost, the crawl says in a line.
    logger = logging.getLogger("distributed.client")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with client:
            yield client
    finally:
        logger.setLevel(before)


async def _knock(address: str, security: Security) -> None:
    """Connect to an address, and see that Dask answers."""
    arguments = security.get_connection_args("client")
    await (await connect(address, timeout=_CONNECT, **arguments)).close()


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """A cluster that a job file describes.

    Attributes
    ----------
    kind : str
        Import path of its class, such as ``dask_jobqueue.SLURMCluster``.
    options : mapping
        Its keyword arguments.
    scale : mapping
        ``n`` or ``jobs`` for a size that stays, or ``minimum`` and ``maximum`` for one that follows the work.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    scale: Mapping[str, Any] = field(default_factory=dict)

    def found(self) -> Any:
        """Return the class.

        Raises
        ------
        UsageError
            There is none, its package is not installed, or it does not take the options.
        """
        module, _, name = self.kind.rpartition(".")
        package = module.partition(".")[0]
        try:
            made = getattr(import_module(module), name)
        except ModuleNotFoundError:
            wanted = _PACKAGES.get(package, package.replace("_", "-"))
            raise UsageError(f"{self.kind} is not installed: pip install {wanted}") from None
        except (AttributeError, ImportError, ValueError):
            raise UsageError(f"there is no cluster class {one_line(self.kind)}") from None
        if not (inspect.isclass(made) and callable(getattr(made, "scale", None))):
            raise UsageError(f"{one_line(self.kind)} is no class of Dask clusters")
        try:
            inspect.signature(made).bind(**self.options)
        except TypeError as error:
            raise UsageError(f"{self.kind}: {one_line(str(error))}") from None
        return made


@contextmanager
def planned_client(plan: ClusterPlan) -> Iterator[Client]:
    """Start the cluster of a plan, and stop it at the end.

    Raises
    ------
    UsageError
        The plan makes no sense.
    ClusterError
        The cluster cannot be started.
    """
    made = plan.found()
    try:
        cluster = made(**plan.options)
    except Exception as error:  # of any library, of whatever kind: it is shown, and nothing is begun
        raise ClusterError(f"{plan.kind} cannot be started: {one_line(str(error) or type(error).__name__)}") from None
    try:
        scale = dict(plan.scale)
        if "minimum" in scale or "maximum" in scale:
            cluster.adapt(**scale)
        elif scale:
            cluster.scale(**scale)
        with Client(cluster, set_as_default=False) as client:
            yield client
    finally:
        with suppress(Exception):  # what came of the crawl matters more
            cluster.close()


@contextmanager
def reported(client: Client, path: str | None) -> Iterator[None]:
    """Have Dask write its report of what the cluster does meanwhile, as HTML, where a path is given.

    Raises
    ------
    UsageError
        It cannot be written: bokeh is missing, or the folder is.
    """
    if path is None:
        yield
        return
    try:
        import_module("bokeh")
    except ImportError:
        raise UsageError("--performance-report needs bokeh: pip install bokeh") from None
    if not Path(path).absolute().parent.is_dir():
        raise UsageError(f"--performance-report {path}: there is no such folder")
    # Dask's own context manager adds the source of whoever calls it.
    begun = time.time()
    try:
        yield
    finally:
        with suppress(OSError, RuntimeError):
            data = client.sync(client.scheduler.performance_report, start=begun, last_count=0, code="", mode=None)
            Path(path).write_text(data, encoding="utf-8")


def dask_setup(_worker: object) -> None:
    """Leave Ctrl-C to the driver, on a worker that has its terminal: Dask calls this as `local_client` starts one.

    A terminal sends SIGINT to every process of the group. The driver then asks the workers for what they have.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
