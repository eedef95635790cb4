"""What is shown of reports and tables, on a terminal and in a pipe."""

from __future__ import annotations

import csv
import io
import json
import time
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from crawler.catalogue.reader import TextRows
from crawler.cli import output
from crawler.driver.report import Report
from crawler.estimation import EstimateProgress

HOSTILE = "\x1b[31mred\x07\x9b2J\r\n[bold red]no markup[/] \u202eright to left\ud800".encode(
    "utf-8", "surrogatepass"
).decode("utf-8", "replace")


def report(**values: Any) -> Report:
    walked = Counter(values.pop("walked", {}))
    return Report("id", "file:///catalogue", walked=walked, version=3, **values)


def printable(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


class TestSummary:
    def test_of_a_first_run(self) -> None:
        done = report(
            walked={"ok": 1999, "corrupt": 1},
            listed=2000,
            hdus=7,
            cards=1234,
            requests=4000,
            bytes_read=5_000_000,
            seconds=4,
        )
        assert output.summary(done) == (
            "walked     2,000 files in 4.0 s, 500 files/s\n"
            "           1,999 ok, 1 corrupt\n"
            "found      7 HDUs, 1,234 cards\n"
            "read       5 MB in 4,000 requests, 2.0 a file\n"
            "catalogue  file:///catalogue (version 3)"
        )

    def test_of_another_run(self) -> None:
        done = report(skipped=1000, removed=12, listed=1000)
        assert output.summary(done) == (
            "unchanged  1,000 files\nremoved    12 files that are gone\ncatalogue  file:///catalogue (version 3)"
        )

    def test_of_what_was_kept(self) -> None:
        assert "kept       400 files that were not found again\n" in output.summary(report(skipped=10, withheld=400))

    def test_of_one_of_each(self) -> None:
        one = report(
            walked={"ok": 1}, listed=1, hdus=1, cards=1, requests=1, bytes_read=1, seconds=1, skipped=1, removed=1,
            withheld=1, retries=Counter({"reset": 1}),
        )  # fmt: skip
        assert output.summary(one) == (
            "walked     1 file in 1.0 s, 1 files/s\n"
            "           1 ok\n"
            "found      1 HDU, 1 card\n"
            "read       1 byte in 1 request, 1.0 a file\n"
            "again      1 request (1 reset)\n"
            "unchanged  1 file\n"
            "removed    1 file that is gone\n"
            "kept       1 file that was not found again\n"
            "catalogue  file:///catalogue (version 3)"
        )

    def test_where_nothing_was_found(self) -> None:
        lines = output.summary(report(removed=5)).splitlines()
        assert lines[0] == "walked     0 files in 0.0 s"
        assert all(line.strip() for line in lines)

    def test_of_a_hostile_url(self) -> None:
        assert printable(output.summary(Report("id", f"s3://{HOSTILE}", skipped=1)))


def test_json_has_everything() -> None:
    done = report(walked={"ok": 2}, listed=3, removed=4, withheld=5, first_error=HOSTILE)
    text = output.as_json(done)
    assert printable(text)
    told = json.loads(text)
    assert set(told) == set(Report.__slots__)
    assert (told["walked"], told["removed"], told["withheld"]) == ({"ok": 2}, 4, 5)


def rows_of(table: pa.Table) -> TextRows:
    """Return a table of text as the rows of a query."""
    return TextRows(tuple(table.column_names), (False,) * table.num_columns, iter(table.to_batches(max_chunksize=7)))


class TestTable:
    ROWS = pa.table(
        {
            HOSTILE: [HOSTILE, None],
            "bytes": [b"\x1b\xff", b"plain"],
            "n": ["1234567", None],
        }
    )

    def test_is_safe_to_print(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.print_rows(rows_of(self.ROWS), width=300)
        out = capsys.readouterr().out
        assert printable(out)
        assert r"\x1b[31mred\x07\x9b2J\r\n[bold red]no markup[/]" in out
        assert "\\x1b\xff" in out

    def test_cuts_long_values_and_many_rows(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.print_rows(rows_of(pa.table({"n": ["x" * 500] * 250})), width=300)
        out = capsys.readouterr().out
        assert out.count("x" * 119 + "…") == 200
        assert "50 more rows: add a LIMIT, or --csv" in out

    def test_of_one_row_more_than_is_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.print_rows(rows_of(pa.table({"n": ["x"] * 201})))
        assert "\n1 more row: add a LIMIT" in capsys.readouterr().out

    def test_of_no_rows(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.print_rows(rows_of(pa.table({"n": pa.array([], pa.string())})))
        assert " n " in capsys.readouterr().out


class TestCsv:
    def test_is_rfc_4180(self) -> None:
        out = io.StringIO()
        output.print_csv(rows_of(pa.table({"a,b": ['say "hi"', "x,y"], "n": ["1", None]})), out)
        assert out.getvalue() == '"a,b",n\n"say ""hi""",1\n"x,y",\n'

    def test_is_safe_to_print(self) -> None:
        out = io.StringIO()
        output.print_csv(rows_of(TestTable.ROWS), out)
        assert printable(out.getvalue())
        assert len(list(csv.reader(io.StringIO(out.getvalue())))) == 3

    def test_is_whole(self) -> None:
        out = io.StringIO()
        output.print_csv(rows_of(pa.table({"n": ["x" * 5000] * 300})), out)
        assert out.getvalue() == "n\n" + ("x" * 5000 + "\n") * 300

    def test_goes_to_standard_output(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.print_csv(rows_of(pa.table({"n": ["1"]})))
        assert capsys.readouterr().out == "n\n1\n"


class TestProgress:
    @pytest.fixture
    def shown(self) -> io.StringIO:
        return io.StringIO()

    def told(self, shown: io.StringIO, monkeypatch: pytest.MonkeyPatch, now: Report) -> str:
        monkeypatch.setattr(output, "PLAIN_SECONDS", 0)
        with output.Progress(Console(file=shown, width=40)).shown() as progress:
            progress(now)
        return shown.getvalue()

    @pytest.mark.parametrize(
        ("now", "line"),
        [
            pytest.param(report(), "listing, ", id="before"),
            pytest.param(
                report(listed=9000, walked={"ok": 500}, seconds=5), "500 of 9,000+ files, 100 files/s, ", id="listing"
            ),
            pytest.param(
                report(listed=1000, listing_ended=True, walked={"ok": 500}, seconds=5),
                ", 0 bytes, 5.0 s left\n",
                id="listed",
            ),
            pytest.param(report(listed=4, listing_ended=True, skipped=4, seconds=5), ", finishing\n", id="all"),
            pytest.param(report(listed=9, walked={"ok": 1, "corrupt": 2}, seconds=1), ", 2 corrupt, ", id="faults"),
        ],
    )
    def test_is_one_line_in_a_log(
        self, shown: io.StringIO, monkeypatch: pytest.MonkeyPatch, now: Report, line: str
    ) -> None:
        text = self.told(shown, monkeypatch, now)
        assert text.count("\n") == 1
        assert line in text

    def test_tells_at_once_and_once_that_the_run_stops(self, shown: io.StringIO) -> None:
        with output.Progress(Console(file=shown, width=40)).shown() as progress:
            progress(report(stopping=5.0))
            progress(report(stopping=5.0, listed=9))
        assert shown.getvalue() == (
            "stopping: waiting at most 5 s for requests in flight; press Ctrl-C again to stop now\n"
        )

    def test_is_quiet_for_a_while(self, shown: io.StringIO) -> None:
        with output.Progress(Console(file=shown)).shown() as progress:
            progress(report(listed=5))
        assert shown.getvalue() == ""

    def test_is_live_on_a_terminal(self, shown: io.StringIO) -> None:
        console = Console(file=shown, force_terminal=True, width=200)
        with output.Progress(console).shown() as progress:
            progress(report(listed=5, walked={"ok": 1}, seconds=1))
            until = time.monotonic() + 5
            while "1 of 5+ files" not in shown.getvalue() and time.monotonic() < until:
                time.sleep(0.05)
        assert "1 of 5+ files" in shown.getvalue()

    def test_estimate_is_live_on_a_terminal(self, shown: io.StringIO) -> None:
        console = Console(file=shown, force_terminal=True, width=200)
        with output.EstimateProgressLine(console).shown() as progress:
            for state, line in (
                (EstimateProgress(seen=1200, listed=1000), "listing: 1,200 objects, 1,000 FITS files, "),
                (EstimateProgress(1200, 1000, sample=400, walked=7), "sample: 7 of 400 files walked, 1,000 listed, "),
            ):
                progress(state)
                until = time.monotonic() + 5
                while line not in shown.getvalue() and time.monotonic() < until:
                    time.sleep(0.05)
                assert line in shown.getvalue()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (2_345_678, "2.35 MB"),
        (999_999, "1 MB"),
        (10**15, "1 PB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (7260, "2 h 01 min")],
)
def test_clock(seconds: float, text: str) -> None:
    assert output.clock(seconds) == text
