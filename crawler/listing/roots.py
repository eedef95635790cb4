"""Roots, as the user names them, to a stream of objects, and that to partitions.

Knows stores only by their protocol. What a listing promises:

- Each object below a folder is listed once for each URL that it has there, filtered by its name. Folders that lie one
  in the other, the same folder twice, and a file named beside its folder still give each URL once. A file that two
  links lead to has two URLs.
- A file that is named is listed, whatever it is called.
- Entries of key files are listed as they stand, without a look at the store. An entry that is there twice is
  listed once if both are within one partition (of `partitions`), else twice; so is one that a folder or
  another key file has as well. Whoever must not walk an object twice has to remember what was walked.
- Nothing is lost silently: what cannot be listed ends the listing with a `ListingError`.
- A folder of the web that redirects is listed where it leads: URLs are of that place, and names, which globs see, are
  those below the root as it was given. Where it leads into another root, an object can be listed twice.
- Memory is bounded by batches and by the names of single folders, not by the number of objects.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from crawler.errors import ListingError, ObjectNotFoundError, StoreError
from crawler.listing.globs import DEFAULT_INCLUDE, NameFilter
from crawler.listing.key_files import read_key_file
from crawler.stores import ObjectRef, ObjectStore, as_url
from crawler.stores.base import LISTING_SCHEMA, Moved
from crawler.stores.batches import batches
from crawler.stores.urls import S3_SCHEMES, WEB_SCHEMES, below, one_line, printable, readable, scheme_of
from crawler.text import counted


def list_roots(
    roots: Sequence[str],
    *,
    include: Sequence[str] | None,
    exclude: Sequence[str],
    open_store: Callable[[str], ObjectStore],
    limit: int | None = None,
) -> Listing:
    """List everything that ``roots`` name.

    Parameters
    ----------
    roots : Sequence[str]
        Each a folder or prefix, a single file, or a key file with ``@`` before its name; as a local path or
        a URL. An ``http(s)`` URL is a folder if it ends in a slash. The manifest of an S3 Inventory is a key file.
    include : Sequence[str] or None
        Globs (see `crawler.listing.globs.NameFilter`) over the path relative to its root, decoded. None means
        `DEFAULT_INCLUDE`, which does not apply to key files, but to S3 Inventories, which hold all that a bucket does.
        For their entries the path is all that follows the host or bucket.
    exclude : Sequence[str]
        Globs of names to leave out, key files' too.
    open_store : Callable[[str], ObjectStore]
        Called once for each scheme, with a URL of it.
    limit : int, optional
        Objects after which the listing stops, before the filter; no more than these are yielded. No page is asked for
        that is not needed for them.

    Returns
    -------
    Listing
        Nothing has been read yet.

    Raises
    ------
    UsageError
        A root that is neither path nor URL, a scheme that no store reads, a glob that cannot be understood.
    """
    return Listing(roots, include, exclude, open_store, limit)


REDIRECTS = 10
"""Redirects that lead from a root to one of its folders, at most, each to a folder that is not below the one before."""


@dataclass(frozen=True, slots=True)
class _Root:
    """A root: ``given`` as the user wrote it, for messages."""

    given: str
    url: str


class _Place(NamedTuple):
    """A folder to list for a root.

    Attributes
    ----------
    url : str
    name : str
        What it is called below the root, with a slash at its end; empty for the root itself.
    redirects : int
        Those that led here.
    """

    url: str
    name: str
    redirects: int


class Listing(Iterator[pa.RecordBatch]):
    """The objects that roots name, as batches of `LISTING_SCHEMA`: named files, then folders, then key files.

    Made by `list_roots`. Iterating raises `ListingError` where a root cannot be listed.

    Attributes
    ----------
    seen : int
        Objects listed so far, before the filter.
    matched : int
        Objects yielded so far.
    ended : bool
        There is no more. Stays False where the listing stopped at its limit.
    folders : list of str
        URLs of the folders that are listed, with slashes at their ends; known once the listing has begun, or set to
        what an earlier listing of the same roots knew. One that redirects is there by both its URLs.
    """

    def __init__(
        self,
        roots: Sequence[str],
        include: Sequence[str] | None,
        exclude: Sequence[str],
        open_store: Callable[[str], ObjectStore],
        limit: int | None = None,
    ) -> None:
        self.seen = 0
        self.matched = 0
        self.ended = False
        self._roots = roots
        self._include = include
        self._filter = NameFilter(DEFAULT_INCLUDE if include is None else include, exclude)
        self._key_filter = NameFilter(("*",) if include is None else include, exclude)
        self._open_store = open_store
        self._limit = limit
        self._stores: dict[str, ObjectStore] = {}
        named = [root for root in roots if not root.startswith("@")]
        key_files = [root for root in roots if root.startswith("@")]
        self._named = [_Root(root, as_url(root)) for root in dict.fromkeys(named)]
        self._key_files = [_Root(root, as_url(root[1:])) for root in dict.fromkeys(key_files)]
        for root in (*self._named, *self._key_files):
            self._store(root.url)
        self.folders: list[str] = []
        self._batches = self._run()

    def __iter__(self) -> Listing:
        return self

    def __next__(self) -> pa.RecordBatch:
        batch = next(self._batches, None)
        if batch is None:
            self.ended = not self._is_full()
            raise StopIteration
        return batch

    @property
    def requests(self) -> int:
        """Requests that listing took so far, of stores that count them."""
        return sum(getattr(store, "list_requests", 0) for store in self._stores.values())

    def covers(self, url: str) -> bool:
        """Tell whether an object of this URL would have been listed, had it been there.

        That is: below a folder that is a root, and let through by the filter. Key files and single files say nothing
        of what they do not name. Only right once the listing has begun.
        """
        return any(self._takes(url, prefix) for prefix in self.folders)

    def nothing_found(self) -> str:
        """Say in one line why nothing was yielded, and what to do."""
        where = one_line(", ".join(printable(root) for root in self._roots))
        if not self.seen:
            return f"nothing found in {where}: there are no objects"
        if self._include is None:
            return (
                f"no FITS files in {where}: {counted(self.seen, 'object')} seen, none has a FITS name "
                "(*.fits, *.fit, *.fits.gz, ...); use --include"
            )
        globs = one_line(" ".join(self._filter.globs))
        return f"no files in {where} match: {counted(self.seen, 'object')} seen, none passes --include {globs}"

    def _store(self, url: str) -> ObjectStore:
        scheme = scheme_of(url) or url
        if scheme not in self._stores:
            self._stores[scheme] = self._open_store(url)
        return self._stores[scheme]

    def _run(self) -> Iterator[pa.RecordBatch]:
        files, folders = self._told_apart()
        self.folders = [below(root.url) for root in folders]
        yield from self._counted(self._files(files))
        named = pa.array(files, type=pa.string())
        listed, others = self._overlaps(folders)
        for root in listed:
            yield from self._counted(self._folder(root, named, [below(o.url) for o in others if o is not root]))
        for root in self._key_files:
            yield from self._counted(self._from_key_file(root, named))

    def _counted(self, found: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        while not self._is_full() and (batch := next(found, None)) is not None:
            if self._limit is not None:
                batch = batch.slice(0, self._limit - self.matched)
            if batch.num_rows:
                self.matched += batch.num_rows
                yield batch

    def _is_full(self) -> bool:
        return self._limit is not None and self.seen >= self._limit

    def _told_apart(self) -> tuple[dict[str, ObjectRef], list[_Root]]:
        """Return the single files, and the folders, that the roots name: one look at each."""
        files: dict[str, ObjectRef] = {}
        folders: dict[str, _Root] = {}
        for root in self._named:
            web = scheme_of(root.url) in WEB_SCHEMES
            if root.url.endswith("/") or "/" not in root.url.partition("://")[2]:  # a bucket
                folders.setdefault(below(root.url), root)
                continue
            try:
                files[root.url] = self._store(root.url).head(root.url)
            except ObjectNotFoundError as error:
                if web:
                    raise ListingError(printable(root.given), f"{error.reason}; folders end in /") from error
                folders.setdefault(below(root.url), root)
            except StoreError as error:
                raise _listing_error(root, error) from error
        return files, list(folders.values())

    def _overlaps(self, folders: Sequence[_Root]) -> tuple[list[_Root], list[_Root]]:
        """Return the folders to list, and those whose objects folders around them must leave to them.

        A folder inside another needs no listing of its own where the outer one's finds the same: not where
        a glob is relative to the root, nor on the web, where an index need not link to every folder.
        """
        listed = []
        own = [root for root in folders if self._filter.by_path or scheme_of(root.url) in WEB_SCHEMES]
        for root in folders:
            outer = any(o is not root and below(root.url).startswith(below(o.url)) for o in folders)
            if root in own or not outer:
                listed.append(root)
            else:  # a folder that is not there is an error all the same
                self._first(root)
        return listed, own

    def _first(self, root: _Root) -> None:
        try:
            next(iter(self._store(root.url).list(root.url)), None)
        except StoreError as error:
            raise _listing_error(root, error) from error

    def _folder(self, root: _Root, named: pa.Array, others: Sequence[str]) -> Iterator[pa.RecordBatch]:
        found = 0
        left = [_Place(root.url, "", 0)]
        done: set[tuple[str, str]] = set()
        try:
            while left:
                place = left.pop()
                listed, moved = yield from self._listed(place, named, others)
                found += listed
                if place.redirects and not listed and not moved:
                    raise ListingError(
                        printable(root.given),
                        f"redirects to {printable(place.url)}, which links to nothing: it may ask for a log-in",
                    )
                for folder in moved:
                    name = place.name + readable(folder.url, folder.url[len(below(place.url)) :])
                    if place.redirects >= REDIRECTS:
                        raise ListingError(printable(root.given), f"redirects more than {REDIRECTS} times")
                    if not name:
                        self.folders.append(folder.to)
                    # A root that redirects to another is listed with that.
                    if (folder.to, name) not in done and (name or folder.to not in others):
                        left.append(_Place(folder.to, name, place.redirects + 1))
                if not moved:
                    done.add((below(place.url), place.name))
        except StoreError as error:
            raise _listing_error(root, error) from error
        # Stores without folders cannot tell a misspelt prefix from an empty one; a bucket, or a slash at the
        # end, says that a folder is meant.
        tells = scheme_of(root.url) in ("file", *WEB_SCHEMES)
        if not (found or tells or root.url.endswith("/") or "/" not in root.url.partition("://")[2]):
            raise ListingError(printable(root.given), "no such object, and none below it")

    def _files(self, files: dict[str, ObjectRef]) -> Iterator[pa.RecordBatch]:
        for batch in batches(files.values()):
            self.seen += batch.num_rows
            yield batch

    def _list(self, place: _Place) -> Iterator[pa.RecordBatch]:
        store = self._store(place.url)
        return store.list(place.url) if self._limit is None else store.list(place.url, self._limit - self.seen)

    def _listed(
        self, place: _Place, named: pa.Array, others: Sequence[str]
    ) -> Generator[pa.RecordBatch, None, tuple[int, Sequence[Moved]]]:
        """Yield what the filter takes of a folder; return how many objects it has, and folders that lead elsewhere."""
        start = len(below(place.url))
        inner = [prefix for prefix in others if prefix.startswith(below(place.url))]
        listed = 0
        found = iter(self._list(place))
        while True:
            try:
                batch = next(found)
            except StopIteration as end:
                return listed, end.value or ()
            listed += batch.num_rows
            if len(named):
                batch = batch.filter(pc.invert(pc.is_in(batch.column("url"), named)))
            urls = batch.column("url").to_pylist()
            mask = [self._filter(place.name + readable(url, url[start:])) for url in urls]
            self.seen += len(urls)
            for row, url in enumerate(urls) if inner else ():
                if any(url.startswith(prefix) for prefix in inner):
                    self.seen -= 1
                    mask[row] &= not any(self._takes(url, prefix) for prefix in inner)
            yield batch if all(mask) else batch.filter(pa.array(mask, type=pa.bool_()))

    def _takes(self, url: str, prefix: str) -> bool:
        return url.startswith(prefix) and self._filter(readable(url, url[len(prefix) :]))

    def _from_key_file(self, root: _Root, named: pa.Array) -> Iterator[pa.RecordBatch]:
        chosen, found = read_key_file(printable(root.given), root.url, self._store)
        takes = self._key_filter if chosen else self._filter
        for batch in found:
            fresh = batch.filter(pc.invert(pc.is_in(batch.column("url"), named))) if len(named) else batch
            self.seen += fresh.num_rows
            paths = (
                readable(url, url.partition("://")[2].partition("/")[2]) for url in fresh.column("url").to_pylist()
            )
            yield fresh.filter(pa.array([takes(path) for path in paths], type=pa.bool_()))


def _listing_error(root: _Root, error: StoreError) -> ListingError:
    if error.url != printable(root.url):  # something below the root
        return ListingError(printable(root.given), str(error))
    if isinstance(error, ObjectNotFoundError) and scheme_of(root.url) not in WEB_SCHEMES | S3_SCHEMES:
        return ListingError(printable(root.given), "no such file or folder")
    return ListingError(printable(root.given), error.reason)


def partitions(listed: Iterable[pa.RecordBatch], *, first: int, growth: float, size: int) -> Iterator[pa.Table]:
    """Cut a listing into partitions that grow, so that a small crawl is spread over workers all the same.

    Parameters
    ----------
    listed : Iterable[RecordBatch]
        Of `LISTING_SCHEMA`. Read no further than the partition that is asked for.
    first : int
        Rows of the first partition.
    growth : float
        Each partition has as many times more rows than the one before, at least 1.
    size : int
        Rows that a partition has at most.

    Yields
    ------
    Table
        Of `LISTING_SCHEMA`, never empty, each URL once (the first row of it); a copy, so that pickling it ships no
        other rows. A batch of more than half of the rows that a partition should have is cut evenly by itself, so that
        a run of consecutive keys stays one; smaller ones are collected, in the order listed. All partitions but the
        last have at least half of the rows that they should, and no more than these, before repeated URLs are left out.
    """
    wanted = float(min(first, size))
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in listed:
        rest = batch
        while rest.num_rows > int(wanted) / 2:
            pieces = -(-rest.num_rows // int(wanted))
            take = -(-rest.num_rows // pieces)
            yield _partition([rest.slice(0, take)])
            rest = rest.slice(take)
            wanted = min(wanted * growth, float(size))
        for piece in (rest.slice(0, int(wanted) - rows), rest.slice(int(wanted) - rows)):
            if piece.num_rows:
                held.append(piece)
                rows += piece.num_rows
            if rows == int(wanted):
                yield _partition(held)
                held, rows = [], 0
                wanted = min(wanted * growth, float(size))
    if held:
        yield _partition(held)


def _partition(held: Sequence[pa.RecordBatch]) -> pa.Table:
    table = pa.Table.from_batches(held, schema=LISTING_SCHEMA)
    rows = pa.array(range(table.num_rows), type=pa.int64())
    if pc.count_distinct(table["url"]).as_py() < table.num_rows:
        first = pa.table({"url": table["url"], "row": rows}).group_by("url").aggregate([("row", "min")])
        rows = pc.sort_indices(first["row_min"])
        rows = first["row_min"].take(rows)
    return table.take(rows).combine_chunks()
