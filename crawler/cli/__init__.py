"""The command line: the only place that prints.

Exit codes: 0 the command did what it was asked, even if some files are bad, for those are rows; 1 it could not list,
read or commit, and says why in one line; 2 wrong usage; 130 interrupted, what was done being committed.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

import crawler
from crawler.cli import estimate, options
from crawler.cli.clusters import client_of
from crawler.errors import CrawlerError, FormatError, StoreDownError, UsageError
from crawler.interrupts import interruptible

if TYPE_CHECKING:
    from crawler.headers import HeaderUnit
    from crawler.report import Report
    from crawler.stores import Adapter

# Each command imports what it needs: `crawler --help` should not wait for Arrow, Delta and Dask.
# And it prints, which nothing below it does.
# ruff: noqa: PLC0415, T201

Command = TypeVar("Command", bound=Callable[..., Any])


INTERRUPTED = 130
"""Exit code after SIGINT or SIGTERM."""

_READERS = {"walk", "partition", "listing", "spool", "lister"}
"""Names of the threads that wait for stores."""

_GOES_ON = "what was walked is in the catalogue, the same command goes on from there"


def main() -> NoReturn:
    """Run the command line; every failure is one line on standard error."""
    try:
        with interruptible():
            code = commands(prog_name="crawler", standalone_mode=False)
        sys.stdout.flush()  # while we can still say what is wrong with it
    except (click.UsageError, UsageError) as error:
        message = error.format_message() if isinstance(error, click.UsageError) else str(error)
        code = fail(message, 2)
    except (click.Abort, KeyboardInterrupt):
        code = fail("interrupted", INTERRUPTED)
    except CrawlerError as error:
        code = fail(str(error), 1)
    except BrokenPipeError:  # whoever read our output has left, and needs no message
        code = 1
    except OSError as error:
        code = fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "), 1)
    _settle_output()
    if code == INTERRUPTED:
        _leave_readers(code)
    sys.exit(code if isinstance(code, int) else 0)


def _leave_readers(code: int) -> None:
    """End the process at once if threads of an interrupted run still wait for a store.

    Python would not wait for them, and a request that ends while Python closes its interpreter makes the storage
    library abort the process.
    """
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it would log each task of Dask that was interrupted
    if any(thread.name in _READERS for thread in threading.enumerate()):
        atexit._run_exitfuncs()
        sys.stderr.flush()
        os._exit(code)


def _settle_output() -> None:
    """Drop what cannot be written: Python would try again on its way out, complain, and change the exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str, code: int) -> int:
    """Print one line that says what went wrong, and return the exit code."""
    from crawler.stores.urls import one_line

    print(f"crawler: {one_line(message, limit=2000)}", file=sys.stderr)
    return code


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(crawler.__version__, message="crawler %(version)s")
@click.pass_context
def commands(context: click.Context) -> None:
    """Index the headers of FITS files, wherever they lie, as a Parquet catalogue."""
    if context.invoked_subcommand is None:
        print(context.get_help())


commands.add_command(estimate.command)


def catalogue_argument(command: Command) -> Command:
    """Add what says which catalogue is read: its folder, how it is reached, and which version."""
    command = click.option("--version", type=int, help="An earlier version of the catalogue.")(command)
    return click.argument("catalogue")(options.catalogue_flag(command))


