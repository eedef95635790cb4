"""The three tables: names, types and versions. A contract that notebooks, SQL and other tools rely on.

Columns may be added; none may be changed or dropped without raising `SCHEMA_VERSION`.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 1
"""Raised when a column changes its name, type or meaning. Written into the log as ``crawler-catalogue/1``."""

FILES: Final = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("version", pa.string()),
        ("last_modified", pa.timestamp("us", tz="UTC")),
        ("status", pa.string()),
        ("error", pa.string()),
        ("compression", pa.string()),
        ("n_hdus", pa.int32()),
        ("trailing_bytes", pa.int64()),
        ("pinned", pa.bool_()),
        ("requests", pa.int32()),
        ("bytes_read", pa.int64()),
        ("walker_version", pa.int32()),
        ("crawl", pa.string()),
        ("walked_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""One row an object seen: whole or broken, FITS or not. Sorted by url."""

HDUS: Final = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),
        pa.field("hdu", pa.int32(), nullable=False),
        ("kind", pa.string()),
        ("extname", pa.string()),
        ("extver", pa.int64()),
        ("extlevel", pa.int64()),
        ("bitpix", pa.int16()),
        ("shape", pa.list_(pa.int64())),
        ("pcount", pa.int64()),
        ("gcount", pa.int64()),
        ("header_offset", pa.int64()),
        ("header_size", pa.int64()),
        ("data_offset", pa.int64()),
        ("data_size", pa.int64()),
        ("n_cards", pa.int32()),
        ("header", pa.binary()),
    ]
)
"""One row an HDU. Sorted by url and hdu."""

CARDS: Final = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),
        pa.field("hdu", pa.int32(), nullable=False),
        pa.field("card", pa.int32(), nullable=False),
        pa.field("keyword", pa.string(), nullable=False),
        ("type", pa.string()),
        ("value", pa.string()),
        ("integer", pa.int64()),
        ("real", pa.float64()),
        ("logical", pa.bool_()),
        ("comment", pa.string()),
    ]
)
"""One row a card, a CONTINUE run being one. Sorted by keyword, url, hdu and card."""

TABLES: Final = {"files": FILES, "hdus": HDUS, "cards": CARDS}


def log_schema() -> pa.Schema:
    """Return the schema of the log: the partition column and the union of the three tables, all nullable."""
    union = {"table": pa.field("table", pa.string())}
    for schema in TABLES.values():
        for field in schema:
            union.setdefault(field.name, field.with_nullable(True))
    return pa.schema(list(union.values()))


FINAL_STATUSES: Final = frozenset({"ok", "truncated", "corrupt", "not-fits", "archived", "crashed"})
"""What a walk that need not be repeated ends with. ``unreadable`` files are walked again, and ``partial`` ones by a run
that asks for more of them."""
