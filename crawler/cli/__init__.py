"""The command line: the only place that prints.

Exit codes: 0 the command did what it was asked, even if some files are bad, for those are rows, and even if the program
that reads its output has ended before all of it was written, as ``head`` does; 1 it could not list, read or commit, and
says why in one line; 2 wrong usage; 130 interrupted, what was done being committed.
"""

from __future__ import annotations

import atexit
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from difflib import SequenceMatcher
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

import crawler
from crawler.cli import estimate, headers, options
from crawler.cli.clusters import client_of
from crawler.cli.program import fail, program
from crawler.errors import CrawlerError, StoreDownError, UsageError
from crawler.interrupts import interruptible
from crawler.text import counted, plural

if TYPE_CHECKING:
    from crawler.driver.report import Report

# Each command imports what it needs: `crawler --help` should not wait for Arrow, Delta and Dask.
# And it prints, which nothing below it does.
# ruff: noqa: PLC0415, T201

Command = TypeVar("Command", bound=Callable[..., Any])


_NEAR = 0.6
"""Similarity from which a name is suggested for another. click compares the hyphens, too: --foo is near --job to it."""

INTERRUPTED = 130
"""Exit code after SIGINT or SIGTERM."""

_READERS = {"walk", "partition", "listing", "spool", "lister"}
"""Names of the threads that wait for stores."""

_GOES_ON = "what was walked is in the catalogue, the same command goes on from there"


def main() -> NoReturn:
    """Run the command line; every failure is one line on standard error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as of standard error: no locale lacks a way to write text
    try:
        with interruptible():
            code = commands(prog_name=program(), standalone_mode=False)
        with suppress(BrokenPipeError):
            sys.stdout.flush()  # while we can still say what is wrong with it
    except (click.UsageError, UsageError) as error:
        code = fail(_message(error), 2)
    except (click.Abort, KeyboardInterrupt):
        code = fail("interrupted", INTERRUPTED)
    except CrawlerError as error:
        code = fail(str(error), 1)
    except OSError as error:
        code = fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "), 1)
    _settle_output()
    if code == INTERRUPTED:
        _leave_readers(code)
    sys.exit(code if isinstance(code, int) else 0)


def _message(error: click.UsageError | UsageError) -> str:
    """Return what an error of usage says; of the options that click suggests, only those whose names are near."""
    if isinstance(error, click.NoSuchOption) and error.possibilities:
        given = error.option_name.lstrip("-")
        near = {name: SequenceMatcher(None, given, name.lstrip("-")).ratio() for name in error.possibilities}
        names = [name for name, ratio in near.items() if ratio >= _NEAR]
        error = click.NoSuchOption(error.option_name, possibilities=names, ctx=error.ctx)
    return error.format_message() if isinstance(error, click.UsageError) else str(error)


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


class _Commands(click.Group):
    """Commands that end with exit code 0 once the reader of their output has all that it wants: click exits with 1."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the command line, and print the help that it asks for."""
        with _readers_may_end():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _readers_may_end():
            return super().invoke(ctx)


@contextmanager
def _readers_may_end() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise click.exceptions.Exit(0) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(crawler.__version__, message="crawler %(version)s")
@click.pass_context
def commands(context: click.Context) -> None:
    """Index the headers of FITS files, wherever they lie, as a Parquet catalogue."""
    if context.invoked_subcommand is None:
        print(context.get_help())


commands.add_command(estimate.command)
commands.add_command(headers.command)


def catalogue_argument(command: Command) -> Command:
    """Add what says which catalogue is read: its folder, how it is reached, and which version."""
    command = click.option("--version", type=int, help="An earlier version of the catalogue.")(command)
    return click.argument("catalogue")(options.catalogue_flags(command))


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
@options.stores_flags
@options.store_flag
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("--log-json", is_flag=True, help="Say on standard error what happens as JSON, one object a line.")
def index(job_file: str | None, as_json: bool, log_json: bool, performance_report: str | None, **given: Any) -> int:
    """Index the headers of every FITS file below ROOTS.

    ROOTS are folders, files, URLs, and lists of them: @keys.txt or @keys.parquet. Run it again on the same catalogue
    to walk only what is new or changed, or to finish a run that was killed.
    """
    arguments = options.with_job_file(job_file, given)

    from crawler import api
    from crawler.cli import output
    from crawler.driver.report import Interrupted

    cluster = {name: arguments.pop(name) for name in list(arguments) if name in options.OF_CLUSTER - {"workers"}}
    workers = 0 if cluster else arguments.setdefault("workers", os.cpu_count() or 1)
    client = None
    if cluster or workers:
        client = partial(client_of, cluster, workers, performance_report, _teller(log_json))
    elif performance_report is not None:
        raise UsageError("--performance-report is of a Dask cluster: there is none with --workers 0")
    shown = output.JsonLog(sys.stderr) if log_json else output.Progress(output.Console(stderr=True))
    with shown.shown() as progress:
        try:
            report = api.index(**arguments, client=client, progress=progress)
        except Interrupted as interrupted:
            report = interrupted.report
            if report.version is None:  # nothing was walked, and there may be no catalogue
                return fail("interrupted", INTERRUPTED)
        except StoreDownError as error:
            return fail(f"{error}; {_GOES_ON}", 1)
    with suppress(BrokenPipeError):  # the exit code is that of the crawl, whether its summary is read or not
        if as_json:
            print(output.as_json(report))
        elif not report.nothing_found or report.removed:
            print(output.summary(report))
    return _code_of(report)


