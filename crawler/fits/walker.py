"""Walk a FITS file from header to header without reading it: the caller reads.

Sans I/O: a `HeaderWalker` is told the size of a file if it is known, asks for byte ranges, is given bytes, and
yields HDUs. It never sees a store, a thread or a clock, so that every split of the bytes can be tested without a
server, and one walker serves objects read by range, local files and decompressed streams alike::

    walker = HeaderWalker(size)
    while not isinstance(event := walker.next_event(), EndOfFile):
        if isinstance(event, Hdu):
            ...
        else:
            for span in event.spans:
                walker.receive(span.start, read(span))
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from crawler.errors import CorruptError, FormatError, NotFitsError, TruncatedError
from crawler.fits.layouts import NOTHING, Guess
from crawler.fits.policy import ReadPolicy
from crawler.fits.structure import is_doubtful, parse_hdu
from crawler.fits.units import BLOCK, CARD, Hdu, Span, find_end, padded
from crawler.text import plural

WALKER_VERSION = 2
"""Raised when a fix changes what a walk finds, so that running again walks again (``files.walker_version``).

2: a header ends only at a card whose keyword is END; repeated structural keywords count as in astropy and CFITSIO;
values of them that neither reads are corrupt; a compressed file keeps the HDUs before a failure of the store.
"""

_GUESSED_BYTES = 4 * 2**20
"""Bytes of guessed headers that are asked for at once: they are held until the walk gets there."""

_PRIMARY = b"SIMPLE  ="
_BEGINNING = 10  # bytes that tell whether a header begins
_EXTENSIONS = (b"XTENSION=", b"XTENSION =")  # the second is no card of FITS, but astropy and CFITSIO read it


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an untrusted file may make us hold.

    Attributes
    ----------
    header_bytes : int
        Longest header unit that is read to its END. The longest seen in 8,949 real files has 147 blocks
        (423 kB); a table of 999 columns with ten keywords each would have 800 kB.
    file_bytes : int
        Header bytes of one file, all HDUs together. The most seen is 4 MB.
    """

    header_bytes: int = 16 * 2**20
    file_bytes: int = 256 * 2**20


@dataclass(frozen=True, slots=True)
class NeedBytes:
    """The walk cannot go on without these bytes.

    Attributes
    ----------
    spans : tuple of Span
        One or more, not overlapping, in order. They may reach beyond the end of a file of unknown size.
    """

    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class EndOfFile:
    """The walk is over, and nothing was wrong.

    Attributes
    ----------
    n_hdus : int
    trailing_bytes : int
        After the last data unit, padding included (section 3.5, special records, and whatever else is there).
    """

    n_hdus: int
    trailing_bytes: int


