"""S3 Inventory: a listing of a bucket that S3 itself writes every day or week, as a source of objects.

Sources: "Cataloging and analyzing your data with S3 Inventory", "Inventory manifest" and "Amazon S3 Inventory list",
Amazon S3 User Guide. Files of an inventory are read by range and pinned, a batch at a time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.orc as pa_orc
import pyarrow.parquet as pq

from crawler.errors import ListingError, StoreError
from crawler.listing.object_file import ObjectFile
from crawler.stores import ObjectStore
from crawler.stores.base import LISTING_SCHEMA
from crawler.stores.s3.pages import decode_key
from crawler.stores.urls import one_line, printable
from crawler.stores.values import size_column, size_of, tag_column, time_column

LARGEST_MANIFEST = 64 << 20
"""Bytes. It has some 150 a file, each of which lists a million objects."""

_ARN = "arn:aws:s3:::"
_BATCH_ROWS = 10_000
_BLOCK = 1 << 20
# The name that a column has in CSV, lower-cased, by the one that it has in ORC and Parquet.
_COLUMNS = {
    "key": "key",
    "version_id": "versionid",
    "is_latest": "islatest",
    "is_delete_marker": "isdeletemarker",
    "size": "size",
    "last_modified_date": "lastmodifieddate",
    "e_tag": "etag",
}


@dataclass(frozen=True, slots=True)
class InventoryFile:
    """One file of an inventory: ``size`` in bytes; ``md5`` in hexadecimal digits, if the manifest tells it."""

    url: str
    size: int | None
    md5: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``manifest.json`` says.

    Attributes
    ----------
    bucket : str
        That is listed.
    format : str
        ``CSV``, ``ORC`` or ``Parquet``.
    columns : tuple of str
        Of CSV, which has no header.
    files : tuple of InventoryFile
    """

    bucket: str
    format: str
    columns: tuple[str, ...]
    files: tuple[InventoryFile, ...]


def is_manifest(begin: bytes) -> bool:
    """Tell whether a key file that begins so is the manifest of an inventory: a JSON object, not a list of keys."""
    text = begin.removeprefix(b"\xef\xbb\xbf").lstrip()
    return text.startswith(b"{") and (text[1:].lstrip()[:1] in (b'"', b"}", b""))


