"""One file: a store that gives byte ranges and a walker that knows which, put together.

`FileWalk` yields HDUs as they are found and raises what goes wrong; `walk_file` never raises for a bad file but says
what became of it, as its row in the catalogue will.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from crawler.errors import CorruptError, FormatError, ObjectChangedError, StoreError, StoreUnavailableError
from crawler.fits.compression import MAGIC_BYTES, READABLE, Decompressor, sniff
from crawler.fits.units import Hdu
from crawler.fits.walker import EndOfFile, HeaderWalker, Limits, ReadPolicy
from crawler.stores.base import ByteRange, ObjectRef, ObjectStore

_STREAM_READ = 2 * 2**20
"""Longest read of a compressed file, in bytes; what one walk of a compressed file holds is about three times this."""

_CHANGES = 3
"""How often a file may be replaced under the walk before the walk is given up."""


@dataclass(slots=True)
class FileResult:
    """What became of one file: the columns of its row, and its HDUs.

    Attributes
    ----------
    ref : ObjectRef
        The object that was read, as the store last described it.
    status : str
        As in the catalogue: ``ok``, ``truncated``, ``corrupt``, ``not-fits``, ``unreadable`` or ``archived``.
    error : str or None
        One line: what, and at which byte.
    compression : str or None
    hdus : list of Hdu
        Also those found before a fault.
    trailing_bytes : int or None
        After the last data unit; None where the walk did not get there.
    pinned : bool
        Every byte was of one ETag.
    requests, bytes_read : int
    """

    ref: ObjectRef
    status: str = "ok"
    error: str | None = None
    compression: str | None = None
    hdus: list[Hdu] = field(default_factory=list)
    trailing_bytes: int | None = None
    pinned: bool = False
    requests: int = 0
    bytes_read: int = 0


class FileWalk:
    """The walk of one file in its store: an iterator of its HDUs.

    Iterating reads on demand, and raises `FormatError` or `StoreError` where the walk ends badly.

    Parameters
    ----------
    store : ObjectStore
    ref : ObjectRef
        Size and ETag may be unknown: the first answer tells.
    policy : ReadPolicy
    limits : Limits

    Attributes
    ----------
    ref : ObjectRef
        As the store last described it.
    compression : str or None
        Known after the first HDU or fault.
    trailing_bytes : int or None
        Known after the last HDU.
    requests, bytes_read : int
        So far.
    """

    def __init__(
        self, store: ObjectStore, ref: ObjectRef, policy: ReadPolicy = ReadPolicy(), limits: Limits = Limits()
    ) -> None:
        self._store = store
        self._policy = policy
        self._limits = limits
        self.ref = ref
        self.compression: str | None = None
        self.trailing_bytes: int | None = None
        self.requests = 0
        self.bytes_read = 0
        self._reach = 0  # one past the furthest byte that was read

    def __iter__(self) -> Iterator[Hdu]:
        head = b"" if self.ref.size == 0 else self._read(0, max(self._policy.first, MAGIC_BYTES))
        self.compression = sniff(head)
        if self.compression is None:
            yield from self._walk(_Plain(self), self.ref.size, head)
        elif self.compression in READABLE:
            yield from self._walk(_Stream(self, head, Decompressor(self.compression)), None, b"")
        else:
            raise CorruptError(f"cannot be read: compressed with {self.compression}, unpack it first", 0)

    def _walk(self, source: _Plain | _Stream, size: int | None, head: bytes) -> Iterator[Hdu]:
        walker = HeaderWalker(size, self._policy, self._limits)
        walker.receive(0, head)
        while not isinstance(event := walker.next_event(), EndOfFile):
            if isinstance(event, Hdu):
                yield event
                continue
            for start, stop in event.spans:
                walker.receive(start, source.read(start, stop))
            if source.size is not None:
                walker.ends_at(source.size)
        self.trailing_bytes = event.trailing_bytes

    def _read(self, start: int, stop: int) -> bytes:
        """Read bytes of the object as stored, cut at its end, and learn from the answer what it is."""
        if self.ref.size is not None:
            stop = min(stop, self.ref.size)
            if stop <= start:
                return b""
        self.requests += 1
        data, self.ref = self._store.get(self.ref, ByteRange(start, stop))
        self.bytes_read += len(data)
        if data:
            self._reach = max(self._reach, start + len(data))
        if len(data) < stop - start:
            if self.ref.size is None:
                self.ref = replace(self.ref, size=start + len(data) if data else self._find_size(start))
            elif start + len(data) < min(stop, self.ref.size):
                raise StoreUnavailableError(self.ref.url, f"the answer broke off after {len(data)} bytes")
        return data

    def _find_size(self, end: int) -> int:
        """Find the size of an object whose store does not tell it, and that has no byte at ``end`` or beyond.

        Nearly always it is ``end``, where the next header would be, and one byte is read; only a file that is
        truncated, which must not pass for whole, takes more.
        """
        at = end - 1
        while self._reach < end:
            self.requests += 1
            data, self.ref = self._store.get(self.ref, ByteRange(at, at + 1))
            self.bytes_read += len(data)
            if self.ref.size is not None:
                return self.ref.size
            if data:
                self._reach = at + 1
            else:
                end = at
            at = (self._reach + end) // 2
        return end


class _Plain:
    """A file that is read where the walker asks."""

    def __init__(self, walk: FileWalk) -> None:
        self._walk = walk

    @property
    def size(self) -> int | None:
        return self._walk.ref.size

    def read(self, start: int, stop: int) -> bytes:
        return self._walk._read(start, stop)


class _Stream:
    """A compressed file, read forward; what the walker jumps over is decompressed and forgotten.

    Attributes
    ----------
    size : int or None
        Decompressed bytes, once the end was seen.
    """

    def __init__(self, walk: FileWalk, head: bytes, decompressor: Decompressor) -> None:
        self._walk = walk
        self._decompressor = decompressor
        self._decompressor.feed(head)
        self._chunk = b""
        self._chunk_at = 0  # of the chunk's first byte in the decompressed stream
        self._next_read = len(head)
        self._fault: FormatError | None = None
        self.size: int | None = None

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes from ``start``, which is not before the last read's, to ``stop`` or the end.

        A damaged stream gives what lies before the damage first, and raises `FormatError` when asked again.
        """
        parts: list[bytes] = []
        at = start
        while at < stop:
            if at < self._chunk_at + len(self._chunk):
                parts.append(self._chunk[at - self._chunk_at : stop - self._chunk_at])
                at += len(parts[-1])
            elif not self._advance():
                break
        if not parts and self._fault is not None:
            raise self._fault
        return b"".join(parts)

    def _advance(self) -> bool:
        """Decompress the next chunk; False at the end, and where the stream is damaged."""
        if self.size is not None or self._fault is not None:
            return False
        self._chunk_at += len(self._chunk)
        self._chunk = b""
        try:
            while not (chunk := self._decompressor.read()):
                data = self._walk._read(self._next_read, self._next_read + min(self._next_read, _STREAM_READ))
                self._next_read += len(data)
                if not data:
                    self._decompressor.finish()
                    self.size = self._chunk_at
                    return False
                self._decompressor.feed(data)
        except FormatError as fault:
            self._fault = fault
            return False
        self._chunk = chunk
        return True


