"""`crawler.index`: one call from roots to a catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crawler.budget import Budget
from crawler.catalogue.log import CatalogueLog
from crawler.errors import CatalogueError, UsageError
from crawler.executors import InProcess
from crawler.fits.policy import Goal, prices, read_policy
from crawler.job import CrawlJob
from crawler.listing import list_roots
from crawler.quoting import compared, fingerprint_of, kept_quote
from crawler.report import Report
from crawler.run import Crawl
from crawler.stores import Adapter, open_store
from crawler.stores.urls import scheme_of
from crawler.walk import Scope

if TYPE_CHECKING:
    from distributed import Client


def index(
    roots: str | Iterable[str],
    catalogue: str,
    *,
    client: Client | Callable[[], AbstractContextManager[Client | None]] | None = None,
    workers: int = 0,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
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
    roots : str or iterable of str
        Folders, single files, URLs, and key files (``@keys.txt``, ``@keys.parquet``).
    catalogue : str
        Path or URL of the catalogue's folder: a catalogue, an empty folder, or none yet.
    client : distributed.Client, optional
        A Dask cluster to crawl on; or what starts one, called once all other arguments are seen to make sense.
    workers : int
        Without a client: processes to start on this machine, or 0 to crawl in this one. A script that asks for
        processes must be guarded by ``if __name__ == "__main__":``, as for everything that starts some.
    include, exclude : iterable of str, optional
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
        Bad files do not make it fail: they are rows that say what is wrong. On Ctrl-C what was walked is committed,
        and ``interrupted`` is true.

    Raises
    ------
    UsageError
        The arguments make no sense.
    ListingError
        A root cannot be listed.
    CatalogueError
        The catalogue cannot be read or written.
    ClusterError
        The cluster was lost.
    """
    roots = (roots,) if isinstance(roots, str) else tuple(roots)
    if not roots:
        raise UsageError("there is nothing to index: name a folder, a file or a URL")
    if workers < 0:
        raise UsageError("workers cannot be negative")
    if min(concurrency or 1, max_hdus or 1) < 1 or 0 in (concurrency, max_hdus):
        raise UsageError("concurrency and max_hdus must be at least 1")
    for name, limit in (
        ("max_requests_per_second", max_requests_per_second),
        ("max_usd", max_usd),
        ("file_timeout", file_timeout),
    ):
        if limit is not None and not 0 < limit < float("inf"):
            raise UsageError(f"{name} must be a number above 0")
    job = CrawlJob(
        roots=roots,
        catalogue=_for_workers(catalogue),
        include=None if include is None else tuple(include),
        exclude=tuple(exclude),
        storage_options=dict(storage_options or {}),
        catalogue_options=dict(catalogue_options or {}),
        adapter=store,
        concurrency=concurrency,
        allow_removals=allow_removals,
        relist=relist,
        scope=Scope(policy=read_policy(optimize, costs), max_hdus=max_hdus, timeout=file_timeout or Scope().timeout),
        costs=prices(optimize, costs),
        max_requests_per_second=max_requests_per_second,
        max_usd=max_usd,
    )
    _check(job)

    def tell(report: Report) -> None:
        if progress is not None:
            progress(report)

    if callable(client):
        with client() as started:
            return _beside_quote(job, _crawled(job, started, 0, tell))
    return _beside_quote(job, _crawled(job, client, workers, tell))


def _beside_quote(job: CrawlJob, report: Report) -> Report:
    """Note what a run took beside what was quoted for it, if it was and the run came to its end."""
    if report.files and not (report.interrupted or report.stopped):
        with suppress(CatalogueError):
            quote = kept_quote(CatalogueLog(job.catalogue, job.catalogue_options).folder, fingerprint_of(job))
            report.quoted = [] if quote is None else compared(quote, report)
    return report


def _for_workers(catalogue: str) -> str:
    """Return a local folder as a path that does not begin at this process's working folder: workers have others."""
    return catalogue if not catalogue or scheme_of(catalogue) else str(Path(catalogue).expanduser().absolute())


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


def _crawled(job: CrawlJob, client: Client | None, workers: int, progress: Callable[[Report], None]) -> Report:
    if client is None and not workers:
        return Crawl(job, InProcess(), progress).run()

    from crawler.cluster import DaskExecutor, local_client  # noqa: PLC0415 - Dask takes a second to load

    if client is not None:
        return Crawl(job, DaskExecutor(client), progress).run()
    with local_client(workers) as local:
        return Crawl(job, DaskExecutor(local), progress).run()
