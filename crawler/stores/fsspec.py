"""Any file system that fsspec knows, for URLs that no other adapter reads, and on request.

Web servers are in ``web``, since fsspec's own calls hide what an HTTP answer tells.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp
import fsspec
import fsspec.asyn
import fsspec.dircache
import pyarrow as pa

from crawler.errors import ObjectNotFoundError, StoreError
from crawler.stores.base import ByteRange, Fetched, ObjectRef
from crawler.stores.batches import batches
from crawler.stores.errors import check_same, failed, fetched, from_os_error, missing, sealed, sealed_listing
from crawler.stores.http.aiohttp_transport import from_client_error
from crawler.stores.urls import file_path, file_url, printable, scheme_of
from crawler.stores.values import describe, size_of, tag_of, time_of, writable

# What file systems call the same thing; the first that is there counts.
_ETAG = ("ETag", "etag", "e_tag", "content_md5", "md5Hash", "checksum")
_VERSION = ("VersionId", "version_id", "generation", "version")
_MODIFIED = ("LastModified", "last_modified", "mtime", "updated", "modify", "modified", "created")


class FsspecStore:
    """Objects of any URL that fsspec knows.

    Only few of its file systems can pin a read: here each read of a ref whose ETag or size is known is
    followed by a look at the object, after the bytes, so that an object which is still the one asked for
    then was so while it was read. Where a file system has no ETags, one is made of modification time, size
    and inode, as far as it tells.

    These file systems are written by many hands and raise errors of any kind: `OSError` where they fail by design,
    `KeyError` or `TypeError` where a server says what they did not expect. Each becomes a `StoreError`.

    Parameters
    ----------
    storage_options : Mapping[str, object]
        For the file system. One is made for each authority (bucket, host) of the URLs.
    """

    def __init__(self, storage_options: Mapping[str, object]) -> None:
        self._options = dict(storage_options)
        self._lock = threading.Lock()
        self._opened: dict[tuple[str, str], Any] = {}

    @sealed_listing
    def list(self, url: str, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield every object below ``url``, folder by folder, sorted in each; one folder's names are held.

        A linked folder that contains the link is not entered again.

        Raises
        ------
        ObjectNotFoundError
            There is no such folder.
        """
        return batches(self._walk(url), limit)

    @sealed
    def head(self, url: str) -> ObjectRef:
        """Describe one object. See `crawler.stores.base.ObjectStore.head`."""
        filesystem, path = self._located(url)
        try:
            info = dict(filesystem.info(path))
        except Exception as error:
            raise _mapped(url, error) from None
        if info.get("type") == "directory":
            raise missing(url, "is a folder, not an object")
        return _described(url, info)

    @sealed
    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        """Read one range of an object. See `crawler.stores.base.ObjectStore.get`.

        The look at the object is a second request.
        """
        filesystem, path = self._located(ref.url)
        # Blocking file systems open a file that reads ahead 5 MiB unless told not to; the others send one
        # request.
        plain = {} if isinstance(filesystem, fsspec.asyn.AsyncFileSystem) else {"cache_type": "none"}
        try:
            beyond = ref.size is not None and span.start >= ref.size
            data = b"" if beyond else bytes(filesystem.cat_file(path, span.start, span.stop, **plain))
        except Exception as error:
            # Gone, replaced by something shorter, or refused as a range beyond the end: a look tells.
            described = self._still(ref, error)
            if described.size is None or span.start < described.size:
                raise _mapped(ref.url, error) from None
            return fetched(ref, span, b"", described)
        return fetched(ref, span, data, self.head(ref.url))

    def _still(self, ref: ObjectRef, error: Exception) -> ObjectRef:
        if isinstance(error, (PermissionError, TimeoutError, FileNotFoundError)):
            raise _mapped(ref.url, error) from None
        described = self.head(ref.url)
        check_same(ref, described)
        return described

    def _walk(self, url: str) -> Iterator[ObjectRef]:
        filesystem, path = self._located(url)
        # Names are told below the path that was asked for; URLs are those below the URL that was.
        path = path.rstrip("/")
        left = [path]
        while left:
            folder = left.pop()
            try:
                entries = [dict(entry) for entry in filesystem.ls(folder or "/", detail=True)]
            except Exception as error:
                mapped = _mapped(self._url(url, path, folder), error)
                if not isinstance(mapped, ObjectNotFoundError):
                    raise mapped from None
                if folder == path:
                    raise missing(url, "no such folder") from None
                continue  # removed since its parent was read
            entries.sort(key=lambda entry: str(entry.get("name", "")))
            inner = []
            for entry in entries:
                name = str(entry.get("name", "")).rstrip("/")
                if not name.startswith(path):
                    said = f"an entry that is not below it: {name}" if name else "an entry without a name"
                    raise failed(self._url(url, path, folder), f"cannot be listed: it has {said}")
                kind = entry.get("type") or "file"
                if kind == "directory":
                    if name != folder and not _encloses_itself(entry, name):
                        inner.append(name)
                elif name == path:
                    raise missing(url, "is an object, not a folder")
                elif kind == "file" or entry.get("islink"):
                    yield _described(self._url(url, path, str(entry["name"])), entry)
            left.extend(reversed(inner))

    def _url(self, url: str, path: str, name: str) -> str:
        if scheme_of(url) == "file":
            return file_url(name or "/")
        below = name[len(path) :]
        scheme, separator, rest = url.partition("://")
        rest = rest.rstrip("/")
        return writable(scheme + separator + (rest + below if rest else below.lstrip("/")))

    def _located(self, url: str) -> tuple[Any, str]:
        scheme = scheme_of(url)
        key = (scheme, "" if scheme == "file" else url.partition("://")[2].partition("/")[0])
        filesystem = self._opened.get(key)
        if filesystem is None:
            with self._lock:
                filesystem = self._opened.get(key)
                if filesystem is None:
                    filesystem = self._opened[key] = self._made(url)
        if scheme == "file":
            return filesystem, file_path(url)
        try:
            return filesystem, str(filesystem._strip_protocol(url))
        except Exception as error:
            raise _mapped(url, error) from None

    def _made(self, url: str) -> Any:
        try:
            # Not fsspec.core.url_to_fs: it takes "::" in a key for the begin of another URL.
            kind = fsspec.get_filesystem_class(scheme_of(url))
            made = kind(**{**kind._get_kwargs_from_urls(url), "skip_instance_cache": True, **self._options})
        except (ImportError, TypeError) as error:
            raise failed(url, str(error)) from None
        except Exception as error:
            raise _mapped(url, error) from None
        # Listings are not kept: they would hide that an object was replaced, and hold every name.
        if isinstance(cache := getattr(made, "dircache", None), fsspec.dircache.DirCache):
            cache.use_listings_cache = False
        return made


def _encloses_itself(entry: Mapping[str, Any], name: str) -> bool:
    """Tell whether a folder is a link to one that the link lies in."""
    target = entry.get("destination")
    if not entry.get("islink") or target is None:
        return False
    target = target.decode(errors="surrogateescape") if isinstance(target, bytes) else str(target)
    return (name + "/").startswith(target.rstrip("/") + "/")


def _described(url: str, info: Mapping[str, Any]) -> ObjectRef:
    size, modified = size_of(info.get("size")), time_of(_first(info, _MODIFIED))
    etag = tag_of(_first(info, _ETAG))
    if etag is None and modified is not None:
        etag = f"{info.get('ino', '')}-{modified.timestamp():.6f}-{size}"
    return describe(url, size=size, etag=etag, version=_first(info, _VERSION), modified=modified)


def _first(info: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((info[name] for name in names if info.get(name) is not None), None)


def _mapped(url: str, error: Exception) -> StoreError:
    if isinstance(error, aiohttp.ClientError):
        return from_client_error(url, error)
    if isinstance(error, OSError):
        return from_os_error(url, error)
    return failed(printable(url), f"the file system refused ({type(error).__name__}: {error})")
