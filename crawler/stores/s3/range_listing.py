"""List a prefix of S3 with many requests at once, and each object once: ranges of keys, cut in two while walked.

A lister (a thread) that has no range of keys cuts a range that another lister walks, and walks the right part. Where to
cut is a guess; a wrong guess costs one request. Folders have no meaning here: flat prefixes are listed as fast as
folders. `crawler.stores.s3.key_ranges` has the states of a range. The listing itself has these (`ListingState`)::

    PROBING ---- a cut has keys on both sides ----> DIVIDED
       |                                               |
       | keys out of order, or start-after             | keys out of order, or start-after
       | ignored or refused                            | ignored or refused
       v                                               v
    BY_TOKEN                                       REPEATING

    PROBING, DIVIDED, BY_TOKEN --- a lister fails, or the caller closes the iterator ---> STOPPED

The module handles pages; `Fetch` requests them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum, auto

import pyarrow as pa
import pyarrow.compute as pc

from crawler.errors import StoreError
from crawler.stores.errors import failed
from crawler.stores.s3.key_ranges import KeyRange, RangeState, find_cut
from crawler.stores.s3.key_space import Alphabet, shared_prefix_length
from crawler.stores.s3.pages import Page

LISTERS = 16
"""Maximum number of pages requested at once."""

RUN_PAGES = 10
"""Maximum number of pages in a run of keys. The first runs are shorter, so that work can start early."""

_FIRST_RUN_PAGES = 2
_RUN_BYTES = 4 << 20
"""Size, in bytes, at which a run is complete even with fewer pages."""

_QUEUED_RUNS = 8
"""Maximum number of runs that wait for the caller. Listers pause while the queue is full."""

Fetch = Callable[[str | None, str | None], Page]
"""Requests one page: of keys greater than the first argument, or of the second argument, a continuation token."""


def cuts_allowed(pages: int) -> int:
    """Return how many cuts a listing of ``pages`` pages may make. A cut costs at most one request."""
    return min(max(0, pages - 3) // 3, 32 + pages // 20)


def list_by_token(url: str, fetch: Fetch) -> Iterator[pa.RecordBatch]:
    """Yield the objects below ``url``, page after page, in the order of the store.

    Raises
    ------
    StoreError
        From ``fetch``; or the store announces a next page without a new token.
    """
    token = None
    while True:
        page = fetch(None, token)
        if page.batch.num_rows:
            yield page.batch
        _check_next_token(url, page, token)
        if page.token is None:
            return
        token = page.token


def _check_next_token(url: str, page: Page, token: str | None) -> None:
    if page.broken_off or (token is not None and page.token == token):
        said = "listing is incomplete: the store announced more keys, but sent no new continuation token"
        raise failed(url, f"{said}; report this to the operator of the store")


def list_by_ranges(
    url: str, root: str, prefix: str, fetch: Fetch, give_up: Callable[[], None]
) -> Iterator[pa.RecordBatch]:
    """Yield the objects below ``url`` as runs of consecutive keys, with up to `LISTERS` requests at once.

    The runs come in no particular order. The first page is a run of its own; no other page is requested before the
    caller asks for the second run. For n keys in pages of 1,000, at most n / 1,000 + 1 + ``cuts_allowed(pages)`` pages
    are requested. If the store does not sort keys by their bytes, or ignores or refuses ``start-after``, the listing
    continues by continuation tokens.

    Parameters
    ----------
    url : str
        Names the listing in error messages.
    root : str
        The part of each URL before the key: ``s3://BUCKET/``.
    prefix : str
        The prefix that all keys share.
    fetch : Fetch
        Called from many threads.
    give_up : callable
        Must let every call of ``fetch``, in flight or later, fail. Called when the iterator ends for whatever reason;
        all threads have ended when the iterator has ended.

    Raises
    ------
    StoreError
        From ``fetch``; or the store announces a next page without a new token.
    """
    page = fetch(None, None)
    if page.batch.num_rows:
        yield page.batch
    _check_next_token(url, page, None)
    if page.token is None:
        return
    listing = _Listing(url, root, prefix, fetch, page)
    try:
        yield from listing.runs()
    finally:
        listing.stop(give_up)


class ListingState(Enum):
    """State of a listing; the module's docstring shows the transitions."""

    PROBING = auto()
    """One range has all keys listed so far. Cuts are tried; none has been confirmed."""

    DIVIDED = auto()
    """Several ranges have keys."""

    BY_TOKEN = auto()
    """The only range is walked to its end by continuation tokens. Cuts are not possible at this store."""

    REPEATING = auto()
    """Listers stop. The caller's thread lists all keys again by tokens, and drops those that were yielded."""

    STOPPED = auto()
    """Listers stop."""

    @property
    def active(self) -> bool:
        """Whether listers continue."""
        return self not in {ListingState.REPEATING, ListingState.STOPPED}


