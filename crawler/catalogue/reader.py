"""Reading a catalogue: the three tables of one version, a header, SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from crawler.catalogue.folder import Folder
from crawler.catalogue.fragments import Fragment
from crawler.catalogue.log import CatalogueLog, first_line
from crawler.catalogue.schema import TABLES
from crawler.catalogue.snapshot import Snapshot
from crawler.errors import CatalogueError, QueryError, UsageError
from crawler.stores.urls import PathOrUrl, as_url, one_line, text_of

if TYPE_CHECKING:
    from astropy.io.fits import Header


_GIVE_ROWS = frozenset({"SELECT", "EXPLAIN", "PRAGMA", "MULTI"})
"""Types of statements that give rows. SHOW, DESCRIBE and SUMMARIZE are of type SELECT to DuckDB, PIVOT may be MULTI."""

_NUMBERS = frozenset(
    {
        "BIGINT",
        "BIGNUM",
        "DECIMAL",
        "DOUBLE",
        "FLOAT",
        "HUGEINT",
        "INTEGER",
        "SMALLINT",
        "TINYINT",
        "UBIGINT",
        "UHUGEINT",
        "UINTEGER",
        "USMALLINT",
        "UTINYINT",
    }
)
_NOT_IN_ARROW = frozenset({"BIGNUM", "BIT", "TIME WITH TIME ZONE", "UHUGEINT"})
"""Types whose values DuckDB hands to Arrow as other values: -1 for 2^128 - 1, times without their zone."""

_TEXT_ROWS = 10_000
"""Rows in a batch of text."""


@dataclass(frozen=True, slots=True)
class TextRows:
    """Rows as text, written as DuckDB writes them.

    Attributes
    ----------
    names : tuple of str
        Of the columns, in their order; two may be the same.
    numbers : tuple of bool
        Whether each column holds numbers.
    batches : iterator of pyarrow.RecordBatch
        Columns are strings; binary where the query gives blobs.
    """

    names: tuple[str, ...]
    numbers: tuple[bool, ...]
    batches: Iterator[pa.RecordBatch]


class Catalogue:
    """A catalogue at one version.

    Parameters
    ----------
    url : str or pathlib.Path
        Path or URL of its folder.
    version : int, optional
        An earlier version, while its files are retained; the latest by default.
    storage_options : mapping, optional
        Of the store of a catalogue that is not on the local disk, as fsspec spells them.

    Attributes
    ----------
    version : int
    snapshot : Snapshot
        Its Parquet files.
    files, hdus, cards : pyarrow.dataset.Dataset
        The tables, as `crawler.catalogue.schema` has them. Nothing is read before it is asked for, and files
        whose urls cannot match a filter are not opened.

    Raises
    ------
    CatalogueError
        There is no catalogue there, or no such version.

    Examples
    --------
    >>> catalogue = Catalogue("my-catalogue")                                           # doctest: +SKIP
    >>> catalogue.sql("SELECT url FROM cards WHERE keyword = 'FILTER' AND value = 'F606W'")  # doctest: +SKIP
    """

    def __init__(
        self, url: PathOrUrl, *, version: int | None = None, storage_options: Mapping[str, Any] | None = None
    ) -> None:
        self._log = CatalogueLog(url, storage_options, reading=True)
        self.snapshot: Snapshot = self._log.snapshot(version)
        self.url = self._log.url
        self.version = self.snapshot.version

    @cached_property
    def files(self) -> Any:
        """One row an object."""
        return self._dataset("files", self.snapshot.of("files"))

    @cached_property
    def hdus(self) -> Any:
        """One row an HDU."""
        return self._dataset("hdus", self.snapshot.of("hdus"))

    @cached_property
    def cards(self) -> Any:
        """One row a card."""
        return self._dataset("cards", self.snapshot.of("cards"))

    @property
    def fragments(self) -> tuple[Fragment, ...]:
        """The Parquet files of this version."""
        return self.snapshot.fragments

    def header(self, url: PathOrUrl, hdu: int = 0) -> Header:
        """Return the header of one HDU, exactly as its file has it.

        Parameters
        ----------
        url : str or pathlib.Path
            As in the tables, or a local path.
        hdu : int
            0 is the primary.

        Returns
        -------
        astropy.io.fits.Header
            ``Header.fromstring`` of the stored card images.

        Raises
        ------
        CatalogueError
            The catalogue holds no such HDU.
        """
        from astropy.io.fits import Header  # noqa: PLC0415 - half a second that only this method needs

        return Header.fromstring(self.header_bytes(url, hdu))

    def header_bytes(self, url: PathOrUrl, hdu: int = 0) -> bytes:
        """Return the card images of one HDU, from the first up to, not including, END.

        Raises
        ------
        CatalogueError
            The catalogue holds no such HDU.
        """
        name = as_url(text_of(url))
        wanted = (pc.field("url") == name) & (pc.field("hdu") == hdu)
        holding = self.snapshot.of("hdus").holding(pa.array([name], pa.string()))
        try:
            rows = self._dataset("hdus", holding).to_table(columns=["header"], filter=wanted)
        except (OSError, pa.ArrowException) as error:
            raise CatalogueError(self.url, f"version {self.version} cannot be read: {first_line(error)}") from None
        if not rows.num_rows:
            raise CatalogueError(self.url, f"holds no HDU {hdu} of {name}")
        header: bytes = rows["header"][0].as_py()
        return header

    def rows_of(self, urls: pa.Array, columns: list[str]) -> pa.Table:
        """Return the rows of the table ``files`` that are of some urls.

        Opens only the Parquet files that may hold them, so that neighbouring urls of a large catalogue are found soon.
        Safe to call from many threads at once.

        Parameters
        ----------
        urls : pyarrow.Array of string
            In any order.
        columns : list of str
            Of the table.

        Raises
        ------
        FileNotFoundError
            A run that ended meanwhile deleted files that it wrote and itself merged: open the latest version.
        CatalogueError
            They cannot be read.
        """
        urls = urls.cast(pa.string()).unique().sort()
        holding = self.snapshot.of("files").holding(urls)
        if not holding:
            return pa.table({name: pa.array([], TABLES["files"].field(name).type) for name in columns})
        # The range lets go of row groups; `isin` of many values does not.
        here = (pc.field("url") >= urls[0]) & (pc.field("url") <= urls[-1]) & pc.field("url").isin(urls)
        try:
            return self._dataset("files", holding).to_table(columns=columns, filter=here)
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise CatalogueError(self.url, f"version {self.version} cannot be read: {first_line(error)}") from None

    def sql(self, query: str) -> pa.Table:
        """Run a query over the views ``files``, ``hdus`` and ``cards``.

        Parameters
        ----------
        query : str
            One statement of DuckDB that gives rows, such as SELECT, PIVOT, SUMMARIZE or EXPLAIN. It sees this catalogue
            and nothing else: no other files, no network. Times are in UTC.

        Returns
        -------
        pyarrow.Table
            Values of types that Arrow lacks (`_NOT_IN_ARROW`) are text.

        Raises
        ------
        UsageError
            No statement, or more than one.
        QueryError
            The query cannot be run; one line that says why.
        """
        with self._relation(query) as rows, self._faults_of_query():
            kinds = [str(kind) for kind in rows.types]
            if _NOT_IN_ARROW.isdisjoint(kinds):
                return rows.to_arrow_table()
            columns = [_as_text(at) if kind in _NOT_IN_ARROW else f"#{at}" for at, kind in enumerate(kinds, 1)]
            named = zip(columns, rows.columns, strict=True)
            return rows.select(", ".join(f"{column} AS {_quoted(name)}" for column, name in named)).to_arrow_table()

    @contextmanager
    def text_of_sql(self, query: str) -> Iterator[TextRows]:
        """Give the rows of a query as text, which holds what Arrow and Python have no value for.

        Parameters
        ----------
        query : str
            As of `sql`.

        Raises
        ------
        UsageError
            No statement, or more than one.
        QueryError
            The query cannot be run; some of its rows may have been read before.
        """
        with self._relation(query) as rows:
            kinds = [str(kind) for kind in rows.types]
            columns = [f"#{at}" if kind == "BLOB" else _as_text(at) for at, kind in enumerate(kinds, 1)]
            named = ", ".join(f"{column} AS c{at}" for at, column in enumerate(columns))
            numbers = tuple(kind.partition("(")[0] in _NUMBERS for kind in kinds)
            with self._faults_of_query():
                batches = rows.select(named).to_arrow_reader(_TEXT_ROWS)
            yield TextRows(tuple(rows.columns), numbers, self._batches(batches))

    def _batches(self, batches: Any) -> Iterator[pa.RecordBatch]:
        while True:
            with self._faults_of_query():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    @contextmanager
    def _relation(self, query: str) -> Iterator[Any]:
        """Give what DuckDB calls the result of a query: rows are computed as they are fetched, while this is open."""
        import duckdb  # noqa: PLC0415 - 14 MB that a worker need not hold

        with duckdb.connect(config={"autoinstall_known_extensions": False}) as connection:
            for name in TABLES:
                connection.register(name, getattr(self, name))
            connection.execute("SET enable_external_access = false")
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET lock_configuration = true")
            with self._faults_of_query():
                query.encode()  # a lone surrogate is a TypeError of DuckDB
                statements = connection.extract_statements(query)
                if len(statements) != 1:
                    many = f"{len(statements)} statements" if statements else "no statement"
                    raise UsageError(f"the query has {many}: give one, such as FROM files LIMIT 5")
                if (kind := statements[0].type.name) not in _GIVE_ROWS:
                    raise QueryError(self.url, f"{kind} is no query: a catalogue is read by SELECT and the like")
                relation = connection.sql(query)
            yield relation

    @contextmanager
    def _faults_of_query(self) -> Iterator[None]:
        """Raise what DuckDB or Arrow raises of a query as a `QueryError`."""
        import duckdb  # noqa: PLC0415

        try:
            yield
        except (duckdb.Error, UnicodeError, OSError, pa.ArrowException) as error:
            raise QueryError(self.url, _reason(error)) from None

    def _dataset(self, name: str, fragments: Iterable[Fragment]) -> Any:
        return dataset_of(self._log.folder, name, fragments)


def dataset_of(folder: Folder, name: str, fragments: Iterable[Fragment]) -> Any:
    """Build a dataset of Parquet files of one table without opening any: the log knows the schema and their urls.

    Raises
    ------
    CatalogueError
        One of them is a symbolic link.
    """
    fragments = list(fragments)
    for one in fragments:
        if folder.is_link(one.path):
            raise CatalogueError(folder.url, f"{one.path} is a symbolic link, which is not followed")
    parquet = pads.ParquetFileFormat()
    url = pc.field("url")
    pieces = [
        parquet.make_fragment(
            folder.join(one.path),
            filesystem=folder.filesystem,
            partition_expression=(url >= one.first_url) & (url <= one.last_url),
        )
        for one in fragments
    ]
    return pads.FileSystemDataset(pieces, TABLES[name], parquet, folder.filesystem)


def _as_text(at: int) -> str:
    return f"CAST(#{at} AS VARCHAR)"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _reason(error: Exception) -> str:
    """Return DuckDB's message on one line, without its picture of where in the query."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and set(line.strip()) != {"^"}]
    return one_line("; ".join(line for line in lines if not line.startswith("LINE ")), limit=1000)
