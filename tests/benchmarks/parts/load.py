"""How the crawler scales: with requests under way, with files, and what memory a worker takes."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.markdown import table
from tests.benchmarks.measure import bench, write_bucket
from tests.benchmarks.nginx import PAUSE
from tests.benchmarks.parts.base import AT_PAUSE, Counts, Figure, Section, Series

_IN_FLIGHT = (1, 2, 4, 8, 16, 32, 64)
_FILES = (100, 1_000, 10_000, 50_000)
_SECONDS = 20  # that a run at low concurrency may take


def flight(folder: Path, counts: Counts) -> Section:
    """Measure files a second against requests under way, where each takes its time."""
    most = counts.at_most(4000)
    sizes = {limit: min(most, max(20, int(limit * _SECONDS / PAUSE / 3))) for limit in _IN_FLIGHT}
    for size in sorted(set(sizes.values())):
        write_bucket(folder, "survey", size, name=f"survey{size}")
    rows: list[list[object]] = []
    measured, ideal = [], []
    with bench(folder) as served:
        for limit, size in sizes.items():
            found = served.crawl(f"survey{size}", slow=True, index={"concurrency": limit})
            best = limit / (PAUSE * found.requests)
            rows.append([limit, size, found.requests, found.rate, best, found.rate / best * 100, found.cpu_ms])
            measured.append((float(limit), found.rate))
            ideal.append((float(limit), best))
    columns = ("requests under way", "files", "requests a file", "files/s", "ideal", "% of ideal", "CPU ms a file")
    text = f"""
Files of 4 HDUs, {AT_PAUSE} to the first byte, one process. Ideal is what so many requests can do that each take
{AT_PAUSE} and nothing else does: N / {AT_PAUSE} / requests a file.

{table(columns, rows)}
"""
    lines = [Series("crawler, one process", measured), Series("ideal", ideal, dashed=True)]
    return Section("Requests under way", text, [Figure("flight", "requests under way", "files/s", lines)])


def scale(folder: Path, counts: Counts) -> Section:
    """Measure what a file costs against how many there are."""
    sizes = sorted({counts.at_most(size) for size in _FILES})
    for size in sizes:
        write_bucket(folder, "survey", size, name=f"survey{size}")
    rows: list[list[object]] = []
    with bench(folder) as served:
        for size in sizes:
            found = served.crawl(f"survey{size}")
            rows.append([size, found.cpu_ms, found.rate, found.requests, found.result.peak / 1e6])
    columns = ("files", "CPU ms a file", "files/s", "requests a file", "peak MB")
    points = [(float(size), float(str(row[1]))) for size, row in zip(sizes, rows, strict=True)]
    figure = Figure("scale", "files", "CPU ms a file", [Series("crawler", points)], log_y=False)
    return Section("Number of files", f"Files of 4 HDUs, no pause, one process.\n\n{table(columns, rows)}", [figure])


def memory(folder: Path, counts: Counts) -> Section:
    """Measure the most memory that one worker takes, on what needs most."""
    cases = {
        write_bucket(folder, "megaprime", counts.at_most(2000)): "MegaPrime, 37 HDUs, 15,246 cards, one partition",
        write_bucket(folder, "tess-cube", 1): "a TESS cube of 44 GB",
    }
    rows: list[list[object]] = []
    with bench(folder) as served:
        for bucket, what in cases.items():
            found = served.crawl(bucket, one_partition=True)
            result = found.result
            rows.append(
                [
                    what,
                    result.files,
                    result.cards,
                    result.base / 1e6,
                    result.peak / 1e6,
                    (result.peak - result.base) / 1e6,
                    found.requests,
                    found.body_bytes / 1e3,
                ]
            )
    columns = ("", "files", "cards", "before, MB", "peak, MB", "of the crawl, MB", "requests a file", "kB a file")
    text = f"One process; before is what Python and the libraries take after a small crawl.\n\n{table(columns, rows)}"
    return Section("Memory of a worker", text)
