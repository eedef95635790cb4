"""The sample: some files of each group, walked by the code of a worker, and what all files would take by them.

What a walk takes depends on the layouts that its worker knows by then: nothing is known of the first file of a product,
and layouts are remembered by the size of the file. So the first file of each product and size is walked apart from its
siblings, and both are multiplied by how many such files a crawl meets.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from crawler.estimation.census import LEAST, Group
from crawler.estimation.statistics import Interval, Stratum, total
from crawler.fits.layouts import product_of
from crawler.fits.units import CARD
from crawler.job.crawl_job import CrawlJob
from crawler.stores import ByteRange, Fetched, ObjectRef, ObjectStore
from crawler.stores.urls import scheme_of
from crawler.worker.context import WorkerContext
from crawler.worker.walk import FileResult

HELD_BYTES = 64 * 2**20
"""Bytes of headers of the sample that are held, to see what their rows take in the catalogue."""

_MEASURED = 50
"""Requests from which on times are those of later files alone: the first requests mostly open connections."""

_TAIL = 4.0
"""How many times as much as the most expensive file of the sample another file may take, where products are pooled. Of
350 archive files, two have 37 % of all cards."""

_VARIATION = 0.02
"""Share by which the requests of files of unequal sizes vary from run to run, with the order in which walks end: six
runs over 300 tile-compressed exposures of 71 HDUs made 21,100 to 21,400 requests."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the walk of one file took, and found: HDUs, and card images."""

    requests: float
    bytes_read: float
    hdus: float
    images: float


