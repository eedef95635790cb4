"""Parquet files of the catalogue: rows sorted, cut into row groups, written, and described for the log.

A fragment is one Parquet file of one table. It spans a contiguous run of urls, so that one object is found in a few
files; inside a file of cards the rows are sorted by keyword first, so that one keyword is found in a few row groups.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crawler.catalogue.folder import Folder
from crawler.catalogue.schema import TABLES
from crawler.fits.cards import unpacked

MIN_GROUP = 4096
"""Rows of cards in a row group before it may be cut. With groups this small five keywords of 478,000 cards touch
7 % of the bytes, with 65,536 rows 42 %; smaller ones cost more in footers than they save."""

MAX_GROUP = 65_536
"""Rows after which a row group is cut even inside a keyword: what a reader has to hold at once."""

_HDU_GROUP, _HDU_GROUP_BYTES = 2_048, 8 * 2**20
"""HDUs in a row group, and bytes of their headers: each row carries its own, 6 kB as a rule and up to 16 MB."""


FRAGMENT_PATH = rf"table=(?P<table>{'|'.join(TABLES)})/[A-Za-z0-9][A-Za-z0-9._-]*\.parquet"
"""Path of a fragment below the catalogue's folder. No other path is read or deleted, whatever the log says."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """One Parquet file, as the log knows it.

    Attributes
    ----------
    table : {'files', 'hdus', 'cards'}
    path : str
        Relative to the catalogue, separated by slashes.
    size : int
        Bytes.
    rows : int
    first_url, last_url : str
        Both inclusive.
    longest_header : int
        Bytes of the longest header unit in it; 0 for other tables than ``hdus``.
    """

    table: str
    path: str
    size: int
    rows: int
    first_url: str
    last_url: str
    longest_header: int = 0

    @property
    def held(self) -> int:
        """Bytes that its headers take in memory, at most."""
        return self.rows * self.longest_header

    @property
    def batch(self) -> str:
        """The name of the files that were written together with this one."""
        return self.path.rpartition("/")[2].removesuffix(".parquet")

    def stats(self) -> str:
        """Return the statistics that the log keeps of the file: whole urls, never cut, so that they bound all rows."""
        most: dict[str, str | int] = {"url": self.last_url}
        if self.longest_header:
            most["header_size"] = self.longest_header
        return json.dumps(
            {
                "numRecords": self.rows,
                "minValues": {"url": self.first_url},
                "maxValues": most,
                "nullCount": {"url": 0},
            }
        )


def new_batch(crawl: str) -> str:
    """Return a name for files that are written together: the run they are of, and something no other has."""
    return f"{crawl}-{uuid.uuid4().hex[:12]}"


def write_fragment(folder: Folder, name: str, rows: pa.Table, batch: str) -> Fragment | None:
    """Write rows of one table as a Parquet file that no log knows yet.

    Parameters
    ----------
    folder : Folder
        Of the catalogue.
    name : {'files', 'hdus', 'cards'}
    rows : pyarrow.Table
        Columns as the table's schema has them, in any order; urls may be dictionary-encoded, and cards packed
        (`crawler.fits.cards.pack_cards`).
    batch : str
        Of `new_batch`: the file's name, so that an orphan tells which run it comes from, and the three files that
        hold the same objects have the same one.

    Returns
    -------
    Fragment or None
        None for no rows.
    """
    if not rows.num_rows:
        return None
    schema = TABLES[name]
    packed = "reading" in rows.column_names
    rows = (rows if packed else rows.select(schema.names)).unify_dictionaries().combine_chunks()
    urls, url_ranks = _ranks(rows["url"])
    keys = [url_ranks] if name == "files" else [rows["hdu"].to_numpy(), url_ranks]
    if name == "cards":
        keyword_ranks = _keyword_ranks(rows)
        order = _order([rows["card"].to_numpy(), *keys], keyword_ranks)
        cuts = group_cuts(keyword_ranks[order])
    else:
        order = np.lexsort(keys)
        length = _hdu_group(rows) if name == "hdus" else MAX_GROUP
        cuts = np.append(np.arange(0, len(order), length), len(order))
    path = f"table={name}/{batch}.parquet"
    folder.make(f"table={name}")
    with (
        folder.filesystem.open_output_stream(folder.join(path)) as sink,
        pq.ParquetWriter(sink, schema, **_writer_options(name)) as writer,
    ):
        for begin, end in pairwise(cuts):
            # Taken group by group: sorted copies of all columns at once would double the memory.
            group = rows.take(pa.array(order[begin:end]))
            group = (unpacked(group).select(schema.names) if packed else group).cast(schema)
            writer.write_table(group, row_group_size=int(end - begin))
    size = folder.filesystem.get_file_info(folder.join(path)).size
    longest = (pc.max(rows["header_size"]).as_py() or 0) if name == "hdus" else 0
    return Fragment(name, path, size, rows.num_rows, urls[0].as_py(), urls[-1].as_py(), longest)


def _hdu_group(hdus: pa.Table) -> int:
    """Return how many HDUs make a row group."""
    fitting: int = _HDU_GROUP_BYTES * hdus.num_rows // max(1, hdus["header"].nbytes)
    return min(_HDU_GROUP, max(1, fitting))


def _keyword_ranks(cards: pa.Table) -> npt.NDArray[np.int32]:
    """Return the rank of each card's keyword among all of them."""
    if "reading" not in cards.column_names:
        return _ranks(cards["keyword"])[1]
    reading = cards["reading"].chunk(0)
    distinct = pa.RecordBatch.from_struct_array(reading.dictionary)
    _, ranks = _ranks(pa.chunked_array([distinct["keyword"]]))
    of_cards: npt.NDArray[np.int32] = ranks[reading.indices.to_numpy()]
    return of_cards


