"""Values that no honest lister, server or file system says, and crawls of them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import crawler
from crawler.catalogue.reader import Catalogue
from crawler.catalogue.schema import TABLES
from crawler.errors import ListingError
from crawler.listing import list_roots
from crawler.stores import open_store
from tests.conftest import sibling
from tests.servers import LAST_MODIFIED

GOOD = sibling(0)
MODIFIED = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
assert LAST_MODIFIED == "Tue, 14 Nov 2023 22:13:20 GMT"

Described = tuple[str, str | None, int | None, str | None, datetime | None]


def indexed(tmp_path: Path, *roots: str, **more: Any) -> dict[str, dict[str, Any]]:
    """Crawl, and return the rows of the table ``files`` by URL, read back in every way that there is."""
    catalogue = str(tmp_path / f"catalogue-{uuid.uuid4().hex[:8]}")
    crawler.index(roots, catalogue, **more)
    opened = Catalogue(catalogue)
    rows: list[dict[str, Any]] = opened.files.to_table().sort_by("url").to_pylist()
    urls = pa.array([row["url"] for row in rows])
    assert opened.rows_of(urls, TABLES["files"].names).sort_by("url").to_pylist() == rows
    for table in TABLES:
        by_sql = opened.sql(f"SELECT * FROM {table}")
        assert len(by_sql.to_pylist()) == getattr(opened, table).count_rows()
    assert len({row["url"] for row in rows}) == len(rows)
    assert all(row["error"] is None or row["error"].isprintable() for row in rows)
    assert not [row for row in rows if row["status"] == "crashed"]
    return {row["url"]: row for row in rows}


def described(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Described]:
    """Return what is known of each file, by its name without suffix."""
    columns = ("status", "error", "size", "etag", "last_modified")
    return {
        url.rpartition("/")[2].removesuffix(".fits"): tuple(row[name] for name in columns)  # type: ignore[misc]
        for url, row in rows.items()
    }


def listing_error(*roots: str, options: Mapping[str, Any] | None = None) -> str:
    """List roots that cannot be listed, and return why."""
    listing = list_roots(
        roots,
        include=None,
        exclude=(),
        open_store=lambda url: open_store(url, options if url.startswith("s3") else None),
    )
    with pytest.raises(ListingError) as caught:
        list(listing)
    assert str(caught.value).isprintable()
    return str(caught.value)


# What a header says, and what the columns etag and last_modified hold of it; "own" is what the server says by itself.
HEADERS: dict[str, tuple[dict[str, str], str | None, datetime | None]] = {
    "time-beyond-9999": ({"Last-Modified": "Fri, 31 Dec 9999 23:59:59 -1200"}, "own", None),
    "time-before-1": ({"Last-Modified": "Mon, 01 Jan 0000 00:00:00 +1200"}, "own", None),
    "time-of-words": ({"Last-Modified": "yesterday"}, "own", None),
    "time-empty": ({"Last-Modified": ""}, "own", None),
    "time-of-commas": ({"Last-Modified": " , , "}, "own", None),
    "time-of-rfc-850": ({"Last-Modified": "Tuesday, 14-Nov-23 22:13:20 GMT"}, "own", MODIFIED),
    "time-of-asctime": ({"Last-Modified": "Tue Nov 14 22:13:20 2023"}, "own", MODIFIED),
    "day-huge": ({"Last-Modified": "Fri, 31 Dec 99999999999999999999 23:59:59 GMT"}, "own", None),
    "zone-huge": ({"Last-Modified": "Fri, 31 Dec 2020 23:59:59 +999999"}, "own", None),
    "etag-latin-1": ({"ETag": '"caf\xe9"'}, None, MODIFIED),
    "etag-utf-8": ({"ETag": '"caf\xc3\xa9"'}, None, MODIFIED),
    "etag-empty": ({"ETag": ""}, None, MODIFIED),
    "etag-tab": ({"ETag": '"a\tb"'}, None, MODIFIED),
    "etag-long": ({"ETag": '"' + "x" * 7_000 + '"'}, None, MODIFIED),
}

NO_TEXT = b"\xff\xfe"
_MILLISECONDS = pa.timestamp("ms")


def raw_text(*values: bytes) -> pa.Array:
    """Return a column that says that it is text, whatever its bytes are."""
    return pa.array(values, pa.binary()).view(pa.string())


# A column of a listing: its values for a good object and for an odd one, which all the same is found to be what it is.
COLUMNS: dict[str, tuple[str, pa.Array]] = {
    "size-negative": ("size", pa.array([len(GOOD), -1])),
    "size-huge": ("size", pa.array([len(GOOD), 2**62])),
    "size-unsigned": ("size", pa.array([len(GOOD), 2**64 - 1], pa.uint64())),
    "size-nan": ("size", pa.array([float(len(GOOD)), float("nan")])),
    "size-fraction": ("size", pa.array([float(len(GOOD)), 0.5])),
    "size-text": ("size", pa.array([str(len(GOOD)), "large"])),
    "size-decimal": ("size", pa.array([Decimal(len(GOOD)), Decimal(-1)])),
    "size-zero": ("size", pa.array([len(GOOD), 0])),
    "size-too-small": ("size", pa.array([len(GOOD), 2880])),
    "size-null": ("size", pa.nulls(2)),
    "etag-newline": ("etag", pa.array([None, "a\nb"])),
    "etag-no-text": ("etag", raw_text(b"", NO_TEXT)),
    "etag-bytes": ("etag", pa.array([None, NO_TEXT], pa.binary())),
    "etag-number": ("etag", pa.array([None, 7])),
    "etag-long": ("etag", pa.array([None, "x" * 10**6])),
    "version-nul": ("version", pa.array([None, "\0"])),
    "time-of-seconds-far": ("last_modified", pa.array([0, 2**62]).cast(pa.timestamp("s"))),
    "time-of-milliseconds-far": ("last_modified", pa.array([0, -(2**62)]).cast(_MILLISECONDS)),
    "time-of-microseconds-far": ("last_modified", pa.array([0, 2**63 - 1]).cast(pa.timestamp("us", "UTC"))),
    "time-of-nanoseconds": ("last_modified", pa.array([0, 2**63 - 1]).cast(pa.timestamp("ns"))),
    "time-of-no-zone": ("last_modified", pa.array([0, 1]).cast(pa.timestamp("s", "Nowhere/City"))),
    "time-of-words": ("last_modified", pa.array(["2020-01-01T00:00:00Z", "yesterday"])),
    "time-of-days": ("last_modified", pa.array([0, 2**31 - 1], pa.int32()).cast(pa.date32())),
}

# A column of a type that holds no such values.
TYPES: dict[str, tuple[str, pa.Array]] = {
    "size-list": ("size", pa.array([[1], [2]])),
    "size-logical": ("size", pa.array([True, False])),
    "size-struct": ("size", pa.array([{"a": 1}, {"a": 2}])),
    "etag-list": ("etag", pa.array([["a"], ["b"]])),
    "etag-real": ("etag", pa.array([1.5, 2.5])),
    "time-real": ("last_modified", pa.array([1.5, 2.5])),
    "time-list": ("last_modified", pa.array([[1], [2]])),
}
