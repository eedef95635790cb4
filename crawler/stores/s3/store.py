"""S3: objects read by range through obstore, listed through s3fs.

Each library does what it is good at: obstore reads with a fifth of the CPU, but one odd key fails its whole listing;
s3fs lists and reads every key. One session, that of s3fs, finds out endpoint, region and credentials for both.
"""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import obstore
import obstore.exceptions
import obstore.store
import pyarrow as pa

from crawler.errors import UsageError
from crawler.stores.base import ByteRange, Fetched, ObjectRef
from crawler.stores.errors import failed, fetched, if_match, missing, overlong, sealed, sealed_listing
from crawler.stores.obstore import CLIENT_OPTIONS, is_header_unread, understood_options
from crawler.stores.retry import Traffic
from crawler.stores.s3.errors import (
    FENCE,
    Asked,
    from_s3_obstore,
    is_range_ignored,
    is_wrong_region,
    named_region,
    status_of,
)
from crawler.stores.s3.session import STALL_SECONDS, Endpoint, S3Session, split
from crawler.stores.s3.storage_options import understood
from crawler.stores.values import describe

# As s3fs is told: four tries. An address that takes connections and never answers costs 27 s.
RETRY_CONFIG = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {"init_backoff": timedelta(seconds=0.5), "max_backoff": timedelta(seconds=3), "base": 3},
}
_CAUGHT = (obstore.exceptions.BaseError, OSError, ValueError)

# What object_store calls a path: no control characters, no segment that is empty, "." or "..". It renames keys that
# begin or end with a slash, and refuses the others. All other characters reach the wire as they are.
UNNAMEABLE = re.compile(r"[\x00-\x1f\x7f]|(?:^|/)\.{0,2}(?:/|$)")
# Directory buckets have their own endpoints and sessions ("Directory buckets overview", Amazon S3 User Guide), which
# botocore knows from the name.
_DIRECTORY_BUCKET = "--x-s3"
_AWS_HOST = re.compile(r"s3(?:-fips)?(?:[.-][a-z0-9.-]+)?\.amazonaws\.com(?:\.cn)?")
# Names that can be put before a host and be covered by its certificate: no dots, no capitals.
_LONGEST_KEY = 4096  # characters; object_store panics when a URL has 64 KiB, of which a character takes up to 12 bytes
_HOST_LABEL = re.compile(r"[a-z0-9][a-z0-9-]*[a-z0-9]")


class _Bucket(NamedTuple):
    """One bucket as obstore knows it."""

    store: Any
    region: str


