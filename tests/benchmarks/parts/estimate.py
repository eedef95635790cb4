"""Estimates beside what crawls then take, product by product and of all products at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import crawler
from crawler.estimation import Interval, estimate
from tests.benchmarks.markdown import shown, table
from tests.benchmarks.measure import write_archive, write_bucket
from tests.benchmarks.nginx import nginx
from tests.benchmarks.parts.base import Counts, Section
from tests.benchmarks.peers import Bucket
from tests.benchmarks.products.all import PRODUCTS

FILES = 300
"""Of each product."""

SHARE = 0.1
"""Of the files of a product, those that are walked."""

_COLUMNS = (
    "product",
    "files",
    "walked",
    "requests",
    "estimate",
    "MB read",
    "estimate",
    "cards",
    "estimate",
    "catalogue MB",
)


def run(folder: Path, counts: Counts) -> Section:
    """Estimate and crawl a bucket of each product, and all of them together."""
    titles = {write_bucket(folder, name, counts.at_most(FILES)): one.title for name, one in PRODUCTS.items()}
    if archive := write_archive(folder, "opencadc"):
        titles[archive] = "archive files, all different"
    rows: list[list[object]] = []
    held: list[bool] = []
    with nginx(folder) as server:
        for roots, title in [*(([name], title) for name, title in titles.items()), (list(titles), "**together**")]:
            rows.append(_row(server.fast, roots, title, folder / f"catalogue-{len(rows)}", held))
    text = f"""
The sample of each product was a tenth of {counts.at_most(FILES)} files, that of all together 400 files; then all files
were crawled. Beside what the crawl took is the estimate as a share of it, and in brackets its 95 % interval.
{sum(held)} of {len(held)} intervals hold it; the others have an exclamation mark.

{table((*_COLUMNS, "estimate"), rows)}
"""
    return Section("Estimates, and what crawls took", text)


def _row(endpoint: str, names: Sequence[str], title: str, catalogue: Path, held: list[bool]) -> list[object]:
    options = Bucket(endpoint, names[0]).options
    roots = [f"s3://{name}" for name in names]
    files = sum(1 for name in names for path in (catalogue.parent / name).rglob("*") if path.is_file())
    sample = 400 if len(names) > 1 else max(20, round(SHARE * files))
    estimated = estimate(roots, workers=0, include=["*"], storage_options=options, sample=sample)
    report = crawler.index(roots, str(catalogue), include=["*"], storage_options=options)
    stored = sum(one.size for one in crawler.Catalogue(str(catalogue)).fragments)
    row: list[object] = [title, report.files, estimated.spent.files]
    for actual, span, unit in (
        (report.requests, estimated.requests, 1),
        (report.bytes_read, estimated.bytes_read, 1e6),
        (report.cards, estimated.cards, 1),
        (stored, estimated.catalogue_bytes, 1e6),
    ):
        held.append(actual in span)
        row += [actual / unit, _cell(actual, span)]
    return row


def _cell(actual: float, span: Interval) -> str:
    """Return an estimate as a share of what the crawl took."""
    value, low, high = (shown(part / actual) for part in (span.value, span.low, span.high))
    return f"{value} [{low}, {high}]{'' if actual in span else ' !'}"
