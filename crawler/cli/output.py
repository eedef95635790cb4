"""What a crawl and a table look like on a terminal, and in a pipe.

Everything shown may come from untrusted headers: control characters are escaped, and nothing is taken for markup.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Generic, Self, TextIO, TypeVar

from rich import console
from rich.cells import cell_len
from rich.live import Live
from rich.table import Table
from rich.text import Text

from crawler.catalogue.reader import TextRows
from crawler.catalogue.records.runs import Run
from crawler.driver.budget import dollars
from crawler.driver.report import Report
from crawler.errors import CrawlerError
from crawler.estimation import EstimateProgress
from crawler.stores.urls import one_line
from crawler.text import counted, format_bytes

State = TypeVar("State")

PLAIN_SECONDS = 10.0
"""Seconds between two lines of progress where there is no terminal."""

_PLAN = ("explain_key", "explain_value")  # columns of EXPLAIN
_MOST_ROWS = 200
_WORD = 16  # characters of a word that is not broken in a table
_MOST_WIDTH = 120  # characters of one value in a table


class Console(console.Console):
    """A console of rich that leaves it to its caller what a closed pipe means; rich would exit with code 1."""

    def on_broken_pipe(self) -> None:
        """Raise the error again."""
        raise BrokenPipeError


class ProgressLine(Generic[State]):
    """Progress on standard error: a live line on a terminal, and a line every `PLAIN_SECONDS` elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._state: State | None = None
        self._begun = self._last_line = time.monotonic()
        self._stopping = False

    @contextmanager
    def shown(self) -> Iterator[Self]:
        """Show progress while the block runs."""
        if not self._console.is_terminal:
            yield self
            return
        with Live(console=self._console, get_renderable=self._line, refresh_per_second=4, transient=True):
            yield self

    def __call__(self, state: State) -> None:
        """Take the present state."""
        self._state = state
        now = time.monotonic()
        if self._console.is_terminal:
            return
        if self._is_urgent(state) or now - self._last_line >= PLAIN_SECONDS:
            self._last_line = now
            with suppress(OSError):  # standard error may be closed, and the crawl goes on
                self._console.print(self._line(), soft_wrap=True, highlight=False)

    def _line(self) -> Text:
        raise NotImplementedError

    def _is_urgent(self, state: State) -> bool:
        """Tell whether a new state is printed at once."""
        return False


class Progress(ProgressLine[Report]):
    """Progress of a crawl."""

    def _is_urgent(self, state: Report) -> bool:
        """Tell whether the run was asked to stop since the last state."""
        urgent = state.stopping is not None and not self._stopping
        self._stopping = state.stopping is not None
        return urgent

    def _line(self) -> Text:
        report = self._state
        if report is not None and report.stopping is not None:
            return Text(
                f"stopping: waiting at most {report.stopping:.0f} s for requests in flight; "
                "press Ctrl-C again to stop now"
            )
        if report is None or not report.listed:
            return Text(f"listing, {clock(time.monotonic() - self._begun)}")
        # Since the crawl began: a cluster's start is not its speed. What came last counts until more comes.
        seconds = report.seconds
        done = report.files + report.skipped + report.vanished
        total = counted(report.listed, "file") if report.listing_ended else f"{report.listed:,}+ files"
        parts = [f"{done:,} of {total}", f"{report.files / max(seconds, 1e-9):,.0f} files/s"]
        parts += [counted(report.requests, "request"), size(report.bytes_read)]
        parts += [f"{count:,} {status}" for status, count in sorted(report.walked.items()) if status != "ok"]
        if not report.listing_ended or not done:
            parts.append(clock(time.monotonic() - self._begun))
        elif done < report.listed:
            parts.append(f"{clock(seconds / done * (report.listed - done))} left")
        else:
            parts.append("finishing")
        return Text(", ".join(parts))


class EstimateProgressLine(ProgressLine[EstimateProgress]):
    """Progress of an estimate."""

    def _line(self) -> Text:
        state = self._state
        elapsed = clock(time.monotonic() - self._begun)
        if state is None:
            return Text(f"listing, {elapsed}")
        if not state.sample:
            return Text(f"listing: {state.seen:,} objects, {state.listed:,} FITS files, {elapsed}")
        return Text(f"sample: {state.walked:,} of {state.sample:,} files walked, {state.listed:,} listed, {elapsed}")


