"""S3 through s3fs: listings, descriptions, and reads of whatever obstore cannot name.

s3fs makes the session from the options, in its own words, and its event loop is used; the requests are S3's own
operations, since s3fs' file calls send a HEAD first, cannot pin a read, and hide what the answer told.
"""

from __future__ import annotations

import asyncio
import re
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from functools import cache, partial
from typing import Any, NamedTuple

import aiohttp
import botocore.exceptions as bc
import fsspec.asyn
import pyarrow as pa
from aiobotocore.session import AioSession
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError
from botocore.utils import parse_timestamp
from s3fs import S3FileSystem

from crawler.errors import StoreUnavailableError
from crawler.stores.base import ByteRange, Fetched, ObjectRef
from crawler.stores.errors import (
    changed,
    check_same,
    denied,
    failed,
    fetched,
    from_status,
    if_match,
    missing,
    range_ignored,
)
from crawler.stores.http.aiohttp_transport import hang_up
from crawler.stores.http.answer import check_range
from crawler.stores.http.connection import CONNECT_SECONDS
from crawler.stores.retry import Traffic
from crawler.stores.s3.calls import Calls
from crawler.stores.s3.credentials import Credentials
from crawler.stores.s3.errors import NO_CREDENTIALS, Asked, at_endpoint, from_botocore
from crawler.stores.s3.pages import EVENT as TAKE_CONTENTS
from crawler.stores.s3.pages import Page, page_of, second, take_contents
from crawler.stores.s3.range_listing import list_by_ranges, list_by_token
from crawler.stores.s3.storage_options import OF_SESSION, S3Options
from crawler.stores.s3.transport import LimitedSession, read_limited
from crawler.stores.values import describe, http_time_of, time_of

STALL_SECONDS = 5.0
"""Longest wait for the next bytes of an answer. S3's own first bytes take 0.1 s; a long wait is better asked again."""
# With waits of 1, 2 and 4 s at most between them ("Retries", Boto3 documentation, standard mode) an address that takes
# connections and never answers costs 27 s, one that does not exist 19 s.
_RETRIES = {"mode": "standard", "total_max_attempts": 4}
_CONNECTIONS = 128
# "General purpose bucket naming rules", Amazon S3 User Guide; capitals and "_" of old, ":" for the tenants of Ceph.
_BUCKET = re.compile(r"[A-Za-z0-9._:-]{1,255}")

CAUGHT = (
    bc.BotoCoreError,
    bc.ClientError,
    ResponseParserError,
    aiohttp.ClientError,
    OSError,
    ValueError,
    RecursionError,
)
"""What a call of s3fs can raise of the store's or the network's making: `RecursionError` for XML nested without end."""


class Place(NamedTuple):
    """Where an object lies; ``key`` is raw."""

    bucket: str
    key: str


def split(url: str) -> Place:
    """Take an ``s3`` URL apart.

    Raises
    ------
    StoreError
        It names no bucket, or one that cannot be.
    """
    bucket, _, key = url.partition("://")[2].partition("/")
    if not bucket:
        raise failed(url, "names no bucket: s3://BUCKET/KEY is meant")
    if not _BUCKET.fullmatch(bucket):  # object_store would panic
        raise failed(url, f"names no bucket that S3 can have: {bucket}")
    return Place(bucket, key)


class Endpoint(NamedTuple):
    """Where requests go, as botocore resolved it from options, environment and files.

    Attributes
    ----------
    url : str
        Without the bucket.
    region : str
    style : str
        ``path``, ``virtual`` or ``auto`` ("Virtual hosting of general purpose buckets", Amazon S3 User Guide).
    ca_bundle : str or None
        File of certificates to trust.
    """

    url: str
    region: str
    style: str
    ca_bundle: str | None


