"""What goes over the wire: how many requests, of which kind, to which host, signed for which region."""

from __future__ import annotations

from typing import Any

import pytest

from crawler.errors import RangeIgnoredError, StoreError, StoreUnavailableError
from crawler.headers import load_headers
from crawler.stores import Adapter, ByteRange, ObjectRef, open_store
from crawler.worker.walk import walk_file
from tests.s3.ceph import DOMAIN
from tests.s3.conftest import S3Server
from tests.s3.proxy import Proxy
from tests.stores.suite import DATA, assert_well_said

SPAN = ByteRange(10, 20)

ONCE = {"retry_config": {"max_retries": 0}, "config_kwargs": {"retries": {"total_max_attempts": 1}}}


def options_of(server: S3Server, proxy: Proxy, **more: Any) -> dict[str, Any]:
    return {**server.options, "endpoint_url": proxy.origin, **more}


@pytest.mark.parametrize("key", ["a.fits", "a//b.fits"], ids=["plain", "odd"])
def test_read_is_one_pinned_get(server: S3Server, proxy: Proxy, adapter: Adapter, key: str) -> None:
    bucket = server.bucket()
    server.put(bucket, key, DATA)
    store = open_store("s3", options_of(server, proxy), adapter=adapter)
    (listed,) = (ObjectRef(**row) for batch in store.list(f"s3://{bucket}") for row in batch.to_pylist())
    assert store.get(listed, SPAN).data == DATA[10:20]
    first = store.get(ObjectRef(listed.url), SPAN).ref
    assert store.get(first, SPAN).ref == listed
    get = ("GET", "bytes=10-19")
    assert proxy.sent == [("GET", None, False), (*get, True), (*get, False), (*get, True)]
    assert proxy.requests[1].if_match == listed.etag


def test_etag_without_quotes_is_pinned_to(server: S3Server, proxy: Proxy, adapter: Adapter) -> None:
    bucket = server.bucket()
    etag = server.put(bucket, "a.fits", DATA)
    store = open_store("s3", options_of(server, proxy), adapter=adapter)
    assert store.get(ObjectRef(f"s3://{bucket}/a.fits", etag=etag.strip('"')), SPAN).data == DATA[10:20]
    assert proxy.requests[-1].if_match == etag


def test_range_beyond_a_known_end_is_one_request(server: S3Server, proxy: Proxy, adapter: Adapter) -> None:
    bucket = server.bucket()
    etag = server.put(bucket, "a.fits", DATA)
    store = open_store("s3", options_of(server, proxy), adapter=adapter)
    ref = ObjectRef(f"s3://{bucket}/a.fits", size=len(DATA), etag=etag)
    assert store.get(ref, ByteRange(len(DATA), len(DATA) + 10)).data == b""
    assert len(proxy.requests) == 1


def card(text: str) -> bytes:
    return text.encode().ljust(80)


FITS = b"".join(
    map(
        card,
        ("SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    0", "END"),
    )
)
FITS = FITS.ljust(2880)


def test_walk_of_a_file_of_unknown_size(server: S3Server, proxy: Proxy, adapter: Adapter) -> None:
    bucket = server.bucket()
    etag = server.put(bucket, "a.fits", FITS)
    store = open_store("s3", options_of(server, proxy), adapter=adapter)
    result = walk_file(store, ObjectRef(f"s3://{bucket}/a.fits"))
    assert (result.status, result.ref.etag, result.ref.size, result.pinned) == ("ok", etag, 2880, True)
    assert [request.method for request in proxy.requests] == ["GET"]


def test_headers_of_a_url(moto: S3Server) -> None:
    bucket = moto.bucket()
    moto.put(bucket, "a b.fits", FITS)
    (unit,) = load_headers(f"https://s3.us-west-2.amazonaws.com/{bucket}/a%20b.fits", storage_options=moto.options)
    assert unit.length == 2880


