"""Reading a catalogue: the three tables of one version, a header, SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from crawler.catalogue.fragments import Fragment
from crawler.catalogue.log import CatalogueLog, first_line
from crawler.catalogue.schema import TABLES
from crawler.catalogue.snapshot import Snapshot
from crawler.errors import CatalogueError, QueryError
from crawler.stores.storage import Folder
from crawler.stores.urls import as_url, one_line

if TYPE_CHECKING:
    from astropy.io.fits import Header


class Catalogue:
    """A catalogue at one version.

    Parameters
    ----------
    url : str
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
        self, url: str, *, version: int | None = None, storage_options: Mapping[str, Any] | None = None
    ) -> None:
        self._log = CatalogueLog(url, storage_options)
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

    def header(self, url: str, hdu: int = 0) -> Header:
        """Return the header of one HDU, exactly as its file has it.

        Parameters
        ----------
        url : str
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

    def header_bytes(self, url: str, hdu: int = 0) -> bytes:
        """Return the card images of one HDU, from the first up to, not including, END.

        Raises
        ------
        CatalogueError
            The catalogue holds no such HDU.
        """
        url = as_url(url)
        wanted = (pc.field("url") == url) & (pc.field("hdu") == hdu)
        holding = self.snapshot.of("hdus").holding(pa.array([url], pa.string()))
        try:
            rows = self._dataset("hdus", holding).to_table(columns=["header"], filter=wanted)
        except (OSError, pa.ArrowException) as error:
            raise CatalogueError(self.url, f"version {self.version} cannot be read: {first_line(error)}") from None
        if not rows.num_rows:
            raise CatalogueError(self.url, f"holds no HDU {hdu} of {url}")
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
            Any statement that DuckDB runs. It sees this catalogue and nothing else: no other files, no network.

        Returns
        -------
        pyarrow.Table

        Raises
        ------
        QueryError
            It cannot be run; one line that says why.
        """
        import duckdb  # noqa: PLC0415 - 14 MB that a worker need not hold

        with duckdb.connect(config={"autoinstall_known_extensions": False}) as connection:
            for name in TABLES:
                connection.register(name, getattr(self, name))
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            try:
                result = connection.sql(query)
                return pa.table({}) if result is None else result.to_arrow_table()
            except (duckdb.Error, UnicodeError) as error:
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


def _reason(error: Exception) -> str:
    """Return DuckDB's message on one line, without its picture of where in the query."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and set(line.strip()) != {"^"}]
    return one_line("; ".join(line for line in lines if not line.startswith("LINE ")), limit=1000)