class S3Session:
    """S3's operations on buckets of any name, from any thread. Opened at the first call.

    Parameters
    ----------
    options : S3Options
    traffic : Traffic, optional
        What pages of listings are asked for through.

    Attributes
    ----------
    list_requests : int
        Pages of listings that were asked for, each try counted.
    """

    def __init__(self, options: S3Options, traffic: Traffic | None = None) -> None:
        self.list_requests = 0
        self._traffic = traffic
        self._options = options
        self._lock = threading.Lock()
        self._opened: tuple[asyncio.AbstractEventLoop, Any, Any] | None = None
        self._pays = {"RequestPayer": "requester"} if options.requester_pays else {}

    def list(self, url: str, *, by_ranges: bool) -> Iterator[pa.RecordBatch]:
        """Yield every object below ``url``: by many requests at once, or page after page.

        Keys are sent percent-encoded ("ListObjectsV2", Amazon S3 API Reference, encoding-type), which botocore asks
        for, so that control characters, which XML cannot hold, come through. What ends in a slash is listed like any
        other object.
        """
        bucket, prefix = split(url)
        if prefix and not prefix.endswith("/"):
            prefix += "/"
        calls = Calls()

        def fetch(after: str | None, token: str | None) -> Page:
            begin = {"ContinuationToken": token} if token else {} if after is None else {"StartAfter": after}
            asked = {"Bucket": bucket, "Prefix": prefix, **begin, **self._pays}
            if self._traffic is None:
                return self._page(url, asked, calls)
            return self._traffic.ask(lambda: self._page(url, asked, calls))

        if by_ranges:
            return list_by_ranges(url, f"s3://{bucket}/", prefix, fetch, calls.give_up)
        return list_by_token(url, fetch)

    def _page(self, url: str, asked: Mapping[str, Any], calls: Calls) -> Page:
        """Ask for one page, once."""
        loop, filesystem, _ = self._open(url)  # here, where what goes wrong is of the url that was asked for
        with self._lock:
            self.list_requests += 1
        try:
            answer = calls.wait(filesystem._call_s3("list_objects_v2", **asked), loop)
        except CAUGHT as error:
            raise self._mapped(url, error, listing=True) from None
        try:
            return page_of(str(asked["Bucket"]), answer)
        except ValueError as error:
            raise failed(url, f"store sent {error}") from None

    def head(self, url: str) -> ObjectRef:
        """Describe one object. See `crawler.stores.base.ObjectStore.head`."""
        bucket, key = split(url)
        if not key:
            raise missing(url, "is a bucket, not an object")
        asked = {"Bucket": bucket, "Key": key, **self._pays}
        try:
            answer = self._ask("head_object", asked)
        except CAUGHT as error:
            # An answer to HEAD has no body, so that 403 and 400 do not say why: the first byte is asked for.
            if (_status(error) or 0) not in (400, 403):
                raise self._mapped(url, error) from None
            return self.get(ObjectRef(url), ByteRange(0, 1)).ref
        return _described(url, answer, answer.get("ContentLength"))

    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        """Read one range of an object in one request. See `crawler.stores.base.ObjectStore.get`.

        Only an object of no bytes, or a range beyond the end of one of unknown size, costs a second, HEAD.
        """
        bucket, key = split(ref.url)
        if not key:
            raise missing(ref.url, "is a bucket, not an object")
        asked = {"Bucket": bucket, "Key": key, "Range": f"bytes={span.start}-{span.stop - 1}", **self._pays}
        if (etag := if_match(ref.etag)) is not None:
            asked["IfMatch"] = etag
        try:
            answer = self._ask("get_object", asked, len(span))
        except CAUGHT as error:
            if _status(error) != 416:
                raise self._mapped(ref.url, error) from None
            return self.beyond(ref, span)
        status = answer["ResponseMetadata"].get("HTTPStatusCode")
        if status == 206:
            size = check_range(ref.url, answer.get("ContentRange"), answer.get("ContentType"), span)
            described = _described(ref.url, answer, size)
            return fetched(ref, span, answer["Body"], described)
        if status != 200:
            raise from_status(ref.url, status)
        described = _described(ref.url, answer, answer.get("ContentLength"))
        check_same(ref, described)
        if described.size == 0:
            return fetched(ref, span, b"", described)
        raise range_ignored(ref.url)

    def beyond(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        """Return what it means that no byte of ``span`` is there (416)."""
        # A precondition is looked at before the range (RFC 9110, section 13.2.2): the object is the one asked for.
        known = ref.size if ref.etag is not None else None
        described = ref if known is not None else self.head(ref.url)
        check_same(ref, described)
        if described.size is not None and span.start < described.size:
            raise changed(ref.url)
        return fetched(ref, span, b"", described)

    def region_of(self, bucket: str) -> str | None:
        """Return the region that S3 says a bucket is in, allowed to see it or not ("HeadBucket", API Reference)."""
        try:
            answer = self._ask("head_bucket", {"Bucket": bucket})
        except CAUGHT as error:
            answer = _answer(error) or {}
        region = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region")
        return None if region is None else str(region)

    def endpoint(self, url: str) -> Endpoint:
        """Return where requests go; ``url`` is what an error would be of."""
        _, filesystem, client = self._open(url)
        meta = client.meta
        region = "us-east-1" if meta.region_name in (None, "aws-global") else str(meta.region_name)
        style = (meta.config.s3 or {}).get("addressing_style") or "auto"
        verify = self._options.client.get("verify")
        ca_bundle = verify if isinstance(verify, str) else filesystem.session.get_config_variable("ca_bundle")
        return Endpoint(str(meta.endpoint_url), region, style, ca_bundle)

    def credentials(self, url: str) -> Credentials:
        """Return what obstore asks for credentials.

        Raises
        ------
        AccessDeniedError
            None are found.
        """
        if self._options.explicit_keys is not None:
            return Credentials(None, self._options.explicit_keys)
        loop, filesystem, _ = self._open(url)
        try:
            found = fsspec.asyn.sync(loop, filesystem.session.get_credentials)
            if found is None:
                raise denied(url, NO_CREDENTIALS)
            made = Credentials(loop, found)
            made()  # here, where what goes wrong can be told apart
        except CAUGHT as error:
            raise self._mapped(url, error) from None
        return made

    def _ask(self, operation: str, asked: Mapping[str, Any], wanted: int = 0) -> Mapping[str, Any]:
        """Send one operation; a body is read where it is a range, and dropped where the server sends all.

        Raises
        ------
        OverlongAnswerError
            The body has more bytes than are wanted.
        """
        loop, filesystem, _ = self._open(f"s3://{asked['Bucket']}")

        async def ask() -> Mapping[str, Any]:
            # Not `call_s3`: the body must be read on the loop that its connection is of.
            answer: dict[str, Any] = await filesystem._call_s3(operation, **asked)
            if (body := answer.get("Body")) is not None:
                try:
                    whole = answer["ResponseMetadata"].get("HTTPStatusCode") != 206
                    async with asyncio.timeout(self._options.total_seconds):
                        answer["Body"] = b"" if whole else await read_limited(body, wanted)
                finally:
                    body.close()
            return answer

        return _on(loop, ask)

    def _mapped(self, url: str, error: Exception, *, listing: bool = False) -> Exception:
        mapped = from_botocore(
            url, error, Asked(self._options.anon, self._options.requester_pays, listing, self._options.session)
        )
        if self._opened is None or _answer(error) is not None or not isinstance(mapped, StoreUnavailableError):
            return mapped
        return at_endpoint(mapped, str(self._opened[2].meta.endpoint_url))

    def _open(self, url: str) -> tuple[asyncio.AbstractEventLoop, Any, Any]:
        with self._lock:
            if self._opened is None:
                try:
                    self._opened = self._made()
                except CAUGHT as error:
                    raise self._mapped(url, error) from None
                except (AttributeError, TypeError) as error:  # what botocore says of an argument it does not know
                    raise failed(url, f"storage options are not understood: {error}") from None
            return self._opened

    def _made(self) -> tuple[asyncio.AbstractEventLoop, Any, Any]:
        loop: asyncio.AbstractEventLoop = fsspec.asyn.get_loop()
        config = {
            "retries": _RETRIES,
            "max_pool_connections": _CONNECTIONS,
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": STALL_SECONDS,
            "http_session_cls": partial(LimitedSession, total_seconds=self._options.total_seconds),
            **self._options.s3fs["config_kwargs"],
        }
        given = {"session": self._session(), **self._options.s3fs, "config_kwargs": config}
        # asynchronous: it would else close its session in the garbage collector, and wait there.
        filesystem = S3FileSystem(**given, asynchronous=True, loop=loop, skip_instance_cache=True)
        filesystem.retries = 1  # botocore tries again: not each of its tries five times more
        client = fsspec.asyn.sync(loop, filesystem.set_session)
        client.meta.events.register("before-call.s3.HeadBucket", _not_redirected)
        client.meta.events.register(TAKE_CONTENTS, take_contents)
        weakref.finalize(self, hang_up, loop, client)
        return loop, filesystem, client

    def _session(self) -> AioSession:
        """Make the session that s3fs would make, but quicker to begin and to read times."""
        session = AioSession(**{name: value for name, value in self._options.s3fs.items() if name in OF_SESSION})
        session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
        # What botocore knows of S3 takes a tenth of a second to read: not once more for every run.
        if "loader" not in self._options.s3fs:
            session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
        return session


def _not_redirected(context: dict[str, Any], **_: object) -> None:
    """Keep botocore from asking where a bucket is because it asked where the bucket is, without end.

    Its redirector asks with HeadBucket, and where that is redirected too and no region is told, calls itself again.
    """
    context.setdefault("s3_redirect", {})["redirected"] = True


@cache
def _loader(data_path: str | None) -> Loader:
    """Return what reads botocore's descriptions of services, which remembers them."""
    return create_loader(data_path)


def _moment(written: Any) -> datetime | None:
    """Read a time as S3 has it, without botocore's reader, on which most of a listing's CPU went.

    None where it is no time: that of an object is no reason not to read the object.
    """
    if isinstance(written, str):
        return time_of(written) or http_time_of(written)
    moment: datetime = parse_timestamp(written)
    return moment


def _on(loop: asyncio.AbstractEventLoop, ask: Callable[[], Awaitable[Mapping[str, Any]]]) -> Mapping[str, Any]:
    answer: Mapping[str, Any] = fsspec.asyn.sync(loop, ask)
    return answer


def _answer(error: BaseException) -> Mapping[str, Any] | None:
    for one in (error, error.__cause__):
        if isinstance(one, bc.ClientError):
            answer: Mapping[str, Any] = one.response
            return answer
    return None


def _status(error: Exception) -> int | None:
    answer = _answer(error)
    return None if answer is None else answer.get("ResponseMetadata", {}).get("HTTPStatusCode")


def _described(url: str, answer: Mapping[str, Any], size: int | None) -> ObjectRef:
    return describe(
        url,
        size=size,
        etag=answer.get("ETag"),
        version=answer.get("VersionId"),
        modified=second(answer.get("LastModified")),
    )
