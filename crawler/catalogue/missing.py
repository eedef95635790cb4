"""What a catalogue holds and a listing that ended did not find again, without all urls of either in memory.

The catalogue is taken in runs of neighbouring urls. Of each run the hashes are held, and crossed off as the listing's
partitions that may hold such urls are read; what is left is read once more, for its urls.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crawler.catalogue.folder import Folder
from crawler.catalogue.fragments import Fragment, read_groups
from crawler.catalogue.log import first_line
from crawler.catalogue.records.saved_listing import KeptListing
from crawler.catalogue.snapshot import Snapshot
from crawler.catalogue.url_hashes import among, distinct, hashes
from crawler.errors import CatalogueError

RUN = 1_000_000
"""Rows of the catalogue that are looked at together. Should all be gone, their urls are held."""

TOUCHED, _TOGETHER = 50, 2_000
"""Partitions of so many files that a batch of urls touches at most: leaving them out of the catalogue is a minute's
work, and one commit."""

_IN_MEMORY = 8 * 2**20  # bytes of urls; more of them go to a temporary file
_SCHEMA = pa.schema([("url", pa.string())])


class Gone:
    """Urls that are gone, on the disk where they are many. To be closed: use it as a context.

    Attributes
    ----------
    count : int
    held : int
        Rows that the catalogue held when it was looked at.
    """

    def __init__(self, held: int) -> None:
        self.count = 0
        self.held = held
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed with this
        self._writer = pa.ipc.new_stream(pa.PythonFile(self._file, "w"), _SCHEMA)
        self._waiting: list[pa.Array] = []
        self._touched = 0.0

    def __enter__(self) -> Gone:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def batches(self) -> Iterator[pa.Array]:
        """Yield the urls, in order, by neighbours: so many at a time as can well be left out in one commit."""
        self._file.seek(0)
        with pa.ipc.open_stream(pa.PythonFile(self._file, "r")) as reader:
            for batch in reader:
                yield batch.column("url")

    def add(self, urls: pa.Array, held: int) -> None:
        """Add sorted urls behind those that were added, found among so many rows."""
        self.count += len(urls)
        touched = min(len(urls), held // _TOGETHER + 1)
        pieces = -(-touched // TOUCHED)
        for piece in range(pieces):
            begin, end = piece * len(urls) // pieces, (piece + 1) * len(urls) // pieces
            if self._touched + touched / pieces > TOUCHED:
                self._put()
            self._waiting.append(urls[begin:end])
            self._touched += touched / pieces

    def end(self) -> None:
        """Say that these were all."""
        self._put()
        self._writer.close()

    def _put(self) -> None:
        if self._waiting:
            self._writer.write_batch(pa.record_batch([pa.concat_arrays(self._waiting)], schema=_SCHEMA))
        self._waiting, self._touched = [], 0.0


def gone(
    folder: Folder, snapshot: Snapshot, kept: KeptListing, covers: Callable[[str], bool], walked_before: datetime
) -> Gone:
    """Find what a version of the catalogue holds and a listing did not find again.

    Parameters
    ----------
    folder : Folder
        Of the catalogue.
    snapshot : Snapshot
        The version.
    kept : KeptListing
        A listing that ended.
    covers : callable
        Tells whether an object of a url would have been listed, had it been there.
    walked_before : datetime
        Aware: when the listing began. What was walked later was there later.

    Returns
    -------
    Gone
        Rarely without one that is: of two urls that share a 64-bit hash, one in a million runs over 10 million files,
        one hides that the other is gone. The next run sees it. Never with one that is there.

    Raises
    ------
    FileNotFoundError
        A run that ended meanwhile deleted files that it wrote and itself merged.
    CatalogueError
        The catalogue or the listing cannot be read.
    """
    files = snapshot.of("files")
    found = Gone(files.rows)
    try:
        for first, last in files.runs(RUN):
            held = _Held(folder, files.between(first, last), first, last, walked_before)
            urls, rows = _missing(held, kept)
            mask = pa.array([covers(url) for url in urls.to_pylist()], pa.bool_())
            found.add(urls.filter(mask), rows)
        found.end()
    except BaseException as error:
        found.__exit__(None, None, None)
        if isinstance(error, (OSError, pa.ArrowException)) and not isinstance(error, FileNotFoundError):
            raise CatalogueError(folder.url, f"cannot be read: {first_line(error)}") from None
        raise
    return found


class _Held:
    """The urls that the catalogue holds between two, read anew each time that they are asked for.

    Row group by row group, and not as a dataset: its scanner reads ahead and takes a hundred megabytes more.
    """

    def __init__(
        self, folder: Folder, fragments: list[Fragment], first: str, last: str | None, walked_before: datetime
    ) -> None:
        self._folder, self._fragments, self._walked_before = folder, fragments, walked_before
        self.first, self.last = first, last

    def __iter__(self) -> Iterator[pa.Array]:
        for fragment in self._fragments:
            with self._folder.open(fragment.path) as source:
                for rows in read_groups(source, ["url", "walked_at"], self.first, self.last):
                    yield self._wanted(rows)

    def _wanted(self, rows: pa.Table) -> pa.Array:
        urls = rows["url"].combine_chunks()
        mask = pc.and_(pc.greater_equal(urls, self.first), pc.less(rows["walked_at"], self._walked_before))
        if self.last is not None:
            mask = pc.and_(mask, pc.less(urls, self.last))
        return urls.filter(mask.combine_chunks())


def _missing(held: _Held, kept: KeptListing) -> tuple[pa.Array, int]:
    """Return the urls that are held and not listed, sorted, and how many rows were looked at."""
    of_all = [hashes(urls) for urls in held]
    rows = sum(map(len, of_all))
    none = pa.array([], pa.string())
    if not rows:
        return none, 0
    known = distinct(np.concatenate(of_all))
    of_all.clear()
    listed = np.zeros(len(known), bool)
    for urls in kept.urls_between(held.first, held.last):
        some = np.sort(hashes(urls))  # looked up in order, which spares the processor's cache
        place = np.searchsorted(known, some).clip(max=len(known) - 1)
        listed[place[known[place] == some]] = True
    missing = known[~listed]
    if not len(missing):
        return none, rows
    found = [urls.filter(pa.array(among(hashes(urls), missing))) for urls in held]
    return pa.concat_arrays(found).unique().sort(), rows
