"""From what users type to a URL, and from a URL to its store."""

from __future__ import annotations

from pathlib import Path

import pytest

from crawler.errors import UsageError
from crawler.stores import as_url, open_store
from crawler.stores.fsspec import FsspecStore
from crawler.stores.http.store import WebStore
from crawler.stores.local import LocalStore
from crawler.stores.s3.store import S3Store
from crawler.stores.urls import one_line, printable


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        pytest.param("/data/a b#1.fits", "file:///data/a%20b%231.fits", id="path"),
        pytest.param("/data/", "file:///data", id="folder"),
        pytest.param("/", "file:///", id="root"),
        pytest.param("/data/100%", "file:///data/100%25", id="percent"),
        pytest.param("file:///data/a%20b", "file:///data/a%20b", id="file-url"),
        pytest.param("file:/data/a", "file:///data/a", id="file-url-one-slash"),
        pytest.param("FILE://localhost/data/a", "file:///data/a", id="file-url-host"),
        pytest.param("file:///data/a#1?", "file:///data/a%231%3F", id="file-url-not-encoded"),
        pytest.param("HTTP://host/a b", "http://host/a%20b", id="web"),
        pytest.param("https://host", "https://host/", id="web-host"),
        pytest.param("http://host/%7e%2B?a=%20b#part", "http://host/%7e%2B?a=%20b", id="web-encoded"),
        pytest.param("s3://bucket/a%20b c#1", "s3://bucket/a%20b c#1", id="raw-key"),
        pytest.param("S3A://bucket/a:b@c", "s3://bucket/a:b@c", id="s3a"),
        pytest.param("s3n://bucket//a", "s3://bucket//a", id="s3n"),
        pytest.param("https://s3.amazonaws.com/b-1/a%20b%2Bc+d", "s3://b-1/a b+c d", id="s3-path"),
        pytest.param("http://S3.us-east-1.AMAZONAWS.com/b/k/", "s3://b/k/", id="s3-path-region"),
        pytest.param("https://s3-eu-west-1.amazonaws.com/b", "s3://b", id="s3-path-dash"),
        pytest.param("https://s3.dualstack.us-gov-east-1.amazonaws.com/b//k", "s3://b//k", id="s3-path-dual"),
        pytest.param("https://b.s3.amazonaws.com/a%25/%E8%A6%B3#x", "s3://b/a%/観", id="s3-host"),
        pytest.param("https://b.c.s3.us-west-2.amazonaws.com:443/k", "s3://b.c/k", id="s3-host-region"),
        pytest.param("https://b.s3-ap-south-1.amazonaws.com/", "s3://b/", id="s3-host-dash"),
        pytest.param("https://b.s3.dualstack.eu-west-1.amazonaws.com/k", "s3://b/k", id="s3-host-dual"),
        pytest.param("https://s3.b.s3.amazonaws.com/k", "s3://s3.b/k", id="s3-host-named-s3"),
        pytest.param("https://b.s3-accelerate.amazonaws.com/k", "s3://b/k", id="s3-host-fast"),
        # What s3:// could not say, or is no such address.
        pytest.param("https://s3.amazonaws.com/", "https://s3.amazonaws.com/", id="s3-nothing"),
        pytest.param(
            "https://b.s3.amazonaws.com/k?X-Amz-Signature=x",
            "https://b.s3.amazonaws.com/k?X-Amz-Signature=x",
            id="s3-signed",
        ),
        pytest.param("https://b.s3.amazonaws.com/%FF", "https://b.s3.amazonaws.com/%FF", id="s3-not-utf-8"),
        pytest.param(
            "https://b.s3.cn-north-1.amazonaws.com.cn/k", "https://b.s3.cn-north-1.amazonaws.com.cn/k", id="s3-china"
        ),
        pytest.param(
            "http://b.s3-website-us-east-1.amazonaws.com/k",
            "http://b.s3-website-us-east-1.amazonaws.com/k",
            id="s3-website",
        ),
        pytest.param("https://s3.amazonaws.com.evil.org/b/k", "https://s3.amazonaws.com.evil.org/b/k", id="s3-not"),
        pytest.param("github://org:repo@main/x", "github://org:repo@main/x", id="github"),
    ],
)
def test_as_url(typed: str, url: str) -> None:
    assert as_url(typed) == url
    assert as_url(url) == url


def test_as_url_of_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert as_url("x.fits") == (tmp_path / "x.fits").as_uri()
    assert as_url("./x.fits") == (tmp_path / "x.fits").as_uri()
    assert as_url("in/../x.fits") == (tmp_path / "x.fits").resolve().as_uri()
    assert as_url("~/x.fits") == (tmp_path / "home" / "x.fits").as_uri()


@pytest.mark.parametrize(
    "typed", ["", "https://me:secret@host/x", "ftp://me:secret@host/x", "s3://key:secret@b/k", "file://server/share"]
)
def test_as_url_refuses(typed: str) -> None:
    with pytest.raises(UsageError) as caught:
        as_url(typed)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        pytest.param("file:///x", LocalStore, id="file"),
        pytest.param("http://x/", WebStore, id="http"),
        pytest.param("https", WebStore, id="scheme-alone"),
        pytest.param("memory://x", FsspecStore, id="memory"),
        pytest.param("s3://bucket", S3Store, id="s3"),
        pytest.param("s3n", S3Store, id="s3n"),
        pytest.param("ftp://host/x", FsspecStore, id="ftp"),
    ],
)
def test_adapter_of_a_scheme(url: str, kind: type) -> None:
    assert type(open_store(url)) is kind


def test_adapter_on_request() -> None:
    assert type(open_store("file", adapter="obstore")) is LocalStore
    assert type(open_store("http", adapter="obstore")) is WebStore
    assert type(open_store("file", adapter="fsspec")) is FsspecStore
    assert type(open_store("http", adapter="fsspec")) is WebStore


@pytest.mark.parametrize(
    ("call", "said"),
    [
        pytest.param(lambda: open_store("nosuch://x"), "nosuch", id="unknown-scheme"),
        pytest.param(lambda: open_store("some/path"), "some/path", id="path"),
        pytest.param(lambda: open_store("ftp://x", adapter="obstore"), "ftp", id="not-of-obstore"),
        pytest.param(lambda: open_store("http", {"x": 1}, adapter="obstore"), "x", id="option-of-web"),
        pytest.param(lambda: open_store("file", {"x": 1}, adapter="obstore"), "x", id="option"),
        pytest.param(lambda: open_store("file", {"x": 1}), "x", id="option-of-local"),
        pytest.param(lambda: open_store("file", adapter="other"), "other", id="adapter"),  # type: ignore[arg-type]  # what is tested
    ],
)
def test_open_store_refuses(call, said: str) -> None:  # type: ignore[no-untyped-def]  # lambdas above
    with pytest.raises(UsageError, match=said) as caught:
        call()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:pw@host/x?sig=1#f", "http://host/x?..."),
        ("http://host/x", "http://host/x"),
        ("ftp://me:pw@host/x", "ftp://host/x"),
        ("s3://bucket/a?b\nc", "s3://bucket/a?b\\nc"),
        ("/path/\udcff", "/path/\\udcff"),
    ],
    ids=["web", "plain", "ftp", "raw-key", "path"],
)
def test_printable(url: str, shown: str) -> None:
    assert printable(url) == shown


def test_one_line() -> None:
    assert one_line("a\r\n\x1b[31mb\xa0c\u2028d") == "a\\r\\n\\x1b[31mb c d"
    assert one_line("x" * 300) == "x" * 197 + "..."