class HeaderWalker:
    """The walk of one file.

    Parameters
    ----------
    size : int or None
        Bytes of the file, or of its decompressed stream; None where that is not known yet (see `ends_at`).
    policy : ReadPolicy
    limits : Limits
    guess : Guess
        What is asked for before the walk gets there. It changes the reads, and never what is found.

    Notes
    -----
    Only `FormatError` escapes `next_event`, whatever the bytes are. HDUs that were yielded before it stand. After
    an `EndOfFile` or an error, every further call gives the same again.
    """

    def __init__(
        self,
        size: int | None,
        policy: ReadPolicy = ReadPolicy(),
        limits: Limits = Limits(),
        guess: Guess = NOTHING,
    ) -> None:
        self._size = size
        self._policy = policy
        self._limits = limits
        self._guess = guess
        self._guessed = 0  # of its headers, how many were asked for or passed by
        self._doubt = False  # the last HDU was not as guessed
        self._ahead = policy.gap  # bytes to read where headers lie close together
        self._bytes = _Pieces()
        self._header_at = 0  # first byte of the header that is looked for
        self._searched = 0  # bytes of it that are known to hold no END; whole cards
        self._junk_to: int | None = None  # what follows the last HDU is no header; seen up to here, the end unknown
        self._last: Hdu | None = None
        self._header_bytes = 0  # of all headers so far
        self._over: EndOfFile | FormatError | None = None

    def ends_at(self, size: int) -> None:
        """Say how many bytes the file has, as soon as that is known: a read fell short, or an answer told."""
        self._size = size

    def receive(self, start: int, data: bytes) -> None:
        """Take bytes of the file.

        They may be fewer, more or other ones than were asked for, in any order: the walker keeps those that it can
        use, and asks again for what is still missing.

        Parameters
        ----------
        start : int
            Where they lie in the file.
        data : bytes
        """
        if self._junk_to is not None:
            self._junk_to = max(self._junk_to, start + len(data))
        elif self._over is None:
            # Here and not after every HDU: thousands of them may lie in one run, and each cut copies it.
            self._bytes.drop_before(self._header_at)
            self._bytes.add(max(start, self._header_at), data[max(0, self._header_at - start) :])

    def next_event(self) -> NeedBytes | Hdu | EndOfFile:
        """Go on as far as the bytes at hand allow.

        Raises
        ------
        FormatError
            The walk is over: the file is not FITS, is truncated or is corrupt.
        """
        if self._over is None:
            try:
                event = self._step()
            except FormatError as fault:
                self._over = fault
            else:
                if not isinstance(event, EndOfFile):
                    return event
                self._over = event
        if isinstance(self._over, FormatError):
            raise self._over
        return self._over

    def _step(self) -> NeedBytes | Hdu | EndOfFile:
        start, size = self._header_at, self._size
        if size is not None and size <= start:
            return self._end_before_header(size)
        if self._junk_to is not None:
            return self._after_last(size)
        data, base = self._bytes.run_at(start)
        have = len(data) - base
        at_end = size is not None and start + have >= size
        if have < CARD and not at_end:
            return self._need(have)
        if not self._begins_header(data[base : base + _BEGINNING]):
            if self._last is None:
                raise NotFitsError(f"does not begin with SIMPLE but with {data[base : base + 16]!r}", 0)
            self._junk_to = start + have
            self._bytes.clear()
            return self._after_last(size)

        longest = self._limits.header_bytes
        end = find_end(data, base, base + self._searched)
        if 0 <= end <= base + longest - CARD:
            header, rest = data[base:end], data[end : base + padded(end - base + CARD)]
            # Which of repeated keywords counts may depend on the padding.
            if (len(header) + len(rest)) % BLOCK == 0 or not is_doubtful(header):
                return self._hdu(header, rest)
        elif have >= longest:
            raise CorruptError(f"header of HDU {self._index} has no END within {longest} bytes", start)
        else:
            self._searched = have // CARD * CARD
        if at_end:
            raise TruncatedError(f"file ends at byte {size}, inside the header of HDU {self._index}", start)
        return self._need(have)

    @property
    def _index(self) -> int:
        """Index of the HDU whose header is looked for."""
        return 0 if self._last is None else self._last.index + 1

    def _hdu(self, header: bytes, end: bytes) -> Hdu:
        hdu = parse_hdu(self._index, self._header_at, header, end)
        self._header_bytes += hdu.header_size
        if self._header_bytes > self._limits.file_bytes:
            raise CorruptError(f"more than {self._limits.file_bytes} bytes of headers", self._header_at)
        self._last = hdu
        self._compare(hdu)
        if padded(hdu.data_size) > self._policy.gap:
            self._ahead = self._policy.gap
        self._header_at = hdu.end
        self._searched = 0
        return hdu

    def _compare(self, hdu: Hdu) -> None:
        """Compare an HDU with the guess, and mend the guess.

        An HDU that is longer than guessed, a block of HISTORY or more rows of a table, moves those behind it. So they
        are asked for where they then would be: first the next one alone, and if that is as guessed, all the others.
        """
        guess, index = self._guess, hdu.index
        if index >= len(guess.lengths):
            return
        alike = hdu.header_size == guess.lengths[index]
        if self._doubt and not alike:
            self._guess = NOTHING  # it is another product: what is known of that misleads
            return
        shift = hdu.end - guess.headers[index + 1].start if index + 1 < len(guess.headers) else 0
        self._doubt = bool(shift) or not alike
        if shift:
            headers = tuple(Span(start + shift, stop + shift) for start, stop in guess.headers)
            self._guess = replace(guess, headers=headers)
            self._guessed = index + 1

    def _begins_header(self, seen: bytes) -> bool:
        """Tell whether what lies at the header's place is one, as far as its bytes are there."""
        if self._last is None:
            return seen.startswith(_PRIMARY)
        # A second SIMPLE is one FITS file appended to another: not allowed, but seen, and astropy walks it.
        return bool(seen) and any(seen[: len(card)] == card[: len(seen)] for card in (_PRIMARY, *_EXTENSIONS))

    def _after_last(self, size: int | None) -> NeedBytes | EndOfFile:
        """Report what follows the last HDU; where the size is unknown, look for the end, holding nothing."""
        if size is None:
            assert self._junk_to is not None  # noqa: S101 - for the type checker: the caller looked
            return NeedBytes((Span(self._junk_to, self._junk_to + self._policy.longest),))
        return EndOfFile(self._index, size - self._header_at)

    def _end_before_header(self, size: int) -> EndOfFile:
        """Say what a file of ``size`` bytes means that ends at or before the place of the next header."""
        last = self._last
        if last is None:
            raise NotFitsError("empty file", 0)
        if size == last.end:
            return EndOfFile(self._index, 0)
        data_end = last.data_offset + last.data_size
        if size < last.data_offset:
            raise TruncatedError(f"file ends inside the padding of the header of HDU {last.index}", size)
        if size < data_end:
            short = data_end - size
            raise TruncatedError(
                f"file ends {short} {plural(short, 'byte')} before the data of HDU {last.index} do", size
            )
        raise TruncatedError(f"file ends inside the padding of HDU {last.index}, its data whole", size)

    def _need(self, have: int) -> NeedBytes:
        """Ask for the bytes from the header's place on, beyond the ``have`` ones at hand."""
        start = self._header_at + have
        if spans := self._next_guessed(start):
            return NeedBytes(spans)
        policy = self._policy
        length = self._choose_length() - have
        if have and length <= 0:  # it is longer than expected
            length = min(max(policy.header, have), policy.longest)
        stop = start + max(length, CARD)
        return NeedBytes((Span(start, stop if self._size is None else min(stop, self._size)),))

    def _choose_length(self) -> int:
        """Return how many bytes to read for the header that is looked for: more each time where they lie close."""
        lengths, last, policy = self._guess.lengths, self._last, self._policy
        if self._index < len(lengths):
            return lengths[self._index]
        if last is None:
            return policy.gap if self._size is not None and self._size <= policy.gap else policy.first
        if not last.index:
            return policy.header
        if 0 < last.data_size <= policy.gap:
            # The header before was no further away than what is worth reading, and so may be the ones behind.
            length, self._ahead = self._ahead, min(2 * self._ahead, policy.longest)
            return max(length, last.header_size)
        return min(last.header_size, policy.longest)

    def _next_guessed(self, start: int) -> tuple[Span, ...]:
        """Return the reads of guessed headers from ``start`` on; none where no header was guessed to begin there.

        Each is asked for once, so that a wrong guess ends in the plain walk.
        """
        headers, at = self._guess.headers, self._guessed
        while at < len(headers) and headers[at].start < start:
            at += 1
        self._guessed = at
        if at >= len(headers) or headers[at].start != start:
            return ()
        reads: list[Span] = []
        held = 0
        for header in headers[at : at + 1] if self._doubt else headers[at:]:
            if held and held + header.stop - header.start > _GUESSED_BYTES:
                break
            if reads and header.start - reads[-1].stop <= self._policy.gap:
                held += header.stop - reads[-1].stop
                reads[-1] = Span(reads[-1].start, header.stop)
            else:
                held += header.stop - header.start
                reads.append(header)
            self._guessed += 1
        return tuple(reads)


class _Pieces:
    """Bytes of a file that were received and not used yet, as disjoint runs in order.

    Most of the time there is one run, and it grows at its end or is dropped.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[int, bytes]] = []

    def add(self, start: int, data: bytes) -> None:
        """Add bytes; where they overlap what is there, what is there stays."""
        if not data:
            return
        runs: list[tuple[int, bytes]] = []
        for at, run in sorted([*self._runs, (start, data)], key=lambda piece: piece[0]):
            if runs and at <= (reach := runs[-1][0] + len(runs[-1][1])):
                runs[-1] = (runs[-1][0], runs[-1][1] + run[reach - at :])
            else:
                runs.append((at, run))
        self._runs = runs

    def run_at(self, start: int) -> tuple[bytes, int]:
        """Return the run that holds byte ``start`` and its index there; an empty run where none does."""
        for at, run in self._runs:
            if at <= start < at + len(run):
                return run, start - at
        return b"", 0

    def drop_before(self, start: int) -> None:
        """Forget the bytes before ``start``."""
        self._runs = [(max(at, start), run[max(0, start - at) :]) for at, run in self._runs if at + len(run) > start]

    def clear(self) -> None:
        """Forget everything."""
        self._runs = []
