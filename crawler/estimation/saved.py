"""Estimates beside the catalogue, so that a run can be compared with the estimate for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from crawler.catalogue.folder import Folder
from crawler.driver.report import Report
from crawler.errors import CatalogueError
from crawler.estimation.model import Estimate
from crawler.estimation.statistics import Interval
from crawler.job.crawl_job import CrawlJob
from crawler.stores.urls import one_line
from crawler.text import format_bytes, format_count, format_duration, format_interval, format_usd

ESTIMATES = "_crawler/estimates"
"""Folder below that of the catalogue. Readers of Parquet folders skip names that begin with an underscore."""


def fingerprint_of(job: CrawlJob) -> str:
    """Return a name for what a job crawls, and how: roots, filters and scope, in any order; no options of stores.

    A root may be a signed URL; its signature cannot be computed from the name.
    """
    parts = {
        "roots": sorted(set(job.roots)),
        "include": None if job.include is None else sorted(set(job.include)),
        "exclude": sorted(set(job.exclude)),
        "max_hdus": job.scope.max_hdus,
        "policy": asdict(job.scope.policy),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def save_estimate(folder: Folder, estimate: Estimate) -> None:
    """Write an estimate below the folder of a catalogue, in place of an earlier one of the same job.

    Raises
    ------
    CatalogueError
        It cannot be written.
    """
    try:
        folder.put(f"{ESTIMATES}/{estimate.fingerprint}.json", estimate.to_json().encode())
    except OSError as error:
        reason = one_line(error.strerror or str(error), limit=300)
        raise CatalogueError(folder.url, f"cannot be written: {reason}") from None


def load_estimate(folder: Folder, fingerprint: str) -> Estimate | None:
    """Return the latest estimate of a job; None where there is none, or a file that is not an estimate of this job."""
    with suppress(OSError, ValueError):
        estimate = Estimate.from_json(folder.get(f"{ESTIMATES}/{fingerprint}.json"))
        return estimate if estimate.fingerprint == fingerprint else None
    return None


def compare(estimate: Estimate, report: Report) -> list[str]:
    """Return what a run took beside the estimate for it, one line for each figure."""
    figures: list[tuple[str, float, Interval, Callable[[float], str]]] = [
        ("files", report.files, Interval.exact(estimate.files), format_count),
        ("requests", report.requests, estimate.requests, format_count),
        ("read", report.bytes_read, estimate.bytes_read, format_bytes),
        ("HDUs", report.hdus, estimate.hdus, format_count),
        ("cards", report.cards, estimate.cards, format_count),
        ("time", report.seconds, estimate.duration, format_duration),
    ]
    if estimate.charged:
        figures.append(("cost", report.usd, estimate.usd_requests + estimate.usd_transfer, format_usd))
    part = "" if estimate.complete else ", for a part of the files"
    return [
        f"{name:9} {form(actual)} (estimate: {format_interval(span.low, span.high, form)}{part})"
        for name, actual, span, form in figures
    ]