@commands.command()
@click.argument("roots", nargs=-1)
@click.option("-c", "--catalogue", metavar="FOLDER", help="Folder of the catalogue, new or not: a path or a URL.")
@click.option("--job", "job_file", metavar="FILE", help="Job file with all of this; what is given here counts more.")
@click.option(
    "--include", multiple=True, help="Glob of names to take; may be given again. Default: names that FITS files have."
)
@click.option("--exclude", multiple=True, help="Glob of names to leave out; may be given again.")
@options.cluster_flags
@click.option("--performance-report", metavar="FILE", help="Write Dask's report of the run there, as HTML.")
@click.option(
    "--concurrency", type=click.IntRange(1), help="Requests each process makes at once. Default: what suits the store."
)
@click.option(
    "--max-requests-per-second",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="Requests of all processes together.",
)
@click.option(
    "--max-usd",
    type=click.FloatRange(0, min_open=True),
    metavar="USD",
    help="Stop before requests and transfer cost more (prices: --cost); the same command with more goes on.",
)
@click.option(
    "--allow-removals",
    is_flag=True,
    default=None,
    help="Remove files that are gone even if they are more than a tenth of the catalogue.",
)
@click.option("--relist", is_flag=True, default=None, help="List anew even where a run that died has left its listing.")
@options.scope_flags
@options.storage_flags
@options.catalogue_flag
@options.store_flag
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("--log-json", is_flag=True, help="Say on standard error what happens as JSON, one object a line.")
def index(job_file: str | None, as_json: bool, log_json: bool, performance_report: str | None, **given: Any) -> int:
    """Index the headers of every FITS file below ROOTS.

    ROOTS are folders, files, URLs, and lists of them: @keys.txt or @keys.parquet. Run it again on the same catalogue
    to walk only what is new or changed, or to finish a run that was killed.
    """
    arguments = options.with_job_file(job_file, given)

    from rich.console import Console

    from crawler import api, screen
    from crawler.report import Interrupted

    cluster = {name: arguments.pop(name) for name in list(arguments) if name in options.OF_CLUSTER - {"workers"}}
    workers = 0 if cluster else arguments.setdefault("workers", os.cpu_count() or 1)
    client = None
    if cluster or workers:
        client = partial(client_of, cluster, workers, performance_report, _teller(log_json))
    elif performance_report is not None:
        raise UsageError("--performance-report is of a Dask cluster: there is none with --workers 0")
    shown = screen.JsonLog(sys.stderr) if log_json else screen.Progress(Console(stderr=True))
    with shown.shown() as progress:
        try:
            report = api.index(**arguments, client=client, progress=progress)
        except Interrupted as interrupted:
            report = interrupted.report
            if report.version is None:  # nothing was walked, and there may be no catalogue
                return fail("interrupted", INTERRUPTED)
        except StoreDownError as error:
            return fail(f"{error}; {_GOES_ON}", 1)
    if as_json:
        print(screen.as_json(report))
    elif not report.nothing_found or report.removed:
        print(screen.summary(report))
    return _code_of(report)


