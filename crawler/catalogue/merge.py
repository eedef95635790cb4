"""Rewriting Parquet files of the catalogue: leaving rows out, and merging small files into good ones."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from crawler.catalogue.folder import Folder
from crawler.catalogue.fragments import Fragment, groups_of, new_batch, read_fragment, write_fragment
from crawler.catalogue.log import Change
from crawler.catalogue.schema import TABLES
from crawler.catalogue.snapshot import Fragments, Snapshot
from crawler.catalogue.url_hashes import among, distinct, hashes

GOOD_ROWS = {"files": 250_000, "hdus": 200_000, "cards": 500_000}
"""Rows that a merged file has at most. The driver merges: either took 280 to 320 MB more while it was sorted, a million
files 900 MB."""

GOOD_BYTES = 64 * 2**20
"""Bytes of headers that a merged file has at most: twice that is in memory."""

MERGE_FROM = 6
"""Small neighbours that are merged: every row is written again, so that it should not be done after each nightly run,
and six files more than needed are nothing to a reader."""

_READERS = 8
"""Files that are read at once to be merged."""

_HASHES = 8_000_000
"""Hashes of urls that are held at once, of eight bytes."""


def without_urls(
    folder: Folder, where: Snapshot | Iterable[Fragment], urls: Collection[str] | pa.Array, crawl: str
) -> Change:
    """Leave the rows of some urls out of files.

    Parameters
    ----------
    folder : Folder
    where : Snapshot or iterable of Fragment
        Files that may hold such rows; a version of the catalogue for all of its. Only those that do hold them are
        rewritten, and where there are no urls none is looked at.
    urls : collection of str, or pyarrow.Array of string
        Held in memory, and so are the rows of one file at a time. Of very many urls give one run of neighbours after
        the other.
    crawl : str
        Id of the run that rewrites.

    Returns
    -------
    Change
        The new files, written but not committed, and the old ones.
    """
    change = Change()
    if not len(urls):
        return change
    unwanted = (urls if isinstance(urls, pa.Array) else pa.array(list(urls), pa.string())).sort()
    ordered = unwanted.to_pylist()
    if isinstance(where, Snapshot):
        where = [fragment for table in TABLES for fragment in where.of(table).holding(unwanted)]
    batches: dict[str, str] = {}  # what was written together keeps having one name
    with _all_or_nothing(folder, change):
        for fragment in where:
            begin, end = bisect_left(ordered, fragment.first_url), bisect_right(ordered, fragment.last_url)
            if begin == end:
                continue
            here = unwanted[begin:end]
            held = read_fragment(folder, fragment, columns=["url"])
            if not pc.any(pc.is_in(held["url"], here)).as_py():
                continue
            rows = read_fragment(folder, fragment)
            rows = rows.filter(pc.invert(pc.is_in(rows["url"], here)))
            batch = batches.setdefault(fragment.batch, new_batch(crawl))
            _put(change, write_fragment(folder, fragment.table, rows, batch), [fragment])
    return change


def without_repeats(folder: Folder, snapshot: Snapshot, crawl: str) -> Change:
    """Leave out the rows of objects that one run walked twice, which only key files can make it do.

    Of the files that were written together the later ones lose the object. Takes memory for the urls that are there
    twice, not for all.
    """
    files = snapshot.of("files").of_run(crawl)
    repeated = _repeated(folder, files)
    change = Change()
    if not len(repeated):
        return change
    own = [one for table in TABLES for one in snapshot.of(table).of_run(crawl)]
    together: dict[str, list[Fragment]] = {}
    for one in own:
        together.setdefault(one.batch, []).append(one)
    seen: set[str] = set()
    with _all_or_nothing(folder, change):
        for fragment in files:
            column = read_fragment(folder, fragment, columns=["url"])["url"]
            here = set(column.filter(pa.array(among(hashes(column), repeated))).to_pylist())
            part = without_urls(folder, together[fragment.batch], here & seen, crawl)
            change.add.extend(part.add)
            change.remove.extend(part.remove)
            seen |= here
    return change


def _repeated(folder: Folder, files: Fragments) -> npt.NDArray[np.int64]:
    """Return the hashes that more than one row has, sorted: of all urls that are there twice, and rarely of others.

    So many hashes are held as `_HASHES` says; of more rows, those that a pass is for.
    """
    passes = files.rows // _HASHES + 1
    found = [np.empty(0, np.int64)]
    for number in range(passes):
        mine = [np.empty(0, np.int64)]
        for fragment in files:
            of_all = hashes(read_fragment(folder, fragment, columns=["url"])["url"])
            mine.append(of_all[of_all % passes == number])
        together = np.concatenate(mine)
        together.sort()
        found.append(distinct(together[1:][together[1:] == together[:-1]]))
    return np.sort(np.concatenate(found))


def merge_small(
    folder: Folder,
    snapshot: Snapshot,
    crawl: str,
    stop: Callable[[], bool] = lambda: False,
    seconds: float = float("inf"),
) -> Change:
    """Merge neighbouring small files, table by table, so that a catalogue of many small runs reads like one of one.

    What is merged is not merged again: so who commits each change, and asks for the next one of the version that this
    made until there is none, has merged all, and loses no more than ``seconds`` of work if it dies.

    Parameters
    ----------
    folder : Folder
    snapshot : Snapshot
    crawl : str
        Id of the run that merges.
    stop : callable
        Asked before each merge; once it is true the others are left for another run.
    seconds : float
        After so many no further merge begins. One is made in any case.

    Returns
    -------
    Change
        The new files, written but not committed, and those that they stand for.
    """
    change = Change()
    begun = time.monotonic()
    with _all_or_nothing(folder, change):
        for table in TABLES:
            for group in groups_of(snapshot.of(table), GOOD_ROWS[table], GOOD_BYTES, MERGE_FROM):
                if stop() or (change.add and time.monotonic() - begun > seconds):
                    return change
                _put(change, _merged(folder, table, group, new_batch(crawl)), group)
    return change


def _merged(folder: Folder, table: str, group: list[Fragment], batch: str) -> Fragment | None:
    # No name for the rows: they are let go as soon as they are copied in order.
    return write_fragment(folder, table, _together(folder, group), batch)


def _together(folder: Folder, group: list[Fragment]) -> pa.Table:
    """Read files, several at once: each is a few requests, one after the other, where the catalogue is in a bucket."""
    with ThreadPoolExecutor(_READERS, thread_name_prefix="merge") as pool:
        return pa.concat_tables(pool.map(partial(read_fragment, folder), group))


def _put(change: Change, written: Fragment | None, instead_of: Iterable[Fragment]) -> None:
    change.remove.extend(instead_of)
    if written is not None:
        change.add.append(written)


@contextmanager
def _all_or_nothing(folder: Folder, change: Change) -> Iterator[None]:
    """Delete the files that a change was to add, should it fail: nothing refers to them."""
    try:
        yield
    except BaseException:
        for fragment in change.add:
            with suppress(OSError):
                folder.filesystem.delete_file(folder.join(fragment.path))
        raise
