"""The crawler beside other readers of headers, on the same objects, in one run."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.markdown import table
from tests.benchmarks.measure import Bench, Measured, bench, installed, with_data, write_archive, write_bucket
from tests.benchmarks.parts.base import AT_PAUSE, Counts, Section, spread
from tests.benchmarks.peers import LOCAL, PEERS

_THREADS = 32  # objects that a peer reads at once where it has to wait: as many as the crawler asks for
_COLUMNS = (
    "reader",
    "files",
    "cards a file",
    "CPU ms a file",
    "times",
    "requests a file",
    "kB a file",
    "files/s",
    f"files/s, {AT_PAUSE}",
    "peak MB",
)


@dataclass(frozen=True)
class _Row:
    title: str
    one_by_one: Measured
    fast: Measured
    slow: Measured


def run(folder: Path, counts: Counts) -> Section:
    """Measure every reader on files of 4 HDUs and, where they are at hand, on those of archives."""
    count = counts.at_most(2000)
    buckets = {write_bucket(folder, "survey", count): "files of 4 HDUs and 298 cards, 2.1 MB each"}
    if archive := write_archive(folder, "opencadc"):
        buckets[archive] = "files of archives (Gemini, OMM), headers and sizes real"
    text = [
        f"""
Read from an S3 on loopback (nginx), without a pause and with {AT_PAUSE} to the first byte. The crawler indexes every
file, catalogue written and committed included, with at most {_THREADS} requests under way. The others read keyword,
value and comment of every card of a sample of the files, evenly spread: without the pause one file at a time or
{_THREADS} by threads, whichever is faster; with it {_THREADS} by threads. CPU is that of one at a time, after imports
and first calls. Bytes are those of bodies. Every row is a process of its own; peak memory is all of it.""",
    ]
    with bench(folder) as served:
        for bucket, what in buckets.items():
            keys = served.keys(bucket)
            text.append(f"**{len(keys):,} {what}**")
            text.append(_table(served, bucket, keys, counts.sample))
    notes = [f"- {peer.title}: {peer.wire}." for peer in PEERS.values() if peer.wire]
    text.append("\n".join(["- crawler: pinned to the listed ETag; store `fsspec` is s3fs.", *notes]))
    return Section("Beside other readers", "\n\n".join(text))


def _table(served: Bench, bucket: str, keys: list[str], sample: int) -> str:
    rows: list[_Row] = []
    missing: list[list[object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        catalogue = str(Path(temporary) / "catalogue")
        fast = served.crawl(bucket, catalogue=catalogue)
        rows.append(_Row("**crawler**", fast, fast, served.crawl(bucket, slow=True)))
        hints = with_data(catalogue, bucket)
    fsspec = {"store": "fsspec"}
    fast = served.crawl(bucket, index=fsspec)
    rows.append(_Row("crawler, store `fsspec`", fast, fast, served.crawl(bucket, slow=True, index=fsspec)))
    for name, peer in PEERS.items():
        if name == LOCAL:
            continue
        if not installed(name):
            missing.append([f"{peer.title}: not installed", *[None] * (len(_COLUMNS) - 1)])
            continue
        some = spread(keys, sample)
        alone = served.read(name, bucket, some, with_data=hints)
        threads = served.read(name, bucket, some, with_data=hints, threads=_THREADS)
        slow = served.read(name, bucket, some, with_data=hints, threads=_THREADS, slow=True)
        rows.append(_Row(peer.title, alone, max(alone, threads, key=lambda one: one.rate), slow))
    return table(_COLUMNS, [_cells(row, rows[0].one_by_one) for row in rows] + missing)


def _cells(row: _Row, ours: Measured) -> list[object]:
    result = row.one_by_one.result
    read = max(1, result.files - result.failed)
    title = f"{row.title} ({result.failed} not read, {result.error.partition(':')[0]})" if result.failed else row.title
    return [
        title,
        result.files,
        result.cards / read,
        row.one_by_one.cpu_ms,
        row.one_by_one.cpu_ms / ours.cpu_ms,
        row.one_by_one.requests,
        row.one_by_one.body_bytes / 1e3,
        row.fast.rate,
        row.slow.rate,
        result.peak / 1e6,
    ]


def run_local(folder: Path, counts: Counts) -> Section:
    """Measure the crawler and astropy on local files: siblings and, where it is at hand, the whole corpus."""
    buckets = [write_bucket(folder, "survey", counts.at_most(2000))]
    if archive := write_archive(folder, ""):
        buckets.append(archive)
    rows: list[list[object]] = []
    with bench(folder, served=False) as local:
        for bucket in buckets:
            keys = local.keys(bucket)
            ours = local.crawl(bucket)
            theirs = local.read(LOCAL, bucket, keys)
            what = f"{len(keys):,} files of 4 HDUs" if bucket == "survey" else f"{len(keys):,} different files"
            rows += [
                [f"**crawler**, {what}", ours.cpu_ms, None, ours.rate, ours.result.peak / 1e6],
                [
                    f"astropy, {what}, {theirs.result.failed} not read",
                    theirs.cpu_ms,
                    theirs.cpu_ms / ours.cpu_ms,
                    theirs.rate,
                    theirs.result.peak / 1e6,
                ],
            ]
    text = table(("local disk", "CPU ms a file", "times", "files/s", "peak MB"), rows)
    return Section("On a local disk", text)
