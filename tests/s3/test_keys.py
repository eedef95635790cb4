"""Keys as S3 allows them: what is listed under one name is read under it, whatever the name."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from crawler.errors import ObjectChangedError, StoreError
from crawler.stores import Adapter, ByteRange, ObjectRef, open_store
from crawler.stores.s3.store import UNNAMEABLE
from tests.s3.conftest import S3Server
from tests.s3.proxy import Proxy

SPAN = ByteRange(0, 2880)

KEYS = [
    "a.fits",
    "/leading.fits",
    "//two.fits",
    "a//b.fits",
    "a///c.fits",
    "./dot.fits",
    "../up.fits",
    "a/./b.fits",
    "a/../c.fits",
    "a/..",
    ".",
    "..",
    "folder/",
    "folder//",
    "a/",
    "/",
    "tab\there.fits",
    "bell\x07.fits",
    "return\r.fits",
    "newline\n.fits",
    "delete\x7f.fits",
    " blank first",
    "blank last ",
    "a b+c%d#e?f&g=h;i,j:k@l!m$n'o(p)q*r.fits",
    "%2F%00%",
    "a%2Fb",
    "~tilde",
    "\\back\\slash",
    '"quoted"<tag>|{brace}^`',
    "Größe-観測-🔭.fits",
    "e\u0301.fits",
    "é.fits",
    "\u200bzero\ufeffwidth\u202e.fits",
    "\x80\x9f.fits",
    "README",
    "#1",
    "x" * 1024,
]
# Of moto's own making: its web framework takes the one for another address, and no newline in any.
NOT_ON_MOTO = {"newline\n.fits", ".", "..", "/", "//two.fits"}


def test_every_key_is_listed_and_read(server: S3Server, adapter: Adapter) -> None:
    bucket = server.bucket()
    keys = [key for key in KEYS if server.kind != "moto" or key not in NOT_ON_MOTO]
    etags = {key: server.put(bucket, key, f"content of {key}".encode()) for key in keys}
    store = open_store("s3", server.options, adapter=adapter)
    rows = [row for batch in store.list(f"s3://{bucket}/") for row in batch.to_pylist()]
    assert {row["url"]: row["etag"] for row in rows} == {f"s3://{bucket}/{key}": etags[key] for key in keys}
    for row in rows:
        key = row["url"].removeprefix(f"s3://{bucket}/")
        for ref in (ObjectRef(**row), ObjectRef(row["url"])):
            fetched = store.get(ref, SPAN)
            assert fetched.data.decode() == f"content of {key}"
            assert fetched.ref == ObjectRef(**row)
        assert store.head(row["url"]) == ObjectRef(**row)


@pytest.mark.parametrize("key", ["a.fits", "a//b.fits", "a\tb", "folder/"])
def test_replaced_between_listing_and_reading(server: S3Server, adapter: Adapter, key: str) -> None:
    bucket = server.bucket()
    server.put(bucket, key, b"first content")
    store = open_store("s3", server.options, adapter=adapter)
    (row,) = (row for batch in store.list(f"s3://{bucket}") for row in batch.to_pylist())
    server.put(bucket, key, b"other content")
    with pytest.raises(ObjectChangedError):
        store.get(ObjectRef(**row), SPAN)


@pytest.mark.parametrize("prefix", ["a/b", "a/b/"])
def test_prefix_is_a_folder(moto: S3Server, prefix: str) -> None:
    bucket = moto.bucket()
    for key in ("a/b", "a/b/", "a/b/c.fits", "a/b/c/d.fits", "a/bc.fits", "b.fits"):
        moto.put(bucket, key, b"x")
    listed = [url for batch in open_store("s3", moto.options).list(f"s3://{bucket}/{prefix}") for url in batch["url"]]
    assert [url.as_py() for url in listed] == [f"s3://{bucket}/a/b/{name}" for name in ("", "c.fits", "c/d.fits")]


def page(first: int, count: int, following: str) -> tuple[int, dict[str, str], bytes]:
    """Return a page of ListObjectsV2 as S3 writes it."""
    entries = "".join(
        f"<Contents><Key>{number:05}+%2B%09.fits</Key><LastModified>2023-11-14T22:13:20.000Z</LastModified>"
        f"<ETag>&quot;{number}&quot;</ETag><Size>{number}</Size></Contents>"
        for number in range(first, first + count)
    )
    more = f"<NextContinuationToken>{following}</NextContinuationToken>" if following else ""
    body = (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<EncodingType>url</EncodingType><IsTruncated>{'true' if following else 'false'}</IsTruncated>"
        f"{more}{entries}</ListBucketResult>"
    )
    return 200, {"Content-Type": "application/xml"}, body.encode()


def test_listing_comes_page_by_page(moto: S3Server) -> None:
    with Proxy(moto.endpoint) as proxy:
        proxy.answers = [page(0, 1_000, "one"), page(1_000, 1_000, "two"), page(2_000, 100, "")]
        batches = open_store("s3", {**moto.options, "endpoint_url": proxy.origin}).list("s3://bucket")
        first = next(batches)
        assert first.num_rows == 1_000
        assert first.slice(7, 1).to_pylist() == [
            {
                "url": "s3://bucket/00007 +\t.fits",  # a plus stands for a blank
                "size": 7,
                "etag": '"7"',
                "version": None,
                "last_modified": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
            }
        ]
        assert len(proxy.requests) == 1
        assert [batch.num_rows for batch in batches] == [1_100]
    tokens = [parse_qs(urlsplit(request.path).query).get("continuation-token") for request in proxy.requests]
    assert tokens == [None, ["one"], ["two"]]
    assert all("encoding-type=url" in request.path for request in proxy.requests)


def test_listing_without_a_next_token_is_an_error(moto: S3Server) -> None:
    with Proxy(moto.endpoint) as proxy:
        proxy.answers = [(200, {}, page(0, 10, "x")[2].replace(b"NextContinuationToken", b"Other"))]
        batches = open_store("s3", {**moto.options, "endpoint_url": proxy.origin}).list("s3://bucket")
        with pytest.raises(StoreError, match="listing is incomplete"):
            list(batches)


# ASCII and Latin-1, and what else libraries may take for something special.
CHARACTERS = [chr(number) for number in range(0x100)] + list("\u0301\u0394\u200b\u2028\u202e\ufeff\uffff観🔭")


def test_obstore_sends_every_character_as_s3fs_does(moto: S3Server) -> None:
    told = {"Content-Range": "bytes 0-0/1", "ETag": '"e"', "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT"}
    keys = [f"a{char}b" for char in CHARACTERS if not UNNAMEABLE.search(f"a{char}b")]
    assert len(keys) == len(CHARACTERS) - 33  # control characters; a slash within is none
    with Proxy(moto.endpoint) as proxy:
        proxy.answers = [(206, told, b"x")] * (2 * len(keys))
        for adapter in ("obstore", "fsspec"):
            store = open_store("s3", {**moto.options, "endpoint_url": proxy.origin}, adapter=adapter)
            for key in keys:
                store.get(ObjectRef(f"s3://bucket/{key}"), ByteRange(0, 1))
    paths = [request.path.partition("?")[0] for request in proxy.requests]
    assert paths[: len(keys)] == paths[len(keys) :]
    assert [unquote(path).removeprefix("/bucket/") for path in paths[: len(keys)]] == keys
