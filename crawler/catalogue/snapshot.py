"""The Parquet files of one version of a catalogue, searched by url.

A catalogue of a hundred million objects has about a hundred thousand Parquet files. A worker, or the reader of one
object, needs a few of them. So the list of files is kept as Arrow columns, and Python objects are made for those few.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from crawler.catalogue.fragments import Fragment
from crawler.catalogue.schema import TABLES

_COLUMNS = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("rows", pa.int64()),
        ("first_url", pa.string()),
        ("last_url", pa.string()),
        ("longest_header", pa.int64()),
    ]
)


class Fragments:
    """The Parquet files of one table, in the order of their first urls. Iterating yields a `Fragment` for each.

    Parameters
    ----------
    name : {'files', 'hdus', 'cards'}
    columns : pyarrow.Table
        ``path, size, rows, first_url, last_url, longest_header``, with the meaning of the attributes of `Fragment`.
        The rows may be in any order.
    """

    def __init__(self, name: str, columns: pa.Table) -> None:
        # `take` copies. Without a copy, all columns of the log that delta-rs returned would stay in memory.
        columns = columns.select(_COLUMNS.names).cast(_COLUMNS)
        order = pc.sort_indices(columns, sort_keys=[("first_url", "ascending"), ("last_url", "ascending")])
        self.name = name
        self._columns = columns.take(order).combine_chunks()

    def __len__(self) -> int:
        return int(self._columns.num_rows)

    def __iter__(self) -> Iterator[Fragment]:
        return self._fragments(range(len(self)))

    @property
    def rows(self) -> int:
        """Number of rows in all the files."""
        return int(pc.sum(self._columns["rows"]).as_py() or 0)

    @property
    def size(self) -> int:
        """Total size of the files, in bytes."""
        return int(pc.sum(self._columns["size"]).as_py() or 0)

    def of_run(self, run_id: str) -> Fragments:
        """Return the files that one run wrote."""
        path = f"table={self.name}/{run_id}"
        return Fragments(self.name, self._columns.filter(pc.starts_with(self._columns["path"], path)))

    def holding(self, urls: pa.Array) -> list[Fragment]:
        """Return the files whose first and last urls enclose at least one of ``urls``.

        Parameters
        ----------
        urls : pyarrow.Array of string
            Sorted by their UTF-8 bytes.
        """
        if not len(urls) or not len(self):
            return []
        near = self._rows_near(urls[0].as_py(), urls[-1].as_py())
        wanted = urls.to_pylist()
        firsts, lasts = (self._columns[name].take(near).to_pylist() for name in ("first_url", "last_url"))
        found = []
        for row, first, last in zip(near.tolist(), firsts, lasts, strict=True):
            nearest = bisect_left(wanted, first)
            if nearest < len(wanted) and wanted[nearest] <= last:
                found.append(row)
        return list(self._fragments(found))

    def between(self, first: str, last: str | None) -> list[Fragment]:
        """Return the files that may hold urls of the range [``first``, ``last``); None means no upper limit."""
        near = self._fragments(self._rows_near(first, last))
        return [fragment for fragment in near if last is None or fragment.first_url < last]

    def runs(self, rows: int) -> Iterator[tuple[str, str | None]]:
        """Divide the urls into adjacent ranges of about ``rows`` rows each.

        Parameters
        ----------
        rows : int
            A range ends as soon as the files that begin in it have at least this number of rows, and the next file
            has a greater first url.

        Yields
        ------
        first : str
            The first url of the range.
        last : str or None
            The first url of the next range; None for the last range.
        """
        if not len(self):
            return
        firsts = self._columns["first_url"]
        total_rows = np.cumsum(self._columns["rows"].to_numpy())
        begin = firsts[0].as_py()
        rows_before = 0
        for row in range(1, len(self)):
            if total_rows[row - 1] - rows_before >= rows and (end := firsts[row].as_py()) > begin:
                yield begin, end
                begin, rows_before = end, total_rows[row - 1]
        yield begin, None

    def _fragments(self, rows: Iterable[int]) -> Iterator[Fragment]:
        """Yield the `Fragment` of each row; a few thousand rows at a time are converted."""
        chosen = self._columns.take(pa.array(rows, pa.int64()))
        for batch in chosen.to_batches(max_chunksize=4096):
            columns = [batch.column(name).to_pylist() for name in _COLUMNS.names]
            for path, *rest in zip(*columns, strict=True):
                yield Fragment(self.name, path, *rest)

    def _rows_near(self, first: str, last: str | None) -> npt.NDArray[np.int64]:
        """Return the rows of the files that end at ``first`` or later, and begin at ``last`` or earlier."""
        end = len(self) if last is None else bisect_right(self._first_urls, last)
        lasts, ranks, highest_ranks = self._last_urls
        too_early = bisect_left(lasts, first)  # number of files that end before ``first``
        begin = int(np.searchsorted(highest_ranks, too_early, side="left"))
        return np.flatnonzero(ranks[begin:end] >= too_early) + begin

    @cached_property
    def _first_urls(self) -> _LazyStrings:
        return _LazyStrings(self._columns["first_url"])

    @cached_property
    def _last_urls(self) -> tuple[_LazyStrings, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the sorted last urls, the rank of each file's last url, and the highest rank up to each file."""
        lasts = self._columns["last_url"]
        order = pc.sort_indices(lasts)
        ranks = np.empty(len(self), np.int64)
        ranks[order.to_numpy()] = np.arange(len(self))
        return _LazyStrings(lasts.take(order)), ranks, np.maximum.accumulate(ranks)


class _LazyStrings:
    """A column of strings, converted one by one: a bisection needs a few of them."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._array = column.chunk(0) if column.num_chunks else pa.array([], pa.string())

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: int) -> str:
        text: str = self._array[index].as_py()
        return text


class Snapshot:
    """The catalogue at one version.

    Parameters
    ----------
    version : int
    load : callable
        Returns the files of each table. Called once, at the first use.

    Attributes
    ----------
    version : int
    """

    def __init__(self, version: int, load: Callable[[], Mapping[str, Fragments]]) -> None:
        self.version = version
        self._load = load

    @cached_property
    def _tables(self) -> Mapping[str, Fragments]:
        return self._load()

    def of(self, table: str) -> Fragments:
        """Return the files of one table.

        Raises
        ------
        CatalogueError
            The log cannot be read.
        """
        return self._tables[table]

    @property
    def fragments(self) -> tuple[Fragment, ...]:
        """The files of all three tables as objects. Use `of` instead if the catalogue may be large."""
        return tuple(fragment for table in TABLES for fragment in self.of(table))

    @property
    def empty(self) -> bool:
        """Whether no table has a file."""
        return not any(len(self.of(table)) for table in TABLES)
