"""Local folders, on the calls of the operating system.

Never obstore's local store: it fails a whole listing on one name with a newline in it, panics on one modification time
that is far from now, and cannot name a file ``a#1`` or one that is no UTF-8. Measured, 11 KB ranges of a cached file on
one thread: obstore 66-115 us bare and 84-114 us through its adapter, this one 12 us, of which the system calls are 6. A
listing costs 13 us a file, stat included.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote_from_bytes

import pyarrow as pa

from crawler.errors import ObjectNotFoundError
from crawler.stores.base import LISTING_SCHEMA, ByteRange, Fetched, ObjectRef
from crawler.stores.batches import BATCH_ROWS
from crawler.stores.errors import fetched, from_os_error, missing, sealed, sealed_listing
from crawler.stores.urls import file_path
from crawler.stores.values import microseconds_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# O_NONBLOCK: opening a fifo must not wait for its writer. It does nothing to regular files.
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class _Entry(NamedTuple):
    """One name in a folder.

    ``order`` is the name, with a slash after a folder's: sorting by it inside each folder puts whole paths
    into byte order, depth first.
    """

    order: bytes
    path: bytes
    is_folder: bool


class _File(NamedTuple):
    """What a listing says of one file; all but the URL None where the file system does not say it. Times in us."""

    url: str
    size: int | None
    etag: str | None
    modified: int | None


class LocalStore:
    """Files below folders of this computer, as ``file:///`` URLs.

    The ETag is made of inode, modification time (ns) and size, so that a file that was written to or
    replaced is noticed; a replacement that restores all three is not.
    """

    @sealed_listing
    def list(self, url: str, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield every file below the folder ``url``, in byte order of their paths.

        Links are followed, to folders too, but not to a folder that the link itself lies in. A link to
        nothing, and a file that cannot be asked for its size, are listed without size, so that neither is
        lost. Sockets, fifos and devices are left out, and so is what vanishes while it is listed. Of each
        folder on the way down the names are held, of files one batch.

        Raises
        ------
        ObjectNotFoundError
            There is no such folder.
        AccessDeniedError
            It, or a folder below it, cannot be read. The message names it.
        """
        return _batches(_walk(url), limit)

    @sealed
    def head(self, url: str) -> ObjectRef:
        """Describe one file. See `crawler.stores.base.ObjectStore.head`."""
        try:
            return _regular(url, Path(_path(url)).stat())
        except OSError as error:
            raise from_os_error(url, error) from None

    @sealed
    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        """Read one range of a file. See `crawler.stores.base.ObjectStore.get`."""
        try:
            descriptor = os.open(_path(ref.url), _OPEN)
            try:
                data = _read(descriptor, span)
                # After the read, not before: a file that was the one asked for even then was so all along.
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise from_os_error(ref.url, error) from None
        if ref.etag == _etag(status) and ref.size == status.st_size and stat.S_ISREG(status.st_mode):
            # Nothing new is known. Data are whole: whatever shortens a file changes its size.
            return Fetched(data, ref)
        return fetched(ref, span, data, _regular(ref.url, status))


def _path(url: str) -> str:
    path = file_path(url)
    if "\0" in path:  # no file has such a name; os.open would raise ValueError
        raise missing(url)
    return path


def _read(descriptor: int, span: ByteRange) -> bytes:
    # One pread is nearly always all; it may give less over a network file system, or above 2 GiB.
    data = os.pread(descriptor, len(span), span.start)
    while len(data) < len(span):
        more = os.pread(descriptor, len(span) - len(data), span.start + len(data))
        if not more:
            break
        data += more
    return data


def _regular(url: str, status: os.stat_result) -> ObjectRef:
    if stat.S_ISDIR(status.st_mode):
        raise missing(url, "is a folder, not an object")
    if not stat.S_ISREG(status.st_mode):
        raise missing(url, "is not a regular file")
    modified = microseconds_of(status.st_mtime_ns)
    return ObjectRef(
        url=url,
        size=status.st_size,
        etag=_etag(status),
        last_modified=None if modified is None else _EPOCH + timedelta(microseconds=modified),
    )


def _etag(status: os.stat_result) -> str:
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def _batches(files: Iterator[_File], limit: int | None) -> Iterator[pa.RecordBatch]:
    # By columns of plain numbers: objects and datetimes made for each file would cost three times as much.
    while chunk := list(islice(files, min(BATCH_ROWS, limit or BATCH_ROWS))):
        urls, sizes, etags, times = zip(*chunk, strict=True)
        columns = {
            "url": pa.array(urls, type=pa.string()),
            "size": pa.array(sizes, type=pa.int64()),
            "etag": pa.array(etags, type=pa.string()),
            "version": pa.nulls(len(chunk), type=pa.string()),
            "last_modified": pa.array(times, type=pa.int64()).cast(LISTING_SCHEMA.field("last_modified").type),
        }
        yield pa.record_batch([columns[name] for name in LISTING_SCHEMA.names], schema=LISTING_SCHEMA)


def _walk(url: str) -> Iterator[_File]:
    root = os.fsencode(_path(url))
    try:
        identity = _identity(root)
        entries = _entries(root)
    except OSError as error:
        raise _of_folder(url, error) from None
    # Folders being listed, innermost last: a stack of our own, since paths may nest deeper than Python's
    # does.
    open_folders = [(identity, iter(entries))]
    while open_folders:
        entry = next(open_folders[-1][1], None)
        if entry is None:
            open_folders.pop()
        elif not entry.is_folder:
            if (file := _described(entry.path)) is not None:
                yield file
        else:
            try:
                identity = _identity(entry.path)
                if all(identity != outer for outer, _ in open_folders):
                    open_folders.append((identity, iter(_entries(entry.path))))
            except FileNotFoundError:
                continue  # removed since its parent was read: nothing is there any more
            except OSError as error:
                raise _of_folder(_url(entry.path), error) from None


def _of_folder(url: str, error: OSError) -> Exception:
    mapped = from_os_error(url, error)
    if isinstance(mapped, ObjectNotFoundError):
        return missing(url, "is not a folder" if isinstance(error, NotADirectoryError) else "no such folder")
    return mapped


def _identity(folder: bytes) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116 - bytes, which pathlib does not take
    return status.st_dev, status.st_ino


def _entries(folder: bytes) -> list[_Entry]:
    entries = []
    with os.scandir(folder) as found:
        for item in found:
            try:
                is_folder = item.is_dir()
            except OSError:  # a link to what may not be looked at, or to itself: listed, of unknown size
                is_folder = False
            entries.append(_Entry(item.name + b"/" if is_folder else item.name, item.path, is_folder))
    entries.sort()
    return entries


def _described(path: bytes) -> _File | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - bytes, which pathlib does not take
    except FileNotFoundError:
        # A link to nothing is listed, a file removed since its folder was read is not.
        return _File(_url(path), None, None, None) if os.path.islink(path) else None  # noqa: PTH114 - bytes
    except OSError:
        return _File(_url(path), None, None, None)
    if not stat.S_ISREG(status.st_mode):
        return None
    return _File(_url(path), status.st_size, _etag(status), microseconds_of(status.st_mtime_ns))


def _url(path: bytes) -> str:
    return "file://" + quote_from_bytes(path)