@pytest.mark.parametrize("anon", [False, True], ids=["signed", "anonymous"])
def test_requester_pays_is_said(moto: S3Server, adapter: Adapter, anon: bool) -> None:
    with Proxy(moto.endpoint) as proxy:
        bucket = moto.bucket()
        moto.client.put_object(Bucket=bucket, Key="a.fits", Body=DATA, ACL="public-read")
        credentials = {"key": None, "secret": None, "anon": True} if anon else {}
        store = open_store("s3", options_of(moto, proxy, requester_pays=True, **credentials), adapter=adapter)
        list(store.list(f"s3://{bucket}"))
        store.get(store.head(f"s3://{bucket}/a.fits"), SPAN)
    assert [one.headers.get("x-amz-request-payer") for one in proxy.requests] == ["requester"] * 3
    assert all(("authorization" in one.headers) is not anon for one in proxy.requests)


@pytest.mark.parametrize("style", ["virtual", "path", None])
def test_addressing(ceph: S3Server, adapter: Adapter, style: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = ceph.bucket()
    ceph.put(bucket, "a b.fits", DATA)
    with Proxy(ceph.endpoint) as proxy:
        # No name server knows these hosts: the proxy is asked for them.
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy.origin)
        for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        config = {"config_kwargs": {"s3": {"addressing_style": style}}} if style else {}
        options = {**ceph.options, "endpoint_url": f"http://{DOMAIN}", **config}
        store = open_store("s3", options, adapter=adapter)
        (row,) = (row for batch in store.list(f"s3://{bucket}") for row in batch.to_pylist())
        assert store.get(ObjectRef(**row), SPAN).data == DATA[10:20]
    host = f"{bucket}.{DOMAIN}" if style == "virtual" else DOMAIN
    assert {request.headers["host"] for request in proxy.requests} == {host}


MOVED = [
    pytest.param(
        (
            400,
            {"Content-Type": "application/xml"},
            b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>no</Message><Region>eu-west-1</Region></Error>",
        ),
        id="malformed",
    ),
    pytest.param(
        (
            301,
            {"Content-Type": "application/xml", "x-amz-bucket-region": "eu-west-1"},
            b"<Error><Code>PermanentRedirect</Code><Endpoint>elsewhere</Endpoint></Error>",
        ),
        id="redirect",
    ),
]


@pytest.mark.parametrize("answer", MOVED)
def test_region_is_found_out_once(moto: S3Server, adapter: Adapter, answer: Any) -> None:
    bucket = moto.bucket()
    moto.put(bucket, "a.fits", DATA)
    with Proxy(moto.endpoint) as proxy:
        store = open_store("s3", options_of(moto, proxy), adapter=adapter)
        proxy.answers = [answer]
        if answer[0] == 301 and adapter == "obstore":  # which does not show headers: the bucket is asked for
            proxy.answers.append((200, {"x-amz-bucket-region": "eu-west-1"}, b""))
        for _ in range(3):
            assert store.get(ObjectRef(f"s3://{bucket}/a.fits"), SPAN).data == DATA[10:20]
    signed = [one.headers["authorization"].partition("Credential=")[2].split("/")[2] for one in proxy.requests]
    assert signed[0] == "us-east-1"
    assert signed[-3:] == ["eu-west-1"] * 3
    assert len(signed) <= 5


