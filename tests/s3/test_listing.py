"""Prefixes listed by many requests at once: every key once, whatever keys and store are like, at little cost."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs, quote, unquote_plus, urlsplit

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.errors import AccessDeniedError, StoreError
from crawler.listing import list_roots
from crawler.stores import open_store
from crawler.stores import s3_listing as listing
from crawler.stores.base import LISTING_SCHEMA
from crawler.stores.failures import failed
from crawler.stores.s3_listing import cuts_allowed, list_by_ranges
from crawler.stores.s3_pages import EVENT, Page, take_contents
from tests.s3.conftest import S3Server
from tests.s3.proxy import Proxy
from tests.s3.test_keys import KEYS, NOT_ON_MOTO
from tests.servers import Answer, Handler, Request, Server


class Keys:
    """A store of keys as `list_by_ranges` asks it for pages.

    Attributes
    ----------
    order : callable or None
        What the store sorts by, if not by the keys.
    start : {"taken", "ignored", "refused"}
        What comes of asking to begin after a key: it may begin at the begin all the same, or call that a wrong request.
    requests : int
    most : int
        Under way at once.
    """

    def __init__(
        self, keys: Iterable[str], size: int = 1_000, order: Callable[[str], Any] | None = None, start: str = "taken"
    ) -> None:
        self.keys = sorted(keys, key=order)
        self.size, self.order, self.start = size, order, start
        self.requests = self.under_way = self.most = 0
        self.together: threading.Barrier | None = None
        self._lock = threading.Lock()
        self._given_up = False

    def fetch(self, after: str | None, token: str | None) -> Page:
        assert not self._given_up
        with self._lock:
            self.requests += 1
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        if after is not None and self.start == "refused":
            raise failed("s3://b/", "HTTP 501 Not Implemented")
        page = self._page(after, token)
        with self._lock:
            self.under_way -= 1
        return page

    def _page(self, after: str | None, token: str | None) -> Page:
        assert after is None or token is None
        begin = int(token or 0)
        if after is not None and self.start == "taken":
            if self.order is None:
                begin = bisect_right(self.keys, after)
            else:
                begin = next((row for row, key in enumerate(self.keys) if key > after), len(self.keys))
        end = begin + self.size
        return Page(batch(self.keys[begin:end]), str(end) if end < len(self.keys) else None)

    def listed(self, prefix: str = "") -> list[list[str]]:
        runs = list_by_ranges("s3://b/", "s3://b/", prefix, self.fetch, self.give_up)
        return [[url.removeprefix("s3://b/") for url in run["url"].to_pylist()] for run in runs]

    def give_up(self) -> None:
        self._given_up = True


def batch(keys: list[str]) -> pa.RecordBatch:
    nulls = [pa.nulls(len(keys), type=field.type) for field in list(LISTING_SCHEMA)[1:]]
    return pa.record_batch([pa.array([f"s3://b/{key}" for key in keys], pa.string()), *nulls], schema=LISTING_SCHEMA)


NO_TOKENS_OF_CEPH = {"a/./b.fits", "bell\x07.fits"}
"""It answers 500 where a page of three ends with one, however it is asked to go on."""

ODD = st.sampled_from("ab019/_.-zZ %+\t\0\x7fé\uffff🔭\U0010ffff")
ORDERS: dict[str, Callable[[str], Any] | None] = {
    "bytes": None,
    "backwards": lambda key: [-ord(char) for char in key],
    "hashes": lambda key: hashlib.md5(key.encode()).hexdigest(),
}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ranges cut as often as they can be."""
    monkeypatch.setattr(listing, "cuts_allowed", lambda pages: pages)