class _StoppedError(Exception):
    """The listing needs no more pages from its listers."""


class _Listing:
    """The data that all listers of a listing share. One lock guards it; no lister holds the lock during a request."""

    def __init__(self, url: str, root: str, prefix: str, fetch: Fetch, first: Page) -> None:
        self._url, self._root, self._prefix, self._fetch = url, root, prefix, fetch
        self._changed = threading.Condition()
        self._state = ListingState.PROBING
        self._error: BaseException | None = None
        self._alphabet = Alphabet()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._queue: deque[pa.RecordBatch] = deque()
        self._run_pages = _FIRST_RUN_PAGES
        self._pages = 0
        self._cuts = 0
        whole = KeyRange()
        self._ranges = [whole]  # those whose listers are at work, or have yet to take them up
        self._yielded = [whole.yielded]  # of all ranges
        self._add_page(whole, first)
        if whole.pages:  # `list_by_ranges` has yielded this page
            whole.pages.clear()
            whole.yielded[:] = _first_and_last(first.batch)

    def runs(self) -> Iterator[pa.RecordBatch]:
        """Yield the keys after the first page."""
        with self._changed:
            self._start_lister(self._ranges[0])
        while (run := self._next_run()) is not None:
            yield run
        if self._error is not None:
            raise self._error
        if self._state is ListingState.REPEATING:
            yield from self._list_again()

    def stop(self, give_up: Callable[[], None]) -> None:
        """End all threads and all requests."""
        with self._changed:
            self._state = ListingState.STOPPED
            self._changed.notify_all()
        give_up()
        for thread in self._threads:
            thread.join()

    def _next_run(self) -> pa.RecordBatch | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or not self._state.active or not self._ranges)
            self._changed.notify_all()
            return self._queue.popleft() if self._queue else None

    def _list_again(self) -> Iterator[pa.RecordBatch]:
        """List all keys again by token, without the keys that were yielded.

        Each range yielded keys that follow each other in the order of the store. So two keys, the first and the last
        one, are enough to recognise them.

        Raises
        ------
        StoreError
            The first or the last key of a range is missing now.
        """
        last_of = dict(span for span in self._yielded if span)
        last = None
        for batch in list_by_token(self._url, self._fetch):
            new = []
            for url in batch["url"].to_pylist():
                last = last or last_of.pop(url, None)
                new.append(last is None)
                if url == last:
                    last = None
            if any(new):
                yield batch.filter(pa.array(new))
        if last_of or last:
            said = "listing is incomplete: the store does not sort keys by their bytes, and objects changed meanwhile"
            raise failed(self._url, f"{said}; list again while nothing writes to the bucket")

    # The methods below run in the threads of the listers.

    def _start_lister(self, one: KeyRange | None) -> None:
        thread = threading.Thread(target=self._run_lister, args=(one,), name="lister", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run_lister(self, one: KeyRange | None) -> None:
        """Walk a range, and then right parts of other ranges until all keys are listed."""
        try:
            while one is not None or (one := self._wait_for_range()) is not None:
                self._walk(one)
                one = None
        except _StoppedError:
            pass
        except BaseException as error:  # `runs` raises it
            with self._changed:
                if self._state.active:
                    self._state, self._error = ListingState.STOPPED, error
                self._changed.notify_all()

    def _wait_for_range(self) -> KeyRange | None:
        """Wait until a range can be cut. Return its right part, or None at the end of the listing."""
        with self._changed:
            while self._ranges and self._state.active:
                if (one := self._cut_range()) is not None:
                    return one
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            return None

    def _may_cut(self) -> bool:
        return self._state in {ListingState.PROBING, ListingState.DIVIDED} and self._cuts < cuts_allowed(self._pages)

    def _cut_range(self) -> KeyRange | None:
        """Cut a range if one can be cut, and return its right part."""
        found = find_cut(self._ranges, len(self._prefix), self._alphabet) if self._may_cut() else None
        if found is None:
            return None
        one, cut = found
        right = one.cut_off(cut)
        self._cuts += 1
        self._ranges.append(right)
        self._yielded.append(right.yielded)
        return right

    def _walk(self, one: KeyRange) -> None:
        """Request the pages of a range until it is finished."""
        while not one.finished:
            page = self._fetch_next(one)
            with self._changed:
                if not self._state.active:
                    raise _StoppedError
                if page is None:
                    self._use_tokens_only()
                else:
                    self._add_page(one, page)
                if (
                    one.finished
                    or len(one.pages) >= self._run_pages
                    or sum(held.nbytes for held in one.pages) > _RUN_BYTES
                ):
                    self._queue_run(one)
                if one.finished:
                    self._ranges.remove(one)
                self._changed.notify_all()

    def _fetch_next(self, one: KeyRange) -> Page | None:
        """Return the next page of a range; None if the store refuses to start after a key."""
        token = one.token
        try:
            page = self._fetch(None if token else one.after, token)
        except StoreError as error:
            # Some stores answer 400 or 501 to start-after. The subclasses of StoreError have other causes.
            if token or one.after is None or type(error) is not StoreError:
                raise
            return None
        _check_next_token(self._url, page, token)
        return page

    def _add_page(self, one: KeyRange, page: Page) -> None:
        """Add the keys of a page to a range, and change the states that follow from the page."""
        self._pages += 1
        if one.finished:  # another lister undid the cut while this page was in flight
            return
        one.token = page.token
        last_page = page.token is None
        if not page.batch.num_rows:
            if last_page:
                self._settle(one, has_keys=False)
        elif self._in_order(one, page.batch):
            last_page = self._add_keys(one, page.batch) or last_page
        else:
            self._use_tokens_only()
            if one.after is None:
                one.pages.append(page.batch)
        if last_page:
            one.finish()

    def _add_keys(self, one: KeyRange, batch: pa.RecordBatch) -> bool:
        """Add sorted keys to a range, up to its end. Return whether some keys lie beyond that end."""
        first, last = (url.removeprefix(self._root) for url in _first_and_last(batch))
        self._settle(one, has_keys=one.stop is None or first <= one.stop)
        self._wait_while(lambda: one.cut is not None and last > one.cut.key)
        inside, passed = batch, False
        if one.stop is not None and last > one.stop:
            inside = batch.slice(0, pc.sum(pc.less_equal(batch["url"], self._root + one.stop)).as_py())
            passed = True
        if inside.num_rows:
            one.pages.append(inside)
        one.last_key, one.finest = last, shared_prefix_length(first, last)
        one.pages_since_cut += 1
        self._alphabet.add_keys(url.removeprefix(self._root) for url in batch["url"][::100].to_pylist())
        if not self._idle and 0 < len(self._threads) < LISTERS and self._may_cut():
            self._start_lister(None)
        return passed

    def _in_order(self, one: KeyRange, batch: pa.RecordBatch) -> bool:
        """Return whether the keys of a page are sorted by their bytes and greater than all keys before."""
        urls = batch["url"]
        before = one.last_key or one.after
        if before is not None and urls[0].as_py() <= self._root + before:
            return False
        return pc.all(pc.less(urls[:-1], urls[1:])).as_py() is not False

    def _settle(self, one: KeyRange, *, has_keys: bool) -> None:
        """Confirm or reject the cut that made a range. PROBING -> DIVIDED if the range has keys."""
        if one.state is not RangeState.TENTATIVE:
            return
        if has_keys:
            one.confirm()
            self._state = ListingState.DIVIDED
        else:
            one.reject()

    def _use_tokens_only(self) -> None:
        """Cut no more. PROBING -> BY_TOKEN: the tentative range is dropped. DIVIDED -> REPEATING."""
        if self._state is ListingState.DIVIDED:
            self._state = ListingState.REPEATING
            self._changed.notify_all()
            raise _StoppedError
        self._state = ListingState.BY_TOKEN
        for one in self._ranges:
            if one.after is None:
                one.remove_limit()
            else:
                one.finish()

    def _queue_run(self, one: KeyRange) -> None:
        """Put the pages of a range into the queue as one run; wait while the queue is full."""
        if not one.pages:
            return
        self._wait_while(lambda: len(self._queue) >= _QUEUED_RUNS)
        run = pa.concat_batches(one.pages)
        one.pages.clear()
        self._run_pages = min(RUN_PAGES, 2 * self._run_pages)
        first, last = _first_and_last(run)
        one.yielded[:] = [one.yielded[0] if one.yielded else first, last]
        self._queue.append(run)

    def _wait_while(self, busy: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: not self._state.active or not busy())
        if not self._state.active:
            raise _StoppedError


def _first_and_last(batch: pa.RecordBatch) -> list[str]:
    """Return the first and the last URL of a batch."""
    urls = batch["url"]
    return [urls[0].as_py(), urls[-1].as_py()]