def _teller(log_json: bool) -> Callable[[str], None]:
    """Return what prints a line beside the progress of a crawl."""

    def tell(line: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with suppress(OSError):  # standard error may be closed, and the crawl goes on
            print(json.dumps({"time": now, "event": "cluster", "told": line}) if log_json else line, file=sys.stderr)

    return tell


def _code_of(report: Report) -> int:
    """Say what a crawl could not do, if anything, and return the exit code."""
    if report.interrupted:
        return fail(f"interrupted; {_GOES_ON}", INTERRUPTED)
    if report.stopped:
        goes_on = f"; {_GOES_ON}" if report.files > report.rewalked else ""
        return fail(f"{report.stopped}{goes_on}", 1)
    reason = _shortcoming(report)
    return 0 if reason is None else fail(reason, 1)


def _shortcoming(report: Report) -> str | None:
    """Return in one line why a crawl that came to its end did not do what it was asked, or None."""
    if report.nothing_found and not report.removed:
        return report.nothing_found
    if report.files and report.walked["unreadable"] == report.listed:
        return f"none of {counted(report.listed, 'file')} could be read; the first: {report.first_error}"
    if report.vanished and report.vanished == report.listed - report.skipped:
        return (
            f"all {counted(report.vanished, 'file')} to walk were deleted since the listing; run the same command "
            "again to list again"
        )
    if report.withheld:
        return (
            f"{counted(report.withheld, 'file')} of the catalogue {plural(report.withheld, 'was', 'were')} not found "
            "again: nothing is removed, since that is more than a tenth of the catalogue; --allow-removals removes "
            "the rows of files that no longer exist"
        )
    return None


@commands.command()
@catalogue_argument
def info(catalogue: str, version: int | None, catalogue_options: dict[str, Any]) -> None:
    """Say what a catalogue holds."""
    from crawler import Catalogue
    from crawler.cli import output
    from crawler.stores.urls import one_line

    opened = Catalogue(catalogue, version=version, storage_options=catalogue_options)
    print(f"{one_line(opened.url, limit=2000)} version {opened.version}")
    for table in ("files", "hdus", "cards"):
        parts = opened.snapshot.of(table)
        rows, held = f"{parts.rows:>14,} {plural(parts.rows, 'row'):4}", counted(len(parts), "Parquet file")
        print(f"  {table:6} {rows}  {output.size(parts.size):>10} in {held}")
    kinds = opened.sql("SELECT status, count(*) AS files FROM files GROUP BY status ORDER BY files DESC, status")
    for kind in kinds.to_pylist():
        print(f"  {kind['files']:>21,} {plural(kind['files'], 'file'):5} {one_line(kind['status'])}")
    span = opened.sql("SELECT count(DISTINCT crawl) AS crawls, max(walked_at) AS latest FROM files").to_pylist()[0]
    if span["latest"] is not None:
        print(f"  walked by {counted(span['crawls'], 'run')}, the latest on {span['latest']:%Y-%m-%d at %H:%M} UTC")


@commands.command()
@click.argument("catalogue")
@click.option("-n", "latest", type=click.IntRange(1), default=20, show_default=True, help="How many, the latest first.")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known of each as JSON, one object a line.")
@options.catalogue_flags
def runs(catalogue: str, latest: int, as_json: bool, catalogue_options: dict[str, Any]) -> None:
    """List the runs that wrote a catalogue: who, when, what, and what came of it."""
    from crawler.catalogue.log import CatalogueLog
    from crawler.catalogue.records.runs import runs_of
    from crawler.cli import output

    log = CatalogueLog(catalogue, catalogue_options, reading=True)
    log.open()  # says where there is no catalogue
    found = runs_of(log.folder, latest)
    if as_json:
        for run in found:
            print(run.as_json())
    else:
        output.print_runs(found)


@commands.command()
@catalogue_argument
@click.argument("sql")
@click.option("--csv", is_flag=True, help="Print CSV, as into a pipe.")
def query(catalogue: str, version: int | None, catalogue_options: dict[str, Any], sql: str, csv: bool) -> None:
    """Run one SQL query over the views files, hdus and cards: a table on a terminal, CSV in a pipe.

    Times are in UTC.
    """
    from crawler import Catalogue
    from crawler.cli import output

    with Catalogue(catalogue, version=version, storage_options=catalogue_options).text_of_sql(sql) as rows:
        if csv or not sys.stdout.isatty():
            output.print_csv(rows)
        else:
            output.print_rows(rows)


@commands.command()
@click.argument("catalogue")
@click.option("--now", is_flag=True, help="Keep the latest version alone, for plain Parquet readers.")
@options.catalogue_flags
def vacuum(catalogue: str, now: bool, catalogue_options: dict[str, Any]) -> None:
    """Delete files of a catalogue that it no longer needs.

    Those are files of versions that were replaced a week ago or more, and what dead runs left a month ago or more.
    With --now, all but the latest version: only while no crawl runs and nobody reads an earlier one.
    """
    from crawler.catalogue.vacuum import vacuum as clean
    from crawler.cli import output

    done = clean(catalogue, now=now, storage_options=catalogue_options)
    print(f"deleted {counted(done.deleted, 'file')}, {output.size(done.bytes)}")


@commands.command()
@click.argument("folder", default="crawler-demo")
def demo(folder: str) -> None:
    """Index the FITS files that come with astropy and a few more, and show what one can ask.

    The catalogue and the generated files are written to FOLDER.
    """
    from crawler.cli.demo import run_demo

    run_demo(folder, command=str(click.get_current_context().find_root().info_name))
