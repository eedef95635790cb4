"""Web servers as they are: what goes over the wire, what they refuse, how they fail; by http.client and by aiohttp."""

from __future__ import annotations

import gc
import pickle
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import obstore.exceptions
import pytest
from aiohttp.client_reqrep import ConnectionKey

from crawler.errors import (
    AccessDeniedError,
    ObjectChangedError,
    ObjectNotFoundError,
    RangeIgnoredError,
    StoreError,
    StoreUnavailableError,
)
from crawler.stores import Adapter, ByteRange, ObjectRef, ObjectStore, open_store
from crawler.stores.errors import from_os_error, from_status
from crawler.stores.http.aiohttp_transport import AiohttpTransport, from_client_error
from crawler.stores.http.store import WebStore
from crawler.stores.obstore import from_obstore
from tests.servers import RangeServer
from tests.stores.suite import DATA, assert_well_said

KEY = ConnectionKey("host", 80, False, True, None, None, None)

SPAN = ByteRange(10, 20)


@pytest.fixture(params=["auto", "fsspec"])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    name: Adapter = request.param
    return name


@pytest.fixture
def store(adapter: Adapter) -> ObjectStore:
    return open_store("http", adapter=adapter)


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with RangeServer({"a.fits": DATA}) as server:
        yield server


@pytest.mark.parametrize(
    "path",
    [
        "/plain.fits",
        "/a%20b",
        "/a%23b",
        "/a%2Bb+c",
        "/a%25b",
        "/100%2525",
        "/%C3%A9",
        "/%c3%a9",
        "/%FF%FE",
        "/~me/%7Eyou",
        "/a%2Fb",
        "/a%5Bb%5D",
        "/a[b]",
        "/a//b",
        "/a/./b",
        "/a;v=1,2:3@4!$&'()*",
        "/a?x=1&y=a%20b+c",
        "/a%3Fx=1",
        "/get.php?file=%2Fdata%2Fa.fits",
    ],
)
def test_path_reaches_the_server_as_it_is(server: RangeServer, store: ObjectStore, path: str) -> None:
    class Anything(dict[str, bytes]):
        def __contains__(self, name: object) -> bool:
            return True

        def __missing__(self, name: str) -> bytes:
            return DATA

    server.objects = Anything()
    url = server.origin + path
    assert store.get(store.head(url), SPAN).data == DATA[10:20]
    assert [(request.method, request.path) for request in server.requests] == [("HEAD", path), ("GET", path)]


def test_read_is_one_pinned_request(server: RangeServer, store: ObjectStore) -> None:
    first = store.get(ObjectRef(server.url("a.fits")), SPAN)
    store.get(first.ref, SPAN)
    assert first.ref.etag is not None
    assert [(r.method, r.range, r.if_match) for r in server.requests] == [
        ("GET", "bytes=10-19", None),
        ("GET", "bytes=10-19", first.ref.etag),
    ]
    assert first.ref.last_modified is not None


def test_etag_without_quotes_is_pinned_to(server: RangeServer, store: ObjectStore) -> None:
    ref = store.head(server.url("a.fits"))
    assert ref.etag is not None
    bare = ObjectRef(ref.url, etag=ref.etag.strip('"'))
    assert store.get(bare, SPAN).data == DATA[10:20]
    assert server.requests[-1].if_match == ref.etag


def test_weak_etag_is_compared_but_not_sent(server: RangeServer, store: ObjectStore) -> None:
    server.etags = "weak"
    ref = store.head(server.url("a.fits"))
    assert store.get(ref, SPAN).data == DATA[10:20]
    server.objects["a.fits"] = DATA[::-1]
    with pytest.raises(ObjectChangedError):
        store.get(ref, SPAN)
    assert all(request.if_match is None for request in server.requests)


def test_without_etag_another_size_is_noticed(server: RangeServer, store: ObjectStore) -> None:
    server.etags = "none"
    ref = store.head(server.url("a.fits"))
    assert ref.etag is None
    assert store.get(ref, SPAN).data == DATA[10:20]
    server.objects["a.fits"] = DATA + b"more"
    with pytest.raises(ObjectChangedError):
        store.get(ref, SPAN)


def test_ignored_if_match_is_noticed(server: RangeServer, store: ObjectStore) -> None:
    server.ignore_if_match = True
    ref = store.head(server.url("a.fits"))
    server.objects["a.fits"] = DATA[::-1]
    with pytest.raises(ObjectChangedError):
        store.get(ref, SPAN)


