"""Stores of S3 that do what they should not, as `tests.stores.test_hostile` has them for web servers.

Two things are left out for obstore, which can be told no limit of them: endless bodies of errors, which it reads into
memory until its total time is over, and endless interim answers, which it drops.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from crawler.errors import StoreError, StoreUnavailableError
from crawler.stores import Adapter, ByteRange, ObjectRef, ObjectStore, Traffic, open_store
from crawler.stores.s3 import transport as s3_transport
from tests.servers import RangeServer
from tests.stores.hostile import ALL, DATA, QUICK, WAYS, Ask, HostileServer
from tests.stores.suite import assert_well_said

SPAN = ByteRange(0, 5760)
SECONDS = 1.0
PLENTY = 20.0
BUFFERS = 12 * 2**20
SECRETS = {"key": "key-1", "secret": "secret-2", "token": "token-3"}

NO_LIMIT_OF_OBSTORE = {"endless-403", "endless-404", "endless-503", "slow-500", "endless-interim"}
SLOW = {"slow-body", "slow-head", "slow-500", "stall", "stall-in-body", "endless-interim"}
FINAL = ["endless-body", "longer", "range-start", "range-end", "whole"]
PASSING = ["cut", "hangs-up", "stall", "stall-in-body", "slow-body"]


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


def opened(server: HostileServer, adapter: Adapter, name: str = "", **more: Any) -> ObjectStore:
    seconds = SECONDS if name in SLOW else PLENTY
    options = {
        "endpoint_url": server.origin,
        **SECRETS,
        "client_options": {"timeout": timedelta(seconds=seconds)},
        "retry_config": {"max_retries": 0},
        "config_kwargs": {"retries": {"total_max_attempts": 1}, "read_timeout": seconds / 2},
    }
    return open_store("s3", options, adapter=adapter, **more)


@pytest.mark.parametrize("name", WAYS)
def test_answer_ends_in_time_and_within_bounds(server: HostileServer, adapter: Adapter, name: str) -> None:
    if adapter == "obstore" and name in NO_LIMIT_OF_OBSTORE:
        pytest.skip("obstore has no such limit")
    server.sent[name] = 0
    store = opened(server, adapter, name)
    begun = time.monotonic()
    ref = ObjectRef(f"s3://bucket/{name}")
    try:
        for span in (SPAN, ByteRange(2880, 8640)):
            data, ref = store.get(ref, span)
            assert data == DATA[span.start : span.stop]
    except StoreError as error:
        assert_well_said(error)
    assert time.monotonic() - begun < 15
    assert server.sent[name] < BUFFERS


@pytest.mark.parametrize("name", FINAL)
def test_answer_that_is_wrong_as_such_is_not_asked_for_again(
    server: HostileServer, adapter: Adapter, name: str
) -> None:
    server.asked[name] = 0
    with pytest.raises(StoreError) as caught:
        opened(server, adapter, name, traffic=Traffic(4, patience=QUICK)).get(ObjectRef(f"s3://bucket/{name}"), SPAN)
    assert not isinstance(caught.value, StoreUnavailableError)
    # Of a whole answer obstore does not tell the size: HEAD tells whether it is that of an empty object.
    assert server.asked[name] == 1 + (name == "whole" and adapter == "obstore")


@pytest.mark.parametrize("name", PASSING)
def test_answer_that_may_pass_is_asked_for_again(server: HostileServer, adapter: Adapter, name: str) -> None:
    server.asked[name] = 0
    with pytest.raises(StoreUnavailableError):
        opened(server, adapter, name, traffic=Traffic(4, patience=QUICK)).get(ObjectRef(f"s3://bucket/{name}"), SPAN)
    assert server.asked[name] > 1


@pytest.fixture
def scripted(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Ask], None]], None]:
    """Have a bucket itself, and so its listing, answered by a function."""
    return lambda way: monkeypatch.setitem(ALL, "", way)


@pytest.mark.parametrize("surplus", [0, 1])
def test_page_of_a_listing_has_a_limit(
    server: HostileServer, scripted: Any, monkeypatch: pytest.MonkeyPatch, surplus: int
) -> None:
    page = b"<ListBucketResult><Contents><Key>a.fits</Key><Size>1</Size></Contents></ListBucketResult>"
    monkeypatch.setattr(s3_transport, "ANSWER_BYTES", len(page) - surplus)

    def way(ask: Ask) -> None:
        ask.send_head(200, "Content-Type: application/xml", f"Content-Length: {len(page)}")
        ask.send(page)

    scripted(way)
    listing = opened(server, "auto").list("s3://bucket/")
    if surplus:
        with pytest.raises(StoreError, match=f"more than the {len(page) - 1} bytes"):
            list(listing)
    else:
        assert [url for batch in listing for url in batch["url"].to_pylist()] == ["s3://bucket/a.fits"]


@pytest.mark.parametrize("status", [200, 403])
def test_endless_listing(server: HostileServer, scripted: Any, status: int) -> None:
    def way(ask: Ask) -> None:
        ask.send_head(status, "Content-Type: application/xml")
        ask.send_endless(b"<x>" * 2**14)

    scripted(way)
    server.sent[""] = 0
    with pytest.raises(StoreError, match="more than the"):
        list(opened(server, "auto").list("s3://bucket/"))
    assert server.sent[""] < s3_transport.ANSWER_BYTES + BUFFERS


@pytest.mark.parametrize("body", [b"hello", b"<ListBucketResult><Contents>", b"<html>log in</html>", b"\xff\xfe\0"])
def test_page_that_is_none_is_an_error_of_ours(server: HostileServer, scripted: Any, body: bytes) -> None:
    def way(ask: Ask) -> None:
        ask.send_head(200, "Content-Type: application/xml", f"Content-Length: {len(body)}")
        ask.send(body)

    scripted(way)
    try:
        assert not list(opened(server, "auto").list("s3://bucket/"))
    except StoreError as error:
        assert_well_said(error)


def test_other_server_is_asked_nothing_where_only_no_proxy_is_set(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "example.org")
    with RangeServer({"x": DATA}) as other:
        to = other.url("x").replace("127.0.0.1", "localhost")
        monkeypatch.setitem(ALL, "scripted", lambda ask: ask.send_head(307, f"Location: {to}", "Content-Length: 0"))
        with pytest.raises(StoreError, match="redirects to another server"):
            opened(server, "obstore").get(ObjectRef("s3://bucket/scripted"), SPAN)
        assert not other.requests


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("call", ["get", "head", "list"])
def test_other_server_is_asked_nothing(
    server: HostileServer, scripted: Any, adapter: Adapter, status: int, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RangeServer({"x": DATA}) as other:

        def way(ask: Ask) -> None:
            # Another name of the same host: obstore tells hosts apart by their names.
            ask.send_head(status, f"Location: {other.url('x').replace('127.0.0.1', 'localhost')}", "Content-Length: 0")

        scripted(way)
        monkeypatch.setitem(ALL, "scripted", way)
        store, url = opened(server, adapter), "s3://bucket/scripted"
        calls: dict[str, Callable[[], Any]] = {
            "get": lambda: store.get(ObjectRef(url), SPAN),
            "head": lambda: store.head(url),
            "list": lambda: list(store.list("s3://bucket/")),
        }
        with pytest.raises(StoreError) as caught:
            calls[call]()
        assert_well_said(caught.value)
        assert not other.requests
