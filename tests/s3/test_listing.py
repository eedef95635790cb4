"""Listing a prefix with many requests at once: each key exactly once, for any keys and any store, at little cost."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs, quote, unquote_plus, urlsplit

import pyarrow as pa
import pytest
from aiobotocore.hooks import AioHierarchicalEmitter
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.errors import AccessDeniedError, StoreError
from crawler.listing import list_roots
from crawler.stores import open_store
from crawler.stores.base import LISTING_SCHEMA
from crawler.stores.errors import failed
from crawler.stores.s3 import range_listing as listing
from crawler.stores.s3.pages import Page
from crawler.stores.s3.range_listing import cuts_allowed, list_by_ranges
from tests.s3.conftest import S3Server
from tests.s3.proxy import Proxy
from tests.s3.test_keys import KEYS, NOT_ON_MOTO
from tests.servers import Answer, Handler, Request, Server


class Keys:
    """A store of keys. `fetch` answers requests for pages, as `list_by_ranges` makes them.

    Attributes
    ----------
    order : callable or None
        Sort key of the store; None for the order of the bytes.
    start : {"used", "ignored", "refused"}
        What the store does with a request to start after a key. "ignored" starts at the first key, "refused" is an
        error.
    requests : int
        Number of requests so far.
    in_flight : int
        Number of requests that are being answered.
    """

    def __init__(
        self, keys: Iterable[str], size: int = 1_000, order: Callable[[str], Any] | None = None, start: str = "used"
    ) -> None:
        self.keys = sorted(keys, key=order)
        self.size, self.order, self.start = size, order, start
        self.requests = self.in_flight = 0
        self._lock = threading.Lock()
        self._given_up = False

    def fetch(self, after: str | None, token: str | None) -> Page:
        assert not self._given_up
        with self._lock:
            self.requests += 1
            self.in_flight += 1
        if after is not None and self.start == "refused":
            raise failed("s3://b/", "HTTP 501 Not Implemented")
        page = self.page(after, token)
        with self._lock:
            self.in_flight -= 1
        return page

    def page(self, after: str | None, token: str | None) -> Page:
        """Return the page that a request is answered with."""
        assert after is None or token is None
        begin = int(token or 0)
        if after is not None and self.start == "used":
            if self.order is None:
                begin = bisect_right(self.keys, after)
            else:
                begin = next((row for row, key in enumerate(self.keys) if key > after), len(self.keys))
        end = begin + self.size
        return Page(batch(self.keys[begin:end]), str(end) if end < len(self.keys) else None)

    def list_runs(self, prefix: str = "") -> list[list[str]]:
        """List the keys, and return them run by run."""
        runs = list_by_ranges("s3://b/", "s3://b/", prefix, self.fetch, self.give_up)
        return [[url.removeprefix("s3://b/") for url in run["url"].to_pylist()] for run in runs]

    def give_up(self) -> None:
        self._given_up = True


class DisorderedKeys(Keys):
    """A store whose last keys come in reverse order, which listers find out when several ranges have keys.

    Attributes
    ----------
    lists : int
        Number of requests for the first page of all.
    deleted_before_second_list : str or None
    """

    def __init__(self) -> None:
        super().__init__([f"{25 * number:04}" for number in range(400)], 5)
        self.keys = self.keys[:380] + self.keys[:379:-1]
        self.lists = 0
        self.deleted_before_second_list: str | None = None
        self._divided = threading.Event()
        self._right_parts: set[int] = set()

    def page(self, after: str | None, token: str | None) -> Page:
        me = threading.get_ident()
        if after is not None:
            self._right_parts.add(me)
        elif token is None:
            self.lists += 1
            if self.lists == 2 and self.deleted_before_second_list:
                self.keys.remove(self.deleted_before_second_list)
        elif me in self._right_parts:  # a lister that has added a page which begins after a cut
            self._divided.set()
        elif int(token) > self.size and not self._divided.wait(30):
            raise AssertionError("no cut was confirmed")
        return super().page(after, token)


def batch(keys: list[str]) -> pa.RecordBatch:
    nulls = [pa.nulls(len(keys), type=field.type) for field in list(LISTING_SCHEMA)[1:]]
    return pa.record_batch([pa.array([f"s3://b/{key}" for key in keys], pa.string()), *nulls], schema=LISTING_SCHEMA)


NO_TOKENS_OF_CEPH = {"a/./b.fits", "bell\x07.fits"}
"""Ceph answers 500 to any request for the page after one of these keys."""

ODD = st.sampled_from("ab019/_.-zZ %+\t\0\x7fé\uffff🔭\U0010ffff")
ORDERS: dict[str, Callable[[str], Any] | None] = {
    "bytes": None,
    "backwards": lambda key: [-ord(char) for char in key],
    "hashes": lambda key: hashlib.md5(key.encode()).hexdigest(),
}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow as many cuts as there are pages."""
    monkeypatch.setattr(listing, "cuts_allowed", lambda pages: pages)


