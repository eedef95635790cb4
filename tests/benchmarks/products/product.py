"""A product: files that are alike in layout, each with its own values, data units being holes.

One formatting of bytes renders all headers of a file, so that ten thousand files take seconds.
"""

from __future__ import annotations

import math
import os
import random
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

from tests.benchmarks.products.template import BLOCK, File, Template, header_unit

_ODD_EVERY = 50  # files: every other odd one has a longer header, the others another axis
_COLUMN = re.compile(r"(\w+)=(\d*)([A-Z])([^/\s]*)(?:/(\S+))?")
_WIDTHS = {"L": 1, "B": 1, "A": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "P": 8, "Q": 16}


@dataclass(frozen=True)
class Unit:
    """One HDU.

    Attributes
    ----------
    text : str
        Its cards beyond those of its structure, as `template` describes.
    blocks : int
        Of its header.
    kind : str
        ``primary``, or the value of XTENSION.
    bitpix, shape : int, tuple of int
        Of an image: NAXIS1, NAXIS2, ...
    columns : str
        Of a table: ``NAME=FORM/UNIT`` and so on.
    rows : int
    heap : int
        Bytes after the rows.
    heap_varies : bool
        Each file has another heap, up to a tenth longer: tile-compressed images are like that.
    extname, extver : str, int
    fill : str
        Begin of the keywords that fill the header up to its blocks.
    cards : int, optional
        How many to fill up to, instead.
    """

    text: str
    blocks: int
    kind: Literal["primary", "IMAGE", "BINTABLE", "HDRLET"] = "IMAGE"
    bitpix: int = 8
    shape: tuple[int, ...] = ()
    columns: str = ""
    rows: int = 0
    heap: int = 0
    heap_varies: bool = False
    extname: str = ""
    extver: int = 1
    fill: str = "MSEN"
    cards: int | None = None

    @property
    def axes(self) -> tuple[int, ...]:
        if self.kind != "BINTABLE":
            return self.shape
        return sum(int(one[2] or 1) * _WIDTHS[one[3]] for one in _COLUMN.finditer(self.columns)), self.rows

    @property
    def data_size(self) -> int:
        """Bytes of the data unit without padding, with the shortest heap."""
        return (abs(self.bitpix) // 8 * math.prod(self.axes) if self.axes else 0) + self.heap

    def structure(self, last: bool, heaps: int) -> str:
        """Return the lines that say what the HDU is; its heap is the file's number ``heaps``."""
        lines = [
            "SIMPLE = T / conforms to FITS standard" if self.kind == "primary" else f"XTENSION = '{self.kind}' / type",
            f"BITPIX = {self.bitpix} / array data type",
            f"NAXIS = {len(self.axes)} / number of array dimensions",
            *(f"NAXIS{index} = {axis} / length of data axis {index}" for index, axis in enumerate(self.axes, 1)),
        ]
        if self.kind == "primary":
            return "\n".join(lines if last else [*lines, "EXTEND = T / there may be standard extensions"])
        heap = f"{{number {heaps}}}" if self.heap_varies else str(self.heap)
        lines += [f"PCOUNT = {heap} / number of parameters", "GCOUNT = 1 / number of groups"]
        columns = list(_COLUMN.finditer(self.columns))
        if columns:
            lines.append(f"TFIELDS = {len(columns)} / number of table fields")
        for index, one in enumerate(columns, 1):
            lines.append(f"TTYPE{index} = '{one[1]}' / label for field {index}")
            lines.append(f"TFORM{index} = '{one[2]}{one[3]}{one[4]}' / format of field {index}")
            if one[5]:
                lines.append(f"TUNIT{index} = '{one[5]}' / unit of field {index}")
        if self.extname:
            lines.append(f"EXTNAME = '{self.extname}' / name of this extension")
            lines.append(f"EXTVER = {self.extver} / version of this extension")
        return "\n".join(lines)


class Layout:
    """Units one after the other, and the templates of their headers.

    Parameters
    ----------
    units : tuple of Unit
    name_length : int
        Characters of the names of files.
    """

    def __init__(self, units: tuple[Unit, ...], name_length: int) -> None:
        self.units = units
        self.heaps = [unit for unit in units if unit.heap_varies]
        parts = []
        heaps = 0
        for index, unit in enumerate(units):
            text = unit.structure(index == len(units) - 1, heaps) + "\n" + unit.text.strip("\n")
            how = {"blocks": unit.blocks, "name_length": name_length, "cards": unit.cards, "index": index}
            parts.append(header_unit(text, fill=unit.fill, **how))
            heaps += unit.heap_varies
        values = tuple(value for part in parts for value in part.values)
        self.headers = Template(b"".join(part.images for part in parts), values, sum(part.cards for part in parts))

    def file(self, number: int, name: str) -> tuple[list[tuple[int, bytes]], int]:
        """Return the headers of one file with their offsets, and the size of the file."""
        heaps = [unit.heap + (number * 7919 + at * 104729) % (unit.heap // 10) for at, unit in enumerate(self.heaps)]
        images = self.headers.render(File(number, name.encode(), heaps))
        pieces = []
        seen = at = 0
        varied = iter(heaps)
        for unit in self.units:
            length = unit.blocks * BLOCK
            pieces.append((at, images[seen : seen + length]))
            size = unit.data_size - unit.heap + next(varied) if unit.heap_varies else unit.data_size
            seen += length
            at += length + -(-size // BLOCK) * BLOCK
        return pieces, at


@dataclass(frozen=True)
class Product:
    """Files of one kind.

    Of each 100, two are odd: one has a block more of HISTORY in its primary header, one another number of rows.

    Attributes
    ----------
    name : str
        Of its bucket.
    title : str
    layouts : tuple of tuple of Unit
        Taken in turns, each by ``run`` files.
    key : callable
        From the number of a file to its key; keys are as long as each other.
    run : int
    gzip : bool
    usual : int
        Files of a benchmark, where nothing else is asked for: fewer where their size would take long.
    """

    name: str
    title: str
    layouts: tuple[tuple[Unit, ...], ...]
    key: Callable[[int], str]
    run: int = 250
    gzip: bool = False
    usual: int = 1000

    def variant_of(self, number: int) -> tuple[int, str]:
        """Return which of the layouts a file has, and how it differs from it."""
        odd = {_ODD_EVERY // 2: "history", _ODD_EVERY * 3 // 2: "rows"}.get(number % (2 * _ODD_EVERY), "")
        return number // self.run % len(self.layouts), odd

    def units_of(self, variant: tuple[int, str]) -> tuple[Unit, ...]:
        """Return the HDUs of the files of one variant."""
        layout, odd = variant
        units = self.layouts[layout]
        if odd == "history":
            history = "\nHISTORY Reprocessed with the calibration files of a later delivery" * 36
            first = units[0]
            cards = None if first.cards is None else first.cards + 36
            return replace(first, text=first.text + history, blocks=first.blocks + 1, cards=cards), *units[1:]
        if odd == "rows":
            sizes = [unit.data_size for unit in units]
            at = sizes.index(max(sizes))
            return *units[:at], _longer(units[at]), *units[at + 1 :]
        return units

    @cached_property
    def name_length(self) -> int:
        """Characters of the names of files."""
        return len(self.key(0).rpartition("/")[2])

    def write(self, folder: Path, numbers: Iterable[int]) -> None:
        """Write the files of some numbers below a folder."""
        made: set[str] = set()
        compiled = cache(lambda variant: Layout(self.units_of(variant), self.name_length))
        for number in numbers:
            key = self.key(number)
            parent, _, name = key.rpartition("/")
            if parent not in made:
                (folder / parent).mkdir(parents=True, exist_ok=True)
                made.add(parent)
            pieces, size = compiled(self.variant_of(number)).file(number, name)
            descriptor = os.open(folder / key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                if self.gzip:
                    _write_gzip(descriptor, pieces, size)
                    continue
                for at, header in pieces:
                    os.pwrite(descriptor, header, at)
                os.ftruncate(descriptor, size)
            finally:
                os.close(descriptor)


def _longer(unit: Unit) -> Unit:
    """Return a unit with more rows: some blocks of data more."""
    *others, last = unit.axes
    more = last + 1 + 3 * BLOCK // max(1, abs(unit.bitpix) // 8 * math.prod(others))
    return replace(unit, rows=more) if unit.kind == "BINTABLE" else replace(unit, shape=(*others, more))


def _write_gzip(descriptor: int, pieces: list[tuple[int, bytes]], size: int) -> None:
    """Write one gzip member: headers compressed here, data units that were compressed before.

    A full flush ends each, so that none refers to another and they can be put together.
    """
    parts = [b"\x1f\x8b\x08\0\0\0\0\0\0\x03"]
    check = 0
    starts = [at for at, _ in pieces[1:]] + [size]
    for (at, header), stop in zip(pieces, starts, strict=True):
        for plain, deflated in ((header, _deflated(header)), _events(stop - at - len(header))):
            parts.append(deflated)
            check = zlib.crc32(plain, check)
    parts += [b"\x03\0", check.to_bytes(4, "little"), (size % 2**32).to_bytes(4, "little")]
    os.write(descriptor, b"".join(parts))


@cache
def _events(size: int) -> tuple[bytes, bytes]:
    """Return data that compress to about a half, as event lists do, and what they compress to."""
    data = bytes(byte & 0x0F for byte in random.Random(size).randbytes(size))
    return data, _deflated(data)


def _deflated(data: bytes) -> bytes:
    """Return a part of a deflate stream that is not its last and stands for itself."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH)