class JsonLog:
    """What happens in a crawl, as JSON objects on lines of their own, for machines.

    Each has ``time`` (UTC, ISO 8601), ``event`` (``begun``, ``listed``, ``committed``, ``walking`` every ten seconds,
    ``lost``, ``stopping`` and ``ended``), the crawl's id, and the counts of its report so far.

    Parameters
    ----------
    out : text stream
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._told: dict[str, Any] = {}
        self._last_line = time.monotonic()
        self._report: Report | None = None

    @contextmanager
    def shown(self) -> Iterator[JsonLog]:
        """Write while the crawl runs."""
        try:
            yield self
        except CrawlerError as error:
            self._write("failed", error=str(error))
            raise
        if self._report is not None:
            self._write("ended")

    def __call__(self, report: Report) -> None:
        """Take the report as it stands now."""
        self._report = report
        now: dict[str, Any] = {"begun": True, "listed": report.listing_ended, "committed": report.version}
        now |= {"lost": report.lost, "stopping": report.stopping}
        changed = [event for event, value in now.items() if value and value != self._told.get(event)]
        self._told = now
        for event in changed:
            self._write(event)
        if not changed and time.monotonic() - self._last_line >= PLAIN_SECONDS:
            self._write("walking")

    def _write(self, event: str, **more: Any) -> None:
        self._last_line = time.monotonic()
        told: dict[str, Any] = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **more}
        if self._report is not None:
            told |= {"crawl": self._report.crawl, "catalogue": self._report.catalogue, **self._report.counts()}
        with suppress(OSError):  # the log may be closed, or its disk full, and the crawl goes on
            print(json.dumps(told), file=self._out, flush=True)


def print_runs(runs: Sequence[Run]) -> None:
    """Print the runs of a catalogue for a person, one a line."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("began (UTC)", "took", "who", "outcome", "walked", "not ok", "removed", "requests", "usd", "version"):
        table.add_column(name, justify="left" if name in {"began (UTC)", "who", "outcome"} else "right")
    table.add_column("roots", overflow="fold")
    for run in runs:
        counts = run.counts
        walked = Counter(counts.get("walked", {}))
        cells = [
            f"{run.began:%Y-%m-%d %H:%M:%S}",
            clock(counts.get("seconds", 0.0)),
            run.who,
            f"last heard of {run.heard:%H:%M:%S}" if run.outcome == "running" else run.outcome,
            f"{walked.total():,}",
            ", ".join(f"{count:,} {kind}" for kind, count in sorted(walked.items()) if kind != "ok"),
            f"{counts.get('removed', 0):,}",
            f"{counts.get('requests', 0):,}",
            dollars(counts.get("usd", 0.0)).removeprefix("$"),
            str(counts.get("version")),
            " ".join(run.what.get("roots", ())),
        ]
        table.add_row(*(Text(one_line(cell)) for cell in cells))
        if run.error:
            table.add_row("", *[""] * 9, Text(one_line(run.error)))
    Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 400).print(table)


def summary(report: Report) -> str:
    """Return what a finished crawl did, in a few lines."""
    lines = []
    if report.listed_at is not None:
        lines.append(f"listing    of {report.listed_at:%Y-%m-%d %H:%M} UTC, left by a run that did not end (--relist)")
    if report.files or not report.skipped:
        rate = f", {report.files / report.seconds:,.0f} files/s" if report.seconds else ""
        lines.append(f"walked     {counted(report.files, 'file')} in {clock(report.seconds)}{rate}")
        kinds = [f"{count:,} {status}" for status, count in _by_count(report)]
        if kinds:
            lines.append(f"           {', '.join(kinds)}")
        lines.append(f"found      {counted(report.hdus, 'HDU')}, {counted(report.cards, 'card')}")
        each = report.requests / report.files if report.files else 0
        requests = counted(report.requests, "request")
        lines.append(f"read       {size(report.bytes_read)} in {requests}, {each:.1f} a file")
    if report.retries:
        faults = ", ".join(f"{count:,} {kind}" for kind, count in report.retries.most_common())
        lines.append(f"again      {counted(report.retries.total(), 'request')} ({faults})")
    if report.usd:
        lines.append(f"cost       {dollars(report.usd)} at the store's prices")
    lines += [f"estimate   {line}" for line in report.estimated]
    if report.skipped:
        lines.append(f"unchanged  {counted(report.skipped, 'file')}")
    if report.vanished:
        lines.append(f"vanished   {counted(report.vanished, 'file')}, deleted since the listing")
    if report.removed:
        lines.append(f"removed    {counted(report.removed, 'file that is gone', 'files that are gone')}")
    if report.withheld:
        kept = counted(report.withheld, "file that was not found again", "files that were not found again")
        lines.append(f"kept       {kept}")
    lines.append(f"catalogue  {one_line(report.catalogue, limit=2000)} (version {report.version})")
    return "\n".join(lines)