def read_manifest(root: str, source: ObjectFile) -> Manifest:
    """Read a manifest.

    Raises
    ------
    ListingError
        It is none, or broken, or of an inventory without keys.
    StoreError
    """
    if source.size > LARGEST_MANIFEST:
        raise ListingError(root, f"is larger than {LARGEST_MANIFEST} bytes: not the manifest of an S3 Inventory")
    try:
        told = json.loads(source.read().removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:  # of Unicode and of endless numbers, too; of endless nesting
        raise ListingError(root, f"manifest is broken: not JSON ({one_line(str(error))})") from None
    try:
        return _manifest(root, told)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        said = f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise ListingError(root, f"is not a whole manifest of an S3 Inventory: {one_line(said)}") from error


def _manifest(root: str, told: dict[str, Any]) -> Manifest:
    bucket, written = _text(told, "sourceBucket"), _text(told, "fileFormat")
    schema, destination = _text(told, "fileSchema"), _text(told, "destinationBucket").removeprefix(_ARN)
    if written.lower() not in _READERS:
        raise ListingError(root, f"inventory is written as {one_line(written)}: CSV, ORC and Parquet are read")
    files = tuple(
        InventoryFile(f"s3://{destination}/{_text(one, 'key')}", _whole(one.get("size")), _checksum(one))
        for one in told["files"]
    )
    columns = tuple(name.strip().lower() for name in schema.split(",")) if written.lower() == "csv" else ()
    if columns and "key" not in columns:
        raise ListingError(root, f"inventory has no Key; its columns are {one_line(schema)}")
    return Manifest(bucket, written.lower(), columns, files)


def _text(told: dict[str, Any], name: str) -> str:
    if not isinstance(told[name], str) or not told[name].isprintable() or not told[name]:
        raise ValueError(f"{name} is not text")
    return str(told[name])


def _checksum(file: dict[str, Any]) -> str | None:
    return None if file.get("MD5checksum") is None else _text(file, "MD5checksum")


def _whole(size: object) -> int | None:
    if size is not None and (not isinstance(size, int) or size_of(size) is None):
        raise ValueError("size of a file is not a number")
    return size


def read_inventory(root: str, manifest: Manifest, store: ObjectStore) -> Iterator[pa.RecordBatch]:
    """Yield the objects of an inventory as batches of `LISTING_SCHEMA`, as ListObjectsV2 would list them.

    That is the current version of each, no delete markers, ETags in quotes, times in whole seconds. A size, an ETag or
    a time that is none is null (`crawler.stores.values`): the first read of the object tells it. What decides whether
    there is an object (its key, ``IsLatest``, ``IsDeleteMarker``), and the type of every column, must be right.

    Parameters
    ----------
    root : str
        The manifest as the user named it, for messages.
    manifest : Manifest
    store : ObjectStore
        What reads its files.

    Raises
    ------
    ListingError
        A file is missing, is not the one that the manifest names, or cannot be read.
    """
    for file in manifest.files:
        where = printable(file.url)
        try:
            source = ObjectFile(store, file.url)
            if file.size is not None and source.size != file.size:
                raise ListingError(
                    root, f"inventory file has {source.size} bytes, not the {file.size} of the manifest: {where}"
                )
            for columns in _READERS[manifest.format](manifest, file, source):
                yield _listed(manifest, columns)
        except StoreError as error:
            raise ListingError(root, f"inventory file cannot be read: {error.reason}: {where}") from error
        # KeyError: a column is there twice. UnicodeError: the name of one is not UTF-8.
        except (pa.ArrowException, OSError, EOFError, zlib.error, KeyError, UnicodeError, _BrokenError) as error:
            said = f"inventory file cannot be read as {manifest.format.upper()}: {one_line(str(error))}: {where}"
            raise ListingError(root, said) from error


class _BrokenError(Exception):
    """A file is not what it should be."""


def _csv(manifest: Manifest, file: InventoryFile, source: ObjectFile) -> Iterator[dict[str, pa.Array]]:
    """Yield batches of a gzipped CSV file; at its end it is known whether all of it was what the manifest says."""
    hashed = _Hashed(source)
    raw = io.BufferedReader(hashed, _BLOCK)
    plain = gzip.GzipFile(fileobj=raw, mode="rb")
    wanted = [name for name in _COLUMNS.values() if name in manifest.columns]
    reader = (
        pa_csv.open_csv(
            pa.PythonFile(io.BufferedReader(plain, _BLOCK), mode="r"),
            read_options=pa_csv.ReadOptions(column_names=manifest.columns, block_size=_BLOCK, use_threads=False),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(manifest.columns, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
        if file.size != 0
        else ()
    )
    for batch in reader:
        columns = {name: batch[given] for name, given in _COLUMNS.items() if given in wanted}
        columns["key"] = pa.array(map(decode_key, columns["key"].to_pylist()), pa.string())
        for name in ("is_latest", "is_delete_marker"):
            if name in columns:
                columns[name] = pc.equal(pc.utf8_lower(columns[name]), "true")
        yield columns
    while raw.read(_BLOCK):  # what may follow what gzip needs
        pass
    if file.md5 is not None and hashed.md5.hexdigest() != file.md5.lower():
        raise _BrokenError("its MD5 checksum is not that of the manifest")


class _Hashed(io.RawIOBase):
    """Hashes a file while it is read from its begin to its end."""

    def __init__(self, source: ObjectFile) -> None:
        super().__init__()
        self._source = source
        self.md5 = hashlib.md5(usedforsecurity=False)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # what io calls it with
        count = self._source.readinto(buffer)
        self.md5.update(buffer[:count])
        return count


# The checksums of ORC and Parquet files are not verified: only some columns of them are read, in no order. That they
# are the files that were written is left to their sizes and, within one run, to their ETags.


def _orc(_: Manifest, __: InventoryFile, source: ObjectFile) -> Iterator[dict[str, pa.Array]]:
    file = pa_orc.ORCFile(pa.PythonFile(source, mode="r"))
    wanted = _wanted(file.schema.names)
    for stripe in range(file.nstripes):
        try:
            batch = file.read_stripe(stripe, columns=wanted)
        except pa.ArrowInvalid:  # Arrow refuses the whole stripe for one time that 64 bits of nanoseconds cannot hold
            wanted = [name for name in wanted if name != "last_modified_date"]
            batch = file.read_stripe(stripe, columns=wanted)
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            part = batch.slice(start, _BATCH_ROWS)
            yield {name: part.column(name) for name in wanted}


def _parquet(_: Manifest, __: InventoryFile, source: ObjectFile) -> Iterator[dict[str, pa.Array]]:
    with pq.ParquetFile(pa.PythonFile(source, mode="r")) as file:
        wanted = _wanted(file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
            yield {name: batch.column(name) for name in wanted}


def _wanted(names: list[str]) -> list[str]:
    if "key" not in names:
        raise _BrokenError(f"it has no column key; its columns are {', '.join(names)}")
    return [name for name in _COLUMNS if name in names]


_READERS = {"csv": _csv, "orc": _orc, "parquet": _parquet}


def _listed(manifest: Manifest, columns: dict[str, pa.Array]) -> pa.RecordBatch:
    keys = columns["key"].cast(pa.string())
    keys.validate(full=True)  # that it is UTF-8, which files of text need not be
    if keys.null_count:
        raise _BrokenError("an object has no key")
    rows = len(keys)
    current = pa.array([True] * rows) if rows else pa.array([], pa.bool_())
    if "is_latest" in columns:
        current = pc.and_(current, pc.fill_null(columns["is_latest"].cast(pa.bool_()), True))
    if "is_delete_marker" in columns:
        current = pc.and_(current, pc.invert(pc.fill_null(columns["is_delete_marker"].cast(pa.bool_()), False)))
    urls = pc.binary_join_element_wise(pa.scalar(f"s3://{manifest.bucket}/"), keys, "")
    batch = pa.record_batch(
        [
            urls,
            _column(columns, "size", rows, size_column),
            _quoted(_column(columns, "e_tag", rows, tag_column)),
            _column(columns, "version_id", rows, tag_column),
            pc.floor_temporal(_column(columns, "last_modified_date", rows, _times), unit="second"),
        ],
        schema=LISTING_SCHEMA,
    )
    return batch.filter(current)


def _column(columns: dict[str, pa.Array], name: str, rows: int, read: Callable[[pa.Array], pa.Array]) -> pa.Array:
    try:
        return read(columns.get(name, pa.nulls(rows)))
    except TypeError as error:
        raise _BrokenError(f"its column {name} is {error}") from None


def _quoted(etags: pa.Array) -> pa.Array:
    """Return ETags as S3 itself writes them: an inventory drops the quotes."""
    return pc.if_else(pc.starts_with(etags, '"'), etags, pc.binary_join_element_wise('"', etags, '"', ""))


def _times(moments: pa.Array) -> pa.Array:
    # Integers are milliseconds since 1970.
    return time_column(moments.cast(pa.timestamp("ms")) if pa.types.is_integer(moments.type) else moments)
