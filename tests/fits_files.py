"""FITS files written by hand, byte by byte, and what walks them in tests.

Not through astropy, which mends what it writes: every helper here writes exactly what it is told, so that files which
break the Standard can be made as easily as good ones. Units are bytes, so files are sums::

    image_hdu((100, 100), bitpix=16) + bintable_hdu(24, 10, heap=1000)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import pyarrow as pa

from crawler.errors import FormatError, ObjectChangedError, ObjectNotFoundError
from crawler.fits.layouts import NOTHING, Guess
from crawler.fits.policy import ReadPolicy
from crawler.fits.units import Hdu
from crawler.fits.walker import EndOfFile, HeaderWalker, Limits
from crawler.stores.base import ByteRange, Fetched, ObjectRef

BLOCK = 2880
CARD = 80
MiB = 2**20

Text = str | bytes


def card(image: Text) -> bytes:
    """Return one card image: the text in latin-1, with blanks up to 80 bytes."""
    raw = image.encode("latin-1") if isinstance(image, str) else image
    assert len(raw) <= CARD, f"{len(raw)} bytes do not fit a card: {raw!r}"
    return raw.ljust(CARD)


def entry(keyword: str, value: object) -> bytes:
    """Return a card of fixed format: T or F for a bool, quotes around a string."""
    if isinstance(value, bool):
        text = f"{'T' if value else 'F':>20}"
    elif isinstance(value, str):
        text = f"'{value:<8}'"
    else:
        text = f"{value!s:>20}"
    return card(f"{keyword:<8}= {text}")


def header(*cards: Text, end: Text | None = "END", pad: bytes | None = b" ") -> bytes:
    """Return a header unit.

    Parameters
    ----------
    *cards : str or bytes
        Card images, each filled with blanks to 80 bytes.
    end : str, bytes or None
        The END card; None for a header without one.
    pad : bytes or None
        What fills the last block, repeated; None to leave it short.
    """
    images = [*cards] if end is None else [*cards, end]
    unit = b"".join(map(card, images))
    return unit if pad is None else fill(unit, pad)


def fill(unit: bytes, pad: bytes = b"\0") -> bytes:
    """Return ``unit`` with whatever fills its last block."""
    missing = -len(unit) % BLOCK
    return unit + (pad * missing)[:missing]


def structure(
    shape: tuple[int, ...], bitpix: int, *, first: bytes, pcount: int | None = None, gcount: int | None = None
) -> list[bytes]:
    """Return the mandatory cards of a header in their order, ``first`` before them."""
    cards = [first, entry("BITPIX", bitpix), entry("NAXIS", len(shape))]
    cards += [entry(f"NAXIS{axis}", length) for axis, length in enumerate(shape, 1)]
    cards += [] if pcount is None else [entry("PCOUNT", pcount)]
    cards += [] if gcount is None else [entry("GCOUNT", gcount)]
    return cards


def image_hdu(
    shape: tuple[int, ...] = (),
    *cards: Text,
    bitpix: int = 8,
    xtension: str | None = None,
    pcount: int | None = None,
    gcount: int | None = None,
    simple: bool = True,
    data: bytes = b"\0",
) -> bytes:
    """Return an HDU whose data are an array.

    Parameters
    ----------
    shape : tuple of int
        NAXIS1, NAXIS2, ...
    *cards : str or bytes
        Further cards, after the mandatory ones.
    bitpix, pcount, gcount : int
        PCOUNT and GCOUNT are left out of a primary header unless they are given.
    xtension : str, optional
        Makes it an extension of this type.
    simple : bool
        Value of SIMPLE in a primary header.
    data : bytes
        Repeated to the size of the data unit that the Standard's equations 1 and 2 give.
    """
    if xtension is None:
        first = entry("SIMPLE", simple)
    else:
        first, pcount, gcount = entry("XTENSION", xtension), pcount or 0, 1 if gcount is None else gcount
    mandatory = structure(shape, bitpix, first=first, pcount=pcount, gcount=gcount)
    elements = 1 if shape else 0
    for length in shape:
        elements *= length
    if shape:
        elements = (elements + (pcount or 0)) * (1 if gcount is None else gcount)
    return header(*mandatory, *cards) + data_unit(elements * abs(bitpix) // 8, data)


def bintable_hdu(row: int, rows: int, *cards: Text, heap: int = 0, data: bytes = b"\0") -> bytes:
    """Return a binary table of ``rows`` rows of ``row`` bytes, with a heap of ``heap`` bytes."""
    return image_hdu((row, rows), "TFIELDS =                    0", *cards, xtension="BINTABLE", pcount=heap, data=data)


def groups_hdu(shape: tuple[int, ...], *cards: Text, bitpix: int, pcount: int, gcount: int) -> bytes:
    """Return random groups: ``gcount`` of them, each of ``pcount`` parameters and an array of ``shape``."""
    mandatory = structure((0, *shape), bitpix, first=entry("SIMPLE", True))
    groups = [entry("GROUPS", True), entry("PCOUNT", pcount), entry("GCOUNT", gcount)]
    elements = 1
    for length in shape:
        elements *= length
    return header(*mandatory, *groups, *cards) + data_unit(abs(bitpix) // 8 * gcount * (pcount + elements))


def data_unit(size: int, data: bytes = b"\0") -> bytes:
    """Return ``size`` bytes, filled with NULs to whole blocks."""
    return fill((data * (-(-size // len(data))))[:size])


class Place(NamedTuple):
    """What is compared of an HDU."""

    kind: str
    header_offset: int
    data_offset: int
    data_size: int


def places(hdus: list[Hdu]) -> list[Place]:
    """Return where HDUs lie."""
    return [Place(hdu.kind, hdu.header_offset, hdu.data_offset, hdu.data_size) for hdu in hdus]


@dataclass
class Walked:
    """What a walk over bytes came to: HDUs, and either an end or a fault. Each of its ``rounds`` asked for spans."""

    hdus: list[Hdu] = field(default_factory=list)
    end: EndOfFile | None = None
    fault: FormatError | None = None
    spans: list[tuple[int, int]] = field(default_factory=list)
    rounds: int = 0

    @property
    def places(self) -> list[Place]:
        """Where the HDUs lie."""
        return places(self.hdus)

    @property
    def outcome(self) -> tuple[object, ...]:
        """All that must not depend on how the bytes came."""
        return self.hdus, self.end, type(self.fault), str(self.fault)


def walk_bytes(
    data: bytes,
    *,
    known: bool = True,
    policy: ReadPolicy = ReadPolicy(),
    limits: Limits = Limits(),
    guess: Guess = NOTHING,
) -> Walked:
    """Walk bytes, giving the walker exactly what it asks for.

    Parameters
    ----------
    data : bytes
        The file.
    known : bool
        Whether the walker is told the size before it asks beyond the end.
    policy : ReadPolicy
    limits : Limits
    guess : Guess
        Where its headers may be; a wrong one may reach beyond the end.
    """
    walked = Walked()
    walker = HeaderWalker(len(data) if known else None, policy, limits, guess)
    try:
        while not isinstance(event := walker.next_event(), EndOfFile):
            if isinstance(event, Hdu):
                walked.hdus.append(event)
                continue
            walked.rounds += 1
            for start, stop in event.spans:
                assert start < stop, "an empty span cannot help"
                walked.spans.append((start, stop))
                walker.receive(start, data[start:stop])
                if stop > len(data):
                    assert not known or guess != NOTHING, "asked beyond the end"
                    walker.ends_at(len(data))
        walked.end = event
    except FormatError as fault:
        walked.fault = fault
    return walked


class BytesStore:
    """An object store that holds one object and records what is asked of it.

    Parameters
    ----------
    content : bytes or None
        None where there is no object.
    tells : {'all', 'size', 'nothing'}
        What an answer says of the object besides its bytes: size and ETag, only the size, or nothing.
    becomes : mapping of int to (bytes or None)
        What the object is from the n-th request on, counted from 1 and HEAD requests included: each change gives it
        a new ETag.
    cut : mapping of int to int
        How many bytes the n-th answer breaks off after.

    Attributes
    ----------
    asked : list of (int, int) or None
        Start and stop of every GET in order, None for a HEAD.
    """

    def __init__(
        self,
        content: bytes | None,
        *,
        tells: Literal["all", "size", "nothing"] = "all",
        becomes: Mapping[int, bytes | None] | None = None,
        cut: Mapping[int, int] | None = None,
    ) -> None:
        self._content = content
        self._generation = 1
        self._tells = tells
        self._becomes = dict(becomes or {})
        self._cut = dict(cut or {})
        self.asked: list[tuple[int, int] | None] = []

    def ref(self, url: str = "memory://bucket/file.fits") -> ObjectRef:
        """Return the object as a listing would, with all that answers tell of it."""
        content = self._content or b""
        return ObjectRef(
            url,
            size=None if self._tells == "nothing" else len(content),
            etag=f'"{self._generation}"' if self._tells == "all" else None,
        )

    def list(self, url: str) -> Iterator[pa.RecordBatch]:
        """Is not used by a walk."""
        raise NotImplementedError(url)

    def head(self, url: str) -> ObjectRef:
        """See `crawler.stores.base.ObjectStore.head`."""
        self._count(None)
        if self._content is None:
            raise ObjectNotFoundError(url, "no such object")
        return self.ref(url)

    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        """See `crawler.stores.base.ObjectStore.get`."""
        self._count((span.start, span.stop))
        if self._content is None:
            raise ObjectNotFoundError(ref.url, "no such object")
        now = self.ref(ref.url)
        if ref.etag is not None and now.etag != ref.etag:
            raise ObjectChangedError(ref.url, "changed since it was listed")
        data = self._content[span.start : span.stop][: self._cut.get(len(self.asked))]
        return Fetched(data, ref if self._tells == "nothing" else now)

    def _count(self, asked: tuple[int, int] | None) -> None:
        self.asked.append(asked)
        if len(self.asked) in self._becomes:
            self._content = self._becomes[len(self.asked)]
            self._generation += 1
