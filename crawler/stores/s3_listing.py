"""A prefix of S3 listed by many requests at once, each object once: ranges of keys, cut in two while they are walked.

A range begins after one key and ends with another. Who has nothing to do takes the right part of a range that somebody
else walks, wherever that may be: what keys are like is only guessed (`crawler.stores.key_space`), and a wrong guess
costs one request. So folders and flat prefixes are all the same. Knows pages, and not how they are asked for.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from crawler.errors import StoreError
from crawler.stores.failures import failed
from crawler.stores.key_space import Alphabet, Cut, common, place_to_cut
from crawler.stores.s3_pages import Page

LISTERS = 16
"""Pages that are asked for at once, at most."""

RUN_PAGES = 10
"""Pages that are yielded together, at most, once a listing is under way."""

_RUN_BYTES = 4 << 20
_READY = 8  # runs that wait to be taken, at most
_BETWEEN_CUTS = 1  # pages that a range is walked before it is cut, and cut again: there is more than that of it
_LONGEST_KEY = 1024  # bytes ("Naming Amazon S3 objects", Amazon S3 User Guide)

Fetch = Callable[[str | None, str | None], Page]
"""Asks for one page: of keys greater than the first argument or, where the second is a token, of those next to it."""


def cuts_allowed(pages: int) -> int:
    """Return how many cuts a listing may have made: each costs a request at most, and a small listing none."""
    return min(max(0, pages - 3) // 3, 32 + pages // 20)


def list_by_token(url: str, fetch: Fetch) -> Iterator[pa.RecordBatch]:
    """Yield what is below ``url``, page after page, in the order of the store.

    Raises
    ------
    StoreError
        From ``fetch``; or a page names no next one.
    """
    token = None
    while True:
        page = fetch(None, token)
        if page.batch.num_rows:
            yield page.batch
        _check_next(url, page, token)
        if page.token is None:
            return
        token = page.token


def _check_next(url: str, page: Page, token: str | None) -> None:
    if page.broken_off or (token is not None and page.token == token):
        raise failed(url, "listing broke off: the store names no next page")


def list_by_ranges(
    url: str, root: str, prefix: str, fetch: Fetch, give_up: Callable[[], None]
) -> Iterator[pa.RecordBatch]:
    """Yield what is below ``url`` as runs of consecutive keys, in no order, by up to `LISTERS` requests at once.

    The first page is yielded by itself, and nothing else is asked for before more is wanted. Of n keys, in pages of
    1,000, at most n / 1,000 + 1 + ``cuts_allowed(pages)`` pages are asked for. Where the store turns out not to sort
    by bytes, or not to begin where it is asked to, or to refuse that, the listing goes on by tokens.

    Parameters
    ----------
    url : str
        For messages.
    root : str
        What keys have before them in URLs: ``s3://BUCKET/``.
    prefix : str
        Of all keys.
    fetch : Fetch
        Called from many threads.
    give_up : callable
        Makes calls of ``fetch`` that are under way fail, and all later ones. Called when the iterator ends, whatever
        ends it; its threads have ended then, too.

    Raises
    ------
    StoreError
        From ``fetch``; or a page names no next one.
    """
    page = fetch(None, None)
    if page.batch.num_rows:
        yield page.batch
    _check_next(url, page, None)
    if page.token is None:
        return
    listing = _Listing(url, root, prefix, fetch, page)
    try:
        yield from listing.runs()
    finally:
        listing.end(give_up)


class _OverError(Exception):
    """The listing has ended: who still walks a range need not go on."""


@dataclass(slots=True, eq=False)
class _Range:
    """Keys that one lister walks, in the order of their bytes.

    Attributes
    ----------
    after, stop : str or None
        Keys are greater than the one, and not greater than the other; None for no bound.
    left : _Range or None
        What it was cut from, until its own first page is there: only then that stops at the cut.
    right : _Range or None
        What was cut from it, until then.
    place : Cut or None
        Where it was cut from ``left``.
    level : int or None
        Of a cut that had keys on both sides, this range being one of them.
    at : str
        The last key that was listed.
    fine : int
        Position at which the keys of the last page differ.
    token : str or None
        Of the next page.
    walked : int
        Pages since it began or was cut.
    ended : bool
    run : list of RecordBatch
        Pages that were not yielded yet.
    yielded : list of str
        First and last URL that were.
    """

    after: str | None = None
    stop: str | None = None
    left: _Range | None = None
    right: _Range | None = None
    place: Cut | None = None
    level: int | None = None
    at: str = ""
    fine: int = 0
    token: str | None = None
    walked: int = 0
    ended: bool = False
    run: list[pa.RecordBatch] = field(default_factory=list)
    yielded: list[str] = field(default_factory=list)


class _Listing:
    """What the listers of one listing share, under one lock, which is not held while a page is asked for."""

    def __init__(self, url: str, root: str, prefix: str, fetch: Fetch, first: Page) -> None:
        self._url, self._root, self._prefix, self._fetch = url, root, prefix, fetch
        self._changed = threading.Condition()
        self._alphabet = Alphabet()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._ready: deque[pa.RecordBatch] = deque()
        self._run_pages = 2
        self._pages = 0
        self._cuts = 0
        self._sorts = True  # the store does, by bytes, and begins where it is asked to, for all that is known
        self._divided = False  # there are several ranges, and keys in them
        self._over = False
        self._error: BaseException | None = None
        whole = _Range()
        self._ranges = [whole]
        self._yielded = [whole.yielded]
        self._take(whole, first)
        if whole.run:  # the caller yields it
            whole.run.clear()
            whole.yielded[:] = _ends(first.batch)

    def runs(self) -> Iterator[pa.RecordBatch]:
        """Yield the keys after the first page."""
        with self._changed:
            self._start(self._ranges[0])
        while (run := self._next_run()) is not None:
            yield run
        if self._error is not None:
            raise self._error
        if self._divided and not self._sorts:
            yield from self._rest()

    def end(self, give_up: Callable[[], None]) -> None:
        """Leave no thread and no request behind."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        give_up()
        for thread in self._threads:
            thread.join()

    def _next_run(self) -> pa.RecordBatch | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._over or not self._ranges)
            self._changed.notify_all()
            return self._ready.popleft() if self._ready else None

    def _rest(self) -> Iterator[pa.RecordBatch]:
        """List all again by token, without what was yielded: that is runs that follow each other in the store's order.

        Raises
        ------
        StoreError
            A run does not begin, or end, where it did.
        """
        ends = dict(one for one in self._yielded if one)
        end = None
        for batch in list_by_token(self._url, self._fetch):
            fresh = []
            for url in batch["url"].to_pylist():
                end = end or ends.pop(url, None)
                fresh.append(end is None)
                if url == end:
                    end = None
            if any(fresh):
                yield batch.filter(pa.array(fresh))
        if ends or end:
            raise failed(self._url, "listing broke off: the store sorts keys in no known order, and they changed")

    # What follows runs on the threads of the listers.

    def _start(self, one: _Range | None) -> None:
        thread = threading.Thread(target=self._list, args=(one,), name="lister", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _list(self, one: _Range | None) -> None:
        try:
            while one is not None or (one := self._next_range()) is not None:
                self._walk(one)
                one = None
        except _OverError:
            pass
        except BaseException as error:  # raised where the next run would have come
            with self._changed:
                if not self._over:
                    self._error, self._over = error, True
                self._changed.notify_all()

    def _next_range(self) -> _Range | None:
        """Wait until a range can be cut; return its right part, or None where all has been walked."""
        with self._changed:
            while self._ranges and not self._over:
                if (one := self._cut()) is not None:
                    return one
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            return None

    def _may_cut(self) -> bool:
        return self._sorts and not self._over and self._cuts < cuts_allowed(self._pages)

    def _cut(self) -> _Range | None:
        """Cut the range of which there seems to be most: the one that is cut furthest left."""
        best: tuple[tuple[int, int], _Range, Cut] | None = None
        for one in self._ranges if self._may_cut() else ():
            if one.ended or one.left or one.right or one.walked < _BETWEEN_CUTS:
                continue
            place = place_to_cut(
                one.at,
                one.stop,
                begin=len(self._prefix),
                fine=one.fine,
                level=one.level,
                alphabet=self._alphabet,
            )
            if place is None or len(place.key.encode()) > _LONGEST_KEY or not place.key.isprintable():
                continue  # answers repeat it in XML, which holds no control characters: Ceph says 500
            order = (place.level, -place.gap)
            if best is None or order < best[0]:
                best = order, one, place
        if best is None:
            return None
        _, one, place = best
        right = _Range(after=place.key, stop=one.stop, left=one, place=place, level=one.level)
        one.right, one.walked = right, 0
        self._cuts += 1
        self._ranges.append(right)
        self._yielded.append(right.yielded)
        return right

    def _walk(self, one: _Range) -> None:
        while not one.ended:
            token = one.token
            page: Page | None
            try:
                page = self._fetch(None if token else one.after, token)
            except StoreError as error:
                # Some stores answer 400 or 501 to start-after. Whoever may not list, or is not answered, is told so.
                if token or one.after is None or type(error) is not StoreError:
                    raise
                page = None
            else:
                _check_next(self._url, page, token)
            with self._changed:
                if self._over:
                    raise _OverError
                if page is None:
                    self._go_on_by_token(one)
                else:
                    self._take(one, page)
                if one.ended or len(one.run) >= self._run_pages or sum(held.nbytes for held in one.run) > _RUN_BYTES:
                    self._give(one)
                if one.ended:
                    self._ranges.remove(one)
                self._changed.notify_all()

    def _take(self, one: _Range, page: Page) -> None:
        """Keep what of a page is of the range, and see whether that ends."""
        self._pages += 1
        if one.ended:  # it was joined again to what it was cut from
            return
        batch, one.token, one.ended = page.batch, page.token, page.token is None
        if not batch.num_rows:
            if one.ended:
                self._decide(one, found=False)
            return
        first, last = (url.removeprefix(self._root) for url in _ends(batch))
        if not self._in_order(one, batch, first):
            self._go_on_by_token(one)
            if one.after is None:
                one.run.append(batch)
            return
        self._decide(one, found=one.stop is None or first <= one.stop)
        self._wait_while(lambda: one.right is not None and last > str(one.right.after))
        if one.stop is not None and last > one.stop:
            one.ended = True
            batch = batch.slice(0, pc.sum(pc.less_equal(batch["url"], self._root + one.stop)).as_py())
        if batch.num_rows:
            one.run.append(batch)
        one.at, one.fine = last, common(first, last)
        one.walked += 1
        self._alphabet.learn(url.removeprefix(self._root) for url in page.batch["url"][::100].to_pylist())
        if not self._idle and len(self._threads) < LISTERS and self._threads and self._may_cut():
            self._start(None)

    def _in_order(self, one: _Range, batch: pa.RecordBatch, first: str) -> bool:
        """Tell whether the keys of a page are greater than those before, and sorted by their bytes."""
        urls = batch["url"]
        before = one.at or one.after
        return (before is None or first > before) and pc.all(pc.less(urls[:-1], urls[1:])).as_py() is not False

    def _decide(self, one: _Range, *, found: bool) -> None:
        """Have what a range was cut from end at the cut, now that it is known what is right of it."""
        if one.left is None or one.place is None:
            return
        one.left.stop, one.left.right = one.after, None
        if found:
            self._divided = True
            one.level = one.left.level = one.place.level
        one.left = None

    def _go_on_by_token(self, one: _Range) -> None:
        """Cut no more, and take back the last cut; where others were made before, begin again."""
        self._sorts = False
        if self._divided:
            self._over = True
            self._changed.notify_all()
            raise _OverError
        for other in self._ranges:
            if other.after is not None:
                other.ended = True
            other.left = other.right = other.stop = None

    def _give(self, one: _Range) -> None:
        """Have the pages of a range yielded, as soon as not too many wait for that."""
        if not one.run:
            return
        self._wait_while(lambda: len(self._ready) >= _READY)
        run = pa.concat_batches(one.run)
        one.run.clear()
        self._run_pages = min(RUN_PAGES, 2 * self._run_pages)
        one.yielded[:] = [one.yielded[0] if one.yielded else _ends(run)[0], _ends(run)[1]]
        self._ready.append(run)

    def _wait_while(self, busy: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: self._over or not busy())
        if self._over:
            raise _OverError


def _ends(batch: pa.RecordBatch) -> list[str]:
    """Return the first and the last URL."""
    urls = batch["url"]
    return [urls[0].as_py(), urls[-1].as_py()]