def test_ignored_range_is_an_error_before_the_body(server: RangeServer, store: ObjectStore) -> None:
    server.ignore_range = True
    server.objects["a.fits"] = bytes(200_000_000)
    with pytest.raises(RangeIgnoredError, match="server ignores range requests") as caught:
        store.get(ObjectRef(server.url("a.fits"), size=200_000_000), SPAN)
    assert_well_said(caught.value)


def test_empty_object_of_a_server_that_ignores_ranges(server: RangeServer, store: ObjectStore) -> None:
    server.ignore_range = True
    server.objects["a.fits"] = b""
    assert store.get(ObjectRef(server.url("a.fits")), SPAN).ref.size == 0


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        pytest.param(400, StoreError, id="400"),
        pytest.param(401, AccessDeniedError, id="401"),
        pytest.param(403, AccessDeniedError, id="403"),
        pytest.param(404, ObjectNotFoundError, id="404"),
        pytest.param(409, StoreError, id="409"),
        pytest.param(410, ObjectNotFoundError, id="410"),
        pytest.param(412, ObjectChangedError, id="412"),
        pytest.param(429, StoreUnavailableError, id="429"),
        pytest.param(500, StoreUnavailableError, id="500"),
        pytest.param(503, StoreUnavailableError, id="503"),
    ],
)
def test_status(server: RangeServer, store: ObjectStore, status: int, kind: type[StoreError]) -> None:
    server.status["a.fits"] = status
    url = server.url("a.fits")
    for call in (lambda: store.get(ObjectRef(url), SPAN), lambda: store.head(url)):
        with pytest.raises(StoreError) as caught:
            call()
        assert type(caught.value) is kind
        assert_well_said(caught.value)


@pytest.mark.parametrize("status", [405, 501])
def test_refused_head_is_an_unknown_size(server: RangeServer, store: ObjectStore, status: int) -> None:
    server.status["HEAD"] = status
    ref = store.head(server.url("a.fits"))
    assert ref == ObjectRef(server.url("a.fits"))
    assert store.get(ref, SPAN).ref.size == len(DATA)


def test_redirect_is_followed(server: RangeServer, store: ObjectStore) -> None:
    server.redirects["moved.fits"] = server.url("a.fits")
    fetched = store.get(ObjectRef(server.url("moved.fits")), SPAN)
    assert fetched.data == DATA[10:20]
    assert fetched.ref.url == server.url("moved.fits")


def test_refused_connection(store: ObjectStore) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and not listening
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/a.fits"
        with pytest.raises(StoreUnavailableError, match="connection refused") as caught:
            store.get(ObjectRef(url), SPAN)
    assert_well_said(caught.value)


def test_stall_ends(server: RangeServer, adapter: Adapter) -> None:
    short: dict[Adapter, dict[str, Any]] = {
        "auto": {"client_options": {"read_timeout": timedelta(milliseconds=100)}},
        "fsspec": {"client_kwargs": {"timeout": aiohttp.ClientTimeout(sock_read=0.1)}},
    }
    store = open_store("http", short[adapter], adapter=adapter)
    server.stall("a.fits")
    with pytest.raises(StoreUnavailableError, match="timed out") as caught:
        store.get(ObjectRef(server.url("a.fits")), SPAN)
    assert_well_said(caught.value)


