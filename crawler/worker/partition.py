"""One partition of keys: many walks at once, their rows written as fragments, one small receipt.

What a worker runs, in this process or on a cluster. Blocking reads on threads, not asyncio: obstore lets go of the
interpreter while it waits, and its blocking call costs half the CPU of the awaited one.

What partitions of one run share in a process is in `crawler.worker.context`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from crawler.catalogue.folder import Folder, open_folder
from crawler.catalogue.fragments import Fragment, new_batch, write_fragment
from crawler.catalogue.log import CatalogueLog, first_line
from crawler.catalogue.schema import FINAL_STATUSES
from crawler.errors import CatalogueError, CrawlerError, StoreDownError
from crawler.fits.walker import WALKER_VERSION
from crawler.job.crawl_job import CrawlJob
from crawler.stores import ObjectRef
from crawler.stores.urls import one_line, printable
from crawler.stores.values import writable
from crawler.worker.context import worker_context
from crawler.worker.tables import tables_of
from crawler.worker.walk import FileResult


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
    skipped, vanished : int
        Files that the catalogue holds unchanged; and files of a resumed listing that the store does not have any more.
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
    vanished: int = 0
    replaced: list[str] = field(default_factory=list)
    retries: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    failure: CrawlerError | None = None
    first_error: str | None = None
    complete: bool = True

    def count(self, result: FileResult, *, vanished: bool = False) -> None:
        """Count one file that was walked, or one that has vanished: it took requests, too."""
        self.requests += result.requests
        self.bytes_read += result.bytes_read
        self.round_trips += result.round_trips
        if vanished:
            self.vanished += 1
            return
        self.statuses[result.status] += 1
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
    known = load_indexed_rows(job, partition)
    refs = []
    for ref in (ObjectRef(**row) for row in partition.to_pylist()):
        old = known.get(ref.url, [])
        # More than one row is what a run leaves that dies before it could drop repeats: this one replaces them all.
        if len(old) == 1 and is_unchanged(job, ref, old[0]):
            receipt.skipped += 1
            continue
        if old:
            receipt.replaced.append(ref.url)
        refs.append(ref)

    batch: list[FileResult] = []
    walked: set[str] = set()
    header_bytes = 0
    with worker_context(job) as context:
        try:
            for result in context.walk(job, refs, stop):
                if result.missing and job.resumed:
                    receipt.count(result, vanished=True)
                    continue
                batch.append(result)
                walked.add(result.ref.url)
                header_bytes += result.header_bytes
                if header_bytes >= job.batch_bytes:
                    with context.writing:
                        _write(job, batch, receipt)
                    header_bytes = 0
                del result  # or the next one is waited for with this one in memory
        except StoreDownError as error:
            # What libraries below raised may not survive the way to the driver: it is told already.
            error.__cause__ = error.__context__ = None
            receipt.failure = error.with_traceback(None)
        if not context.closed:
            with context.writing:
                _write(job, batch, receipt)
        receipt.retries = context.take_retries()
    receipt.complete = len(walked) + receipt.vanished == len(refs)
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
    if load_indexed_rows(job, partition):
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


def load_indexed_rows(job: CrawlJob, partition: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Return the rows that the catalogue holds of a partition's files, by url.

    Raises
    ------
    CatalogueError
        It cannot be read.
    """
    known: dict[str, list[dict[str, Any]]] = {}
    if job.known is None or not partition.num_rows:
        return known
    with worker_context(job) as context:
        rows = context.load_rows(job, partition["url"].combine_chunks())
    for row in rows:
        known.setdefault(str(row["url"]), []).append(row)
    return known


def changed(job: CrawlJob, partition: pa.Table) -> pa.Table:
    """Return the rows of a partition whose files the catalogue does not hold unchanged.

    Raises
    ------
    CatalogueError
        It cannot be read.
    """
    known = load_indexed_rows(job, partition)
    mask = []
    for ref in (ObjectRef(**row) for row in partition.to_pylist()):
        old = known.get(ref.url, [])
        mask.append(not (len(old) == 1 and is_unchanged(job, ref, old[0])))
    return partition.filter(pa.array(mask, pa.bool_()))


def is_unchanged(job: CrawlJob, ref: ObjectRef, row: dict[str, Any]) -> bool:
    """Tell whether a file need not be walked again: the same content, walked by this walker as far as is asked for.

    Without an ETag nothing proves that the content is the same, so the file is walked.
    """
    return (
        ref.etag is not None
        and (ref.size, ref.etag, WALKER_VERSION) == (row["size"], row["etag"], row["walker_version"])
        and (row["status"] in FINAL_STATUSES or _reached(row, job.scope.max_hdus))
    )


def _reached(old: dict[str, Any], max_hdus: int | None) -> bool:
    """Tell whether a walk that was stopped on request went as far as is now asked for."""
    return old["status"] == "partial" and max_hdus is not None and bool(old["n_hdus"] >= max_hdus)
