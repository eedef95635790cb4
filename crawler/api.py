"""`crawler.index`: one call from roots to a catalogue."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from crawler.catalogue.log import CatalogueLog
from crawler.driver.budget import Budget
from crawler.driver.driver import Crawl
from crawler.driver.executor import Executor, InProcess
from crawler.driver.report import Interrupted, Report
from crawler.errors import CatalogueError, UsageError
from crawler.estimation import compare, fingerprint_of, load_estimate
from crawler.fits.policy import Goal
from crawler.interrupts import Interrupts, interruptible
from crawler.job.crawl_job import CrawlJob, build_job, check_count
from crawler.listing import list_roots
from crawler.stores import Adapter, open_store
from crawler.stores.urls import PathOrUrl, text_of
from crawler.text import counted

if TYPE_CHECKING:
    from distributed import Client

WORKERS_PER_CORE = 8
"""Processes that are started on this machine for each of its cores, at most: more only take memory and turns."""

FEW_WORKERS = 32
"""Processes that are started on any machine, however few its cores."""


def index(
    roots: PathOrUrl | Iterable[PathOrUrl],
    catalogue: PathOrUrl,
    *,
    client: Client | Callable[[], AbstractContextManager[Client | None]] | None = None,
    workers: int = 0,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] = (),
    concurrency: int | None = None,
    optimize: Goal = "time",
    costs: Mapping[str, float] | None = None,
    max_hdus: int | None = None,
    max_requests_per_second: float | None = None,
    max_usd: float | None = None,
    file_timeout: float | None = None,
    storage_options: Mapping[str, Any] | None = None,
    catalogue_options: Mapping[str, Any] | None = None,
    allow_removals: bool = False,
    relist: bool = False,
    store: Adapter = "auto",
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """Index the headers of every FITS file below some roots.

    Running it again on the same catalogue walks only what is new or changed, and finishes a run that was killed.

    Parameters
    ----------
    roots : str or pathlib.Path, or iterable of them
        Folders, single files, URLs, and key files (``@keys.txt``, ``@keys.parquet``).
    catalogue : str or pathlib.Path
        Path or URL of the catalogue's folder: a catalogue, an empty folder, or none yet.
    client : distributed.Client, optional
        A Dask cluster to crawl on; or what starts one, called once all other arguments are seen to make sense.
    workers : int
        Without a client: processes to start on this machine, or 0 to crawl in this one; at most `WORKERS_PER_CORE` for
        each core, or `FEW_WORKERS` if those are more. A script that asks for processes must be guarded by
        ``if __name__ == "__main__":``, as for everything that starts some.
    include, exclude : str or iterable of str, optional
        Globs of names; by default those that FITS files usually have.
    concurrency : int, optional
        Requests that each worker has under way at once.
    optimize : {'time', 'requests', 'bytes'}
        What is spent least where one can be had for another: whether short gaps between headers are read or jumped.
    costs : mapping of str to float, optional
        Prices and times that are known better than by default: attributes of `crawler.fits.policy.Costs`.
    max_hdus : int, optional
        Walk no more than the first ones of each file. Those that have more are ``partial`` in the catalogue, and are
        walked again by a run that asks for more.
    max_requests_per_second : float, optional
        Of all workers together.
    max_usd : float, optional
        What requests and transfer may cost, by ``costs``. The run stops before it spends more, and ``stopped`` says
        so; running it again goes on, or says how much it needs to go on.
    file_timeout : float, optional
        Seconds after which the walk of a file is given up: such a file is ``unreadable``. Half an hour by default.
    storage_options : mapping, optional
        Of the stores of the roots, as fsspec spells them.
    catalogue_options : mapping, optional
        Of the store of the catalogue, where it is not on the local disk.
    allow_removals : bool
        Remove files that are gone even where they are more than a tenth of the catalogue; without it ``withheld``
        says how many those are.
    relist : bool
        List anew even where a run that did not end has left a listing of many keys, less than a day old.
    store : {'auto', 'obstore', 'fsspec'}
        What reads the roots.
    progress : callable, optional
        Given the report whenever something has changed.

    Returns
    -------
    Report
        Bad files do not make it fail: they are rows that say what is wrong.

    Raises
    ------
    KeyboardInterrupt
        The process got SIGINT (Ctrl-C, or a notebook's kernel was interrupted) or SIGTERM, and this is the main thread.
        What was walked is committed. The report of the run is the exception's attribute ``report``, unless the signal
        came before the run began. A second signal, a second or more after the first, ends walks in flight at once.
    UsageError
        The arguments make no sense.
    ListingError
        A root cannot be listed.
    CatalogueError
        The catalogue cannot be read or written.
    ClusterError
        The cluster was lost.
    """
    processes = _check_workers(workers)
    job = build_job(
        roots,
        text_of(catalogue),  # which `estimate` does without
        include=include,
        exclude=exclude,
        concurrency=concurrency,
        optimize=optimize,
        costs=costs,
        max_hdus=max_hdus,
        max_requests_per_second=max_requests_per_second,
        max_usd=max_usd,
        file_timeout=file_timeout,
        storage_options=storage_options,
        catalogue_options=catalogue_options,
        allow_removals=allow_removals,
        relist=relist,
        store=store,
    )
    _check(job)

    def tell(report: Report) -> None:
        if progress is not None:
            progress(report)

    with interruptible() as interrupts:
        if callable(client):
            with client() as started:
                report = _crawled(job, started, 0, tell, interrupts)
        else:
            report = _crawled(job, client, processes, tell, interrupts)
        if interrupts.interrupted:  # the cluster is closed: nothing is left to do
            report.interrupted = True
            raise Interrupted(report)
    return _with_estimate(job, report)


def _check_workers(workers: int) -> int:
    """Return the number of processes to start on this computer.

    Raises
    ------
    UsageError
        It is no whole number, negative, or more than this computer can reasonably run.
    """
    processes = check_count("workers", workers, least=0) or 0
    cores = os.cpu_count() or 1
    most = max(FEW_WORKERS, WORKERS_PER_CORE * cores)
    if processes > most:
        raise UsageError(
            f"{processes:,} workers are too many: this machine has {counted(cores, 'core')}, on which at most {most:,} "
            "processes are started; a Dask cluster may have more (--scheduler, --cluster)"
        )
    return processes


def _with_estimate(job: CrawlJob, report: Report) -> Report:
    """Compare a run that has ended with the estimate for it, if there is one, in the report."""
    if report.files and not (report.interrupted or report.stopped):
        with suppress(CatalogueError):
            saved = load_estimate(CatalogueLog(job.catalogue, job.catalogue_options).folder, fingerprint_of(job))
            report.estimated = [] if saved is None else compare(saved, report)
    return report


def _check(job: CrawlJob) -> None:
    """Raise what is wrong with a job as far as no store need be asked: before anybody waits for a cluster."""
    list_roots(
        job.roots,
        include=job.include,
        exclude=job.exclude,
        open_store=lambda url: open_store(url, job.options_for(url), adapter=job.adapter),
    )
    CatalogueLog(job.catalogue, job.catalogue_options)
    Budget(job)


def _crawled(
    job: CrawlJob, client: Client | None, workers: int, progress: Callable[[Report], None], interrupts: Interrupts
) -> Report:
    """Crawl in this process, on a cluster, or on processes that are started for it."""

    def crawled(executor: Executor) -> Report:
        crawl = Crawl(job, executor, progress, interrupts.stop)
        with interrupts.in_order(crawl.acknowledge):
            try:
                return crawl.run()
            except KeyboardInterrupt:
                crawl.report.interrupted = True
                raise Interrupted(crawl.report) from None

    if client is None and not workers:
        return crawled(InProcess())

    from crawler.cluster import DaskExecutor, local_client  # noqa: PLC0415 - Dask takes a second to load

    if client is not None:
        return crawled(DaskExecutor(client))
    with local_client(workers) as local:
        return crawled(DaskExecutor(local))
