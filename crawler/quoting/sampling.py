"""The sample, walked as a crawl walks: the same threads, the same layouts, the same rows."""

from __future__ import annotations

import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from crawler.context import release, worker_context
from crawler.fits.layouts import product_of
from crawler.fits.units import CARD
from crawler.job import CrawlJob
from crawler.quoting.learning import Kind
from crawler.quoting.replay import Walked, costs_of
from crawler.quoting.rows import Effort, Size, sizes_of
from crawler.quoting.statistics import Stratum
from crawler.quoting.strata import LEAST, Cell, Group
from crawler.stores import ObjectRef
from crawler.stores.storage import open_folder
from crawler.walk import FileResult

_MANY = 100
"""Requests from which on CPU time is measured."""

_UNLIKE_AGAIN = 0.02
"""By how much what files cost that are not of a known size differs from run to run, as it depends on which were walked
just before: six runs over 300 tile-compressed exposures of 71 HDUs made 21,100 to 21,400 requests."""

_PROBE = 8
"""Files of each stratum by which it is seen how many more there is memory for."""

_HEADER_BYTES = 64 * 2**20
"""Bytes of headers of the sample of one product, about."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What is counted of one file.

    Attributes
    ----------
    size : int or None
        As it was listed.
    requests, bytes_read : dict of Kind to float
        By what is known of the file when its walk begins.
    hdus, cards : int
        ``cards`` are card images.
    """

    size: int | None
    requests: dict[Kind, float]
    bytes_read: dict[Kind, float]
    hdus: int
    cards: int


@dataclass(slots=True)
class Sample:
    """What came of the sample.

    Attributes
    ----------
    strata : list of (Group, dict of Kind to list of Figures)
    sizes : list of dict of str to Size
        Of the same groups: what their rows take, by table.
    statuses : Counter
        Files, by status.
    first_error : str or None
        Of a file that was unreadable.
    requests, bytes_read : int
        What it took.
    cards : int
        Card images.
    walking, writing : Effort
    """

    strata: list[tuple[Group, dict[Kind, list[Figures]]]] = field(default_factory=list)
    sizes: list[dict[str, Size]] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    first_error: str | None = None
    requests: int = 0
    bytes_read: int = 0
    cards: int = 0
    walking: Effort = field(default_factory=Effort)
    writing: Effort = field(default_factory=Effort)

    @property
    def files(self) -> int:
        """Files that were walked."""
        return self.statuses.total()

    def shares(self) -> list[tuple[float, dict[str, Size]]]:
        """Return what the rows of each group of the sample take, and how many times as many files it has."""
        walked = (sum(map(len, found.values())) for _, found in self.strata)
        groups = (group for group, _ in self.strata)
        return [
            (group.files / count, sizes)
            for group, count, sizes in zip(groups, walked, self.sizes, strict=True)
            if count
        ]

    def count(self, result: FileResult) -> None:
        """Count one file that was walked."""
        self.statuses[result.status] += 1
        self.requests += result.requests
        self.bytes_read += result.bytes_read
        self.cards += _cards(result)
        if result.status == "unreadable" and self.first_error is None:
            self.first_error = f"{result.error}: {result.ref.url}"


def walk_sample(job: CrawlJob, allotted: Iterable[tuple[Group, Kind, int]]) -> Sample:
    """Walk some files of each stratum.

    Parameters
    ----------
    job : CrawlJob
    allotted : iterable of (Group, Kind, int)
        How many of which.
    """
    wanted: dict[int, tuple[Group, dict[Kind, list[ObjectRef]]]] = {}
    for group, kind, count in allotted:
        wanted.setdefault(id(group), (group, {}))[1][kind] = group.cells[kind].sample(count)
    done = Sample()
    with tempfile.TemporaryDirectory(prefix="crawler-estimate-") as temporary:
        folder = open_folder(temporary)
        try:
            for group, refs in wanted.values():
                walked = _walk_group(job, refs, done)
                results = sorted((one.result for ones in walked.values() for one in ones), key=lambda one: one.ref.url)
                done.strata.append((group, _figures(job, walked, by_chance=group.by_chance)))
                done.sizes.append(sizes_of(folder, job.crawl, results, done.writing))
        finally:
            release(job.crawl)
    return done