def _order(keys: list[npt.NDArray[Any]], first: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Return the order by ``first``, then by ``keys``, the last of them counting most.

    Rows that come from walks are in the order of the keys, and need a stable sort by a small number.
    """
    behind = np.zeros(len(first) - 1, bool)  # the row before counts more
    level = np.ones(len(first) - 1, bool)  # as far as was compared, it is the same
    for key in reversed(keys):
        step = np.diff(key)
        behind |= level & (step < 0)
        level &= step == 0
    if behind.any():
        return np.lexsort((*keys, first))
    small = first.astype(np.uint16) if first.max(initial=0) < 2**16 else first
    return np.argsort(small, kind="stable")


def group_cuts(ranks: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Return where sorted rows are cut into row groups.

    Parameters
    ----------
    ranks : array of int, shape (rows,)
        Keyword of each row, in order.

    Returns
    -------
    array of int, shape (groups + 1,)
        Begins of the groups and, last, the number of rows. Groups end where a keyword does, once they have
        `MIN_GROUP` rows, and after `MAX_GROUP` rows in any case.
    """
    rows = len(ranks)
    boundaries = np.append(np.flatnonzero(np.diff(ranks)) + 1, rows)
    cuts = [0]
    while cuts[-1] < rows:
        begin = cuts[-1]
        end = int(boundaries[np.searchsorted(boundaries, min(begin + MIN_GROUP, rows))])
        cuts.append(min(end, begin + MAX_GROUP))
    return np.array(cuts)


def _ranks(column: pa.ChunkedArray) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    """Return the distinct strings of a column in order, and the rank of each row among them.

    Order is that of UTF-8 bytes, as in Parquet statistics.
    """
    array = column.chunk(0) if column.num_chunks else pa.array([], pa.string())
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    used = encoded.indices.to_numpy()
    words = encoded.dictionary.cast(pa.string())
    order = pc.sort_indices(words).to_numpy()
    present = np.zeros(len(words), bool)
    present[used] = True
    order = order[present[order]]
    rank = np.zeros(len(words), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return words.take(pa.array(order)), rank[used]


def _writer_options(name: str) -> dict[str, object]:
    """Return how a table is encoded.

    Urls are written with the prefix they share with the row before left out (DELTA_BYTE_ARRAY): in a row group of one
    keyword no two are equal, so that a dictionary would hold each of them in full.
    """
    dictionary = [column for column in TABLES[name].names if column not in {"url", "header"}]
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": dictionary,
        "column_encoding": {"url": "DELTA_BYTE_ARRAY"},
        "write_statistics": [column for column in TABLES[name].names if column not in {"header", "shape"}],
    }


def read_fragment(folder: Folder, fragment: Fragment, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file back, in the types of its table."""
    schema = TABLES[fragment.table]
    with folder.open(fragment.path) as source:
        table = pq.ParquetFile(source, pre_buffer=True).read(columns=columns)
    return table.cast(pa.schema([schema.field(column) for column in table.column_names]))


def read_groups(source: Any, columns: list[str], first: str = "", last: str | None = None) -> Iterator[pa.Table]:
    """Read a Parquet file that has urls, one row group in memory at a time.

    Parameters
    ----------
    source : file
        Open for reading.
    columns : list of str
    first, last : str
        Row groups whose statistics tell that they have no url from the one up to, not including, the other are not
        read; None is behind all urls.

    Yields
    ------
    pyarrow.Table
        All rows of a row group.
    """
    parquet = pq.ParquetFile(source, page_checksum_verification=True)
    url = parquet.schema_arrow.get_field_index("url")
    for number in range(parquet.num_row_groups):
        known = parquet.metadata.row_group(number).column(url).statistics
        # Of urls beyond 4 KiB no statistics are written.
        if known is None or not known.has_min_max or (known.max >= first and (last is None or known.min < last)):
            yield parquet.read_row_group(number, columns=columns, use_threads=False)


def groups_of(fragments: Iterable[Fragment], rows: int, held: int, least: int) -> Iterator[list[Fragment]]:
    """Yield runs of neighbouring small files of one table that together make one file of a good size.

    Parameters
    ----------
    fragments : iterable of Fragment
        Of one table, in the order of their urls (as `crawler.catalogue.snapshot.Fragments` are).
    rows, held : int
        A run is closed before it has more rows or `Fragment.held` bytes. Files that have an eighth of either already
        are left alone: merging them costs more than it saves. Small ones before and behind them are neighbours all
        the same, so that the crumbs that each partition leaves behind its good files do not stay for ever; a reader
        of one object then opens one file more than it had to.
    least : int
        Files that make a run worth its while.

    Yields
    ------
    list of Fragment
        ``least`` or more, in the order of their urls.
    """
    run: list[Fragment] = []
    rows_of_run = held_of_run = 0
    for fragment in fragments:
        if fragment.rows * 8 >= rows or fragment.held * 8 >= held:
            continue
        if run and (rows_of_run + fragment.rows > rows or held_of_run + fragment.held > held):
            if len(run) >= least:
                yield run
            run, rows_of_run, held_of_run = [], 0, 0
        run.append(fragment)
        rows_of_run += fragment.rows
        held_of_run += fragment.held
    if len(run) >= least:
        yield run
