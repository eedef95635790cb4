"""Rewriting Parquet files of the catalogue: leaving rows out, and merging small files into good ones."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress

import pyarrow as pa
import pyarrow.compute as pc

from crawler.catalogue.fragments import Fragment, groups_of, new_batch, read_fragment, write_fragment
from crawler.catalogue.log import Change, Snapshot
from crawler.catalogue.schema import TABLES
from crawler.stores.storage import Folder

GOOD_ROWS = {"files": 1_000_000, "hdus": 200_000, "cards": 1_000_000}
"""Rows that a merged file has at most. A million cards are some 150 MB in memory while they are sorted."""

GOOD_BYTES = 64 * 2**20
"""Bytes of headers that a merged file has at most: twice that is in memory."""

MERGE_FROM = 6
"""Small neighbours that are merged: every row is written again, so that it should not be done after each nightly run,
and six files more than needed are nothing to a reader."""


def without_urls(folder: Folder, fragments: Iterable[Fragment], urls: Collection[str], crawl: str) -> Change:
    """Leave the rows of some urls out of files.

    Parameters
    ----------
    folder : Folder
    fragments : iterable of Fragment
        Files that may hold such rows. Only those that do are rewritten.
    urls : collection of str
    crawl : str
        Id of the run that rewrites.

    Returns
    -------
    Change
        The new files, written but not committed, and the old ones.
    """
    ordered = sorted(urls)
    unwanted = pa.array(ordered, pa.string())
    batches: dict[str, str] = {}  # what was written together keeps having one name
    with _all_or_nothing(folder) as change:
        for fragment in fragments:
            at = bisect_left(ordered, fragment.first_url)
            if at == len(ordered) or ordered[at] > fragment.last_url:
                continue
            held = read_fragment(folder, fragment, columns=["url"])
            if not pc.any(pc.is_in(held["url"], unwanted)).as_py():
                continue
            rows = read_fragment(folder, fragment)
            rows = rows.filter(pc.invert(pc.is_in(rows["url"], unwanted)))
            batch = batches.setdefault(fragment.batch, new_batch(crawl))
            _put(change, write_fragment(folder, fragment.table, rows, batch), [fragment])
    return change


def without_repeats(folder: Folder, snapshot: Snapshot, crawl: str) -> Change:
    """Leave out the rows of objects that one run walked twice, which only key files can make it do.

    Of the files that were written together the later named lose the object.
    """
    own = [one for one in snapshot.fragments if one.batch.startswith(crawl)]
    columns = [read_fragment(folder, one, columns=["url"])["url"] for one in own if one.table == "files"]
    if not columns:
        return Change()
    counts = pc.value_counts(pa.chunked_array([chunk for column in columns for chunk in column.chunks]))
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    seen: set[str] = set()
    with _all_or_nothing(folder) as change:
        for fragment, column in zip([one for one in own if one.table == "files"], columns, strict=True):
            here = set(column.filter(pc.is_in(column, repeated)).to_pylist())
            together = [one for one in own if one.batch == fragment.batch]
            part = without_urls(folder, together, here & seen, crawl)
            change.add.extend(part.add)
            change.remove.extend(part.remove)
            seen |= here
    return change


def merge_small(folder: Folder, snapshot: Snapshot, crawl: str, stop: Callable[[], bool] = lambda: False) -> Change:
    """Merge neighbouring small files, table by table, so that a catalogue of many small runs reads like one of one.

    Parameters
    ----------
    folder : Folder
    snapshot : Snapshot
    crawl : str
        Id of the run that merges.
    stop : callable
        Asked before each merge; once it is true the others are left for another run.

    Returns
    -------
    Change
        The new files, written but not committed, and those that they stand for.
    """
    with _all_or_nothing(folder) as change:
        for table in TABLES:
            for group in groups_of(snapshot.of(table), GOOD_ROWS[table], GOOD_BYTES, MERGE_FROM):
                if stop():
                    return change
                rows = pa.concat_tables([read_fragment(folder, fragment) for fragment in group])
                _put(change, write_fragment(folder, table, rows, new_batch(crawl)), group)
    return change


def _put(change: Change, written: Fragment | None, instead_of: Iterable[Fragment]) -> None:
    change.remove.extend(instead_of)
    if written is not None:
        change.add.append(written)


@contextmanager
def _all_or_nothing(folder: Folder) -> Iterator[Change]:
    """Give a change to fill; where that fails, delete the files that it was to add: nothing refers to them."""
    change = Change()
    try:
        yield change
    except BaseException:
        for fragment in change.add:
            with suppress(OSError):
                folder.filesystem.delete_file(folder.join(fragment.path))
        raise
