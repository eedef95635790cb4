"""The three tables of a catalogue: their names, columns and types. Notebooks, SQL and other tools depend on them.

Columns may be added. A change or removal of a column needs a new `SCHEMA_VERSION`.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 1
"""Version of the tables. It increases when a column changes its name, type or meaning.

The log contains it as ``crawler-catalogue/1``.
"""

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
"""One row for each object that was indexed, intact or damaged, FITS or not. Sorted by url."""

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
"""One row for each HDU. Sorted by url and hdu."""

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
"""One row for each card; a card and its CONTINUE cards are one row. Sorted by keyword, url, hdu and card."""

TABLES: Final = {"files": FILES, "hdus": HDUS, "cards": CARDS}


def log_schema() -> pa.Schema:
    """Return the schema of the log: the partition column and the columns of all three tables, all nullable."""
    union = {"table": pa.field("table", pa.string())}
    for schema in TABLES.values():
        for field in schema:
            union.setdefault(field.name, field.with_nullable(True))
    return pa.schema(list(union.values()))


FINAL_STATUSES: Final = frozenset({"ok", "truncated", "corrupt", "not-fits", "archived", "crashed"})
"""Values of ``status`` for files that a later run does not walk again. ``unreadable`` files are walked again, and
``partial`` files by a run that asks for more of them."""
