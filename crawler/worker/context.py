"""What the partitions of one run share in one process: stores, requests, walks, learned layouts, the known catalogue.

Partitions reach it by the id of their run, since a task of a cluster arrives with nothing but its job. One registry
keeps the contexts of this process. A context is in the registry from the first partition of its run, or the first
setting for it, until the executor of the run calls `release`. A worker of a cluster may outlive a driver that could not
call it: a partition of any other run releases each context that nothing has used for `IDLE_SECONDS`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyarrow as pa

from crawler.catalogue.log import first_line
from crawler.catalogue.reader import Catalogue
from crawler.errors import CatalogueError, CrawlerError
from crawler.fits.layouts import NOTHING, Guess, Layouts, product_of
from crawler.job.crawl_job import CrawlJob
from crawler.stores import ObjectRef, ObjectStore, Traffic, open_store
from crawler.stores.urls import scheme_of
from crawler.worker.walk import FileResult, Read, walk_file
from crawler.worker.walk_pool import Walk, WalkPool

LOCAL_CONCURRENCY = 4
"""Requests in flight to a local disk: reads hardly wait, and more threads only contend."""

REMOTE_CONCURRENCY = 32
"""Requests in flight where every read waits for a network."""

IDLE_SECONDS = 600.0
"""Seconds without use after which a partition of another run releases a context."""

_COMPRESSED = (".gz", ".bz2")  # a hint: the content of a file tells whether it is compressed

_INDEXED_COLUMNS = ["url", "size", "etag", "status", "n_hdus", "walker_version"]


class WorkerContext:
    """What the partitions of one run share in one process. Safe to use from many threads.

    Parameters
    ----------
    run_id : str
        Id of the run.

    Attributes
    ----------
    run_id : str
    users : int
        Blocks of `worker_context` that use this context now.
    used_at : float
        When the last of them ended, on the clock of `time.monotonic`.
    closed : bool
        Nothing takes the results of the partitions any more.
    writing : threading.Lock
        Held while rows are made and written, which takes several times the memory of the headers.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.users = 0
        self.used_at = time.monotonic()
        self.closed = False
        self.writing = threading.Lock()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._rate: float | None = None
        self._traffic: Traffic | None = None
        self._catalogue: Catalogue | None = None
        self._stores: dict[str, ObjectStore] = {}
        self._layouts = Layouts()
        self._pools: dict[int, WalkPool] = {}  # by the number of threads: a run may have local and remote roots

    def walk(self, job: CrawlJob, refs: list[ObjectRef], stop: Callable[[], bool]) -> Iterator[FileResult]:
        """Walk files, many at once, and yield their results in the order of ``refs``.

        Parameters
        ----------
        job : CrawlJob
        refs : list of ObjectRef
        stop : callable
            Called before each walk. After it has returned True, no walk begins, and the results are those of the walks
            that have ended `CrawlJob.stop_seconds` later.

        Raises
        ------
        StoreDownError
            No request of the run has succeeded for too long, or the credentials have expired.
        """
        if not refs:
            return iter(())
        local = scheme_of(refs[0].url) == "file"
        slots = job.concurrency or (LOCAL_CONCURRENCY if local else REMOTE_CONCURRENCY)
        with self._lock:
            if slots not in self._pools:
                self._pools[slots] = WalkPool(slots)
            pool = self._pools[slots]
        return pool.walk(refs, partial(self._begin, job), stop, job.stop_seconds)

    def _begin(self, job: CrawlJob, ref: ObjectRef) -> Walk | None:
        """Return the walk of a file; None while the first file of its product is walked, whose layout will help."""
        if not job.learn:
            return partial(self._walk, job, ref)
        product = product_of(ref.url)
        # What is compressed has no places to be learned, and its first walk may take long: nothing waits for that.
        if self._layouts.begin(product) or ref.url.lower().endswith(_COMPRESSED):
            return partial(self._walk_and_learn, job, product, ref)
        return None

    def _walk_and_learn(self, job: CrawlJob, product: str, ref: ObjectRef, read: Read) -> FileResult:
        """Walk a file with the layouts that are known of its product, and learn from it."""
        try:
            result = self._walk(job, ref, read, self._layouts.guess(product, ref.size))
            if result.compression is not None:
                self._layouts.learn_compressed(product)
            elif result.status in {"ok", "partial"} and result.ref.size is not None:
                self._layouts.learn(product, result.ref.size, result.hdus)
            return result
        finally:
            self._layouts.end(product)

    def _walk(self, job: CrawlJob, ref: ObjectRef, read: Read, guess: Guess = NOTHING) -> FileResult:
        """Walk a file. A fault of this program ends one walk, not a run of a hundred million: its row says so.

        Such faults include panics of libraries written in Rust, which are not of the class `Exception`.
        """
        try:
            return walk_file(self.store(job, ref.url), ref, job.scope, guess, read=read)
        except (CrawlerError, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            reason = f"the walk failed ({type(error).__name__}: {error}): please report this, with the file"
            return FileResult(ref, "crashed", reason)

    def load_rows(self, job: CrawlJob, urls: pa.Array) -> list[dict[str, Any]]:
        """Return the rows of some urls in the catalogue, as it was when the run began.

        Another run deletes, as it ends, the files that it wrote and merged itself. Where such a file was of the version
        in question, the rows of the latest version are returned.

        Raises
        ------
        CatalogueError
            It cannot be read.
        """
        with self._lock:
            if self._catalogue is None:
                self._catalogue = Catalogue(job.catalogue, version=job.known, storage_options=job.catalogue_options)
            catalogue = self._catalogue
        while True:
            try:
                rows: list[dict[str, Any]] = catalogue.rows_of(urls, _INDEXED_COLUMNS).to_pylist()
            except FileNotFoundError as error:
                latest = Catalogue(job.catalogue, storage_options=job.catalogue_options)
                if latest.version == catalogue.version:
                    raise CatalogueError(catalogue.url, f"is damaged: {first_line(error)}") from None
                catalogue = self._catalogue = latest
            else:
                return rows

    def store(self, job: CrawlJob, url: str) -> ObjectStore:
        """Return the store for a url: one for each scheme, so that partitions share connections."""
        scheme = scheme_of(url)
        with self._lock:
            if scheme not in self._stores:
                if self._traffic is None:
                    self._traffic = Traffic(job.concurrency or REMOTE_CONCURRENCY, self._rate, job.patience)
                traffic = self._traffic
                self._stores[scheme] = open_store(url, job.options_for(url), adapter=job.adapter, traffic=traffic)
            return self._stores[scheme]

    def set_rate_limit(self, rate: float | None) -> None:
        """Set the requests per second that the run may make in this process; None for no limit."""
        with self._lock:
            self._rate = rate
            if self._traffic is not None:
                self._traffic.rate = rate

    def take_retries(self) -> Counter[str]:
        """Return the retries since the last call, by the kind of the failure before each."""
        return Counter() if self._traffic is None else self._traffic.taken()

    def stop(self) -> None:
        """Set the flag that `is_stopped` returns."""
        self._stopped.set()

    def is_stopped(self) -> bool:
        """Tell whether the driver has asked this process to begin no further walk of the run."""
        return self._stopped.is_set()

    def close(self) -> None:
        """Stop, abandon all walks, make no request again, and end the threads of the context."""
        self.stop()
        with self._lock:
            self.closed = True
            pools = [*self._pools.values()]
            if self._traffic is not None:
                self._traffic.close()
        for pool in pools:
            pool.close()


class _Registry:
    """The contexts of this process, by the ids of their runs. See the module for how long it keeps each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contexts: dict[str, WorkerContext] = {}

    def get(self, run_id: str) -> WorkerContext:
        """Return the context of a run; a new one if there is none."""
        with self._lock:
            return self._contexts.setdefault(run_id, WorkerContext(run_id))

    @contextmanager
    def use(self, run_id: str) -> Iterator[WorkerContext]:
        """Give the context of a run, and release those of other runs that are idle."""
        with self._lock:
            idle_since = time.monotonic() - IDLE_SECONDS
            for other, context in [*self._contexts.items()]:
                if other != run_id and not context.users and context.used_at <= idle_since:
                    self._contexts.pop(other).close()
            context = self._contexts.setdefault(run_id, WorkerContext(run_id))
            context.users += 1
        try:
            yield context
        finally:
            with self._lock:
                context.users -= 1
                context.used_at = time.monotonic()

    def release(self, run_id: str) -> None:
        """Close and forget the context of a run, if there is one."""
        with self._lock:
            context = self._contexts.pop(run_id, None)
        if context is not None:
            context.close()

    def run_ids(self) -> list[str]:
        """Return the ids of the runs that have a context."""
        with self._lock:
            return list(self._contexts)


_registry = _Registry()


@contextmanager
def worker_context(job: CrawlJob) -> Iterator[WorkerContext]:
    """Give the context of a job's run in this process."""
    with _registry.use(job.crawl) as context:
        yield context


def set_rate_limit(run_id: str, rate: float | None) -> None:
    """Set the requests per second that a run may make in this process; None for no limit."""
    _registry.get(run_id).set_rate_limit(rate)


def stop_run(run_id: str) -> None:
    """Ask this process to begin no further walk of a run: `WorkerContext.is_stopped`."""
    _registry.get(run_id).stop()


def abandon_run(run_id: str) -> None:
    """Ask this process to end all partitions of a run at once, and those that begin later."""
    _registry.get(run_id).close()


def release(run_id: str) -> None:
    """Release the context of a run in this process: no more of its partitions come."""
    _registry.release(run_id)


def run_ids() -> list[str]:
    """Return the ids of the runs that have a context in this process."""
    return _registry.run_ids()
