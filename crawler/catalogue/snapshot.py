"""The Parquet files of one version of a catalogue: found by url, and kept as columns.

A catalogue of a hundred million objects has some hundred thousand files, of which a reader of one object or the worker
of one partition needs a few: objects are made of those alone.
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
    """Parquet files of one table, in the order of their first urls. Yields each as a `Fragment`.

    Parameters
    ----------
    name : {'files', 'hdus', 'cards'}
    columns : pyarrow.Table
        ``path, size, rows, first_url, last_url, longest_header``, as `Fragment` has them, in any order of rows.
    """

    def __init__(self, name: str, columns: pa.Table) -> None:
        # Taken, and so copied: what came from delta-rs would else keep all the columns of its log in memory.
        columns = columns.select(_COLUMNS.names).cast(_COLUMNS)
        order = pc.sort_indices(columns, sort_keys=[("first_url", "ascending"), ("last_url", "ascending")])
        self.name = name
        self._columns = columns.take(order).combine_chunks()

    def __len__(self) -> int:
        return int(self._columns.num_rows)

    def __iter__(self) -> Iterator[Fragment]:
        return self._made(range(len(self)))

    @property
    def rows(self) -> int:
        """Rows of all the files."""
        return int(pc.sum(self._columns["rows"]).as_py() or 0)

    @property
    def size(self) -> int:
        """Bytes of all the files."""
        return int(pc.sum(self._columns["size"]).as_py() or 0)

    def of_run(self, crawl: str) -> Fragments:
        """Return the files that one run wrote."""
        path = f"table={self.name}/{crawl}"
        return Fragments(self.name, self._columns.filter(pc.starts_with(self._columns["path"], path)))

    def holding(self, urls: pa.Array) -> list[Fragment]:
        """Return the files that may hold one of some urls, as far as their first and last ones tell.

        Parameters
        ----------
        urls : pyarrow.Array of string
            Sorted, as UTF-8 bytes are.
        """
        if not len(urls) or not len(self):
            return []
        near = self._near(urls[0].as_py(), urls[-1].as_py())
        wanted = urls.to_pylist()
        firsts, lasts = (self._columns[name].take(near).to_pylist() for name in ("first_url", "last_url"))
        found = []
        for at, first, last in zip(near.tolist(), firsts, lasts, strict=True):
            place = bisect_left(wanted, first)
            if place < len(wanted) and wanted[place] <= last:
                found.append(at)
        return list(self._made(found))

    def between(self, first: str, last: str | None) -> list[Fragment]:
        """Return the files that may hold urls from ``first`` up to, not including, ``last``; None is behind all."""
        return [one for one in self._made(self._near(first, last)) if last is None or one.first_url < last]

    def runs(self, rows: int) -> Iterator[tuple[str, str | None]]:
        """Cut the urls into neighbouring runs.

        Parameters
        ----------
        rows : int
            A run ends with the file that gives it so many rows, as far as files do not overlap.

        Yields
        ------
        first : str
        last : str or None
            The first url of the next run; None in the last one.
        """
        if not len(self):
            return
        firsts = self._columns["first_url"]
        behind = np.cumsum(self._columns["rows"].to_numpy())
        begin = firsts[0].as_py()
        taken = 0
        for at in range(1, len(self)):
            if behind[at - 1] - taken >= rows and (end := firsts[at].as_py()) > begin:
                yield begin, end
                begin, taken = end, behind[at - 1]
        yield begin, None

    def _made(self, places: Iterable[int]) -> Iterator[Fragment]:
        """Make the objects of some rows, some thousand at a time."""
        chosen = self._columns.take(pa.array(places, pa.int64()))
        for batch in chosen.to_batches(max_chunksize=4096):
            columns = [batch.column(name).to_pylist() for name in _COLUMNS.names]
            for path, *rest in zip(*columns, strict=True):
                yield Fragment(self.name, path, *rest)

    def _near(self, first: str, last: str | None) -> npt.NDArray[np.int64]:
        """Return the rows of the files that reach ``first`` or further, and begin no later than ``last``."""
        end = len(self) if last is None else bisect_right(self._first_urls, last)
        lasts, ranks, reach = self._reaches
        short = bisect_left(lasts, first)  # files that end before
        begin = int(np.searchsorted(reach, short, side="left"))
        return np.flatnonzero(ranks[begin:end] >= short) + begin

    @cached_property
    def _first_urls(self) -> _Strings:
        return _Strings(self._columns["first_url"])

    @cached_property
    def _reaches(self) -> tuple[_Strings, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the last urls in order, the rank of each file's, and the highest rank up to each file."""
        lasts = self._columns["last_url"]
        order = pc.sort_indices(lasts)
        ranks = np.empty(len(self), np.int64)
        ranks[order.to_numpy()] = np.arange(len(self))
        return _Strings(lasts.take(order)), ranks, np.maximum.accumulate(ranks)


class _Strings:
    """Strings of a column, made one by one as a bisection asks for them."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._array = column.chunk(0) if column.num_chunks else pa.array([], pa.string())

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, at: int) -> str:
        text: str = self._array[at].as_py()
        return text


class Snapshot:
    """The catalogue at one version.

    Parameters
    ----------
    version : int
    load : callable
        Returns the files by table. Called when they are first asked for, and once.

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
            The log cannot be understood.
        """
        return self._tables[table]

    @property
    def fragments(self) -> tuple[Fragment, ...]:
        """The files of all three tables, each as an object: for catalogues of any size rather ask `of` one table."""
        return tuple(fragment for table in TABLES for fragment in self.of(table))

    @property
    def empty(self) -> bool:
        """Whether there is no file."""
        return not any(len(self.of(table)) for table in TABLES)
