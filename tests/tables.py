"""Tables of a catalogue compared, and rows made up, for tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from crawler.catalogue.folder import Folder
from crawler.catalogue.fragments import Fragment, new_batch, write_fragment
from crawler.catalogue.log import CatalogueLog, Change
from crawler.catalogue.reader import Catalogue
from crawler.catalogue.schema import TABLES

OF_THE_RUN = ("crawl", "walked_at", "requests", "bytes_read")
"""Columns that tell of the run and not of the files: two runs over the same files differ in them."""

_SHOWN = 3  # rows of a difference


def same_tables(a: Catalogue, b: Catalogue) -> None:
    """Assert that two catalogues hold the same: equal as multisets of rows, `OF_THE_RUN` aside.

    Raises
    ------
    AssertionError
        Says which rows of which table only one of them has, or one has more often.
    """
    differences = []
    for name in TABLES:
        left, right = multiset(getattr(a, name).to_table()), multiset(getattr(b, name).to_table())
        for side, rows in (("first", left - right), ("second", right - left)):
            if rows:
                shown = "".join(f"\n    {count} x {dict(row)}"[:400] for row, count in rows.most_common(_SHOWN))
                differences.append(f"{name}: {rows.total()} rows only in the {side}:{shown}")
    assert not differences, "\n".join(differences)


def multiset(table: pa.Table) -> Counter[tuple[tuple[str, object], ...]]:
    """Return how often each row occurs, as pairs of column and value, `OF_THE_RUN` aside."""
    names = [name for name in table.column_names if name not in OF_THE_RUN]
    columns = [[_hashable(value) for value in table[name].to_pylist()] for name in names]
    return Counter(tuple(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def _hashable(value: object) -> object:
    if isinstance(value, list):
        return tuple(value)
    # NaN is equal to nothing, and 1 to 1.0 and True: a row is what it is written as.
    return repr(value) if isinstance(value, float) else value


def rows_of(name: str, **columns: Iterable[object]) -> pa.Table:
    """Return rows of one table with the columns given, and null, or 0 where there must be a value, in all others."""
    lists = {key: list(values) for key, values in columns.items()}
    count = len(next(iter(lists.values())))
    assert set(lists) <= set(TABLES[name].names), lists.keys()
    arrays = []
    for field in TABLES[name]:
        missing: object = None if field.nullable else ("" if pa.types.is_string(field.type) else 0)
        arrays.append(pa.array(lists.get(field.name, [missing] * count), field.type))
    return pa.table(arrays, schema=TABLES[name])


def write_object(folder: Folder, urls: Iterable[str], crawl: str = "run", etag: str = "1") -> list[Fragment]:
    """Write fragments of all three tables, as one batch: of each url two HDUs of two cards."""
    urls = sorted(urls)
    batch = new_batch(crawl)
    each_hdu = [(url, hdu) for url in urls for hdu in (0, 1)]
    each_card = [(url, hdu, card) for url, hdu in each_hdu for card in (0, 1)]
    tables = {
        "files": rows_of("files", url=urls, etag=[etag] * len(urls), status=["ok"] * len(urls)),
        "hdus": rows_of(
            "hdus",
            url=[url for url, _ in each_hdu],
            hdu=[hdu for _, hdu in each_hdu],
            header=[f"{url} {hdu} {etag}".encode() for url, hdu in each_hdu],
        ),
        "cards": rows_of(
            "cards",
            url=[url for url, _, _ in each_card],
            hdu=[hdu for _, hdu, _ in each_card],
            card=[card for _, _, card in each_card],
            keyword=[f"KEY{card}" for _, _, card in each_card],
            value=[etag] * len(each_card),
        ),
    }
    written = [write_fragment(folder, name, rows, batch) for name, rows in tables.items()]
    return [fragment for fragment in written if fragment is not None]


def add_objects(log: CatalogueLog, urls: Iterable[str], crawl: str = "run", etag: str = "1") -> list[Fragment]:
    """Commit what `write_object` writes."""
    fragments = write_object(log.folder, urls, crawl, etag)
    log.commit(lambda _: Change(fragments), {"crawl": crawl})
    return fragments


def parquet_files(catalogue: Path) -> set[str]:
    """Return the Parquet files that lie in a catalogue's folder, as its log would name them."""
    return {path.relative_to(catalogue).as_posix() for path in catalogue.glob("table=*/**/*") if path.is_file()}
