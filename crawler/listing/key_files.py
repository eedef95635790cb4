"""Key files: lists of objects, as text with one URL or path a line, or as Parquet with a column ``url``.

Read by range through the stores, a batch at a time; told apart by content, not by name.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import islice
from urllib.parse import urljoin

import pyarrow as pa
import pyarrow.parquet as pq

from crawler.errors import ListingError, StoreError, UsageError
from crawler.stores import ByteRange, ObjectStore, as_url, is_known_scheme
from crawler.stores.base import LISTING_SCHEMA, ObjectRef
from crawler.stores.urls import ENCODED_SCHEMES, S3_SCHEMES, WEB_SCHEMES, file_path, one_line, printable, scheme_of

_PARQUET_MAGIC = b"PAR1"
_READ = 1 << 20
_LONGEST_LINE = 64 * 1024
"""Bytes. An S3 key has 1,024 at most; more without a line end is no list of keys."""
_BATCH_ROWS = 1_000
_REWRITTEN = ENCODED_SCHEMES | (S3_SCHEMES - {"s3"})


def read_key_file(root: str, url: str, store: ObjectStore) -> Iterator[pa.RecordBatch]:
    """Yield the objects that a key file names, in its order, as batches of `LISTING_SCHEMA`.

    Text: UTF-8, with or without byte order mark, any line ends; blank lines, and lines that begin with ``#``,
    are skipped. Parquet: ``size``, ``etag``, ``version`` and ``last_modified`` are taken where they are
    there, other columns are left alone. Relative paths are relative to the folder of the key file.

    Parameters
    ----------
    root : str
        The key file as the user named it, for messages.
    url : str
    store : ObjectStore
        What reads ``url``.

    Raises
    ------
    ListingError
        It cannot be read, or an entry cannot be understood: the line (row) is told, both counted from 1.
    """
    try:
        ref = store.head(url)
        if ref.size is None:
            ref = store.get(ref, ByteRange(0, len(_PARQUET_MAGIC))).ref
        source = _Reader(store, ref)
        magic = source.read(len(_PARQUET_MAGIC))
        source.seek(0)
        folder = url[: url.rindex("/") + 1]
        if magic == _PARQUET_MAGIC:
            yield from _parquet(root, source, folder)
        elif url.lower().endswith((".parquet", ".pq")):
            raise ListingError(root, "is not a Parquet file")
        else:
            yield from _text(root, source, folder)
    except StoreError as error:
        raise ListingError(root, error.reason) from error


class _Reader(io.RawIOBase):
    """An object as a file to read, by range and pinned: a key file that changes under way is an error."""

    def __init__(self, store: ObjectStore, ref: ObjectRef) -> None:
        super().__init__()
        self._store = store
        self._ref = ref
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ref.size or 0}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, (self._ref.size or 0) - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        if not wanted:
            return b""
        data = self._store.get(self._ref, ByteRange(self._at, self._at + wanted)).data
        self._at += len(data)
        return data

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # what io calls it with
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _text(root: str, source: _Reader, folder: str) -> Iterator[pa.RecordBatch]:
    urls = _entries(root, io.BufferedReader(source, _READ), folder)
    while chunk := list(islice(urls, _BATCH_ROWS)):
        yield pa.record_batch([_typed(chunk, name) for name in LISTING_SCHEMA.names], schema=LISTING_SCHEMA)


def _typed(urls: list[str], name: str) -> pa.Array:
    kind = LISTING_SCHEMA.field(name).type
    return pa.array(urls, type=kind) if name == "url" else pa.nulls(len(urls), type=kind)


def _entries(root: str, lines: io.BufferedReader, folder: str) -> Iterator[str]:
    number = 0
    while line := lines.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            raise ListingError(root, f"line {number} is longer than {_LONGEST_LINE} bytes: not a list of keys")
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        # Blanks are not stripped: a key may begin or end with one.
        text = line.rstrip(b"\r\n").decode("utf-8", errors="surrogateescape")
        if text.strip() and not text.startswith("#"):
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


def _parquet(root: str, source: _Reader, folder: str) -> Iterator[pa.RecordBatch]:
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
