"""The walk of one file, as a generator: it yields the ranges that it needs and the HDUs that it finds, and never reads.

The generator is sent what the store gave for each range. Compressed files are decompressed on the way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from crawler.errors import CorruptError, FormatError, ObjectChangedError, StoreError, StoreUnavailableError
from crawler.fits.compression import MAGIC_BYTES, READABLE, Decompressor, sniff
from crawler.fits.layouts import NOTHING, Guess
from crawler.fits.units import Hdu, Span
from crawler.fits.walker import EndOfFile, HeaderWalker
from crawler.job.scope import Scope
from crawler.stores.base import ByteRange, Fetched, ObjectRef
from crawler.text import plural

_STREAM_READ = 2 * 2**20
"""Longest read of a compressed file, in bytes; what one walk of a compressed file holds is about three times this."""


class Reads(NamedTuple):
    """Ranges of one object that a walk wants, all of them before it goes on.

    Attributes
    ----------
    ref : ObjectRef
        What they are to be of.
    spans : tuple of ByteRange
        One or more.
    """

    ref: ObjectRef
    spans: tuple[ByteRange, ...]


Answers: TypeAlias = list[Fetched | StoreError]
"""What the store gave for each range, or why it did not; sent into the walk. What follows an error may be left out."""


class FileWalk:
    """The walk of one file.

    Parameters
    ----------
    ref : ObjectRef
        Size and ETag may be unknown: the first answer tells.
    scope : Scope
    guess : Guess
        Where its headers may be.
    is_late : callable
        Asked before each read, and before each step of decompression. Once it is true the walk is given up.

    Attributes
    ----------
    scope : Scope
    ref : ObjectRef
        As the store last described it.
    compression : str or None
        Known after the first HDU or fault.
    trailing_bytes : int or None
        Known after the last HDU.
    stopped : bool
        The walk stopped where its scope ends, and the file goes on or may do so.
    requests, bytes_read, round_trips : int
        So far.
    """

    def __init__(
        self,
        ref: ObjectRef,
        scope: Scope = Scope(),
        guess: Guess = NOTHING,
        is_late: Callable[[], bool] = lambda: False,
    ) -> None:
        self.scope = scope
        self._guess = guess
        self._is_late = is_late
        self.ref = ref
        self.compression: str | None = None
        self.trailing_bytes: int | None = None
        self.stopped = False
        self.requests = 0
        self.bytes_read = 0
        self.round_trips = 0
        self._reach = 0  # one past the furthest byte that was read
        self._fault: StoreError | None = None  # why what was asked for last did not all come

    def steps(self) -> Generator[Hdu | Reads, Answers, None]:
        """Yield HDUs as they are found, and between them the reads that it takes.

        Raises
        ------
        FormatError
            The walk ends badly; HDUs that were yielded stand.
        StoreError
            As sent in; or an answer broke off; or it is too late. HDUs in ranges that came before are yielded first.
        """
        scope = self.scope
        walker = HeaderWalker(self.ref.size, scope.policy, scope.limits, self._guess)
        spans = self._first_reads(walker)
        pieces = yield from self._read(spans)
        self.compression = sniff(pieces[0])
        if self.compression is None:
            yield from self._walk_plain(walker, spans, pieces)
        elif self.compression in READABLE:
            yield from self._walk_stream(_Stream(self, pieces[0], Decompressor(self.compression)))
        else:
            raise CorruptError(f"cannot be read: compressed with {self.compression}, unpack it first", 0)

    def _first_reads(self, walker: HeaderWalker) -> list[Span]:
        """Return what is read first."""
        if self.ref.size == 0:
            return [Span(0, MAGIC_BYTES)]
        if self._guess.compressed and self.scope.max_hdus is None:
            return [Span(0, _STREAM_READ)]
        event = walker.next_event()
        assert not isinstance(event, Hdu | EndOfFile)  # noqa: S101 - for the type checker: it has no bytes yet
        first, *rest = event.spans
        # Ranges that are read at once are of one object only where they are pinned.
        rest = rest if self.ref.etag is not None and self.ref.size is not None else []
        return [Span(0, max(first.stop, MAGIC_BYTES)), *rest]

    def _walk_plain(
        self, walker: HeaderWalker, spans: list[Span], pieces: list[bytes]
    ) -> Generator[Hdu | Reads, Answers, None]:
        while True:
            for span, piece in zip(spans, pieces, strict=False):
                walker.receive(span.start, piece)
            if self.ref.size is not None:
                walker.ends_at(self.ref.size)
            while isinstance(event := walker.next_event(), Hdu):
                yield event
                if self._is_enough(event, self.ref.size):
                    return
            if isinstance(event, EndOfFile):
                self.trailing_bytes = event.trailing_bytes
                return
            if self._fault is not None:
                raise self._fault
            spans = list(event.spans if self.ref.etag is not None else event.spans[:1])
            pieces = yield from self._read(spans)

    def _walk_stream(self, stream: _Stream) -> Generator[Hdu | Reads, Answers, None]:
        walker = HeaderWalker(None, self.scope.policy, self.scope.limits)
        while not isinstance(event := walker.next_event(), EndOfFile):
            if isinstance(event, Hdu):
                yield event
                if self._is_enough(event, stream.size):
                    return
                continue
            for start, stop in event.spans:
                piece = yield from stream.read(start, stop)
                walker.receive(start, piece)
            if stream.size is not None:
                walker.ends_at(stream.size)
        self.trailing_bytes = event.trailing_bytes

    def check_time(self) -> None:
        """Give the walk up if it is too late.

        Raises
        ------
        StoreUnavailableError
        """
        if self._is_late():
            limit = self.scope.timeout
            raise StoreUnavailableError(self.ref.url, f"walk given up after {limit:,.0f} s: --file-timeout allows more")

    def _is_enough(self, hdu: Hdu, size: int | None) -> bool:
        """Tell whether to stop after an HDU. A file that ends with it is walked to its end, which takes no read."""
        self.stopped = hdu.index + 1 == self.scope.max_hdus and (size is None or size > hdu.end)
        return self.stopped

    def _read(self, spans: list[Span]) -> Generator[Reads, Answers, list[bytes]]:
        """Read bytes of the object as stored, cut at its end, and learn from the answers what it is.

        Returns those of the first so many spans, up to the one that did not come.
        """
        # What a listing says to be empty is asked for its first bytes: nothing else tells where the listing is wrong.
        size = self.ref.size or None
        cut = [ByteRange(span.start, span.stop if size is None else min(span.stop, size)) for span in spans]
        wanted = tuple(span for span in cut if span.start < span.stop)
        if not wanted:
            return [b""] * len(spans)
        answers = yield from self._ask(wanted)
        self.ref = answers[0].ref
        came: deque[bytes] = deque()
        for span, (data, _) in zip(wanted, answers, strict=False):
            self.bytes_read += len(data)
            if data:
                self._reach = max(self._reach, span.start + len(data))
            if len(data) < len(span):
                if self.ref.size is None:
                    found = span.start + len(data) if data else (yield from self._find_size(span.start))
                    self.ref = replace(self.ref, size=found)
                elif span.start + len(data) < min(span.stop, self.ref.size):
                    said = f"the answer broke off after {len(data)} {plural(len(data), 'byte')}"
                    self._fault = StoreUnavailableError(self.ref.url, said, "short-body")
                    break
            came.append(data)
        if self._fault is not None and not came:
            raise self._fault
        pieces = []
        for span in cut:
            if span.start < span.stop and not came:
                break
            pieces.append(came.popleft() if span.start < span.stop else b"")
        return pieces

    def _ask(self, spans: tuple[ByteRange, ...]) -> Generator[Reads, Answers, list[Fetched]]:
        """Have ranges read at once; return the answers up to the first range that did not come, one at least."""
        self.check_time()
        answers = yield Reads(self.ref, spans)
        self.requests += len(spans)
        self.round_trips += 1
        self._fault = None
        came: list[Fetched] = []
        for answer in answers:
            if isinstance(answer, ObjectChangedError):  # whatever came: it is of what is no more
                raise answer
            if isinstance(answer, StoreError):
                self._fault = self._fault or answer
            elif self._fault is None:
                came.append(answer)
        if self._fault is not None and not came:
            raise self._fault
        return came

    def _find_size(self, end: int) -> Generator[Reads, Answers, int]:
        """Find the size of an object whose store does not tell it, and that has no byte at ``end`` or beyond.

        Nearly always it is ``end``, where the next header would be, and one byte is read; only a file that is
        truncated, which must not pass for whole, takes more.
        """
        at = end - 1
        while self._reach < end:
            ((data, self.ref),) = yield from self._ask((ByteRange(at, at + 1),))
            self.bytes_read += len(data)
            if self.ref.size is not None:
                return self.ref.size
            if data:
                self._reach = at + 1
            else:
                end = at
            at = (self._reach + end) // 2
        return end

    def read_stream(self, start: int) -> Generator[Reads, Answers, bytes]:
        """Read a compressed file on from ``start``: all that can be held, unless less may do."""
        length = _STREAM_READ if self.scope.max_hdus is None else min(start, _STREAM_READ)
        (data,) = yield from self._read([Span(start, start + length)])
        return data


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
        self._fault: FormatError | StoreError | None = None
        self.size: int | None = None

    def read(self, start: int, stop: int) -> Generator[Reads, Answers, bytes]:
        """Return bytes from ``start``, which is not before the last read's, to ``stop`` or the end.

        A stream that cannot be read on, because it is damaged, the store refuses it or it is too late, gives first what
        lies before, and raises when asked again.
        """
        parts: list[bytes] = []
        at = start
        while at < stop:
            if at < self._chunk_at + len(self._chunk):
                parts.append(self._chunk[at - self._chunk_at : stop - self._chunk_at])
                at += len(parts[-1])
            elif not (yield from self._advance()):
                break
        if not parts and self._fault is not None:
            raise self._fault
        return b"".join(parts)

    def _advance(self) -> Generator[Reads, Answers, bool]:
        """Decompress the next chunk; False at the end, and where the stream cannot be read on."""
        if self.size is not None or self._fault is not None:
            return False
        self._chunk_at += len(self._chunk)
        self._chunk = b""
        try:
            while not self._chunk:
                self._walk.check_time()
                chunk = self._decompressor.read()
                if chunk is not None:
                    self._chunk = chunk
                    continue
                data = yield from self._walk.read_stream(self._next_read)
                self._next_read += len(data)
                if not data:
                    self._decompressor.finish()
                    self.size = self._chunk_at
                    return False
                self._decompressor.feed(data)
        except (FormatError, StoreError) as fault:
            self._fault = fault
            return False
        return True