class TestEachKeyOnce:
    @pytest.mark.parametrize("start", ["taken", "ignored", "refused"])
    @pytest.mark.parametrize("order", ORDERS)
    def test_whatever_keys_and_order_are(self, eager: None, order: str, start: str) -> None:
        cut = 0

        @settings(max_examples=60, deadline=None, derandomize=True, database=None)
        @given(st.sets(st.text(ODD, min_size=1, max_size=6), max_size=100), st.integers(1, 4))
        def check(keys: set[str], size: int) -> None:
            nonlocal cut
            store = Keys(keys, size, ORDERS[order], start)
            found = [key for run in store.listed() for key in run]
            assert sorted(found) == sorted(keys)
            assert threading.active_count() == threads
            cut += store.requests > -(-len(keys) // size)

        threads = threading.active_count()
        check()
        assert cut  # else nothing was tried

    def test_order_found_wrong_after_cuts(self, eager: None) -> None:
        """The last keys come in another order than all before: what was listed by then is not listed again."""
        keys = [f"{number:04}" for number in range(400)]
        store = Keys(keys, 5)
        store.keys = keys[:380] + keys[:379:-1]
        found = [key for run in store.listed() for key in run]
        assert sorted(found) == keys

    def test_pages_without_keys(self, eager: None) -> None:
        store = Keys([f"{number:03}" for number in range(200)], 2)
        whole = store.fetch

        def with_holes(after: str | None, token: str | None) -> Page:
            """Answer the first time with no keys, and a token that leads to them."""
            if token and token.startswith("again"):
                told, _, rest = token.removeprefix("again ").partition(" ")
                return whole(rest if told == "after" else None, rest if told == "token" else None)
            same = f"after {after}" if after else f"token {token or 0}"
            return Page(batch([]), f"again {same}")

        runs = list_by_ranges("s3://b/", "s3://b/", "", with_holes, store.give_up)
        found = [url for run in runs for url in run["url"].to_pylist()]
        assert sorted(found) == [f"s3://b/{key}" for key in store.keys]

    def test_odd_keys_of_real_servers(self, server: S3Server, eager: None) -> None:
        bucket = server.bucket()
        keys = set(KEYS) - (NOT_ON_MOTO if server.kind == "moto" else NO_TOKENS_OF_CEPH)
        keys |= {f"more/{number:03}.fits" for number in range(60)}
        etags = {f"s3://{bucket}/{key}": server.put(bucket, key, key.encode()) for key in keys}
        with Proxy(server.endpoint) as proxy:
            store = open_store("s3", {**server.options, "endpoint_url": proxy.origin})
            session = store._session  # type: ignore[attr-defined]
            events = session._open(f"s3://{bucket}")[2].meta.events
            events.register("before-parameter-build.s3.ListObjectsV2", of_three_keys)
            ours = rows(store.list(f"s3://{bucket}/"))
            paths = [request.path for request in proxy.requests]
            assert session.list_requests == store.list_requests == len(paths)  # type: ignore[attr-defined]
            events.unregister(EVENT, take_contents)
            theirs = rows(session.list(f"s3://{bucket}/", by_ranges=False))
        assert sum("start-after=" in path for path in paths) > 3
        assert {row["url"]: row["etag"] for row in ours} == etags
        assert len(ours) == len(etags)
        assert ours == theirs


def of_three_keys(params: dict[str, Any], **_: object) -> None:
    params["MaxKeys"] = 3


def rows(batches: Iterator[pa.RecordBatch]) -> list[dict[str, Any]]:
    return sorted((row for batch in batches for row in batch.to_pylist()), key=lambda row: str(row["url"]))


LAYOUTS = {
    "flat": [f"img_{number:07}.fits" for number in range(250_000)],
    "dates": [
        f"raw/{2015 + number % 9}/{1 + number % 12:02}/{1 + number % 28:02}/exp_{number:08}_{band}.fits"
        for number in range(40_000)
        for band in "griz"
    ],
    "hashes": [f"{hashlib.md5(str(number).encode()).hexdigest()}.fits" for number in range(150_000)],
}


class TestCost:
    @pytest.mark.parametrize("count", [0, 1, 1_000, 1_001, 4_000])
    def test_few_pages_cost_nothing_more(self, count: int) -> None:
        store = Keys([f"img_{number:07}.fits" for number in range(count)])
        assert sum(map(len, store.listed())) == count
        assert store.requests == max(1, -(-count // 1_000))

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_requests_stay_near_one_in_a_thousand_keys(self, layout: str) -> None:
        store = Keys(LAYOUTS[layout])
        pages = -(-len(store.keys) // 1_000)
        runs = store.listed()
        assert sorted(key for run in runs for key in run) == sorted(store.keys)
        assert pages < store.requests <= pages + 1 + cuts_allowed(store.requests) <= 1.3 * pages

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_many_pages_are_asked_for_at_once(self, layout: str) -> None:
        store = Keys(LAYOUTS[layout])
        busy = threading.Event()
        plain = store._page

        def waiting(after: str | None, token: str | None) -> Page:
            if store.under_way >= listing.LISTERS // 2:
                busy.set()
            busy.wait(0.05)
            return plain(after, token)

        store._page = waiting  # type: ignore[method-assign]
        store.listed()
        assert busy.is_set()

    def test_runs_are_consecutive_keys_and_grow(self) -> None:
        store = Keys(LAYOUTS["flat"])
        place = {key: row for row, key in enumerate(store.keys)}
        runs = store.listed()
        for run in runs:
            assert [place[key] for key in run] == list(range(place[run[0]], place[run[0]] + len(run)))
        assert len(runs[0]) == 1_000
        assert max(map(len, runs)) == 10_000
        assert len(runs) < len(store.keys) / 2_000


class _Pages(Handler):
    """Answers "ListObjectsV2" of the Amazon S3 API Reference."""

    def answer(self) -> None:
        owner: KeyServer = self.server.owner
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        after = asked.get("continuation-token", asked.get("start-after", ""))
        if owner.refused_from is not None and len(owner.requests) > owner.refused_from:
            body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
            self.send(403, body, {"Content-Type": "application/xml"})
            return
        if len(owner.requests) > owner.stalled_from:
            owner.stalled.release()
            owner.resume.wait()
        begin = bisect_right(owner.keys, unquote_plus(after) if "continuation-token" in asked else after)
        page = owner.keys[begin : begin + owner.size]
        more = begin + owner.size < len(owner.keys)
        entries = "".join(f"<Contents><Key>{quote(key)}</Key><Size>1</Size></Contents>" for key in page)
        token = f"<NextContinuationToken>{quote(page[-1])}</NextContinuationToken>" if more else ""
        body = (
            f"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{token}{entries}</ListBucketResult>"
        )
        self.send(200, body.encode(), {"Content-Type": "application/xml"})


class KeyServer:
    """An S3 of one bucket of keys, whose pages are small."""

    def __init__(self, count: int, size: int) -> None:
        self.keys = [f"img_{number:06}.fits" for number in range(count)]
        self.size = size
        self.requests: list[Request] = []
        self.answered: list[Answer] = []
        self.refused_from: int | None = None
        self.stalled_from = 1 << 30
        self.stalled = threading.Semaphore(0)
        self.resume = threading.Event()

    @property
    def options(self) -> dict[str, Any]:
        return {"endpoint_url": self.server.origin, "key": "key", "secret": "secret"}

    def __enter__(self) -> KeyServer:
        self.server = Server(self, _Pages).__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.resume.set()
        self.server.__exit__()


def listers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "lister"]


class TestOverTheWire:
    def test_a_listing_counts_its_requests(self) -> None:
        with KeyServer(2_000, 20) as served:
            store = open_store("s3", served.options)
            found = list_roots(["s3://bucket/"], include=None, exclude=(), open_store=lambda _: store)
            assert sum(one.num_rows for one in found) == found.seen == 2_000
            assert found.requests == len(served.requests) <= 100 + 1 + cuts_allowed(len(served.requests))
            assert len({request.path for request in served.requests}) == len(served.requests)
        assert not listers()

    def test_directory_buckets_are_listed_by_token(self) -> None:
        with KeyServer(300, 10) as served:
            session = open_store("s3", {**served.options, "anon": True, "key": None, "secret": None})
            asked: list[bool] = []
            session._session.list = lambda _, by_ranges: asked.append(by_ranges)  # type: ignore[attr-defined]
            session.list("s3://name--usw2-az1--x-s3/raw")
            session.list("s3://name/raw")
        assert asked == [False, True]

    def test_an_error_of_one_lister_ends_the_listing(self) -> None:
        with KeyServer(20_000, 20) as served:
            served.refused_from = 60
            found = open_store("s3", served.options).list("s3://bucket/")
            with pytest.raises(AccessDeniedError, match="listing not allowed") as caught:
                list(found)
        assert caught.value.url == "s3://bucket/"
        assert not listers()

    def test_an_abandoned_listing_leaves_nothing_behind(self) -> None:
        with KeyServer(20_000, 20) as served:
            served.stalled_from = 60
            found = open_store("s3", served.options).list("s3://bucket/")
            assert next(found).num_rows == 20
            assert not listers()  # nothing is asked for before more is wanted
            next(found)
            assert served.stalled.acquire(timeout=30)
            found.close()  # type: ignore[attr-defined]
            assert not listers()
            served.resume.set()
        assert len(served.requests) <= served.stalled_from + listing.LISTERS

    def test_a_token_that_is_repeated_is_refused(self) -> None:
        def same(_after: str | None, _token: str | None) -> Page:
            return Page(batch(["a"]), "token")

        with pytest.raises(StoreError, match="broke off"):
            list(list_by_ranges("s3://b/", "s3://b/", "", same, lambda: None))
