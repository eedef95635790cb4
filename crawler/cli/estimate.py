"""``crawler estimate``: what ``crawler index`` would take, before anything is spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from crawler.cli import options
from crawler.errors import UsageError
from crawler.job_file import read_job_file

if TYPE_CHECKING:
    from crawler.quoting import Quote

# It imports what it needs, and it prints, which nothing below it does.
# ruff: noqa: PLC0415, T201

_ELSEWHERE = (options.OF_CLUSTER - {"workers"}) | {
    "allow_removals",
    "file_timeout",
    "max_usd",
}
"""What job files say of a run that changes nothing of what it takes."""


@click.command(name="estimate")
@click.argument("roots", nargs=-1)
@click.option(
    "-c", "--catalogue", metavar="FOLDER", help="What it holds already is not counted; the quote is kept there."
)
@click.option("--job", "job_file", metavar="FILE", help="Job file with all of this; what is given here counts more.")
@click.option(
    "--include", multiple=True, help="Glob of names to take; may be given again. Default: names that FITS files have."
)
@click.option("--exclude", multiple=True, help="Glob of names to leave out; may be given again.")
@click.option(
    "--workers", type=click.IntRange(0), help="Processes that would crawl. Default: one a core of this machine."
)
@click.option(
    "--concurrency", type=click.IntRange(1), help="Requests each process makes at once. Default: what suits the store."
)
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Files to walk, about. Default: 400.")
@click.option("--max-keys", type=click.IntRange(1), metavar="N", help="List no more than about N objects.")
@options.scope_flags
@options.stores_flags
@options.store_flag
@click.option("--json", "as_json", is_flag=True, help="Print the quote as JSON.")
def command(job_file: str | None, as_json: bool, **given: Any) -> int:
    """Quote what `crawler index` of ROOTS would take: requests, dollars, hours and the catalogue's size.

    Lists ROOTS, walks some files of each product, and writes nothing but the quote, beside the catalogue if there is
    one. Ranges are such that they hold what a run takes nineteen times in twenty.
    """
    arguments = _arguments(job_file, given)

    from crawler.quoting import estimate

    quote = estimate(**arguments)
    print(quote.to_json() if as_json else shown(quote))
    return 0


def _arguments(path: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Return what the command line gives, over what the job file does.

    Raises
    ------
    UsageError
        The job file cannot be read, or there are no roots.
    """
    over = {name: value for name, value in given.items() if value is not None and value not in ((), {})}
    told = read_job_file(path) if path is not None else {}
    arguments = options.arguments_of({name: value for name, value in told.items() if name not in _ELSEWHERE}, over)
    if not arguments.get("roots"):
        where = f"in the section [crawl] of {path}" if path is not None else "in a job file (--job FILE)"
        raise UsageError(f"there is nothing to estimate: name ROOTS (folders, files, URLs), or roots {where}")
    return arguments


def shown(quote: Quote) -> str:
    """Return a quote for a person, in a few lines."""
    from crawler.quoting.kept import in_bytes, in_dollars, in_hours, spanned, whole
    from crawler.stores.urls import one_line

    spent = quote.spent
    files = f"{quote.files:,} to walk, {in_bytes(quote.bytes_stored)}, {quote.products:,} products"
    if quote.unchanged:
        files += f"; {quote.unchanged:,} are in the catalogue"
    usd = [spanned(part, in_dollars) for part in (quote.usd_requests, quote.usd_transfer, quote.usd_compute)]
    workers = f"{quote.workers:,} {'worker' if quote.workers == 1 else 'workers'}"
    lines = [
        ("listed", f"{quote.seen:,} objects, {quote.listed:,} of FITS names"),
        ("files", files),
        ("requests", f"{spanned(quote.requests, whole)} GET, {quote.lists:,} LIST"),
        ("reads", spanned(quote.bytes_read, in_bytes)),
        ("dollars", f"{spanned(quote.usd, in_dollars)}: requests {usd[0]}, transfer {usd[1]}, compute {usd[2]}"),
        ("time", f"{spanned(quote.hours, in_hours)} on {workers}, bound by {quote.bound}"),
        (
            "catalogue",
            f"{spanned(quote.catalogue_bytes, in_bytes)}: {spanned(quote.hdus, whole)} HDUs, "
            f"{spanned(quote.cards, whole)} cards",
        ),
    ]
    bad = sorted((status, count) for status, count in quote.statuses.items() if status != "ok")
    if bad:
        kinds = ", ".join(f"{count:,} {status}" for status, count in bad)
        first = f"; the first unreadable: {one_line(quote.first_error, limit=300)}" if quote.first_error else ""
        lines.append(("sample", f"of {spent.files:,} files {kinds}{first}"))
    lines.append(
        (
            "estimate",
            f"took {spent.files:,} files, {spent.requests:,} GET, {spent.lists:,} LIST, {in_bytes(spent.bytes_read)}, "
            f"{in_dollars(spent.usd)}, {in_hours(spent.seconds / 3600)}",
        )
    )
    if not quote.complete:
        lines.append(("note", "the listing was broken off (--max-keys): this is for what was listed, the rest is more"))
    return "\n".join(f"{name:10} {text}" for name, text in lines)