def _walk_group(job: CrawlJob, refs: dict[Kind, list[ObjectRef]], done: Sample) -> dict[Kind, list[Walked]]:
    """Walk the sample of a group, as far as there is memory for its headers: what a few of its files have, tells."""
    walked: dict[str, Walked] = {}
    seen: set[str] = set()
    _walk_some(job, [ref for ones in refs.values() for ref in ones[:_PROBE]], walked, seen, done)
    each = sum(one.result.header_bytes for one in walked.values()) / max(1, len(walked))
    most = max(_PROBE, int(_HEADER_BYTES / max(1.0, each)) // len(refs))
    _walk_some(job, [ref for ones in refs.values() for ref in ones[_PROBE:most]], walked, seen, done)
    return {kind: [walked[ref.url] for ref in ones[:most] if ref.url in walked] for kind, ones in refs.items()}


def _walk_some(job: CrawlJob, refs: list[ObjectRef], walked: dict[str, Walked], seen: set[str], done: Sample) -> None:
    """Walk the first file of each product that was not seen yet, and then the others."""
    waves: tuple[list[ObjectRef], list[ObjectRef]] = [], []
    for ref in refs:
        product = product_of(ref.url)
        waves[product in seen].append(ref)
        seen.add(product)
    for first, wave in zip((True, False), waves, strict=True):
        for ref, result in zip(wave, _walk(job, wave, done), strict=True):
            walked[ref.url] = Walked(ref, result, first)


def _walk(job: CrawlJob, refs: list[ObjectRef], done: Sample) -> list[FileResult]:
    begun, requests = time.process_time(), done.requests
    with worker_context(job) as context:
        results = list(context.walk(job, refs, lambda: False))
    for result in results:
        done.count(result)
    if done.requests - requests >= _MANY or done.walking.amount < _MANY:
        if done.walking.amount < _MANY:  # a few are mostly the opening of connections
            done.walking = Effort()
        done.walking.add(begun, done.requests - requests)
    return results


def _figures(job: CrawlJob, walked: dict[Kind, list[Walked]], *, by_chance: bool) -> dict[Kind, list[Figures]]:
    products: dict[str, list[Walked]] = {}
    for one in sorted((one for ones in walked.values() for one in ones), key=lambda one: one.listed.url):
        products.setdefault(product_of(one.listed.url), []).append(one)
    found: dict[Kind, list[Figures]] = {}
    for kind, ones in walked.items():
        for one in ones:
            costs = costs_of(one, products[product_of(one.listed.url)], job.scope, by_chance=by_chance)
            figures = Figures(
                one.listed.size,
                {of: float(cost.requests) for of, cost in costs.items()},
                {of: float(cost.bytes_read) for of, cost in costs.items()},
                len(one.result.hdus),
                _cards(one.result),
            )
            found.setdefault(kind, []).append(figures)
    return found


def _cards(result: FileResult) -> int:
    return sum(len(hdu.header) for hdu in result.hdus) // CARD


def strata_of(sample: Sample, what: str) -> tuple[list[Stratum], float]:
    """Return the strata of one figure, and the standard error of what was assumed of them.

    Parameters
    ----------
    sample : Sample
    what : str
        A field of `Figures`.
    """
    strata: list[Stratum] = []
    assumed = 0.0
    for group, found in sample.strata:
        everything = [one for ones in found.values() for one in ones]
        if not everything:
            continue
        for kind, cell in group.cells.items():
            if not cell.files:
                continue
            depends = what in {"requests", "bytes_read"}  # on what was walked before
            guess = depends and kind is not Kind.FIRST
            worst = max(_figure(one, what, Kind.FIRST) for one in everything)
            for files, ones, borrowed in _by_size(cell, found.get(kind, []), everything):
                costs = [_figure(one, what, kind) for one in ones]
                strata.append(Stratum(files, costs, _unlike(costs, worst, guess=guess), borrowed))
            assumed += (_assumed(cell, kind, group, everything, what) * depends) ** 2
    return strata, assumed**0.5


def _by_size(
    cell: Cell, own: Sequence[Figures], others: Sequence[Figures]
) -> Iterator[tuple[int, Sequence[Figures], bool]]:
    """Cut a stratum by the sizes of its files, which tell layouts apart (Cochran, section 5A.9: post-stratification).

    Yields
    ------
    files : int
    sample : sequence of Figures
        Of these files, or of others that have to stand for them.
    borrowed : bool
        It is of others.
    """
    if len(own) < min(2, cell.files):
        yield cell.files, others, True
        return
    by_size: dict[int | None, list[Figures]] = {}
    for one in own:
        by_size.setdefault(one.size, []).append(one)
    left, rest = cell.files, []
    for size, ones in by_size.items():
        files = cell.sizes.get(size, 0) if size is not None else 0
        if files and len(ones) >= min(LEAST, files):
            yield files, ones, False
            left -= files
        else:
            rest += ones
    if left:
        yield left, rest or own, not rest


def _unlike(costs: Sequence[float], worst: float, *, guess: bool) -> float:
    """Return what a file costs that is unlike those of a stratum.

    As much as one of which nothing is known; and what was guessed, where that is read in vain.
    """
    mean = sum(costs) / len(costs)
    return max(worst + mean * guess, 1.25 * mean, *costs)


def _assumed(cell: Cell, kind: Kind, group: Group, files: Sequence[Figures], what: str) -> float:
    """Return by how much the costs of a stratum may be off because its files were not all counted rightly.

    Which files a worker knows the layout of depends on which of them it is given, and on which walk ends first.
    """
    if kind is Kind.KNOWN:
        return 0.0
    # Of a size that is under way all would be known; where nearly all sizes differ, only what they have in common.
    better = Kind.NEW if kind is Kind.FIRST and group.by_chance else Kind.KNOWN
    step = sum(_figure(one, what, kind) - _figure(one, what, better) for one in files) / len(files)
    surely = 0 if group.pooled and kind is Kind.FIRST else max(0, cell.files - cell.crowded - 1)
    learned = sum(_figure(one, what, kind) for one in files) / len(files) * cell.files
    return math.hypot(abs(step) * (0.5 * cell.crowded + math.sqrt(surely)), _UNLIKE_AGAIN * learned)


def _figure(one: Figures, what: str, kind: Kind) -> float:
    value = getattr(one, what)
    return float(value[kind] if isinstance(value, dict) else value)
