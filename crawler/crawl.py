"""One partition of keys: many walks at once, their rows written as fragments, one small receipt.

What a worker runs, in this process or on a cluster. Blocking reads on threads, not asyncio: obstore lets go of the
interpreter while it waits, and its blocking call costs half the CPU of the awaited one.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from crawler.catalogue.fragments import Fragment, new_batch, write_fragment
from crawler.catalogue.log import first_line
from crawler.catalogue.reader import Catalogue
from crawler.catalogue.rows import tables_of
from crawler.catalogue.schema import FINAL_STATUSES
from crawler.errors import CatalogueError
from crawler.fits.walker import WALKER_VERSION
from crawler.job import CrawlJob
from crawler.stores import ObjectRef, ObjectStore, open_store
from crawler.stores.storage import open_folder
from crawler.stores.urls import scheme_of
from crawler.walk import FileResult, walk_file

LOCAL_CONCURRENCY = 4
"""Files of a local disk that are walked at once: reads hardly wait, and more threads only contend."""

REMOTE_CONCURRENCY = 32
"""Files that are walked at once where every read waits for a network."""


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
    requests, bytes_read : int
    skipped : int
        Files that the catalogue holds unchanged.
    replaced : list of str
        Urls among the fragments of which the catalogue holds older rows.
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
    skipped: int = 0
    replaced: list[str] = field(default_factory=list)
    first_error: str | None = None
    complete: bool = True


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
        if len(old) == 1 and _unchanged(ref, old[0]):
            receipt.skipped += 1
            continue
        if old:
            receipt.replaced.append(ref.url)
        refs.append(ref)

    batch: list[FileResult] = []
    header_bytes = walked = 0
    for result in _walk_all(job, refs, stop):
        batch.append(result)
        walked += 1
        header_bytes += sum(len(hdu.header) for hdu in result.hdus)
        if header_bytes >= job.batch_bytes:
            _write(job, batch, receipt)
            batch, header_bytes = [], 0
    _write(job, batch, receipt)
    if walked < len(refs):
        receipt.complete = False
        beyond = {ref.url for ref in refs[walked:]}
        receipt.replaced = [url for url in receipt.replaced if url not in beyond]
    return receipt


def _walk_all(job: CrawlJob, refs: list[ObjectRef], stop: Callable[[], bool]) -> Iterator[FileResult]:
    """Walk files, many at once; yield results in the order of the files, holding few of them."""
    if not refs:
        return
    local = scheme_of(refs[0].url) == "file"
    concurrency = job.concurrency or (LOCAL_CONCURRENCY if local else REMOTE_CONCURRENCY)
    pending: deque[Future[FileResult]] = deque()
    with ThreadPoolExecutor(concurrency, thread_name_prefix="walk") as pool:
        for ref in refs:
            if stop():
                break
            pending.append(pool.submit(walk_file, store_for(job, ref.url), ref, job.policy, job.limits))
            if len(pending) >= 2 * concurrency:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _write(job: CrawlJob, results: list[FileResult], receipt: Receipt) -> None:
    """Write the rows of some files, and note on the receipt what they are."""
    if not results:
        return
    folder = open_folder(job.catalogue, job.catalogue_options)
    tables = tables_of(results, job.crawl, datetime.now(UTC))
    name = new_batch(job.crawl)
    try:
        written = [write_fragment(folder, table, rows, name) for table, rows in tables.items()]
    except OSError as error:
        raise CatalogueError(folder.url, f"cannot be written: {first_line(error)}") from None
    receipt.fragments += [fragment for fragment in written if fragment is not None]
    receipt.hdus += tables["hdus"].num_rows
    receipt.cards += tables["cards"].num_rows
    for result in results:
        receipt.statuses[result.status] += 1
        receipt.requests += result.requests
        receipt.bytes_read += result.bytes_read
        if result.status == "unreadable" and receipt.first_error is None:
            receipt.first_error = f"{result.error}: {result.ref.url}"


_KNOWN = ["url", "size", "etag", "status", "walker_version"]


def _known(job: CrawlJob, partition: pa.Table) -> dict[str, list[dict[str, object]]]:
    """Return the rows that the catalogue holds of a partition's files, by url.

    Raises
    ------
    CatalogueError
        It cannot be read.
    """
    known: dict[str, list[dict[str, object]]] = {}
    if job.known is None or not partition.num_rows:
        return known
    for row in _rows_of(job, job.known, partition["url"].combine_chunks()):
        known.setdefault(str(row["url"]), []).append(row)
    return known


def _rows_of(job: CrawlJob, version: int, urls: pa.Array) -> list[dict[str, object]]:
    """Return the rows of some urls, of a version or, where its files are gone, of the latest.

    A run deletes what it wrote and itself merged as it ends, so a version that lay between is soon gone.
    """
    catalogue = Catalogue(job.catalogue, version=version, storage_options=job.catalogue_options)
    while True:
        try:
            rows: list[dict[str, object]] = catalogue.files.to_table(
                columns=_KNOWN, filter=pc.field("url").isin(urls)
            ).to_pylist()
        except FileNotFoundError as error:
            latest = Catalogue(job.catalogue, storage_options=job.catalogue_options)
            if latest.version == catalogue.version:
                raise CatalogueError(catalogue.url, f"is damaged: {first_line(error)}") from None
            catalogue = latest
        except (OSError, pa.ArrowException) as error:
            raise CatalogueError(catalogue.url, f"cannot be read: {first_line(error)}") from None
        else:
            return rows


def _unchanged(ref: ObjectRef, old: dict[str, object]) -> bool:
    """Tell whether a file need not be walked again: the same content, walked by this walker to an end.

    Without an ETag nothing proves that the content is the same, so the file is walked.
    """
    return (
        ref.etag is not None
        and (ref.size, ref.etag, WALKER_VERSION) == (old["size"], old["etag"], old["walker_version"])
        and old["status"] in FINAL_STATUSES
    )


_stores: dict[tuple[str, str], ObjectStore] = {}
_stores_lock = threading.Lock()


def store_for(job: CrawlJob, url: str) -> ObjectStore:
    """Return this process's store for a url: one a run and scheme, so that connections are kept between partitions."""
    key = job.crawl, scheme_of(url)
    with _stores_lock:
        if key not in _stores:
            for other in [other for other in _stores if other[0] != job.crawl]:
                del _stores[other]
            _stores[key] = open_store(url, job.options_for(url), adapter=job.adapter)
        return _stores[key]