class S3Store:
    """Objects of ``s3`` URLs, whose keys are raw.

    Parameters
    ----------
    storage_options : Mapping[str, object]
        As s3fs takes them, and obstore's own ``client_options`` and ``retry_config``. What obstore cannot be told
        means that s3fs reads.
    adapter : {"auto", "obstore", "fsspec"}
        What reads. ``obstore`` leaves keys to s3fs that it cannot name, but no option. Listing is s3fs' always.

    traffic : Traffic, optional
        What pages of listings are asked for through.

    Raises
    ------
    UsageError
        An option that is not known, or not to obstore where that is asked for.
    """

    def __init__(
        self,
        storage_options: Mapping[str, object],
        *,
        adapter: Literal["auto", "obstore", "fsspec"] = "auto",
        traffic: Traffic | None = None,
    ) -> None:
        self._options = understood(storage_options)
        if adapter == "obstore" and self._options.only_s3fs:
            raise UsageError(f"obstore takes no storage option {self._options.only_s3fs}: use adapter fsspec")
        self._reads_by_obstore = adapter == "obstore" or (adapter == "auto" and not self._options.only_s3fs)
        self._asked = Asked(self._options.anon, self._options.requester_pays, session=self._options.session)
        self._session = S3Session(self._options, traffic)
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}
        self._endpoint: Endpoint | None = None
        self._provider: Any = None

    @sealed_listing
    def list(self, url: str, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield every object whose key begins with that of ``url`` and a slash, by many requests at once.

        In no order, but as runs of keys that follow each other: first a page of 1,000, then more at a time. An iterator
        that is closed leaves no request behind. With a limit, one page after the other, each when it is needed.
        """
        # Directory buckets list in no order, and from no other place than the begin ("ListObjectsV2", API Reference).
        is_directory = split(url).bucket.endswith(_DIRECTORY_BUCKET)
        return self._session.list(url, by_ranges=limit is None and not is_directory)

    @property
    def list_requests(self) -> int:
        """Pages of listings that were asked for, each try counted."""
        return self._session.list_requests

    @sealed
    def head(self, url: str) -> ObjectRef:
        """Describe one object. See `crawler.stores.base.ObjectStore.head`."""
        return self._session.head(url)

    @sealed
    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        """Read one range of an object. See `crawler.stores.base.ObjectStore.get`.

        One GET; a second request, HEAD, only where the object turns out to have no bytes, or none in ``span`` and its
        size was not known; a second GET, through s3fs, where the answer has a header that obstore cannot read.
        """
        name, key = split(ref.url)
        unnameable = UNNAMEABLE.search(key) or len(key) > _LONGEST_KEY
        if not self._reads_by_obstore or unnameable or name.endswith(_DIRECTORY_BUCKET):
            return self._session.get(ref, span)
        if not key:
            raise missing(ref.url, "is a bucket, not an object")
        bucket = self._buckets.get(name) or self._open(name, ref.url)
        try:
            return self._read(bucket, key, ref, span)
        except _CAUGHT as error:
            moved = self._moved(name, bucket, error, ref.url) if is_wrong_region(error) else None
            if moved is None:
                raise from_s3_obstore(ref.url, error, self._asked) from None
        try:
            return self._read(moved, key, ref, span)
        except _CAUGHT as error:
            raise from_s3_obstore(ref.url, error, self._asked) from None

    def _read(self, bucket: _Bucket, key: str, ref: ObjectRef, span: ByteRange) -> Fetched:
        options: obstore.GetOptions = {"range": (span.start, span.stop)}
        if (etag := if_match(ref.etag)) is not None:
            options["if_match"] = etag
        try:
            answer = obstore.get(bucket.store, key, options=options)
            data, meta = _read(ref.url, answer, len(span)), answer.meta
        except _CAUGHT as error:
            if status_of(error) == 416:
                return self._session.beyond(ref, span)
            if is_header_unread(error):
                return self._session.get(ref, span)
            # Some servers answer any range of an empty object with all of it, which is nothing.
            if is_range_ignored(error) and not ref.size and self._session.head(ref.url).size == 0:
                return self._session.beyond(ref, span)
            raise
        described = describe(
            ref.url, size=meta["size"], etag=meta["e_tag"], version=meta["version"], modified=meta["last_modified"]
        )
        return fetched(ref, span, data, described)

    def _open(self, name: str, url: str) -> _Bucket:
        """Open a bucket in the region that is configured."""
        with self._lock:
            if name not in self._buckets:
                if self._endpoint is None:
                    self._endpoint = self._session.endpoint(url)
                self._buckets[name] = self._made(name, url, self._endpoint)
            return self._buckets[name]

    def _moved(self, name: str, before: _Bucket, error: Exception, url: str) -> _Bucket | None:
        """Open a bucket in the region that S3 says it is in; None where it does not say."""
        with self._lock:
            now = self._buckets[name]
            if now is not before:  # another thread was faster
                return now
            region = named_region(error) or self._session.region_of(name)
            if region is None or region == before.region or self._endpoint is None:
                return None
            self._buckets[name] = self._made(name, url, _in_region(self._endpoint, region))
            return self._buckets[name]

    def _made(self, name: str, url: str, endpoint: Endpoint) -> _Bucket:
        options = self._options
        client: dict[str, Any] = {
            **CLIENT_OPTIONS,
            "read_timeout": timedelta(seconds=STALL_SECONDS),
            "allow_http": endpoint.url.lower().startswith("http:"),
            "allow_invalid_certificates": options.client.get("verify") is False,
        }
        for given, known in (("connect_timeout", "connect_timeout"), ("read_timeout", "read_timeout")):
            if (seconds := options.s3fs["config_kwargs"].get(given)) is not None:
                client[known] = timedelta(seconds=float(seconds))
        if endpoint.ca_bundle and not client["allow_http"]:
            try:
                client["root_certificate"] = Path(endpoint.ca_bundle).read_bytes()
            except OSError:
                raise failed(url, f"file of certificates cannot be read: {endpoint.ca_bundle}") from None
        if options.anon and options.requester_pays:  # obstore sends its own header with signed requests only
            client["default_headers"] = {"x-amz-request-payer": "requester"}
        if not options.anon and self._provider is None:
            self._provider = self._session.credentials(url)
        virtual = _is_virtual(endpoint, name)
        address = _with_bucket(endpoint.url, name) if virtual else endpoint.url
        if not urllib.request.getproxies().keys() & {"http", "https", "all"}:
            client |= {"proxy_url": f"http://{FENCE}", "proxy_excludes": urlsplit(address).hostname}
        everything: Any = {**client, **options.client_options}
        retry: Any = {**RETRY_CONFIG, **options.retry_config}
        # Everything that obstore would otherwise read from the environment by itself is said.
        with understood_options():
            store = obstore.store.S3Store(
                name,
                endpoint=address,
                region=endpoint.region,
                virtual_hosted_style_request=virtual,
                skip_signature=options.anon,
                request_payer=options.requester_pays,
                client_options=everything,
                retry_config=retry,
                credential_provider=None if options.anon else self._provider,
            )
        return _Bucket(store, endpoint.region)


def _read(url: str, answer: obstore.GetResult, wanted: int) -> bytes:
    """Read the body that is wanted, and little more where it is longer.

    Raises
    ------
    StoreError
        It is longer.
    """
    pieces, left = [], wanted
    # One piece is all that is wanted: the stream makes pieces of this size, and gives less at the end only.
    for piece in answer.stream(min_chunk_size=wanted + 1):
        pieces.append(bytes(piece))
        left -= len(piece)
        if left < 0:
            raise overlong(url, wanted)
    return b"".join(pieces)


def _is_virtual(endpoint: Endpoint, bucket: str) -> bool:
    """Tell whether the bucket goes before the host, as botocore decides it."""
    if endpoint.style != "auto":
        return endpoint.style == "virtual"
    return bool(_AWS_HOST.fullmatch(urlsplit(endpoint.url).hostname or "") and _HOST_LABEL.fullmatch(bucket))


def _with_bucket(url: str, bucket: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{bucket}.{rest}"


def _in_region(endpoint: Endpoint, region: str) -> Endpoint:
    """Return the endpoint of another region; one that is not Amazon's is the same everywhere."""
    parts = urlsplit(endpoint.url)
    host = parts.hostname or ""
    if _AWS_HOST.fullmatch(host):
        host = host.replace(endpoint.region, region) if endpoint.region in host else f"s3.{region}.amazonaws.com"
        return endpoint._replace(url=parts._replace(netloc=host).geturl(), region=region)
    return endpoint._replace(region=region)
