"""Key files: lists of objects, as text with one URL or path a line, as Parquet with a column ``url``, as S3 Inventory.

Read by range through the stores, a batch at a time; told apart by content, not by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from urllib.parse import urljoin

import pyarrow as pa
import pyarrow.parquet as pq

from crawler.errors import ListingError, StoreError, UsageError
from crawler.listing.inventory import is_manifest, read_inventory, read_manifest
from crawler.listing.object_file import ObjectFile
from crawler.stores import ObjectStore, as_url, is_known_scheme
from crawler.stores.base import LISTING_SCHEMA
from crawler.stores.urls import ENCODED_SCHEMES, S3_SCHEMES, WEB_SCHEMES, file_path, one_line, printable, scheme_of

_PARQUET_MAGIC = b"PAR1"
_READ = 1 << 20
_LONGEST_LINE = 64 * 1024
"""Bytes. An S3 key has 1,024 at most; more without a line end is no list of keys."""
_BATCH_ROWS = 10_000
_LONGEST_BEGIN = 64  # bytes that tell what a key file is
_BOM = b"\xef\xbb\xbf"
_REWRITTEN = ENCODED_SCHEMES | (S3_SCHEMES - {"s3"})


def read_key_file(
    root: str, url: str, open_store: Callable[[str], ObjectStore]
) -> tuple[bool, Iterator[pa.RecordBatch]]:
    """Read the objects that a key file names, in its order, as batches of `LISTING_SCHEMA`.

    Text: UTF-8, with or without byte order mark, any line ends; blank lines, and lines that begin with ``#``,
    are skipped. Parquet: ``size``, ``etag``, ``version`` and ``last_modified`` are taken where they are
    there, other columns are left alone. Relative paths are relative to the folder of the key file. The manifest of an
    S3 Inventory: see `crawler.listing.inventory`.

    Parameters
    ----------
    root : str
        The key file as the user named it, for messages.
    url : str
    open_store : Callable[[str], ObjectStore]
        Returns what reads a URL.

    Returns
    -------
    bool
        Somebody chose these objects; else it is an inventory, which has all that a bucket holds.
    Iterator of RecordBatch

    Raises
    ------
    ListingError
        Here, or where it is iterated: it cannot be read, or an entry cannot be understood: the line (row) is told,
        both counted from 1.
    """
    try:
        source = ObjectFile(open_store(url), url)
        begin = source.read(_LONGEST_BEGIN)
        source.seek(0)
        folder = url[: url.rindex("/") + 1]
        if is_manifest(begin):
            manifest = read_manifest(root, source)
            return False, read_inventory(root, manifest, open_store("s3"))
        if begin.startswith(_PARQUET_MAGIC):
            return True, _told(root, _parquet(root, source, folder))
        if url.lower().endswith((".parquet", ".pq")):
            raise ListingError(root, "is not a Parquet file")
        return True, _told(root, _text(root, source, folder))
    except StoreError as error:
        raise ListingError(root, error.reason) from error


def _told(root: str, found: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    try:
        yield from found
    except StoreError as error:
        raise ListingError(root, error.reason) from error


def _text(root: str, source: ObjectFile, folder: str) -> Iterator[pa.RecordBatch]:
    number = 1
    for lines in _blocks(root, source):
        urls = _entries(root, lines, number, folder)
        number += len(lines)
        while chunk := list(islice(urls, _BATCH_ROWS)):
            yield pa.record_batch([_typed(chunk, name) for name in LISTING_SCHEMA.names], schema=LISTING_SCHEMA)


def _typed(urls: list[str], name: str) -> pa.Array:
    kind = LISTING_SCHEMA.field(name).type
    return pa.array(urls, type=kind) if name == "url" else pa.nulls(len(urls), type=kind)


def _blocks(root: str, source: ObjectFile) -> Iterator[list[str]]:
    """Yield the lines of a text, without their ends, so many at a time as are read with one request."""
    rest, number = b"", 1
    while True:
        read = source.read(_READ)
        block, newline, rest = (rest + read).rpartition(b"\n")
        if number == 1:
            block, rest = block.removeprefix(_BOM), rest if newline else rest.removeprefix(_BOM)
        lines = block.split(b"\n") if newline else []
        if not read and rest:
            lines, rest = [*lines, rest], b""
        for at, line in enumerate([*lines, rest]) if max(map(len, [*lines, rest])) >= _LONGEST_LINE else ():
            if len(line) >= _LONGEST_LINE:
                raise ListingError(root, f"line {number + at} is longer than {_LONGEST_LINE} bytes: not a list of keys")
        # Blanks are not stripped: a key may begin or end with one.
        yield [line.rstrip(b"\r").decode("utf-8", errors="surrogateescape") for line in lines]
        number += len(lines)
        if not read:
            return


def _entries(root: str, lines: list[str], first: int, folder: str) -> Iterator[str]:
    for number, text in enumerate(lines, first):
        # A URL of S3 that as_url leaves as it is: most lines of a list of millions.
        if text.startswith("s3://") and "@" not in text and "\0" not in text and text.isascii():
            yield text
        elif text.strip() and not text.startswith("#"):
            yield _resolved(root, f"line {number}", text, folder)


def _resolved(root: str, where: str, text: str, folder: str) -> str:
    """Return the URL that an entry means.

    Parameters
    ----------
    folder : str
        URL of the key file's folder, with the slash at its end.
    """
    scheme = scheme_of(text)
    if scheme and not is_known_scheme(scheme):
        raise ListingError(root, f"{where}: no store reads {one_line(scheme)}:// URLs")
    url = text
    try:
        if scheme:
            url = as_url(text)
        elif text.startswith(("/", "~/")) or scheme_of(folder) == "file":
            url = as_url(text if text.startswith(("/", "~/")) else file_path(folder) + text)
        elif scheme_of(folder) in WEB_SCHEMES:
            url = as_url(urljoin(folder, text))
        else:
            url = folder + text.removeprefix("./")
        url.encode()
    except (UsageError, ValueError) as error:
        why = str(error) if isinstance(error, UsageError) else f"not UTF-8: {printable(text)}"
        raise ListingError(root, f"{where}: {why}") from error
    if "\0" in url or (scheme_of(url) == "file" and "%00" in url):
        raise ListingError(root, f"{where}: holds a NUL byte: not a list of keys")
    return url


def _parquet(root: str, source: ObjectFile, folder: str) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(pa.PythonFile(source, mode="r")) as file:
            columns = file.schema_arrow.names
            if "url" not in columns:
                raise ListingError(root, f"has no column url; its columns are {one_line(', '.join(columns))}")
            wanted = [name for name in LISTING_SCHEMA.names if name in columns]
            row = 1
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
                yield _listed(root, batch, row, folder)
                row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise ListingError(root, f"cannot be read as Parquet: {one_line(str(error))}") from error


def _listed(root: str, batch: pa.RecordBatch, row: int, folder: str) -> pa.RecordBatch:
    columns = []
    for field in LISTING_SCHEMA:
        if field.name not in batch.schema.names:
            columns.append(pa.nulls(batch.num_rows, type=field.type))
            continue
        try:
            # Times without a zone are taken for UTC; finer ones are cut to microseconds.
            columns.append(batch.column(field.name).cast(field.type, safe=field.name != "last_modified"))
        except pa.ArrowException as error:
            kind = batch.column(field.name).type
            raise ListingError(root, f"column {field.name} is {kind}, not {field.type}") from error
    columns[0] = pa.array(_urls(root, columns[0].to_pylist(), row, folder), type=pa.string())
    return pa.record_batch(columns, schema=LISTING_SCHEMA)


def _urls(root: str, texts: Iterable[str | None], row: int, folder: str) -> Iterator[str]:
    for number, text in enumerate(texts, row):
        if not text:
            raise ListingError(root, f"row {number}: column url is empty")
        scheme = scheme_of(text)
        # As it stands is fastest; what as_url would change, or refuse, is left to it.
        raw = scheme and scheme not in _REWRITTEN and "@" not in text and is_known_scheme(scheme)
        yield text if raw else _resolved(root, f"row {number}", text, folder)