def _by_count(report: Report) -> list[tuple[str, int]]:
    return sorted(report.walked.items(), key=lambda item: (-item[1], item[0]))


def as_json(report: Report) -> str:
    """Return a report as one JSON object."""
    return json.dumps({"crawl": report.crawl, "catalogue": report.catalogue, **report.counts()})


def print_rows(rows: TextRows, *, width: int | None = None) -> None:
    """Print rows for a person: at most 200 of them, long values cut; the plan of EXPLAIN as DuckDB draws it."""
    terminal = Console(width=width)
    if rows.names == _PLAN:
        for row in _values(rows):
            drawn = "\n".join(one_line(line, limit=10**9) for line in row[1].splitlines())
            terminal.print(Text(drawn), soft_wrap=True, highlight=False)
        return
    shown: list[tuple[Any, ...]] = []
    count = 0
    for batch in rows.batches:
        if len(shown) < _MOST_ROWS:
            part = batch.slice(0, _MOST_ROWS - len(shown))
            shown += list(zip(*(column.to_pylist() for column in part.columns), strict=True))
        count += batch.num_rows
    names = [one_line(name) for name in rows.names]
    cells = [[_cell(value) for value in row] for row in shown]
    whole = _whole_columns([max(map(cell_len, column)) for column in zip(names, *cells, strict=True)], terminal.width)
    table = Table(header_style="bold")
    for at, (name, number) in enumerate(zip(names, rows.numbers, strict=True)):
        table.add_column(Text(name), justify="right" if number else "left", overflow="fold", no_wrap=at in whole)
    for texts in cells:
        table.add_row(*map(Text, texts))
    terminal.print(table)
    if count > len(shown):
        terminal.print(f"{counted(count - len(shown), 'more row')}: add a LIMIT, or --csv for all of them")


def _whole_columns(widths: Sequence[int], terminal: int) -> set[int]:
    """Return the columns whose values stay on one line: the narrow ones, while the others keep room for a word."""
    whole: set[int] = set()
    free = terminal - 1 - sum(3 + min(width, _WORD) for width in widths)
    for at in sorted(range(len(widths)), key=lambda at: widths[at]):
        free -= max(0, widths[at] - _WORD)
        if free < 0:
            break
        whole.add(at)
    return whole


def print_csv(rows: TextRows, out: TextIO | None = None) -> None:
    """Print all rows as CSV (RFC 4180), a null as nothing; control characters escaped, as on a terminal."""
    writer = csv.writer(out or sys.stdout, lineterminator="\n")
    writer.writerow(one_line(name, limit=1000) for name in rows.names)
    for row in _values(rows):
        writer.writerow("" if value is None else _text(value) for value in row)


def _values(rows: TextRows) -> Iterator[tuple[Any, ...]]:
    for batch in rows.batches:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def size(count: int) -> str:
    """Return a number of bytes for a person, in decimal units."""
    return format_bytes(count)


def clock(seconds: float) -> str:
    """Return a duration for a person."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _cell(value: str | bytes | None) -> str:
    text = "" if value is None else _text(value)
    return text if len(text) <= _MOST_WIDTH else text[: _MOST_WIDTH - 1] + "…"


def _text(value: str | bytes) -> str:
    return one_line(value.decode("latin-1") if isinstance(value, bytes) else value, limit=10**9)
