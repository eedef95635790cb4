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
from crawler.stores import ObjectStore, as_url
from crawler.stores.base import LISTING_SCHEMA
from crawler.stores.urls import ENCODED_SCHEMES, S3_SCHEMES, WEB_SCHEMES, file_path, one_line, printable, scheme_of
from crawler.stores.values import size_column, tag_column, time_column

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
    are skipped. Parquet: ``size``, ``etag``, ``version`` and ``last_modified`` are taken where they are there, other
    columns are left alone; a value that is none, such as a negative size, is null (`crawler.stores.values`). Relative
    paths are relative to the folder of the key file. The manifest of an S3 Inventory: see `crawler.listing.inventory`.

    An entry that cannot be understood ends the listing: it is no URL that a store reads, so the list is wrong, or no
    list of keys at all. The listing is far ahead of the crawl, so that this is known after minutes, and not after hours
    or as a million rows. An entry that is understood is listed, and its row says where it cannot be read.

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
        entries = _Entries(root, url[: url.rindex("/") + 1], open_store)
        if is_manifest(begin):
            manifest = read_manifest(root, source)
            return False, read_inventory(root, manifest, open_store("s3"))
        if begin.startswith(_PARQUET_MAGIC):
            return True, _told(root, _parquet(root, source, entries))
        if url.lower().endswith((".parquet", ".pq")):
            raise ListingError(root, "is not a Parquet file")
        return True, _told(root, _text(root, source, entries))
    except StoreError as error:
        raise ListingError(root, error.reason) from error


def _told(root: str, found: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    try:
        yield from found
    except StoreError as error:
        raise ListingError(root, error.reason) from error


def _text(root: str, source: ObjectFile, entries: _Entries) -> Iterator[pa.RecordBatch]:
    number = 1
    for lines in _blocks(root, source):
        urls = entries.of_lines(lines, number)
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


class _Entries:
    """The entries of one key file, as URLs.

    Parameters
    ----------
    root : str
        The key file, for messages.
    folder : str
        URL of its folder, with the slash at its end.
    open_store : callable
        Raises `UsageError` for a URL that no store reads.
    """

    def __init__(self, root: str, folder: str, open_store: Callable[[str], ObjectStore]) -> None:
        self._root = root
        self._folder = folder
        self._open_store = open_store
        self._readable: set[str] = set()  # schemes that a store was opened for

    def of_lines(self, lines: list[str], first: int) -> Iterator[str]:
        """Yield the URLs of the entries among some lines."""
        for number, text in enumerate(lines, first):
            # A URL of S3 that as_url leaves as it is: most lines of a list of millions.
            if text.startswith("s3://") and "@" not in text and "\0" not in text and text.isascii():
                yield text
            elif text.strip() and not text.startswith("#"):
                yield self._resolved(f"line {number}", text)

    def of_rows(self, texts: Iterable[str | None], first: int) -> Iterator[str]:
        """Yield the URLs of some rows."""
        for number, text in enumerate(texts, first):
            if not text:
                raise ListingError(self._root, f"row {number}: column url is empty")
            scheme = scheme_of(text)
            # As it stands is fastest; what as_url would change, or refuse, is left to it.
            raw = scheme in self._readable and scheme not in _REWRITTEN and "@" not in text and text.isascii()
            yield text if raw and "\0" not in text else self._resolved(f"row {number}", text)

    def _resolved(self, where: str, text: str) -> str:
        """Return the URL that an entry means."""
        if "\0" in text:
            raise ListingError(self._root, f"{where}: holds a NUL byte: not a list of keys")
        scheme, folder = scheme_of(text), self._folder
        try:
            if scheme:
                url = as_url(text)
            elif text.startswith(("/", "~/")) or scheme_of(folder) == "file":
                url = as_url(text if text.startswith(("/", "~/")) else file_path(folder) + text)
            elif scheme_of(folder) in WEB_SCHEMES:
                url = as_url(urljoin(folder, text))
            else:
                url = as_url(folder + text.removeprefix("./"))
            if scheme_of(url) not in self._readable:
                self._open_store(url)
                self._readable.add(scheme_of(url))
        except UsageError as error:
            raise ListingError(self._root, f"{where}: {error}") from error
        except ValueError as error:  # of urljoin, as for "//["
            raise ListingError(self._root, f"{where}: is not a URL: {printable(text)}") from error
        if scheme_of(url) == "file" and "%00" in url:
            raise ListingError(self._root, f"{where}: holds a NUL byte: not a list of keys")
        return url


def _parquet(root: str, source: ObjectFile, entries: _Entries) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(pa.PythonFile(source, mode="r")) as file:
            columns = file.schema_arrow.names
            if "url" not in columns:
                raise ListingError(root, f"has no column url; its columns are {one_line(', '.join(columns))}")
            wanted = [name for name in LISTING_SCHEMA.names if name in columns]
            if twice := [name for name in wanted if columns.count(name) > 1]:
                raise ListingError(root, f"has more than one column {twice[0]}")
            row = 1
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
                yield _listed(root, batch, row, entries)
                row += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeError) as error:  # UnicodeError: of a column's name
        raise ListingError(root, f"cannot be read as Parquet: {one_line(str(error))}") from error


_READ_COLUMN = {"size": size_column, "etag": tag_column, "version": tag_column, "last_modified": time_column}


def _listed(root: str, batch: pa.RecordBatch, row: int, entries: _Entries) -> pa.RecordBatch:
    urls = entries.of_rows(_texts(root, batch.column("url")), row)
    columns = [pa.array(urls, type=pa.string())]
    for name, read in _READ_COLUMN.items():
        try:
            columns.append(read(batch.column(name) if name in batch.schema.names else pa.nulls(batch.num_rows)))
        except TypeError as error:
            raise ListingError(root, f"column {name} is {error}") from None
    return pa.record_batch(columns, schema=LISTING_SCHEMA)


def _texts(root: str, column: pa.Array) -> list[str | None]:
    """Return the entries of a column; bytes that are no UTF-8, which a file of text may hold, as `os.fsdecode` does."""
    try:
        raw = column.cast(pa.large_binary())
    except pa.ArrowException:
        raise ListingError(root, f"column url is {column.type}, not text") from None
    try:
        texts: list[str | None] = raw.cast(pa.large_string()).to_pylist()
    except pa.ArrowInvalid:
        texts = [None if one is None else one.decode(errors="surrogateescape") for one in raw.to_pylist()]
    return texts
