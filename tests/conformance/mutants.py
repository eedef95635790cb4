"""Real FITS files, with one to three faults put into a header of each.

Sources are the corpus where it is there, and the files that astropy installs for its own tests otherwise. Every mutant
follows from a seed and a number alone. Data units are holes, so a mutant takes little space.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import astropy
import pyarrow.parquet as pq

from crawler.errors import FormatError
from crawler.fits.units import Hdu
from crawler.fits.walker import EndOfFile, HeaderWalker
from tests.conformance.faults import BLOCK, CARD, END, FAULTS

LARGEST = 20 * 2**20
"""Bytes of the largest source: astropy reads a header that does not end on to the end of the file."""

Segments = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class Source:
    """A sound file: its size, and those of its bytes that are no zeros, with their places."""

    name: str
    size: int
    segments: Segments

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes of the file, cut at its end."""
        stop = min(stop, self.size)
        data = bytearray(max(0, stop - start))
        for at, part in self.segments:
            low, high = max(at, start), min(at + len(part), stop)
            if low < high:
                data[low - start : high - start] = part[low - at : high - at]
        return bytes(data)

    def hdus(self) -> list[Hdu]:
        """Return the HDUs; none where the walk ends badly."""
        walker = HeaderWalker(self.size)
        found: list[Hdu] = []
        try:
            while not isinstance(event := walker.next_event(), EndOfFile):
                if isinstance(event, Hdu):
                    found.append(event)
                    continue
                for span in event.spans:
                    walker.receive(span.start, self.read(span.start, span.stop))
        except FormatError:
            return []
        return found


@dataclass(frozen=True)
class Mutant:
    """A file to write, and what was done to it."""

    name: str
    faults: tuple[str, ...]
    size: int
    segments: Segments

    def write(self, path: Path) -> None:
        """Write the file, its zeros as holes."""
        with path.open("wb") as file:
            for at, data in self.segments:
                file.seek(at)
                file.write(data[: max(0, self.size - at)])
            file.truncate(self.size)


def corpus_sources(pack: Path) -> Iterator[Source]:
    """Yield the files of a corpus that are no larger than `LARGEST` and can be walked."""
    for batch in pq.ParquetFile(pack).iter_batches(batch_size=200):
        for row in batch.to_pylist():
            segments = tuple((one["offset"], one["bytes"]) for one in row["segments"])
            if row["size"] <= LARGEST:
                yield Source(row["path"], row["size"], segments)


def astropy_sources() -> Iterator[Source]:
    """Yield the FITS files that astropy installs."""
    root = Path(astropy.__file__).parent
    for path in sorted(root.rglob("*.fits")):
        data = path.read_bytes()
        yield Source(path.relative_to(root).as_posix(), len(data), ((0, data),))


def mutants(sources: list[Source], count: int, seed: int) -> Iterator[Mutant]:
    """Yield ``count`` mutants of sources that are FITS files."""
    sound = [(source, hdus) for source in sources if (hdus := source.hdus())]
    for number in range(count):
        random = Random(f"{seed}/{number}")
        yield mutate(*random.choice(sound), random)


def mutate(source: Source, hdus: list[Hdu], random: Random) -> Mutant:
    """Put faults into one header of a file, the last ones more often than by chance: nothing behind hides them."""
    hdu = random.choice([*hdus, hdus[0], hdus[-1]])
    start, stop = hdu.header_offset, hdu.data_offset
    unit = source.read(start, stop)
    cards = [unit[at : at + CARD] for at in range(0, len(hdu.header) + CARD, CARD)]
    faults: list[str] = []
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        name = random.choice(sorted(FAULTS))
        data = b"".join(FAULTS[name](cards, random))
        cards = [data[at : at + CARD] for at in range(0, len(data), CARD)] or [END]
        faults.append(name)
    header = b"".join(cards)
    if random.random() < 0.9:
        pad = random.choice([b" "] * 8 + [b"\0", END, b"junk", b"\xff"])
        header += (pad * BLOCK)[: -len(header) % BLOCK]
        faults += [f"padded with {pad[:4]!r}"] if pad != b" " else []
    shift = len(header) - (stop - start)
    before = tuple((at, data[: max(0, start - at)]) for at, data in source.segments if at < start)
    behind = tuple(
        (max(at, stop) + shift, data[max(0, stop - at) :]) for at, data in source.segments if at + len(data) > stop
    )
    size = source.size + shift
    if random.random() < 0.1:
        at = random.choice([start + len(header), size, hdu.end + shift])
        size = max(0, min(size, at - random.choice([1, 79, 80, 2879, 2880, random.randrange(20_000)])))
        faults.append("cut short")
    return Mutant(f"{source.name}[{hdu.index}]", tuple(faults), size, (*before, (start, header), *behind))