class TestEachKeyOnce:
    @pytest.mark.parametrize("start", ["used", "ignored", "refused"])
    @pytest.mark.parametrize("order", ORDERS)
    def test_any_keys_in_any_order_are_listed_once(self, eager: None, order: str, start: str) -> None:
        examples_with_cuts = 0

        @settings(max_examples=60, deadline=None, derandomize=True, database=None)
        @given(st.sets(st.text(ODD, min_size=1, max_size=6), max_size=100), st.integers(1, 4))
        def check(keys: set[str], size: int) -> None:
            nonlocal examples_with_cuts
            store = Keys(keys, size, ORDERS[order], start)
            found = [key for run in store.list_runs() for key in run]
            assert sorted(found) == sorted(keys)
            assert threading.active_count() == threads
            examples_with_cuts += store.requests > -(-len(keys) // size)

        threads = threading.active_count()
        check()
        assert examples_with_cuts  # otherwise the test has tried nothing

    def test_disorder_after_cuts_repeats_no_key(self, eager: None) -> None:
        store = DisorderedKeys()
        found = [key for run in store.list_runs() for key in run]
        assert store.lists == 2
        assert sorted(found) == sorted(store.keys)

    def test_disorder_and_a_deleted_key_are_an_error(self, eager: None) -> None:
        store = DisorderedKeys()
        store.deleted_before_second_list = store.keys[0]
        with pytest.raises(StoreError, match="objects changed meanwhile; list again"):
            store.list_runs()
        assert store.lists == 2

    def test_pages_without_keys_end_no_range(self, eager: None) -> None:
        store = Keys([f"{number:03}" for number in range(200)], 2)

        def with_empty_pages(after: str | None, token: str | None) -> Page:
            """Answer each request with an empty page first; its token leads to the keys."""
            if token and token.startswith("retry"):
                kind, _, value = token.removeprefix("retry ").partition(" ")
                return store.fetch(value if kind == "after" else None, value if kind == "token" else None)
            wanted = f"after {after}" if after else f"token {token or 0}"
            return Page(batch([]), f"retry {wanted}")

        runs = list_by_ranges("s3://b/", "s3://b/", "", with_empty_pages, store.give_up)
        found = [url for run in runs for url in run["url"].to_pylist()]
        assert sorted(found) == [f"s3://b/{key}" for key in store.keys]

    def test_odd_keys_of_real_servers_equal_those_of_botocore(self, server: S3Server, eager: None) -> None:
        bucket = server.bucket()
        keys = set(KEYS) - (NOT_ON_MOTO if server.kind == "moto" else NO_TOKENS_OF_CEPH)
        keys |= {f"more/{number:03}.fits" for number in range(60)}
        etags = {f"s3://{bucket}/{key}": server.put(bucket, key, key.encode()) for key in keys}
        hooks = AioHierarchicalEmitter()
        hooks.register("before-parameter-build.s3.ListObjectsV2", three_keys_per_page)
        with Proxy(server.endpoint) as proxy:
            store = open_store("s3", {**server.options, "endpoint_url": proxy.origin, "event_hooks": hooks})
            found = rows(store.list(f"s3://{bucket}/"))
            paths = [request.path for request in proxy.requests]
            assert store.list_requests == len(paths)  # type: ignore[attr-defined]
        assert sum("start-after=" in path for path in paths) > 3
        assert {row["url"]: row["etag"] for row in found} == etags
        assert len(found) == len(etags)
        pages = server.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        expected = {f"s3://{bucket}/{entry['Key']}": entry for page in pages for entry in page["Contents"]}
        assert {row["url"]: (row["size"], row["etag"]) for row in found} == {
            url: (entry["Size"], entry["ETag"]) for url, entry in expected.items()
        }
        assert {row["url"]: row["last_modified"] for row in found} == {
            url: entry["LastModified"].replace(microsecond=0) for url, entry in expected.items()
        }


def three_keys_per_page(params: dict[str, Any], **_: object) -> None:
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
    def test_few_pages_need_no_extra_requests(self, count: int) -> None:
        store = Keys([f"img_{number:07}.fits" for number in range(count)])
        assert sum(map(len, store.list_runs())) == count
        assert store.requests == max(1, -(-count // 1_000))

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_extra_requests_are_bounded(self, layout: str) -> None:
        store = Keys(LAYOUTS[layout])
        pages = -(-len(store.keys) // 1_000)
        runs = store.list_runs()
        assert sorted(key for run in runs for key in run) == sorted(store.keys)
        assert pages < store.requests <= pages + 1 + cuts_allowed(store.requests) <= 1.3 * pages

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_pages_are_requested_in_parallel(self, layout: str) -> None:
        store = Keys(LAYOUTS[layout])
        parallel = threading.Event()
        answer = store.page

        def wait_for_others(after: str | None, token: str | None) -> Page:
            if store.in_flight >= listing.LISTERS // 2:
                parallel.set()
            parallel.wait(0.05)
            return answer(after, token)

        store.page = wait_for_others  # type: ignore[method-assign]
        store.list_runs()
        assert parallel.is_set()

    def test_runs_hold_consecutive_keys_and_grow(self) -> None:
        store = Keys(LAYOUTS["flat"])
        row_of = {key: row for row, key in enumerate(store.keys)}
        runs = store.list_runs()
        for run in runs:
            assert [row_of[key] for key in run] == list(range(row_of[run[0]], row_of[run[0]] + len(run)))
        assert len(runs[0]) == 1_000
        assert max(map(len, runs)) == 10_000
        assert len(runs) < len(store.keys) / 2_000


class PageHandler(Handler):
    """Answers ListObjectsV2 (Amazon S3 API Reference)."""

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
    """An S3 server with the same keys in each bucket, and small pages.

    Attributes
    ----------
    requests : list of Request
    refused_from : int or None
        Number of requests after which all requests are refused.
    stalled_from : int
        Number of requests after which a request waits for `resume`. Each one releases `stalled`.
    """

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
        self.server = Server(self, PageHandler).__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.resume.set()
        self.server.__exit__()


def lister_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "lister"]


class TestOverTheWire:
    def test_requests_of_a_listing_are_counted(self) -> None:
        with KeyServer(2_000, 20) as served:
            store = open_store("s3", served.options)
            found = list_roots(["s3://bucket/"], include=None, exclude=(), open_store=lambda _: store)
            assert sum(one.num_rows for one in found) == found.seen == 2_000
            assert found.requests == len(served.requests) <= 100 + 1 + cuts_allowed(len(served.requests))
            assert len({request.path for request in served.requests}) == len(served.requests)
        assert not lister_threads()

    @pytest.mark.parametrize(("bucket", "by_ranges"), [("name--usw2-az1--x-s3", False), ("name", True)])
    def test_directory_bucket_is_listed_by_token_only(self, bucket: str, by_ranges: bool) -> None:
        """Directory buckets do not sort keys ("ListObjectsV2", Amazon S3 API Reference)."""
        with KeyServer(300, 10) as served:
            store = open_store("s3", {**served.options, "anon": True, "key": None, "secret": None})
            assert sum(batch.num_rows for batch in store.list(f"s3://{bucket}/")) == 300
        assert any("start-after=" in request.path for request in served.requests) == by_ranges
        assert by_ranges or len(served.requests) == 30

    def test_error_of_one_lister_ends_the_listing(self) -> None:
        with KeyServer(20_000, 20) as served:
            served.refused_from = 60
            found = open_store("s3", served.options).list("s3://bucket/")
            with pytest.raises(AccessDeniedError, match="listing not allowed") as caught:
                list(found)
        assert caught.value.url == "s3://bucket/"
        assert not lister_threads()

    def test_closed_listing_leaves_no_thread_and_no_request(self) -> None:
        with KeyServer(20_000, 20) as served:
            served.stalled_from = 60
            found = open_store("s3", served.options).list("s3://bucket/")
            assert next(found).num_rows == 20
            assert not lister_threads()  # no page is requested before the caller asks for it
            next(found)
            assert served.stalled.acquire(timeout=30)
            found.close()  # type: ignore[attr-defined]
            assert not lister_threads()
            served.resume.set()
        assert len(served.requests) <= served.stalled_from + listing.LISTERS

    def test_repeated_token_is_an_error(self) -> None:
        def repeat_token(_after: str | None, _token: str | None) -> Page:
            return Page(batch(["a"]), "token")

        with pytest.raises(StoreError, match=r"listing is incomplete: .* no new continuation token"):
            list(list_by_ranges("s3://b/", "s3://b/", "", repeat_token, lambda: None))