@dataclass(slots=True)
class Part:
    """A group, and what came of its files in the sample.

    Attributes
    ----------
    files : int
        All files of the group.
    firsts : Interval
        How many of them a crawl walks without a layout.
    unlike : float
        As of `Group.unlike`.
    tail : float
        How many times as much as the most expensive file of the sample another file may take.
    refs : tuple of three lists of ObjectRef
        Files of the sample that are walked first, and after these; and, where these are few, siblings of the former.
    walks : tuple of three lists of Figures
        What these took.
    results : list of FileResult
        Some of the files of the sample, chosen at random.
    """

    files: int
    firsts: Interval
    unlike: float
    tail: float
    refs: tuple[list[ObjectRef], list[ObjectRef], list[ObjectRef]]
    walks: tuple[list[Figures], list[Figures], list[Figures]] = field(default_factory=lambda: ([], [], []))
    results: list[FileResult] = field(default_factory=list)

    @classmethod
    def of(cls, group: Group, slots: int) -> Part:
        """Choose which files of a group are walked, and when; ``slots`` are the walks that a worker has in flight."""
        first: list[ObjectRef] = []
        others: list[ObjectRef] = []
        seen: set[object] = set()
        most = max(2, group.count // 4) if group.products == 1 else group.count
        for ref in group.held[: group.count]:
            kind = product_of(ref.url), ref.size
            (others if kind in seen or len(first) == most else first).append(ref)
            seen.add(kind)
        mates: list[ObjectRef] = []
        if len(others) < LEAST and group.count < group.files:
            # The last file of a product that is held; this is the file itself where no other one is.
            siblings = {product_of(ref.url): ref for ref in group.held}
            mates = [siblings[product_of(ref.url)] for ref in first[: max(LEAST, group.count // 4)]]
        unlike = group.unlike()
        value = min(group.files, group.visits * (1 + unlike * slots))
        firsts = Interval(value, min(group.products, value), value)
        tail = 1.0 if group.products == 1 else _TAIL
        return cls(group.files, firsts, unlike, tail, (first, others, mates))

    def strata(self, figure: str, instead: list[float]) -> tuple[list[Stratum], float]:
        """Return the strata of a field of `Figures`, and the error of what is not sampled but assumed.

        Parameters
        ----------
        figure : str
        instead : list of float
            Stands for the figures of files of which the sample has none.
        """
        first, others, mates = ([getattr(one, figure) for one in walks] for walks in self.walks)
        if figure not in {"requests", "bytes_read"}:  # not dependent on the layouts that are known
            return [_stratum(self.files, first + others, instead, tail=self.tail)], 0.0
        others += mates
        firsts = self.firsts.value
        # A file that is unlike its siblings takes what a first file does, and what was guessed in vain besides.
        worst = max([*first, *others, 0.0])
        known = _stratum(self.files - firsts, others, first or instead, worst, tail=self.tail)
        unknown = _stratum(firsts, first, instead, tail=self.tail)
        slack = abs(unknown.mean - known.mean) * (firsts - self.firsts.low)
        return [unknown, known], slack + _VARIATION * self.unlike * known.mean * known.files


def _stratum(
    files: float, costs: list[float], instead: list[float], worst: float = 0.0, *, tail: float = 1.0
) -> Stratum:
    known = costs or instead
    mean = math.fsum(known) / len(known)
    return Stratum(files, known, tail * max(*known, 1.25 * mean, worst and worst + mean), borrowed=not costs)


@dataclass(slots=True)
class Sample:
    """What came of the sample.

    Attributes
    ----------
    parts : sequence of Part
    walks : int
        Walks of the sample; a file may have been walked twice.
    statuses : Counter
        Files, by status.
    first_error : str or None
        Of the first unreadable file.
    requests, bytes_read, retries : int
    cpu_seconds : float
        CPU time of the walks, for each request.
    request_seconds : float
        Mean duration of a request, up to the last byte, while as many were in flight as in a crawl.
    """

    parts: Sequence[Part]
    walks: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    first_error: str | None = None
    requests: int = 0
    bytes_read: int = 0
    retries: int = 0
    cpu_seconds: float = 0.0
    request_seconds: float = 0.0
    _held: int = 0

    def add(self, result: FileResult, part: Part, kind: int) -> None:
        """Add a walk of a part: of the first files, the others, or the siblings."""
        images = sum(len(hdu.header) for hdu in result.hdus) // CARD
        part.walks[kind].append(Figures(result.requests, result.bytes_read, len(result.hdus), images))
        self.walks += 1
        self.statuses[result.status] += kind < 2
        self.requests += result.requests
        self.bytes_read += result.bytes_read
        if result.status == "unreadable" and self.first_error is None:
            self.first_error = f"{result.error}: {result.ref.url}"
        self._held += result.header_bytes
        if self._held <= HELD_BYTES and kind < 2:
            part.results.append(result)

    def total(self, figure: str) -> Interval:
        """Return the total of a field of `Figures` over all files."""
        instead = [getattr(one, figure) for part in self.parts for walks in part.walks for one in walks]
        strata, slack = (
            zip(*(part.strata(figure, instead) for part in self.parts), strict=True) if instead else ((), ())
        )
        least = sum(part.files for part in self.parts) if figure == "requests" else 0.0
        return total([one for some in strata for one in some], least=least, slack=sum(slack))


class _TimedStore:
    """A store whose reads are timed."""

    def __init__(self, store: ObjectStore, seconds: list[float]) -> None:
        self._store, self._seconds = store, seconds

    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        """See `crawler.stores.base.ObjectStore.get`."""
        begun = time.perf_counter()
        try:
            return self._store.get(ref, span)
        finally:
            self._seconds.append(time.perf_counter() - begun)

    def head(self, url: str) -> ObjectRef:
        """See `crawler.stores.base.ObjectStore.head`."""
        return self._store.head(url)

    def list(self, url: str, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """See `crawler.stores.base.ObjectStore.list`."""
        return self._store.list(url, limit)


class _TimedContext(WorkerContext):
    """The context of a worker, which notes the seconds that each read takes."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.seconds: list[float] = []

    def store(self, job: CrawlJob, url: str) -> ObjectStore:
        """See `WorkerContext.store`."""
        return _TimedStore(super().store(job, url), self.seconds)


def walk_sample(job: CrawlJob, parts: Sequence[Part], progress: Callable[[int], None]) -> Sample:
    """Walk the files of the sample: the first ones of all parts, and then all others.

    Parameters
    ----------
    job : CrawlJob
    parts : sequence of Part
    progress : callable
        Called with the number of files walked, after each.

    Raises
    ------
    StoreDownError
        The store answers no request any more, or the credentials have expired.
    """
    sample = Sample(parts)
    begun = time.process_time()
    context = _TimedContext(job.crawl)
    context.set_rate_limit(job.max_requests_per_second)
    try:
        for kinds in ((0,), (1, 2)):
            cpu, reads = time.process_time(), len(context.seconds)
            todo = [(ref, part, kind) for part in parts for kind in kinds for ref in part.refs[kind]]
            random.Random(0).shuffle(todo)  # noqa: S311 - so that results that are held are a random sample, too
            for is_local in (True, False):
                wanted = [one for one in todo if (scheme_of(one[0].url) == "file") == is_local]
                results = context.walk(job, [ref for ref, _, _ in wanted], lambda: False)
                for (_, part, kind), result in zip(wanted, results, strict=True):
                    sample.add(result, part, kind)
                    progress(sample.walks)
            if len(context.seconds) - reads < _MEASURED:
                cpu, reads = begun, 0
            seconds = context.seconds[reads:]
            sample.cpu_seconds = (time.process_time() - cpu) / max(1, len(seconds))
            sample.request_seconds = math.fsum(seconds) / max(1, len(seconds))
        sample.retries = context.take_retries().total()
    finally:
        context.close()
    return sample
