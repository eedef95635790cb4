"""The listing of a run, kept beside the tables: it can be audited, and a run that died need not list again.

``_crawler/listings/<id>/`` holds Parquet files of `LISTING_SCHEMA`, each row group one partition as it was handed out,
and ``listing.json``, which says what was listed and how far it came: begun, ended, and whether the run over it ended.
Readers of Parquet folders skip what begins with an underscore.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from crawler.catalogue.folder import Folder
from crawler.catalogue.fragments import read_groups
from crawler.catalogue.log import FAULTS, first_line
from crawler.errors import CatalogueError
from crawler.stores.base import LISTING_SCHEMA

LISTINGS = "_crawler/listings"
"""Folder below the catalogue's."""

FILE_KEYS = 1_000_000
"""Keys after which another file is begun: what was written of a closed one is safe."""

FILE_NAME = re.compile(r"keys-\d{5,}\.parquet")
"""Name of a Parquet file of a listing."""

ABOUT = "listing.json"
"""What tells of a listing, in its folder."""


def fingerprint(roots: Sequence[str], include: Sequence[str] | None, exclude: Sequence[str]) -> str:
    """Return a name for what is listed: the same for the same roots and filters, in whatever order.

    A root may be signed, and its signature cannot be had from this.
    """
    told = [sorted(set(roots)), None if include is None else sorted(set(include)), sorted(set(exclude))]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One Parquet file of a listing.

    Attributes
    ----------
    name : str
    size : int
        Bytes.
    keys, partitions : int
    first_url, last_url : str
        The least and the greatest, both inclusive.
    """

    name: str
    size: int
    keys: int
    partitions: int
    first_url: str
    last_url: str


@dataclass(slots=True)
class Told:
    """What ``listing.json`` says. Holds no options of stores, and no secret.

    Attributes
    ----------
    id : str
        Of the run that listed.
    fingerprint : str
        Of `fingerprint`.
    about : dict
        Roots, filters, and whatever else the run wants to know of it later.
    began, ended, finished : str or None
        ISO 8601: when the listing began and ended, and when a run had done all that it gave to do.
    damaged : bool
        It was met with a file that cannot be read.
    files : list of KeptFile
        Once it ended.
    seen : int
        Objects listed, before the filters; once the listing ended.
    folders : list of str
        Folders that were listed, as `crawler.listing.Listing.folders`; once the listing ended.
    """

    id: str
    fingerprint: str
    about: dict[str, Any]
    began: str
    ended: str | None = None
    finished: str | None = None
    damaged: bool = False
    files: list[KeptFile] = field(default_factory=list)
    seen: int = 0
    folders: list[str] = field(default_factory=list)

    def put(self, folder: Folder) -> None:
        """Write it in place of what was told before.

        Raises
        ------
        CatalogueError
        """
        try:
            folder.put(f"{LISTINGS}/{self.id}/{ABOUT}", json.dumps(asdict(self), default=str).encode())
        except FAULTS as error:
            raise CatalogueError(folder.url, f"cannot be written: {first_line(error)}") from None


class ListingWriter:
    """Writes a listing as it goes on. Of the keys no more than one partition is held.

    Parameters
    ----------
    folder : Folder
        Of the catalogue.
    id : str
        Of the run; a name for a folder.
    fingerprint : str
        Of `fingerprint`.
    about : dict
        What can be written as JSON, and is no secret.

    Raises
    ------
    CatalogueError
        It cannot be written; raised by all methods.
    """

    def __init__(self, folder: Folder, id: str, fingerprint: str, about: dict[str, Any]) -> None:
        self._folder = folder
        self._told = Told(id, fingerprint, about, datetime.now(UTC).isoformat())
        self._told.put(folder)
        self._open: _OpenFile | None = None

    def write(self, partition: pa.Table) -> None:
        """Write a partition, of `LISTING_SCHEMA`."""
        if not partition.num_rows:
            return
        try:
            if self._open is None:
                self._open = _OpenFile(self._folder, self._told.id, len(self._told.files))
            self._open.write(partition)
            if self._open.keys >= FILE_KEYS:
                self._rotate()
        except FAULTS as error:
            raise self._unwritable(error) from None

    def end(self, seen: int, folders: Sequence[str]) -> KeptListing:
        """Say that the listing ended; without this it is one of a dead run.

        Parameters
        ----------
        seen, folders
            As `Told` has them.

        Returns
        -------
        KeptListing
            What was written.
        """
        try:
            self._rotate()
        except FAULTS as error:
            raise self._unwritable(error) from None
        self._told.ended = datetime.now(UTC).isoformat()
        self._told.seen, self._told.folders = seen, list(folders)
        self._told.put(self._folder)
        return KeptListing(self._folder, self._told)

    def close(self) -> None:
        """Let go of a listing that did not end."""
        if self._open is not None:
            with suppress(*FAULTS):
                self._open.close()
            self._open = None

    def _rotate(self) -> None:
        if self._open is not None:
            whole, self._open = self._open, None
            self._told.files.append(whole.close())

    def _unwritable(self, error: Exception) -> CatalogueError:
        return CatalogueError(self._folder.url, f"its listing cannot be kept: {first_line(error)}")


class _OpenFile:
    """The Parquet file that is being written."""

    def __init__(self, folder: Folder, listing: str, number: int) -> None:
        self.keys = self._partitions = 0
        self._name = f"keys-{number:05}.parquet"
        self._folder, self._path = folder, folder.join(f"{LISTINGS}/{listing}/{self._name}")
        self._first, self._last = "", ""
        self._sink = folder.filesystem.open_output_stream(self._path)
        self._writer = pq.ParquetWriter(
            self._sink,
            LISTING_SCHEMA,
            compression="zstd",
            use_dictionary=["version"],
            column_encoding={"url": "DELTA_BYTE_ARRAY"},  # without the prefix that is shared with the key before
            write_statistics=["url"],
            write_page_checksum=True,
        )

    def write(self, partition: pa.Table) -> None:
        partition = partition.select(LISTING_SCHEMA.names).cast(LISTING_SCHEMA)
        span = pc.min_max(partition["url"]).as_py()
        self._first = span["min"] if not self.keys else min(self._first, span["min"])
        self._last = max(self._last, span["max"])
        self._writer.write_table(partition, row_group_size=partition.num_rows)
        self.keys += partition.num_rows
        self._partitions += 1

    def close(self) -> KeptFile:
        try:
            self._writer.close()
        finally:
            self._sink.close()
        size = self._folder.filesystem.get_file_info(self._path).size
        return KeptFile(self._name, size, self.keys, self._partitions, self._first, self._last)


class KeptListing:
    """A listing that ended: of `ListingWriter.end`, or found again by `crawler.catalogue.records.listings`.

    Attributes
    ----------
    id : str
        Of the run that listed.
    about, seen, folders
        As `Told` has them.
    began, ended : datetime
        Of the listing; aware, UTC.
    keys, partition_count : int
    files : list of KeptFile
    """

    def __init__(self, folder: Folder, told: Told) -> None:
        self._folder, self._told = folder, told
        self.id, self.about, self.files = told.id, told.about, told.files
        self.seen, self.folders = told.seen, told.folders
        self.began, self.ended = (datetime.fromisoformat(moment) for moment in (told.began, told.ended or told.began))
        self.keys = sum(file.keys for file in told.files)
        self.partition_count = sum(file.partitions for file in told.files)

    def partitions(self) -> Iterator[pa.Table]:
        """Yield the partitions as they were written, one in memory at a time.

        Raises
        ------
        CatalogueError
            A file is gone or damaged. The listing is not used again.
        """
        for file in self.files:
            yield from self._read(file, LISTING_SCHEMA.names, "", None)

    def urls_between(self, first: str, last: str | None) -> Iterator[pa.Array]:
        """Yield, by partition, the urls from ``first`` up to, not including, ``last``; None is behind them all.

        Partitions that have none, as their statistics tell, are not read.

        Raises
        ------
        CatalogueError
            As `partitions`.
        """
        for file in self.files:
            if file.last_url < first or (last is not None and file.first_url >= last):
                continue
            for table in self._read(file, ["url"], first, last):
                urls = table["url"].combine_chunks()
                here = pc.greater_equal(urls, first)
                if last is not None:
                    here = pc.and_(here, pc.less(urls, last))
                yield urls.filter(here)

    def dataset(self) -> Any:
        """Return it as a pyarrow dataset of `LISTING_SCHEMA`.

        Raises
        ------
        CatalogueError
            One of its files is a symbolic link.
        """
        if links := self._links():
            raise CatalogueError(self._folder.url, f"{links[0]} is a symbolic link, which is not followed")
        paths = [self._path(file) for file in self.files]
        return pads.FileSystemDataset.from_paths(
            paths, schema=LISTING_SCHEMA, format=pads.ParquetFileFormat(), filesystem=self._folder.filesystem
        )

    def finish(self) -> None:
        """Say that a run has done all that it gave to do.

        Raises
        ------
        CatalogueError
            It cannot be written.
        """
        self._told.finished = datetime.now(UTC).isoformat()
        self._told.put(self._folder)

    def whole(self) -> bool:
        """Tell whether all its files are there and as long as they were written; their pages are not read."""
        if self._links():
            return False
        try:
            found = self._folder.filesystem.get_file_info([self._path(file) for file in self.files])
        except FAULTS:
            return False
        return [info.size for info in found] == [file.size for file in self.files]

    def _links(self) -> list[str]:
        """Return those of its files that are symbolic links, which may lead out of the catalogue."""
        paths = [self._relative(file) for file in self.files]
        return [path for path in paths if self._folder.is_link(path)]

    def _read(self, file: KeptFile, columns: list[str], first: str, last: str | None) -> Iterator[pa.Table]:
        try:
            with self._folder.open(self._relative(file)) as source:
                yield from read_groups(source, columns, first, last)
        except FAULTS as error:
            self._told.damaged = True
            with suppress(CatalogueError):
                self._told.put(self._folder)
            reason = f"its listing of run {self.id} cannot be read; run again, which lists anew: {first_line(error)}"
            raise CatalogueError(self._folder.url, reason) from None

    def _path(self, file: KeptFile) -> str:
        return self._folder.join(self._relative(file))

    def _relative(self, file: KeptFile) -> str:
        return f"{LISTINGS}/{self.id}/{file.name}"
