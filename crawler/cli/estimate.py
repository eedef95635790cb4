"""``crawler estimate``: what ``crawler index`` would take, before anything is spent."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import click

from crawler.cli import options
from crawler.errors import UsageError
from crawler.job.job_file import read_job_file

if TYPE_CHECKING:
    from crawler.estimation import Estimate, Interval

# It imports what it needs, and it prints, which nothing below it does.
# ruff: noqa: PLC0415, T201

_UNUSED = (options.OF_CLUSTER - {"workers"}) | {"allow_removals", "max_usd"}
"""Names of a job file that change nothing of what a run takes."""

_WIDTH = 80  # columns of the table


@click.command(name="estimate")
@click.argument("roots", nargs=-1)
@click.option(
    "-c",
    "--catalogue",
    metavar="FOLDER",
    help="Catalogue of the crawl: its unchanged files are not counted, and the estimate is saved there.",
)
@click.option("--job", "job_file", metavar="FILE", help="Job file; options of the command line take precedence.")
@click.option(
    "--include",
    multiple=True,
    metavar="GLOB",
    help="Names to take; repeatable. Default: the usual names of FITS files.",
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Names to leave out; repeatable.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    metavar="N",
    help="Processes of the crawl. Default: one for each core of this machine.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    metavar="N",
    help="Requests in flight in each process. Default: 32, or 4 for local files.",
)
@click.option(
    "--max-requests-per-second",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="Requests per second of all processes together; the sample keeps to it, too.",
)
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Files in the sample, about. Default: 400.")
@click.option(
    "--max-keys",
    type=click.IntRange(1),
    metavar="N",
    help="Stop the listing after N objects; the estimate is for these alone.",
)
@options.scope_flags
@options.stores_flags
@options.store_flag
@click.option("--json", "as_json", is_flag=True, help="Print the estimate as JSON.")
def command(job_file: str | None, as_json: bool, **given: Any) -> int:
    """Estimate requests, dollars, time and catalogue size of `crawler index`.

    Lists ROOTS, walks a random sample of the files, and multiplies. Reads nothing else, and writes only the estimate,
    beside the catalogue if one is given. Ranges are 95 % intervals.
    """
    arguments = _arguments(job_file, given)

    from crawler.cli import output
    from crawler.estimation import estimate

    with output.EstimateProgressLine(output.Console(stderr=True)).shown() as progress:
        found = estimate(**arguments, progress=progress)
    print(found.to_json() if as_json else table(found))
    return 0


def _arguments(path: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the command line, over those of the job file.

    Raises
    ------
    UsageError
        The job file cannot be read, or there are no roots.
    """
    over = {name: value for name, value in given.items() if value is not None and value not in ((), {})}
    under = read_job_file(path) if path is not None else {}
    arguments = options.arguments_of({name: value for name, value in under.items() if name not in _UNUSED}, over)
    if not arguments.get("roots"):
        where = f"in the section [crawl] of {path}" if path is not None else "in a job file (--job FILE)"
        raise UsageError(f"there is nothing to estimate: name ROOTS (folders, files, URLs), or roots {where}")
    return arguments


def table(found: Estimate) -> str:
    """Return an estimate for a person: lines of a name and figures, at most 80 columns wide."""
    lines = []
    for name, text in _lines(found):
        indent = " " * 11
        lines += textwrap.wrap(
            f"{name:10} {text}", _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
    return "\n".join(lines)


def _lines(found: Estimate) -> list[tuple[str, str]]:
    """Return the lines of the table, each with its name."""
    from crawler.stores.urls import one_line
    from crawler.text import counted, format_bytes, format_count, format_duration, format_interval, format_usd

    def span(interval: Interval, form: Any) -> str:
        return format_interval(interval.low, interval.high, form)

    spent = found.spent
    products = counted(found.products, "product")
    files = f"{counted(found.files, 'file')} to walk, {format_bytes(found.bytes_stored)}, {products}"
    if found.unchanged:
        files += f"; not counted: {counted(found.unchanged, 'unchanged file')} of the catalogue"
    cost = "$0: local disks and web servers charge nothing"
    if found.charged:
        cost = (
            f"{span(found.usd_requests, format_usd)} for requests, {span(found.usd_transfer, format_usd)} for transfer"
        )
        if not found.usd_transfer.high:
            cost += " (--cost usd_per_gb sets a price)"
    workers = counted(found.workers, "worker")
    lines = [
        ("listed", f"{counted(found.seen, 'object')}, {found.listed:,} of them FITS files by name"),
        ("files", files),
        ("requests", f"{span(found.requests, format_count)} GET, {found.list_requests:,} LIST"),
        ("read", span(found.bytes_read, format_bytes)),
        ("store", cost),
        ("time", f"{span(found.duration, format_duration)} on {workers}, limited by {found.limited_by}"),
        ("workers", f"{span(found.usd_compute, format_usd)} (--cost usd_per_hour sets the price)"),
        (
            "catalogue",
            f"{span(found.catalogue_bytes, format_bytes)}, {span(found.hdus, format_count)} HDUs, "
            f"{span(found.cards, format_count)} cards",
        ),
        (
            "sample",
            f"{counted(spent.files, 'file')}, {spent.requests:,} GET, {spent.list_requests:,} LIST, "
            f"{format_bytes(spent.bytes_read)}, {format_usd(spent.usd)}, {format_duration(spent.seconds)}; "
            f"a request took {format_duration(found.request_seconds)}",
        ),
    ]
    bad = sorted((status, count) for status, count in found.statuses.items() if status != "ok")
    if bad:
        kinds = ", ".join(f"{count:,} {status}" for status, count in bad)
        first = f"; the first unreadable file: {one_line(found.first_error, limit=300)}" if found.first_error else ""
        lines.append(("", f"of {counted(sum(found.statuses.values()), 'file')}: {kinds}{first}"))
    if not found.complete:
        lines.append(
            (
                "note",
                f"the listing stopped after {counted(found.seen, 'object')} (--max-keys); the rest is not counted",
            )
        )
    return lines
