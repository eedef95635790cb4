"""A listing cut into strata as it streams by, a random few of each held: memory does not grow with it.

A stratum is a product and what a crawl will know of the file (`crawler.quoting.learning.Kind`): what decides its cost.
Of each the files are held whose urls have the least hashes, a random sample without replacement (bottom-k: E. Cohen and
H. Kaplan, "Summarizing data using bottom-k sketches", PODC 2007). No seed has to be kept, the same listing gives
the same sample, a shorter one is the begin of a longer one, and those of two strata make that of both.

A bucket can have 100,000 products, and a sample has some hundred files. So the smallest products are pooled with others
that have the same suffix and about the same size (a factor of 8), and at the very last all of those together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import PurePosixPath

from crawler.quoting.learning import COMPRESSED, Kind
from crawler.stores import ObjectRef

_GROUPS = 2048
"""Products that are held apart while the listing lasts."""

_HELD = 50_000
"""Files that are held: 20 MB or so."""

LEAST = 3
"""Files of each stratum that are walked, where it has them: with fewer its spread is a guess."""

_ROOM = 8
"""Files of the sample that a product should have, or it is pooled."""

_FEW = 20
"""The first files of a product are few where there are so many times as many."""

_APART = 4
"""Files of new sizes for each of a known one, from which on it is chance that two have the same."""

_PACKED_BYTES = 2 * 10**9
"""Bytes of compressed files in the sample, about: those are read up to their last header."""

_HASHES = 2**64

_SIZES = 32
"""Sizes that are counted of each stratum."""


@dataclass(slots=True)
class Cell:
    """One stratum.

    Attributes
    ----------
    files : int
    crowded : int
        Those of which it is not certain that they belong here (`crawler.quoting.learning.Met`).
    bar : int
        Files of this hash or more are not held; of all others none is missing.
    held : list of (int, str, ObjectRef)
        Hash, url, and the file.
    sizes : dict of int to int
        How many files have some of the sizes: those that were met first, of which there are most as a rule. None
        where products are pooled.
    """

    files: int = 0
    crowded: int = 0
    bar: int = _HASHES
    held: list[tuple[int, str, ObjectRef]] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)

    def add(self, ref: ObjectRef) -> bool:
        """Count a file, hold it if chance wants it, and tell whether it does."""
        self.files += 1
        if ref.size is not None and (ref.size in self.sizes or len(self.sizes) < _SIZES):
            self.sizes[ref.size] = self.sizes.get(ref.size, 0) + 1
        number = int.from_bytes(blake2b(ref.url.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        if number >= self.bar:
            return False
        self.held.append((number, ref.url, ref))
        return True

    def take(self, other: Cell) -> None:
        """Take all the files of a stratum of another product."""
        self.sizes = {}
        self.files += other.files
        self.crowded += other.crowded
        if other.bar < self.bar:
            self.bar = other.bar
            self.held = [one for one in self.held if one[0] < self.bar]
        self.held.extend(one for one in other.held if one[0] < self.bar)

    def thin(self, most: int) -> None:
        """Hold no more than so many: those of the least hashes."""
        if len(self.held) > most:
            self.held.sort(key=lambda one: one[:2])
            self.bar = self.held[most][0]
            self.held = [one for one in self.held[:most] if one[0] < self.bar]

    def sample(self, count: int) -> list[ObjectRef]:
        """Return so many of its files at most, chosen at random; fewer are the first ones of more."""
        return [ref for _, _, ref in sorted(self.held, key=lambda one: one[:2])[:count]]


@dataclass(slots=True)
class Group:
    """The strata of one product, or of several that are pooled.

    Attributes
    ----------
    cells : dict of Kind to Cell
    size : int
        Bytes of all files.
    suffix : str
    pooled : bool
    """

    suffix: str
    pooled: bool = False
    size: int = 0
    cells: dict[Kind, Cell] = field(default_factory=dict)

    @property
    def files(self) -> int:
        """Of all strata."""
        return sum(cell.files for cell in self.cells.values())

    @property
    def by_chance(self) -> bool:
        """Whether nearly all files are of a size of their own, as tile-compressed images are."""
        return not self.pooled and self.cell(Kind.NEW).files > _APART * self.cell(Kind.KNOWN).files

    def cell(self, kind: Kind) -> Cell:
        """Return one stratum."""
        return self.cells.setdefault(kind, Cell())

    def sampled(self, *, every: bool) -> dict[Kind, Cell]:
        """Return the strata that files are walked of.

        The few first files of a product are none of them, unless ``every`` file is walked: any sibling shows what it
        would have cost as the first.
        """
        few = not (every or self.pooled) and self.cell(Kind.FIRST).files * _FEW < self.files
        return {kind: cell for kind, cell in self.cells.items() if cell.files and not (few and kind is Kind.FIRST)}


class Strata:
    """What is known of a listing.

    Attributes
    ----------
    files, size : int
        Files, and their bytes.
    groups : list of Group
    """

    def __init__(self) -> None:
        self.files = 0
        self.size = 0
        self._groups: dict[object, Group] = {}
        self._held = 0

    @property
    def groups(self) -> list[Group]:
        """All of them, in an order that depends on the listing alone."""
        return list(self._groups.values())

    def add(self, product: str, kind: Kind, crowded: bool, ref: ObjectRef) -> None:
        """Count one file, and hold it if chance wants it."""
        self.files += 1
        self.size += ref.size or 0
        group = self._groups.get(product)
        if group is None:
            group = self._groups[product] = Group(_suffix(product))
        group.size += ref.size or 0
        cell = group.cell(kind)
        cell.crowded += crowded
        self._held += cell.add(ref)
        if len(self._groups) > _GROUPS:
            self.pool(_GROUPS // 2)
        if self._held > _HELD:
            self._thin()

    def _thin(self) -> None:
        """Hold half as many, of each stratum in proportion to its files: what comes later is held as sparsely."""
        self._held = 0
        for group in self._groups.values():
            for cell in group.cells.values():
                cell.thin(max(2 * LEAST, math.ceil(_HELD / 2 * cell.files / self.files)))
                self._held += len(cell.held)

    def pool(self, most: int) -> None:
        """Pool the smallest products, and then whatever is small, until there are no more than so many groups."""
        if len(self._groups) <= most:
            return
        ordered = self._by_files()
        room = max(0, most - len({_coarse(self._groups[key]) for key in ordered[most // 2 :]}))
        for key in ordered[room:]:
            if not self._groups[key].pooled:
                self._move(key, _coarse(self._groups[key]))
        if len(self._groups) > most:
            for key in self._by_files()[most - 1 :]:
                self._move(key, "the rest")
        self._held = sum(len(cell.held) for group in self._groups.values() for cell in group.cells.values())

    def _by_files(self) -> list[object]:
        return sorted(self._groups, key=lambda key: (-self._groups[key].files, str(key)))

    def _move(self, key: object, to: object) -> None:
        group = self._groups.pop(key)
        target = self._groups.setdefault(to, Group(group.suffix, pooled=True))
        target.size += group.size
        for kind, cell in group.cells.items():
            target.cell(kind).take(cell)

    def allotted(self, sample: int) -> Iterator[tuple[Group, Kind, int]]:
        """Yield how many files of which strata are walked: in proportion to their files, but a few of each.

        Parameters
        ----------
        sample : int
            Files that are walked, about: where there are many small strata it becomes up to half as many more.
        """
        self.pool(max(2, sample // _ROOM))
        for group in self._groups.values():
            most = sample
            if group.suffix.endswith(COMPRESSED) and group.size:
                share = _PACKED_BYTES * group.files / max(1, self.files)
                most = max(LEAST, int(share / (group.size / group.files)))
            for kind, cell in group.sampled(every=sample >= self.files).items():
                count = max(LEAST, math.ceil(sample * cell.files / self.files))
                yield group, kind, min(count, most, cell.files)


def _coarse(group: Group) -> object:
    """Return what a product has in common with those that it is pooled with."""
    mean = group.size / max(1, group.files)
    return group.suffix, int(math.log(mean + 1, 8))


def _suffix(product: str) -> str:
    """Return the suffix of a name, with what tells that it is compressed: ``.fits.gz``."""
    suffixes = PurePosixPath(product.lower()).suffixes
    return "".join(suffixes[-2:] if suffixes[-1:] and suffixes[-1] in COMPRESSED else suffixes[-1:])