def test_region_that_is_not_told(moto: S3Server, adapter: Adapter) -> None:
    with Proxy(moto.endpoint) as proxy:
        store = open_store("s3", options_of(moto, proxy), adapter=adapter)
        redirect = (301, {"Content-Type": "application/xml"}, b"<Error><Code>PermanentRedirect</Code></Error>")
        proxy.answers = [redirect] * 4
        with pytest.raises(StoreError, match=r"another region.*AWS_REGION") as caught:
            store.get(ObjectRef("s3://bucket/a.fits"), SPAN)
    assert_well_said(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        pytest.param(503, "SlowDown", "StoreUnavailableError", "busy", id="slow-down"),
        pytest.param(500, "InternalError", "StoreUnavailableError", "500", id="internal"),
        pytest.param(403, "InvalidObjectState", "ArchivedError", "archived", id="archived"),
        pytest.param(403, "AccessDenied", "AccessDeniedError", "--requester-pays", id="denied"),
        pytest.param(400, "ExpiredToken", "CredentialsExpiredError", "expired", id="expired"),
        pytest.param(400, "InvalidToken", "AccessDeniedError", "token", id="token"),
        pytest.param(403, "RequestTimeTooSkewed", "AccessDeniedError", "clock", id="clock"),
        pytest.param(404, "NoSuchBucket", "ObjectNotFoundError", "no such bucket", id="bucket"),
        pytest.param(404, "NoSuchKey", "ObjectNotFoundError", "no such object", id="key"),
        pytest.param(412, "PreconditionFailed", "ObjectChangedError", "changed", id="changed"),
        pytest.param(405, "MethodNotAllowed", "ObjectNotFoundError", "deleted", id="deleted"),
        pytest.param(400, "Whatever", "StoreError", "400", id="other"),
    ],
)
def test_errors_of_the_store(moto: S3Server, adapter: Adapter, status: int, code: str, kind: str, said: str) -> None:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>secret\nwords</Message></Error>".encode()
    with Proxy(moto.endpoint) as proxy:
        store = open_store("s3", options_of(moto, proxy, **ONCE), adapter=adapter)
        proxy.answers = [(status, {"Content-Type": "application/xml"}, body)]
        with pytest.raises(StoreError, match=said) as caught:
            store.get(ObjectRef("s3://bucket/a.fits"), SPAN)
        assert len(proxy.requests) == 1
    assert type(caught.value).__name__ == kind
    assert "secret" not in str(caught.value)
    assert_well_said(caught.value)


def test_empty_object_of_a_server_that_ignores_ranges(moto: S3Server, adapter: Adapter) -> None:
    bucket = moto.bucket()
    etag = moto.put(bucket, "a.fits", b"")
    with Proxy(moto.endpoint) as proxy:
        store = open_store("s3", options_of(moto, proxy), adapter=adapter)
        proxy.answers = [(200, {"ETag": etag, "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT"}, b"")]
        assert store.get(ObjectRef(f"s3://{bucket}/a.fits"), SPAN).ref.size == 0


def test_busy_store_is_asked_again(moto: S3Server, adapter: Adapter) -> None:
    bucket = moto.bucket()
    moto.put(bucket, "a.fits", DATA)
    busy = (503, {"Content-Type": "application/xml"}, b"<Error><Code>SlowDown</Code></Error>")
    with Proxy(moto.endpoint) as proxy:
        store = open_store("s3", options_of(moto, proxy), adapter=adapter)
        proxy.answers = [busy, busy]
        assert store.get(ObjectRef(f"s3://{bucket}/a.fits"), SPAN).data == DATA[10:20]
        assert len(proxy.requests) == 3


def test_whole_object_for_a_range(moto: S3Server, adapter: Adapter) -> None:
    bucket = moto.bucket()
    etag = moto.put(bucket, "a.fits", DATA)
    with Proxy(moto.endpoint) as proxy:
        store = open_store("s3", options_of(moto, proxy), adapter=adapter)
        told = {"ETag": etag, "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT"}
        proxy.answers = [(200, told, bytes(1_000_000))]
        with pytest.raises(RangeIgnoredError) as caught:
            store.get(ObjectRef(f"s3://{bucket}/a.fits"), SPAN)
    assert_well_said(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        pytest.param("http://127.0.0.1:1", "connection refused", id="refused"),
        pytest.param("http://s3.invalid", "host name not known", id="name"),
    ],
)
def test_dead_endpoint(adapter: Adapter, endpoint: str, said: str) -> None:
    options = {"endpoint_url": endpoint, "key": "k", "secret": "s", **ONCE}
    store = open_store("s3", options, adapter=adapter)
    with pytest.raises(StoreUnavailableError, match=said) as caught:
        store.get(ObjectRef("s3://bucket/a.fits"), SPAN)
    assert_well_said(caught.value)


def test_tls_where_there_is_none(moto: S3Server, adapter: Adapter) -> None:
    options = {**moto.options, "endpoint_url": moto.endpoint.replace("http:", "https:")}
    with pytest.raises(StoreUnavailableError, match="TLS error") as caught:
        open_store("s3", {**options, **ONCE}, adapter=adapter).get(ObjectRef("s3://bucket/a.fits"), SPAN)
    assert_well_said(caught.value)
