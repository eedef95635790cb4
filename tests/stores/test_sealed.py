"""Errors leave a store alone: nothing of the library below goes with them, which may hold requests and secrets."""

from __future__ import annotations

import logging
import pickle
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from crawler.errors import CrawlerError, StoreError, UsageError
from crawler.stores import Adapter, ByteRange, ObjectRef, ObjectStore, Traffic, open_store
from crawler.stores.urls import file_url
from tests.servers import RangeHandler, RangeServer

SECRET = "canary-8f3a"
SPAN = ByteRange(0, 10)
ONCE = {"retry_config": {"max_retries": 0}, "config_kwargs": {"retries": {"total_max_attempts": 1}}}


class _Echo(RangeHandler):
    """Refuses, and repeats in the body what it was asked, as S3 does where a signature is wrong."""

    def answer(self) -> None:
        asked = escape(f"{self.path} {dict(self.asked.headers)} {SECRET}")
        body = f"<Error><Code>{self.server.owner.code}</Code><Message>{asked}</Message></Error>"
        self.send(self.server.owner.refusal, body.encode(), {"Content-Type": "application/xml"})


class EchoServer(RangeServer):
    handler = _Echo
    refusal = 403
    code = "AccessDenied"


@pytest.fixture
def server() -> Iterator[EchoServer]:
    with EchoServer() as server:
        yield server


def assert_alone(error: CrawlerError) -> None:
    assert error.__cause__ is None
    assert error.__context__ is None
    copy = pickle.loads(pickle.dumps(error))
    assert copy.__context__ is None
    assert SECRET not in "".join(traceback.format_exception(error))
    record = logging.LogRecord("x", logging.ERROR, "x", 1, "failed", (), (type(error), error, error.__traceback__))
    assert SECRET not in logging.Formatter().format(record)


def assert_all_alone(store: ObjectStore, url: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: store.get(ObjectRef(url), SPAN),
        lambda: store.head(url),
        lambda: list(store.list(url.rpartition("/")[0] + "/")),
    ]
    for call in calls:
        with pytest.raises(StoreError) as caught:
            call()
        assert_alone(caught.value)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 429, 500, 503])
@pytest.mark.parametrize("adapter", ["auto", "fsspec"])
def test_web_refusals_are_alone(server: EchoServer, adapter: Adapter, status: int) -> None:
    server.refusal = status
    store = open_store("http", {"headers": {"X-Api-Key": SECRET}}, adapter=adapter)
    assert_all_alone(store, server.url("in/a.fits"))


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "InvalidRequest"),
        (403, "AccessDenied"),
        (403, "SignatureDoesNotMatch"),
        (403, "InvalidObjectState"),
        (404, "NoSuchKey"),
        (412, "PreconditionFailed"),
        (500, "InternalError"),
        (503, "SlowDown"),
    ],
)
@pytest.mark.parametrize("adapter", ["obstore", "fsspec"])
def test_s3_refusals_are_alone(server: EchoServer, adapter: Adapter, status: int, code: str) -> None:
    server.refusal, server.code = status, code
    options = {"endpoint_url": server.origin, "key": f"{SECRET}-key", "secret": f"{SECRET}-secret", **ONCE}
    assert_all_alone(open_store("s3", options, adapter=adapter), "s3://bucket/in/a.fits")


@pytest.mark.parametrize(
    ("scheme", "adapter"), [("http", "auto"), ("http", "fsspec"), ("s3", "auto"), ("s3", "fsspec")]
)
def test_failed_connections_are_alone(scheme: str, adapter: Adapter) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and not listening
        origin = f"http://127.0.0.1:{bound.getsockname()[1]}"
        web = scheme == "http"
        options = {} if web else {"endpoint_url": origin, "key": SECRET, "secret": SECRET, **ONCE}
        assert_all_alone(open_store(scheme, options, adapter=adapter), f"{origin if web else 's3://b'}/in/a.fits")


@pytest.mark.parametrize(
    ("scheme", "adapter"),
    [("file", "auto"), ("file", "obstore"), ("file", "fsspec"), ("memory", "obstore"), ("memory", "fsspec")],
)
def test_missing_objects_are_alone(tmp_path: Path, scheme: str, adapter: Adapter) -> None:
    store = open_store(scheme, adapter=adapter)
    url = (file_url(str(tmp_path)) if scheme == "file" else "memory://nowhere") + "/none/a.fits"
    for call in (lambda: store.get(ObjectRef(url), SPAN), lambda: store.head(url)):
        with pytest.raises(StoreError) as caught:
            call()
        assert_alone(caught.value)
    if adapter != "obstore":  # which knows no folders
        with pytest.raises(StoreError) as caught:
            list(store.list(url + "/"))
        assert_alone(caught.value)


def test_retried_failures_are_alone(server: EchoServer) -> None:
    server.refusal = 503
    traffic = Traffic(1, wait=lambda _: None, clock=iter(range(0, 10_000, 10)).__next__)
    store = open_store("http", {"headers": {"X-Api-Key": SECRET}}, traffic=traffic)
    with pytest.raises(StoreError) as caught:
        store.get(ObjectRef(server.url("a.fits")), SPAN)
    assert_alone(caught.value)


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("s3", {"client_options": {"proxy_url": f"http://u:{SECRET}@[::"}, "anon": True, "endpoint_url": "http://x"}),
        ("http", {"client_options": {"proxy_url": f"{SECRET}://x"}}),
        ("http", {"headers": {"X-Api-Key": f"{SECRET}\n"}}),
        ("http", {"client_kwargs": SECRET}),
    ],
)
def test_options_that_are_refused_are_alone(scheme: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(scheme, options).get(ObjectRef(f"{scheme}://x/a.fits"), SPAN)
    assert_alone(caught.value)