def _teller(log_json: bool) -> Callable[[str], None]:
    """Return what prints a line beside the progress of a crawl."""

    def tell(line: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        print(json.dumps({"time": now, "event": "cluster", "told": line}) if log_json else line, file=sys.stderr)

    return tell


def _code_of(report: Report) -> int:
    """Say what a crawl could not do, if anything, and return the exit code."""
    if report.interrupted:
        return fail(f"interrupted; {_GOES_ON}", INTERRUPTED)
    if report.stopped:
        return fail(f"{report.stopped}; {_GOES_ON}", 1)
    if report.nothing_found and not report.removed:
        return fail(report.nothing_found, 1)
    if report.files and report.walked["unreadable"] == report.listed:
        return fail(f"none of {report.listed:,} files could be read; the first: {report.first_error}", 1)
    if report.withheld:
        return fail(
            f"{report.withheld:,} files of the catalogue were not found again and were kept, since they are more than "
            "a tenth of it; if they are really gone, --allow-removals removes them",
            1,
        )
    return 0


@commands.command()
@click.argument("url")
@click.option("--hdu", type=click.IntRange(0), help="Only this HDU; 0 is the primary.")
@click.option("--keyword", multiple=True, help="Only cards of this keyword; may be given again.")
@options.storage_flags
@options.store_flag
def headers(
    url: str, hdu: int | None, keyword: tuple[str, ...], storage_options: dict[str, Any], store: Adapter | None
) -> int:
    """Print the headers of one FITS file, read from where it lies."""
    from crawler import load_headers
    from crawler.stores.urls import printable

    wanted = {name.upper() for name in keyword}
    found = False
    count = 0
    try:
        for unit in load_headers(url, storage_options=storage_options, store=store or "auto"):
            count += 1
            if hdu is not None and unit.index < hdu:
                continue
            found |= _print_header(unit, wanted)
            if hdu is not None:
                break
    except FormatError as fault:
        return fail(f"{printable(url)}: {fault}", 1)
    if hdu is not None and count <= hdu:
        return fail(f"{printable(url)}: there is no HDU {hdu}, the file has {count}", 1)
    if not found:
        return fail(f"{printable(url)}: no card of {', '.join(sorted(wanted))}", 1)
    return 0


def _print_header(unit: HeaderUnit, wanted: set[str]) -> bool:
    """Print one header, or those of its cards that are wanted; return whether anything was printed."""
    from crawler.stores.urls import one_line

    if not wanted:
        place = f"header {unit.offset}+{unit.length}, data {unit.data_offset}+{unit.data_size}"
        print(f"# HDU {unit.index} {one_line(unit.hdu.kind)}: {place}")
        print("\n".join(one_line(text) for _, text in _card_lines(unit.hdu.header)))
        return True
    lines = [text for name, text in _card_lines(unit.hdu.header) if name.upper() in wanted]
    for line in lines:
        print(f"{unit.index}\t{one_line(line)}")
    return bool(lines)


def _card_lines(header: bytes) -> list[tuple[str, str]]:
    """Return the keyword and the text of each card image; those of a CONTINUE run have the keyword of its first."""
    from crawler.fits.cards import parse_cards
    from crawler.fits.units import CARD

    images = [header[at : at + CARD].decode("latin-1").rstrip() for at in range(0, len(header), CARD)]
    cards = parse_cards([header]).select(["card", "keyword"]).to_pylist()
    ends = [card["card"] for card in cards[1:]] + [len(images)]
    return [
        (card["keyword"], text) for card, end in zip(cards, ends, strict=True) for text in images[card["card"] : end]
    ]


@commands.command()
@catalogue_argument
def info(catalogue: str, version: int | None, catalogue_options: dict[str, Any]) -> None:
    """Say what a catalogue holds."""
    from crawler import Catalogue, screen
    from crawler.stores.urls import one_line

    opened = Catalogue(catalogue, version=version, storage_options=catalogue_options)
    print(f"{one_line(opened.url, limit=2000)} version {opened.version}")
    for table in ("files", "hdus", "cards"):
        parts = opened.snapshot.of(table)
        print(f"  {table:6} {parts.rows:>14,} rows  {screen.size(parts.size):>10} in {len(parts):,} Parquet files")
    kinds = opened.sql("SELECT status, count(*) AS files FROM files GROUP BY status ORDER BY files DESC, status")
    for kind in kinds.to_pylist():
        print(f"  {kind['files']:>21,} files {one_line(kind['status'])}")
    span = opened.sql("SELECT count(DISTINCT crawl) AS crawls, max(walked_at) AS latest FROM files").to_pylist()[0]
    if span["latest"] is not None:
        print(f"  walked by {span['crawls']:,} runs, the latest on {span['latest']:%Y-%m-%d at %H:%M} UTC")


@commands.command()
@click.argument("catalogue")
@click.option("-n", "latest", type=click.IntRange(1), default=20, show_default=True, help="How many, the latest first.")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known of each as JSON, one object a line.")
@options.catalogue_flag
def runs(catalogue: str, latest: int, as_json: bool, catalogue_options: dict[str, Any]) -> None:
    """List the runs that wrote a catalogue: who, when, what, and what came of it."""
    from crawler import screen
    from crawler.catalogue.log import CatalogueLog
    from crawler.catalogue.runs import runs_of

    log = CatalogueLog(catalogue, catalogue_options)
    log.open()  # says where there is no catalogue
    found = runs_of(log.folder, latest)
    if as_json:
        for run in found:
            print(run.as_json())
    else:
        screen.print_runs(found)


@commands.command()
@catalogue_argument
@click.argument("sql")
@click.option("--csv", is_flag=True, help="Print CSV, as into a pipe.")
def query(catalogue: str, version: int | None, catalogue_options: dict[str, Any], sql: str, csv: bool) -> None:
    """Run SQL over the views files, hdus and cards: a table on a terminal, CSV in a pipe."""
    from crawler import Catalogue, screen

    rows = Catalogue(catalogue, version=version, storage_options=catalogue_options).sql(sql)
    if csv or not sys.stdout.isatty():
        screen.print_csv(rows)
    else:
        screen.print_table(rows)


@commands.command()
@click.argument("catalogue")
@click.option("--now", is_flag=True, help="Keep the latest version alone, for plain Parquet readers.")
@options.catalogue_flag
def vacuum(catalogue: str, now: bool, catalogue_options: dict[str, Any]) -> None:
    """Delete files of a catalogue that it no longer needs.

    Those are files of versions that were replaced a week ago or more, and what dead runs left a month ago or more.
    With --now, all but the latest version: only while no crawl runs and nobody reads an earlier one.
    """
    from crawler import screen
    from crawler.catalogue.vacuum import vacuum as clean

    done = clean(catalogue, now=now, storage_options=catalogue_options)
    print(f"deleted {done.deleted:,} files, {screen.size(done.bytes)}")


@commands.command()
@click.argument("folder", default="crawler-demo")
def demo(folder: str) -> None:
    """Index the FITS files that come with astropy and a few more, and show what one can ask.

    The catalogue and the generated files are written to FOLDER.
    """
    from crawler.demo import run_demo

    run_demo(folder)
