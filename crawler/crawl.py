"""One partition of keys: many walks at once, their rows written as fragments, one small receipt.

What a worker runs, in this process or on a cluster. Blocking reads on threads, not asyncio: obstore lets go of the
interpreter while it waits, and its blocking call costs half the CPU of the awaited one.

What partitions of one run share on a worker (stores, threads, what was learned of products) is kept between them.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from crawler.catalogue.fragments import Fragment, new_batch, write_fragment
from crawler.catalogue.log import CatalogueLog, first_line
from crawler.catalogue.reader import Catalogue
from crawler.catalogue.rows import tables_of
from crawler.catalogue.schema import FINAL_STATUSES
from crawler.errors import CatalogueError, CrawlerError, StoreDownError
from crawler.fits.layouts import Layouts, product_of
from crawler.fits.walker import WALKER_VERSION
from crawler.flight import Flight, Steps
from crawler.job import CrawlJob
from crawler.stores import ObjectRef, ObjectStore, Traffic, open_store
from crawler.stores.storage import Folder, open_folder
from crawler.stores.urls import one_line, printable, scheme_of
from crawler.stores.values import writable
from crawler.walk import FileResult, walk_steps

LOCAL_CONCURRENCY = 4
"""Requests under way at once to a local disk: reads hardly wait, and more threads only contend."""

REMOTE_CONCURRENCY = 32
"""Requests under way at once where every read waits for a network."""

_COMPRESSED = (".gz", ".bz2")  # a hint: what a file is, its content tells


@dataclass(slots=True)
class Receipt:
    """What came of a partition: small, whatever the partition held.

    Attributes
    ----------
    fragments : list of Fragment
        Written, and not yet committed.
    statuses : Counter
        Files walked, by their status.
    hdus, cards : int
        Rows written.
    requests, bytes_read, round_trips : int
        Of all files.
    skipped : int
        Files that the catalogue holds unchanged.
    replaced : list of str
        Urls among the fragments of which the catalogue holds older rows.
    retries : Counter
        Requests that were made again, by what was wrong with the one before.
    lost : int
        Times that the partition was lost with worker after worker.
    failure : CrawlerError or None
        What ended it, and should end the run: the store is down, say. What was walked by then is written.
    first_error : str or None
        Of the first file that was unreadable, for a message.
    complete : bool
        False where the crawl was stopped before all files were walked.
    """

    fragments: list[Fragment] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    hdus: int = 0
    cards: int = 0
    requests: int = 0
    bytes_read: int = 0
    round_trips: int = 0
    skipped: int = 0
    replaced: list[str] = field(default_factory=list)
    retries: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    failure: CrawlerError | None = None
    first_error: str | None = None
    complete: bool = True

    def count(self, result: FileResult) -> None:
        """Count one file that was walked."""
        self.statuses[result.status] += 1
        self.requests += result.requests
        self.bytes_read += result.bytes_read
        self.round_trips += result.round_trips
        if result.status == "unreadable" and self.first_error is None:
            self.first_error = f"{one_line(str(result.error))}: {printable(result.ref.url)}"


def crawl_partition(job: CrawlJob, partition: pa.Table, stop: Callable[[], bool]) -> Receipt:
    """Walk every file of a partition and write what was found.

    Parameters
    ----------
    job : CrawlJob
    partition : pyarrow.Table
        Rows of a listing (`crawler.stores.base.LISTING_SCHEMA`).
    stop : callable
        Asked before each walk; once it is true no further walk begins, and what was walked is written.

    Raises
    ------
    CatalogueError
        The fragments cannot be written.
    """
    receipt = Receipt()
    partition = partition.sort_by("url")  # so that fragments are contiguous runs of urls
    known = _known(job, partition)
    refs = []
    for row in partition.to_pylist():
        ref = ObjectRef(**row)
        old = known.get(ref.url, [])
        # More than one row is what a run leaves that dies before it could drop repeats: this one replaces them all.
        if len(old) == 1 and _unchanged(job, ref, old[0]):
            receipt.skipped += 1
            continue
        if old:
            receipt.replaced.append(ref.url)
        refs.append(ref)

    batch: list[FileResult] = []
    walked: set[str] = set()
    header_bytes = 0
    with _shared(job) as shared:
        try:
            for result in shared.walk(job, refs, stop):
                batch.append(result)
                walked.add(result.ref.url)
                header_bytes += result.header_bytes
                if header_bytes >= job.batch_bytes:
                    with shared.writing:
                        _write(job, batch, receipt)
                    header_bytes = 0
                del result  # or the next one is waited for with this one in memory
        except StoreDownError as error:
            # What libraries below raised may not survive the way to the driver: it is told already.
            error.__cause__ = error.__context__ = None
            receipt.failure = error.with_traceback(None)
        with shared.writing:
            _write(job, batch, receipt)
        receipt.retries = shared.traffic.taken()
    if len(walked) < len(refs):
        receipt.complete = False
        receipt.replaced = [url for url in receipt.replaced if url in walked]
    return receipt


def crashed_file(job: CrawlJob, partition: pa.Table, reason: str) -> Receipt:
    """Write the row of a file whose walk ends the processes that try it.

    Parameters
    ----------
    job : CrawlJob
    partition : pyarrow.Table
        Of one row.
    reason : str
        One line.

    Raises
    ------
    CatalogueError
        It cannot be written.
    """
    receipt = Receipt()
    (ref,) = (ObjectRef(**row) for row in partition.to_pylist())
    if _known(job, partition):
        receipt.replaced.append(ref.url)
    _write(job, [FileResult(ref, "crashed", reason)], receipt)
    return receipt


def discard(job: CrawlJob, receipt: Receipt) -> None:
    """Delete the fragments of a receipt that nobody wants.

    Raises
    ------
    CatalogueError
        They cannot be deleted.
    """
    CatalogueLog(job.catalogue, job.catalogue_options).delete_files(receipt.fragments)


def _write(job: CrawlJob, results: list[FileResult], receipt: Receipt) -> None:
    """Write the rows of some files, and note on the receipt what they are; leaves the list empty, to save memory."""
    if results:
        _write_or_divide(job, open_folder(job.catalogue, job.catalogue_options), results, receipt)
        results.clear()


def _write_or_divide(job: CrawlJob, folder: Folder, results: list[FileResult], receipt: Receipt) -> None:
    """Write the rows of some files; where that fails for no reason of the disk's or the store's, find the file.

    Halves are tried until one file is left. Its rows become one, ``crashed``, that asks for a report.
    """
    try:
        tables = tables_of(results, job.crawl, datetime.now(UTC))
        hdus, cards = tables["hdus"].num_rows, tables["cards"].num_rows
        name = new_batch(job.crawl)
        written = [write_fragment(folder, table, tables.pop(table), name) for table in list(tables)]
    except OSError as error:
        raise CatalogueError(folder.url, f"cannot be written: {first_line(error)}") from None
    except Exception as error:
        half = len(results) // 2
        parts = [results[:half], results[half:]] if half else [[_unwritable(folder, results[0], error)]]
        for part in parts:
            _write_or_divide(job, folder, part, receipt)
        return
    for result in results:
        receipt.count(result)
    receipt.hdus += hdus
    receipt.cards += cards
    receipt.fragments += [fragment for fragment in written if fragment is not None]


def _unwritable(folder: Folder, result: FileResult, error: Exception) -> FileResult:
    """Return a result without any value of the file, in place of one that cannot be written."""
    bare = ObjectRef(writable(result.ref.url))
    if result.status == "crashed" and result.ref == bare:
        raise CatalogueError(folder.url, f"cannot be written: {first_line(error)}") from None
    reason = f"its rows cannot be written ({type(error).__name__}: {error}): please report this, with the file"
    return FileResult(bare, "crashed", reason)


_KNOWN = ["url", "size", "etag", "status", "n_hdus", "walker_version"]


def _known(job: CrawlJob, partition: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Return the rows that the catalogue holds of a partition's files, by url.

    Raises
    ------
    CatalogueError
        It cannot be read.
    """
    known: dict[str, list[dict[str, Any]]] = {}
    if job.known is None or not partition.num_rows:
        return known
    with _shared(job) as shared:
        rows = shared.rows_of(job, partition["url"].combine_chunks())
    for row in rows:
        known.setdefault(str(row["url"]), []).append(row)
    return known