@pytest.mark.parametrize("etag", ['ETag: "x"\r\n', ""], ids=["etag", "no-etag"])
def test_body_cut_short(store: ObjectStore, etag: str) -> None:
    answer = f"HTTP/1.1 206 Partial Content\r\n{etag}Content-Range: bytes 10-19/100\r\nContent-Length: 10\r\n\r\n123"
    with answering(answer.encode()) as url, pytest.raises(StoreUnavailableError) as caught:
        store.get(ObjectRef(url), SPAN)
    assert caught.value.kind == "short-body"
    assert_well_said(caught.value)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (408, "time-out"),
        (429, "slow-down"),
        (500, "server-error"),
        (502, "server-error"),
        (503, "slow-down"),
        (504, "server-error"),
    ],
)
def test_kinds_of_status(server: RangeServer, store: ObjectStore, status: int, kind: str) -> None:
    server.status["a.fits"] = status
    with pytest.raises(StoreUnavailableError) as caught:
        store.get(ObjectRef(server.url("a.fits")), SPAN)
    assert caught.value.kind == kind
    assert_well_said(caught.value)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError(111, "x"), "refused"),
        (ConnectionResetError(104, "x"), "reset"),
        (BrokenPipeError(32, "x"), "reset"),
        (socket.gaierror(-2, "x"), "no-host"),
        (ssl.SSLError(1, "x"), "tls"),
        (TimeoutError(110, "x"), "time-out"),
        (OSError(5, "x"), "connection"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_kinds_of_system_errors(error: OSError, kind: str) -> None:
    mapped = from_os_error("sftp://host/a", error)
    assert isinstance(mapped, StoreUnavailableError)
    assert mapped.kind == kind
    assert_well_said(mapped)


@pytest.mark.parametrize(
    ("told", "seconds"), [("7", 7.0), ("", None), ("soon", None), ("-1", None), ("9" * 30, None)], ids=repr
)
def test_retry_after(told: str, seconds: float | None) -> None:
    for error in (from_status("http://host/a", 503, told), from_status("http://host/a", 429, told)):
        assert isinstance(error, StoreUnavailableError)
        assert error.retry_after == seconds
        assert pickle.loads(pickle.dumps(error)).retry_after == seconds
    assert type(from_status("http://host/a", 404, told)) is ObjectNotFoundError


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Serve one answer to all requests, each on a connection of its own; give the URL."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                connection, _ = listening.accept()
                with connection:
                    if stop.is_set():
                        return
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/a"
        finally:
            stop.set()
            socket.create_connection(listening.getsockname()).close()
            thread.join()


def test_retry_after_is_read(store: ObjectStore) -> None:
    busy = b"HTTP/1.1 503 Slow Down\r\nRetry-After: 7\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with answering(busy) as url, pytest.raises(StoreUnavailableError) as caught:
        store.get(ObjectRef(url), SPAN)
    assert caught.value.retry_after == 7.0


@pytest.mark.parametrize(
    ("answer", "kinds"),
    [
        pytest.param(b"\x00\x01 what is this\r\n\r\n", {"reset", "short-body"}, id="no-http"),
        pytest.param(
            b'HTTP/1.1 206 Partial Content\r\nETag: "x"\r\nLast-Modified: Tue, 14 Nov 2023 22:13:20 GMT\r\n'
            b"Content-Range: bytes 10-14/100\r\nContent-Length: 5\r\nConnection: close\r\n\r\n12345",
            {"short-body"},
            id="fewer-bytes",
        ),
    ],
)
def test_answers_that_are_no_answers_may_pass(store: ObjectStore, answer: bytes, kinds: set[str]) -> None:
    with answering(answer) as url, pytest.raises(StoreUnavailableError) as caught:
        store.get(ObjectRef(url), SPAN)
    assert caught.value.kind in kinds
    assert_well_said(caught.value)


def test_headers_are_sent(server: RangeServer, adapter: Adapter) -> None:
    store = open_store("http", {"headers": {"X-Token": "t"}}, adapter=adapter)
    store.get(ObjectRef(server.url("a.fits")), SPAN)
    store.get(ObjectRef(server.url("a.fits") + "?x=1"), SPAN)
    list(store.list(server.origin + "/"))
    assert [request.headers.get("x-token") for request in server.requests] == ["t"] * 3


def test_messages_keep_secrets(server: RangeServer, store: ObjectStore) -> None:
    url = server.url("none.fits").replace("http://", "http://me:secret@") + "?token=secret"
    with pytest.raises(ObjectNotFoundError) as caught:
        store.head(url)
    assert "secret" not in repr(caught.value)


ALL_OBSTORE_ERRORS = [
    kind
    for kind in vars(obstore.exceptions).values()
    if isinstance(kind, type) and issubclass(kind, obstore.exceptions.BaseError)
]


@pytest.mark.parametrize("kind", ALL_OBSTORE_ERRORS, ids=lambda kind: kind.__name__)
def test_every_obstore_error_is_mapped(kind: type[Exception]) -> None:
    said = "Generic HTTP error: what\nhappened\x1b[0m\n\nDebug source:\nGeneric {\n  store: x,\n}"
    assert_well_said(from_obstore("http://u:p@host/a?k=v", kind(said)))


# Made, not met: looking a name up would leave this computer.
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (obstore.exceptions.GenericError('ConnectError("dns error", failed to lookup address)'), "host name not known"),
        (obstore.exceptions.GenericError("invalid peer certificate: UnknownIssuer"), "certificate or TLS error"),
        (obstore.exceptions.GenericError("HTTP error: error sending request"), "connection failed"),
    ],
    ids=["dns", "certificate", "other"],
)
def test_causes_told_by_obstore(error: Exception, said: str) -> None:
    mapped = from_obstore("http://host/a", error)
    assert type(mapped) is StoreUnavailableError
    assert mapped.reason == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (aiohttp.ClientConnectorDNSError(KEY, OSError(-2, "Name or service not known")), "host name not known"),
        (aiohttp.ClientConnectorSSLError(KEY, OSError(1, "wrong")), "certificate or TLS error"),
        (aiohttp.ServerDisconnectedError(), "answer was cut short"),
        (aiohttp.ServerTimeoutError(), "timed out"),
        (aiohttp.TooManyRedirects(None, ()), "connection failed (TooManyRedirects)"),  # type: ignore[arg-type]  # not looked at
    ],
    ids=["dns", "certificate", "hung-up", "time-out", "other"],
)
def test_causes_told_by_aiohttp(error: Exception, said: str) -> None:
    mapped = from_client_error("http://host/a", error)
    assert type(mapped) is StoreUnavailableError
    assert mapped.reason == said


