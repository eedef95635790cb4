"""Servers that do what they should not: each costs one row, little memory and little time, whatever reads.

Bytes are counted where the server sends them. What it can send and nobody reads are the buffers of sockets, some
megabytes on loopback.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from crawler.catalogue.reader import Catalogue
from crawler.errors import ObjectChangedError, StoreError, StoreUnavailableError
from crawler.stores import Adapter, ByteRange, ObjectRef, ObjectStore, Traffic, open_store
from crawler.stores.http import store as web
from crawler.stores.http.answer import DRAINED_BYTES, HEAD_BYTES, INTERIM_ANSWERS, REDIRECTS
from crawler.worker.walk import walk_file
from tests.servers import RangeServer
from tests.stores.hostile import ALL, DATA, ODD_BUT_GOOD, QUICK, WAYS, Ask, HostileServer, options_of
from tests.stores.suite import assert_well_said

SPAN = ByteRange(0, 5760)
SECONDS = 0.5
"""Of a request that has to time out; others have `PLENTY`, since the machine may be busy."""

PLENTY = 20.0
BUFFERS = 12 * 2**20
"""Bytes that a server can send and nobody reads, and what a client reads before it hangs up."""

FINAL = {
    r"answer has more than the [\d,]+ bytes": ["endless-body", "endless-until-closed", "endless-chunks", "longer"],
    "HTTP 403 Forbidden": ["endless-403"],
    "HTTP 404 Not Found": ["endless-404"],
    "answer has bytes .* asked for were": ["range-start", "range-end"],
    "answer has a Content-Range that cannot be read": [
        *("range-unit", "range-overflow", "range-digits", "range-negative", "range-turned", "range-beyond-size"),
        "range-senseless",
    ],
    "does not say which bytes it holds": ["multipart", "range-missing"],
    "server ignores range requests": ["whole"],
    "changed since it was listed": ["etag-changes", "size-changes"],
    "redirects (to|more than)|HTTP 302": [name for name in WAYS if name.startswith("redirect-")],
    "answer has (two )?headers": [
        "endless-headers",
        "endless-line",
        "two-lengths",
        "two-ranges",
        "two-etags",
        "long-header",
        "many-headers",
    ],
    r"HTTP \d+": ["status-999", "status-101", "status-204", "status-205", "status-304"],
}
"""What is wrong with an answer as such: the row says it, and no other try is made."""

PASSING = {
    "HTTP 50[03]": ["endless-503", "slow-500"],
    "cut short|answer has .* bytes, .* were asked for": ["shorter", "cut", "reset", "hangs-up"],
    "timed out": ["slow-body", "slow-head", "stall", "stall-in-body"],
    "not HTTP": ["no-http", "status-99", "status-word"],
}
"""What may pass: it is tried again."""

EITHER = {
    "headers that cannot be read|timed out": ["endless-interim"],  # aiohttp counts none of them
    "headers that cannot be read|does not say which bytes": ["header-without-colon"],
    "HTTP 0|not HTTP": ["status-0"],
    "headers that cannot be read|^None$": ["nul-header"],
    "^None$": ["folded-etag", "folded-range", *ODD_BUT_GOOD],
}
"""What the libraries take for different things; the last are odd and lose nothing."""

SAID = {name: said for table in (FINAL, PASSING, EITHER) for said, names in table.items() for name in names}


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


@pytest.fixture(params=["auto", "fsspec"])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    name: Adapter = request.param
    return name


def opened(adapter: Adapter, seconds: float = PLENTY, **more: Any) -> ObjectStore:
    return open_store("http", options_of(adapter, seconds), adapter=adapter, **more)


def for_name(adapter: Adapter, name: str, **more: Any) -> ObjectStore:
    return opened(adapter, SECONDS if "timed out" in SAID[name] else PLENTY, **more)


def test_every_way_has_its_words() -> None:
    assert SAID.keys() | {"good"} == ALL.keys()


@pytest.mark.parametrize("name", SAID)
def test_answer_ends_in_time_and_within_bounds(server: HostileServer, adapter: Adapter, name: str) -> None:
    server.sent[name] = 0
    begun = time.monotonic()
    # As a walk does it: one range of an object that is not known, then one of what it was found to be.
    ref, said, error = ObjectRef(server.url(name)), "None", None
    try:
        for span in (SPAN, ByteRange(2880, 8640)):
            data, ref = for_name(adapter, name).get(ref, span)
            assert data == DATA[span.start : span.stop]
    except StoreError as raised:
        said, error = raised.reason, raised
    assert time.monotonic() - begun < 10
    assert server.sent[name] < BUFFERS
    assert re.search(SAID[name], said), said
    if error is not None:
        assert_well_said(error)


@pytest.mark.parametrize("name", [name for names in FINAL.values() for name in names])
def test_answer_that_is_wrong_as_such_is_not_asked_for_again(
    server: HostileServer, adapter: Adapter, name: str
) -> None:
    server.asked[name] = 0
    store = for_name(adapter, name, traffic=Traffic(4, patience=QUICK))

    def read_twice() -> None:
        store.get(store.get(ObjectRef(server.url(name)), SPAN).ref, SPAN)  # what changes does so between

    with pytest.raises(StoreError) as caught:
        read_twice()
    assert not isinstance(caught.value, StoreUnavailableError)
    hops = REDIRECTS + 1 if name == "redirect-loop" else 1
    assert server.asked[name] == hops + isinstance(caught.value, ObjectChangedError)


@pytest.mark.parametrize("name", [name for names in PASSING.values() for name in names])
def test_answer_that_may_pass_is_asked_for_again(server: HostileServer, adapter: Adapter, name: str) -> None:
    server.asked[name] = 0
    store = for_name(adapter, name, traffic=Traffic(4, patience=QUICK))
    with pytest.raises(StoreUnavailableError):
        store.get(ObjectRef(server.url(name)), SPAN)
    assert server.asked[name] > 1


@pytest.mark.parametrize("name", ["good", *ODD_BUT_GOOD])
def test_odd_answer_loses_nothing(server: HostileServer, adapter: Adapter, name: str) -> None:
    expected = walk_file(opened(adapter), ObjectRef(server.url("good")))
    result = walk_file(opened(adapter), ObjectRef(server.url(name)))
    assert (result.status, result.error) == ("ok", None)
    assert [hdu.header for hdu in result.hdus] == [hdu.header for hdu in expected.hdus]
    assert len(result.hdus) == 3


def test_crawl_has_a_row_for_each_and_loses_no_good_one(
    server: HostileServer, adapter: Adapter, tmp_path: Path
) -> None:
    good = [f"good/{number}.fits" for number in range(20)]
    peaks = []
    may_pass = [name for names in PASSING.values() for name in names]
    for names in (good, [*SAID, *good]):
        location = tmp_path / f"catalogue{len(names)}"
        command = [sys.executable, "-m", "tests.stores.hostile_crawl", server.origin, str(location), adapter, *names]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        peaks.append(int(done.stdout.split()[-1]))
        assert "Traceback" not in done.stderr
        rows = Catalogue(str(location)).files.to_table(columns=["url", "status", "error"]).to_pylist()
        found = {row["url"].removeprefix(server.origin + "/"): row for row in rows}
        assert found.keys() == set(names)
        assert all((found[name]["status"], found[name]["error"]) == ("ok", None) for name in good)
        for name in set(names) & SAID.keys():
            status, error = found[name]["status"], str(found[name]["error"])
            assert status == ("ok" if error == "None" else "unreadable"), (name, error)
            assert error.isprintable()
            # Of many at once on a busy machine, any may be too slow.
            said = f"{SAID[name]}|timed out" if name in may_pass else SAID[name]
            assert re.search(said, error), (name, error)
    assert peaks[1] - peaks[0] < 64 * 2**20


class TestRedirects:
    """What goes along to another server."""

    SECRETS: ClassVar = {
        "X-Api-Key": "secret-1",
        "Authorization": "secret-2",
        "Cookie": "secret=3",
        "Proxy-Authorization": "secret-4",
        "X-Custom": "secret-5",
    }

    @pytest.fixture
    def home(self) -> Iterator[RangeServer]:
        with RangeServer({"here.fits": DATA}) as server:
            yield server

    @pytest.fixture
    def other(self) -> Iterator[RangeServer]:
        with RangeServer({"there.fits": DATA}) as server:
            yield server

    def store(self, adapter: Adapter, **more: Any) -> ObjectStore:
        return open_store("http", {"headers": {**self.SECRETS, "User-Agent": "me/1"}, **more}, adapter=adapter)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_other_origin_gets_what_every_host_may_see(
        self, home: RangeServer, other: RangeServer, adapter: Adapter, status: int
    ) -> None:
        home.redirects["here.fits"] = other.url("there.fits")
        home.redirect_status = status
        store = self.store(adapter)
        ref = store.head(home.url("here.fits"))
        assert store.get(ref, SPAN).data == DATA[:5760]
        for request in home.requests:
            assert {name: request.headers[name.lower()] for name in self.SECRETS} == self.SECRETS
        public = {"host", "range", "if-match", "accept-encoding", "user-agent", "accept", "connection"}
        for request in other.requests:
            assert request.headers.keys() <= public
            assert request.headers["user-agent"] == "me/1"
            assert request.headers["accept-encoding"] == "identity"
        assert other.requests[-1].range == "bytes=0-5759"
        assert other.requests[-1].if_match == ref.etag

    def test_same_origin_gets_everything(self, home: RangeServer, adapter: Adapter) -> None:
        home.redirects["moved.fits"] = "/here.fits"
        self.store(adapter).get(ObjectRef(home.url("moved.fits")), SPAN)
        assert [request.headers["x-api-key"] for request in home.requests] == ["secret-1"] * 2

    def test_way_back_is_of_the_same_origin(self, home: RangeServer, other: RangeServer, adapter: Adapter) -> None:
        home.redirects["moved.fits"] = other.url("away")
        other.redirects["away"] = home.url("here.fits")
        self.store(adapter).get(ObjectRef(home.url("moved.fits")), SPAN)
        assert [request.headers.get("x-api-key") for request in home.requests] == ["secret-1"] * 2
        assert "x-api-key" not in other.requests[0].headers

    def test_user_in_a_location_is_not_sent(self, home: RangeServer, other: RangeServer, adapter: Adapter) -> None:
        home.redirects["moved.fits"] = other.url("there.fits").replace("http://", "http://user:password@")
        self.store(adapter).get(ObjectRef(home.url("moved.fits")), SPAN)
        assert all("authorization" not in request.headers for request in other.requests)

    def test_credentials_of_aiohttp_stay_at_home(self, home: RangeServer, other: RangeServer) -> None:
        home.redirects["here.fits"] = other.url("there.fits")
        client = {"headers": {"X-Session": "secret-6"}, "cookies": {"c": "secret-8"}}
        store = open_store("http", {"client_kwargs": client, "params": {"key": "secret-9"}}, adapter="fsspec")
        store.get(ObjectRef(home.url("here.fits")), SPAN)
        sent = f"{home.requests[0].path} {home.requests[0].headers}"
        assert all(secret in sent for secret in ("secret-6", "secret-8", "secret-9"))
        assert not any("secret" in f"{request.path} {request.headers}" for request in other.requests)

    def test_cookies_of_a_server_are_not_kept(self, server: HostileServer, adapter: Adapter, home: RangeServer) -> None:
        home.told["Set-Cookie"] = "session=1"
        store = open_store("http", adapter=adapter)
        for _ in range(2):
            store.get(ObjectRef(home.url("here.fits")), SPAN)
        assert all("cookie" not in request.headers for request in home.requests)


class TestBounds:
    """Each limit from both sides."""

    @pytest.fixture
    def scripted(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Ask], None]], str]]:
        with HostileServer() as server:

            def scripted(way: Callable[[Ask], None]) -> str:
                monkeypatch.setitem(ALL, "scripted", way)
                return server.url("scripted")

            yield scripted

    @pytest.mark.parametrize("hops", [REDIRECTS, REDIRECTS + 1])
    def test_redirects(self, adapter: Adapter, hops: int) -> None:
        with RangeServer({f"{hops}": DATA}) as server:
            server.redirects.update({str(hop): f"/{hop + 1}" for hop in range(hops)})
            if hops > REDIRECTS:
                with pytest.raises(StoreError, match="redirects more than"):
                    opened(adapter).get(ObjectRef(server.url("0")), SPAN)
            else:
                assert opened(adapter).get(ObjectRef(server.url("0")), SPAN).data == DATA[:5760]

    @pytest.mark.parametrize("surplus", [0, 1])
    def test_index(self, monkeypatch: pytest.MonkeyPatch, adapter: Adapter, surplus: int) -> None:
        page = b"<a href=x.fits>x</a>".ljust(1000)
        monkeypatch.setattr(web, "INDEX_BYTES", len(page) - surplus)
        with RangeServer({"top/": page}) as server:
            server.content_types["top/"] = "text/html"
            listing = opened(adapter).list(server.url("top/"))
            if surplus:
                with pytest.raises(StoreError, match="more than the 999 bytes"):
                    list(listing)
            else:
                assert sum(batch.num_rows for batch in listing) == 1

    def test_index_that_is_compressed_is_an_error(self, scripted: Any, adapter: Adapter) -> None:
        def way(ask: Ask) -> None:
            ask.send_head(200, "Content-Type: text/html", "Content-Encoding: gzip", "Content-Length: 3")
            ask.send(b"\x1f\x8b\x08")

        with pytest.raises(StoreError, match="compressed"):
            list(opened(adapter).list(scripted(way) + "/"))

    @pytest.mark.parametrize("name", ["endless-body", "endless-chunks", "endless-until-closed"])
    def test_endless_index(
        self, server: HostileServer, monkeypatch: pytest.MonkeyPatch, adapter: Adapter, name: str
    ) -> None:
        monkeypatch.setattr(web, "INDEX_BYTES", 2**20)
        way = WAYS[name]

        def page(ask: Ask) -> None:
            send_head = ask.send_head
            ask.send_head = lambda _, *lines: send_head(200, "Content-Type: text/html", *lines[3:])  # type: ignore[method-assign]
            way(ask)

        monkeypatch.setitem(ALL, name, page)
        server.sent[name] = 0
        with pytest.raises(StoreError, match="more than the 1,048,576 bytes"):
            list(opened(adapter).list(server.url(name) + "/"))
        assert server.sent[name] < BUFFERS

    @pytest.mark.parametrize("count", [INTERIM_ANSWERS, INTERIM_ANSWERS + 1])
    def test_interim_answers(self, scripted: Any, count: int) -> None:
        def way(ask: Ask) -> None:
            ask.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * count)
            ask.answer()

        store = opened("auto")
        if count > INTERIM_ANSWERS:
            with pytest.raises(StoreError, match="headers that cannot be read"):
                store.get(ObjectRef(scripted(way)), SPAN)
        else:
            assert store.get(ObjectRef(scripted(way)), SPAN).data == DATA[:5760]

    @pytest.mark.parametrize("size", [HEAD_BYTES - 40_000, HEAD_BYTES])
    def test_headers(self, scripted: Any, size: int) -> None:
        lines = [f"X-{number}: ".encode() + b"y" * (size // 10) for number in range(10)]
        store = opened("auto")
        url = scripted(lambda ask: ask.answer(extra=tuple(lines)))
        if size == HEAD_BYTES:
            with pytest.raises(StoreError, match="headers that cannot be read"):
                store.get(ObjectRef(url), SPAN)
        else:
            assert store.get(ObjectRef(url), SPAN).data == DATA[:5760]

    @pytest.mark.parametrize("size", [DRAINED_BYTES, DRAINED_BYTES + 1])
    def test_connection_is_kept_after_a_small_error(self, size: int) -> None:
        with RangeServer() as server:
            server.error_body = bytes(size)
            store = opened("auto")
            for number in range(3):
                with pytest.raises(StoreError, match="404"):
                    store.head(server.url(f"{number}"))
                with pytest.raises(StoreError, match="404"):
                    store.get(ObjectRef(server.url(f"{number}")), SPAN)
            assert server.connections == (1 if size == DRAINED_BYTES else 3)

    def test_total_time_holds_over_redirects(self, scripted: Any, adapter: Adapter) -> None:
        def way(ask: Ask) -> None:
            ask.server.over.wait(0.3)
            ask.send_head(302, "Location: /scripted", "Content-Length: 0")

        begun = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="timed out"):
            opened(adapter, 1.0).get(ObjectRef(scripted(way)), SPAN)
        assert time.monotonic() - begun < 2.5  # eleven of them take 3.3 s


def test_connection_that_was_closed_meanwhile_is_opened_again(adapter: Adapter) -> None:
    with RangeServer({"a.fits": DATA}) as server:
        store = opened(adapter)
        url = server.url("a.fits")
        ref = store.get(ObjectRef(url), SPAN).ref
        server.hang_up()
        assert store.get(ref, SPAN).data == DATA[:5760]