def walk_file(
    store: ObjectStore, ref: ObjectRef, policy: ReadPolicy = ReadPolicy(), limits: Limits = Limits()
) -> FileResult:
    """Walk one file to its end and say what became of it.

    A file that is replaced under the walk is walked again as what it now is, so that no row ever mixes two.

    Raises
    ------
    Nothing that the file or its store could cause.
    """
    requests = bytes_read = 0
    for attempt in range(1, _CHANGES + 1):
        walk = FileWalk(store, ref, policy, limits)
        result = FileResult(walk.ref)
        changed = False
        try:
            for hdu in walk:
                result.hdus.append(hdu)
        except FormatError as fault:
            result.status, result.error = fault.status, str(fault)
        except ObjectChangedError as fault:
            result.status, result.error, result.hdus, changed = "unreadable", fault.reason, [], True
        except StoreError as fault:
            result.status, result.error = fault.status, fault.reason
        requests += walk.requests
        bytes_read += walk.bytes_read
        if not changed or attempt == _CHANGES:
            break
        try:
            ref = store.head(ref.url)
        except StoreError as fault:  # deleted, most likely: the row says so
            result.error = fault.reason
            break
        finally:
            requests += 1
    result.ref = walk.ref
    result.compression = walk.compression
    result.trailing_bytes = walk.trailing_bytes
    result.pinned = walk.ref.etag is not None
    result.requests, result.bytes_read = requests, bytes_read
    return result