def _unchanged(job: CrawlJob, ref: ObjectRef, old: dict[str, Any]) -> bool:
    """Tell whether a file need not be walked again: the same content, walked by this walker as far as is asked for.

    Without an ETag nothing proves that the content is the same, so the file is walked.
    """
    return (
        ref.etag is not None
        and (ref.size, ref.etag, WALKER_VERSION) == (old["size"], old["etag"], old["walker_version"])
        and (old["status"] in FINAL_STATUSES or _reached(old, job.scope.max_hdus))
    )


def _reached(old: dict[str, Any], max_hdus: int | None) -> bool:
    """Tell whether a walk that was stopped on request went as far as is now asked for."""
    return old["status"] == "partial" and max_hdus is not None and bool(old["n_hdus"] >= max_hdus)


class _Shared:
    """What all partitions of one run share in this process.

    Attributes
    ----------
    users : int
        Partitions that are being crawled.
    traffic : Traffic
        What requests to stores are made through.
    writing : threading.Lock
        Held while rows are made and written, which takes several times the memory of the headers.
    """

    def __init__(self, traffic: Traffic) -> None:
        self.users = 0
        self.traffic = traffic
        self.writing = threading.Lock()
        self._lock = threading.Lock()
        self._catalogue: Catalogue | None = None
        self._stores: dict[str, ObjectStore] = {}
        self._flights: dict[int, tuple[Flight, Layouts]] = {}  # by slots; a file waits for walks of its flight only

    def walk(self, job: CrawlJob, refs: list[ObjectRef], stop: Callable[[], bool]) -> Iterator[FileResult]:
        """Walk files of one partition, many at once; yield results in their order."""
        if not refs:
            return iter(())
        local = scheme_of(refs[0].url) == "file"
        slots = job.concurrency or (LOCAL_CONCURRENCY if local else REMOTE_CONCURRENCY)
        with self._lock:
            if slots not in self._flights:
                self._flights[slots] = Flight(slots), Layouts()
            flight, layouts = self._flights[slots]
        return flight.walk(refs, lambda ref: self._begin(job, layouts, ref), stop)

    def _begin(self, job: CrawlJob, layouts: Layouts, ref: ObjectRef) -> tuple[ObjectStore, Steps] | None:
        """Begin the walk of a file, unless it is better begun when more is known of its product."""
        store = self.store(job, ref.url)
        if not job.learn:
            return store, _guarded(ref, walk_steps(store, ref, job.scope))
        product = product_of(ref.url)
        # What is compressed has no places to be learned, and its first walk may take long: nothing waits for that.
        if layouts.begin(product) or ref.url.lower().endswith(_COMPRESSED):
            return store, _guarded(ref, self._learning(job, layouts, store, ref, product))
        return None

    def _learning(self, job: CrawlJob, layouts: Layouts, store: ObjectStore, ref: ObjectRef, product: str) -> Steps:
        """Walk a file with what is known of its product, and learn from it."""
        try:
            guess = layouts.guess(product, ref.size)
            result = yield from walk_steps(store, ref, job.scope, guess)
            if result.compression is not None:
                layouts.learn_compressed(product)
            elif result.status in {"ok", "partial"} and result.ref.size is not None:
                layouts.learn(product, result.ref.size, result.hdus)
            return result
        finally:
            layouts.end(product)

    def rows_of(self, job: CrawlJob, urls: pa.Array) -> list[dict[str, Any]]:
        """Return what the catalogue held of some urls when the run began or, where its files are gone, what it holds.

        Another run deletes what it wrote and itself merged as it ends, so a version that lay between is soon gone.

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
                rows: list[dict[str, Any]] = catalogue.rows_of(urls, _KNOWN).to_pylist()
            except FileNotFoundError as error:
                latest = Catalogue(job.catalogue, storage_options=job.catalogue_options)
                if latest.version == catalogue.version:
                    raise CatalogueError(catalogue.url, f"is damaged: {first_line(error)}") from None
                catalogue = self._catalogue = latest
            else:
                return rows

    def store(self, job: CrawlJob, url: str) -> ObjectStore:
        """Return the store for a url: one a scheme, so that connections are kept between partitions."""
        scheme = scheme_of(url)
        with self._lock:
            if scheme not in self._stores:
                self._stores[scheme] = open_store(url, job.options_for(url), adapter=job.adapter, traffic=self.traffic)
            return self._stores[scheme]

    def close(self) -> None:
        """Let the threads go."""
        for flight, _ in self._flights.values():
            flight.close()


def _guarded(ref: ObjectRef, steps: Steps) -> Steps:
    """Have a fault of this program end one walk, rather than a run of a hundred million: its row asks for a report.

    Panics of libraries in Rust are among these faults. They are no `Exception`.
    """
    try:
        return (yield from steps)
    except (CrawlerError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        reason = f"the walk failed ({type(error).__name__}: {error}): please report this, with the file"
        return FileResult(ref, "crashed", reason)


_runs: dict[str, _Shared] = {}
_rates: dict[str, float | None] = {}
_runs_lock = threading.Lock()


@contextmanager
def _shared(job: CrawlJob) -> Iterator[_Shared]:
    """Give what partitions of a run share; what other runs left is let go."""
    with _runs_lock:
        for crawl in [crawl for crawl, shared in _runs.items() if crawl != job.crawl and not shared.users]:
            _runs.pop(crawl).close()
        if job.crawl not in _runs:
            slots = job.concurrency or REMOTE_CONCURRENCY
            _runs[job.crawl] = _Shared(Traffic(slots, _rates.get(job.crawl), job.patience))
        shared = _runs[job.crawl]
        shared.users += 1
    try:
        yield shared
    finally:
        with _runs_lock:
            shared.users -= 1


def steer(crawl: str, rate: float | None) -> None:
    """Set how many requests a run may make in a second in this process; None for as many as it can."""
    with _runs_lock:
        _rates[crawl] = rate
        if crawl in _runs:
            _runs[crawl].traffic.rate = rate


def leave(crawl: str) -> None:
    """Let go of what the partitions of a run share: no more of them come."""
    with _runs_lock:
        _rates.pop(crawl, None)
        shared = _runs.pop(crawl, None)
    if shared is not None:
        shared.close()