class TestIndex:
    """HTML indexes, which both adapters read in the same way."""

    @staticmethod
    def listed(server: RangeServer, store: ObjectStore, path: str = "top/") -> list[str]:
        urls = [url for batch in store.list(f"{server.origin}/{path}") for url in batch.column("url").to_pylist()]
        return [url.removeprefix(server.origin) for url in urls]

    def test_other_links_are_not_followed(self, server: RangeServer, store: ObjectStore) -> None:
        server.objects.update({"top/x.fits": DATA, "top/in/y.fits": DATA, "elsewhere/z.fits": DATA})
        server.index_links = [
            "?C=M;O=A",
            "../",
            "/",
            "./",
            "",
            "#top",
            "/elsewhere/",
            "/elsewhere/z.fits",
            "http://other.invalid/top/a.fits",
            "http://[",
            "mailto:me@host",
            "javascript:void(0)",
        ]
        assert self.listed(server, store) == ["/top/in/y.fits", "/top/x.fits"]
        assert len(server.requests) == 2

    def test_forms_of_links(self, server: RangeServer, store: ObjectStore) -> None:
        server.objects["top/x.fits"] = DATA
        server.index_links = [
            "plain.fits",
            "/top/absolute.fits",
            f"{server.origin}/top/full.fits",
            "raw space.fits",
            "%7e%2B.fits",
            "a&amp;b.fits",
            "é.fits",
            "dot/../dotted.fits",
            "get?file=1",
        ]
        assert self.listed(server, store) == [
            "/top/%7e%2B.fits",
            "/top/%C3%A9.fits",
            "/top/a&amp;b.fits",  # escaped again by the server: the name does have an ampersand and a semicolon
            "/top/absolute.fits",
            "/top/dotted.fits",
            "/top/full.fits",
            "/top/get?file=1",
            "/top/plain.fits",
            "/top/raw%20space.fits",
            "/top/x.fits",
        ]

    def test_tilde_written_otherwise(self, server: RangeServer, store: ObjectStore) -> None:
        server.objects["~me/x.fits"] = DATA
        server.index_links = ["/%7Eme/y.fits"]
        assert self.listed(server, store, "~me/") == ["/~me/x.fits", "/~me/y.fits"]

    def test_dead_link_to_a_folder_is_skipped(self, server: RangeServer, store: ObjectStore) -> None:
        server.objects.update({"top/x.fits": DATA, "top/gone/y.fits": DATA})
        server.status["top/gone/"] = 404
        assert self.listed(server, store) == ["/top/x.fits"]

    def test_forbidden_folder_is_an_error(self, server: RangeServer, store: ObjectStore) -> None:
        server.objects.update({"top/x.fits": DATA, "top/shut/y.fits": DATA})
        server.status["top/shut/"] = 403
        with pytest.raises(AccessDeniedError, match="top/shut/"):
            self.listed(server, store)

    def test_endless_folders_are_an_error(self, server: RangeServer, store: ObjectStore) -> None:
        server.objects["top/x.fits"] = DATA
        server.index_links = ["loop/"]
        server.objects["top/" + "loop/" * 70 + "y"] = DATA
        with pytest.raises(StoreError, match="deeper than 64"):
            self.listed(server, store)

    def test_no_index(self, server: RangeServer, store: ObjectStore) -> None:
        server.objects["top/"] = DATA
        with pytest.raises(StoreError, match="no folder index"):
            self.listed(server, store)


def test_session_is_closed_with_its_store(server: RangeServer) -> None:
    transport = AiohttpTransport({})
    WebStore(transport).head(server.url("a.fits"))
    assert transport._opened is not None
    loop, session = transport._opened
    del transport
    gc.collect()
    done = threading.Event()
    loop.call_soon_threadsafe(done.set)
    assert done.wait(10)
    done.clear()
    loop.call_soon_threadsafe(done.set)
    assert done.wait(10)
    assert session.closed
