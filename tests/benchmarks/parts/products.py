"""What the walk asks for, product by product, against the least that could be asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import crawler
from crawler.fits.policy import read_policy
from tests.benchmarks.markdown import table
from tests.benchmarks.measure import Bench, bench, write_archive, write_bucket
from tests.benchmarks.parts.base import AT_PAUSE, Counts, Section
from tests.benchmarks.products.all import PRODUCTS

_COLUMNS = (
    "product",
    "files",
    "HDUs",
    "header kB",
    "clusters",
    "requests",
    "requests / clusters",
    "bytes read / header bytes",
    "round trips",
    "CPU ms",
    f"files/s, {AT_PAUSE}",
)
_CLUSTERS = _COLUMNS.index("clusters")


def run(folder: Path, counts: Counts, gap: int | None = None) -> Section:
    """Index a bucket of every product.

    Parameters
    ----------
    folder : Path
    counts : Counts
    gap : int, optional
        Headers no further apart are one cluster; as the crawler's own policy has it, by default.
    """
    gap = read_policy().gap if gap is None else gap
    titles = {write_bucket(folder, name, counts.at_most(one.usual)): one.title for name, one in PRODUCTS.items()}
    if archive := write_archive(folder, "opencadc"):
        titles[archive] = "archive files, all different"
    with bench(folder) as served:
        rows = [_row(served, bucket, title, gap) for bucket, title in titles.items()]
    rows.append(_together([row for row in rows if row[_CLUSTERS] is not None and "differ" not in str(row[0])]))
    text = f"""
Numbers are of one file, the mean of all. Headers with at most {gap / 1e3:,.0f} kB between them are a cluster: one
request for each is the floor of a reader that knows where they are. Round trips are the times that a walk waited,
requests made at once being one. Of a product, 2 % of the files differ in layout, and HST's come in programmes of three
layouts; DECam's as they are archived differ all, since tile compression gives each data unit its own length. Of gzip,
everything up to the last header must be read. The last row is of all files of products whose siblings are alike.

{table(_COLUMNS, rows)}
"""
    return Section("Product by product", text)


def _row(served: Bench, bucket: str, title: str, gap: int) -> list[object]:
    with tempfile.TemporaryDirectory() as temporary:
        found = served.crawl(bucket, slow=True, catalogue=temporary + "/catalogue")
        hdus, header_bytes, clusters = _headers(temporary + "/catalogue", gap)
    files = found.result.files
    plain = not title.endswith("gzip")
    return [
        title,
        files,
        hdus / files,
        header_bytes / files / 1e3,
        clusters / files if plain else None,
        found.requests,
        found.requests * files / clusters if plain else None,
        found.body_bytes * files / header_bytes,
        found.result.report["round_trips"] / files,
        found.cpu_ms,
        found.rate,
    ]


def _together(rows: list[list[Any]]) -> list[object]:
    """Return the row of several buckets as if they were one."""
    files = sum(row[1] for row in rows)

    def mean(column: int) -> float:
        return float(sum(row[1] * row[column] for row in rows) / files)

    clusters, requests, header_kb = mean(_CLUSTERS), mean(5), mean(3)
    read = sum(row[1] * row[3] * row[7] for row in rows) / files
    return [
        "**together**", files, mean(2), header_kb, clusters, requests, requests / clusters, read / header_kb, mean(8),
        mean(9), None,
    ]  # fmt: skip


def _headers(catalogue: str, gap: int) -> tuple[int, int, int]:
    """Return how many HDUs, header bytes and clusters of headers a catalogue has."""
    row = (
        crawler.Catalogue(catalogue)
        .sql(
            f"""
            SELECT count(*) AS hdus, sum(header_size)::BIGINT AS bytes,
                   count(*) FILTER (before IS NULL OR header_offset - before > {gap}) AS clusters
            FROM (SELECT header_offset, header_size,
                         lag(header_offset + header_size) OVER (PARTITION BY url ORDER BY hdu) AS before FROM hdus)
            """
        )
        .to_pylist()[0]
    )
    return row["hdus"], row["bytes"], row["clusters"]
