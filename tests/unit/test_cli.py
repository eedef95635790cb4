"""The command line, through `crawler.cli.main`: what it prints, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crawler import __version__, api
from crawler.catalogue.reader import Catalogue
from crawler.cli import main
from crawler.cli.options import merged, nested, read_value
from crawler.cluster import clients, local_client
from crawler.errors import ClusterError, UsageError
from crawler.report import Interrupted, Report
from tests.conftest import TREE_FILES
from tests.fits_files import card, entry, image_hdu
from tests.servers import RangeServer

SECRET = "hush-hush"
FITS = image_hdu((10,), entry("OBJECT", "M 31")) + image_hdu((5000,), entry("EXTNAME", "SCI"), xtension="IMAGE")
COMMANDS = ("demo", "headers", "index", "info", "query", "vacuum")


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> str:
        """What is told of the run, leaving out where a dashboard is, which only machines with bokeh tell."""
        return re.sub(r"^dashboard: http://127\.0\.0\.1:\d+/status\n", "", self.err, flags=re.MULTILINE)

    @property
    def fault(self) -> str:
        """The one line that says what went wrong."""
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("crawler: ")
        return self.err.removeprefix("crawler: ").rstrip("\n")


Run = Callable[..., Ended]


def commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Run:
    """Return what runs a command in this process, in a folder of its own."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["crawler", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def crawler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return commands(monkeypatch, capsys, tmp_path)


@pytest.fixture
def catalogue(crawler: Run, tree: Path) -> Path:
    """Return a catalogue of `tree`."""
    assert crawler("index", tree, "-c", "catalogue", "--workers", 0).code == 0
    return Path("catalogue")


def outside(*args: object, **how: Any) -> subprocess.Popen[bytes]:
    """Start a command in a process of its own."""
    program = "from crawler.cli import main; main()"
    return subprocess.Popen([sys.executable, "-c", program, *map(str, args)], stderr=subprocess.PIPE, **how)


class TestHelp:
    @pytest.mark.parametrize("args", [(), ("-h",), ("--help",)])
    def test_names_every_command(self, crawler: Run, args: tuple[str, ...]) -> None:
        ended = crawler(*args)
        assert (ended.code, ended.err) == (0, "")
        assert all(f"\n  {command} " in ended.out for command in COMMANDS)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_of_a_command(self, crawler: Run, command: str) -> None:
        assert crawler(command, "--help").out.startswith(f"Usage: crawler {command} ")

    def test_version(self, crawler: Run) -> None:
        assert crawler("--version") == (0, f"crawler {__version__}\n", "")


class TestIndex:
    def test_says_what_it_did(self, crawler: Run, tree: Path) -> None:
        ended = crawler("index", tree, "--catalogue", "made", "--workers", 0)
        assert (ended.code, ended.err) == (0, "")
        assert f"walked     {TREE_FILES} files" in ended.out
        assert "41 ok, 2 not-fits, 1 truncated" in ended.out
        assert Catalogue("made").files.count_rows() == TREE_FILES

    def test_again(self, crawler: Run, tree: Path, catalogue: Path) -> None:
        ended = crawler("index", tree, "-c", catalogue, "--workers", 0)
        assert ended.code == 0
        assert ended.out.startswith(f"unchanged  {TREE_FILES} files\ncatalogue  file://")

    def test_json(self, crawler: Run, tree: Path) -> None:
        ended = crawler("index", tree, "-c", "made", "--workers", 0, "--json")
        told = json.loads(ended.out)
        assert ended.code == 0
        assert told["walked"] == {"ok": 41, "not-fits": 2, "truncated": 1}
        assert (told["listed"], told["removed"], told["withheld"]) == (TREE_FILES, 0, 0)

    def test_globs(self, crawler: Run, tree: Path) -> None:
        assert (
            crawler("index", tree, "-c", "made", "--workers", 0, "--include", "exp00*", "--exclude", "*9.fits").code
            == 0
        )
        assert Catalogue("made").files.count_rows() == 9

    def test_on_processes(self, crawler: Run, tree: Path) -> None:
        ended = crawler("index", tree, "-c", "made", "--workers", 1)
        assert ended.code == 0
        assert re.fullmatch(r"dashboard: http://127\.0\.0\.1:\d+/status\n", ended.err)
        assert Catalogue("made").files.count_rows() == TREE_FILES

    def test_on_a_cluster_that_runs(self, crawler: Run, tree: Path) -> None:
        with local_client(1) as client:
            ended = crawler("index", tree, "-c", "made", "--scheduler", client.scheduler.address)
            assert (ended.code, ended.err) == (0, ""), "it has no dashboard"
            assert client.nthreads(), "the cluster is left running"
        assert Catalogue("made").files.count_rows() == TREE_FILES

    def test_no_cluster(self, crawler: Run, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(clients, "_CONNECT", 0.3)
        ended = crawler("index", tree, "-c", "made", "--scheduler", "tcp://127.0.0.1:1")
        assert (ended.code, ended.out) == (1, "")
        assert ended.fault.startswith("no Dask scheduler answers at tcp://127.0.0.1:1")

    def test_interrupted(self, crawler: Run, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object, **__: object) -> Report:
            raise Interrupted(Report("id", "file:///c", listed=5, version=1, interrupted=True))

        monkeypatch.setattr(api, "index", interrupted)
        ended = crawler("index", tree, "-c", "made")
        assert ended.code == 130
        assert ended.fault.startswith("interrupted; what was walked is in the catalogue")


class TestRemovals:
    def test_a_few(self, crawler: Run, tree: Path, catalogue: Path) -> None:
        (tree / "night0" / "exp000.fits").unlink()
        ended = crawler("index", tree, "-c", catalogue, "--workers", 0)
        assert (ended.code, ended.err) == (0, "")
        assert "removed    1 files that are gone\n" in ended.out

    def test_more_than_a_tenth(self, crawler: Run, tree: Path, catalogue: Path) -> None:
        for path in (tree / "night0").iterdir():
            path.unlink()
        ended = crawler("index", tree, "-c", catalogue, "--workers", 0)
        assert ended.code == 1
        assert ended.fault.startswith("10 files of the catalogue were not found again and were kept")
        assert "--allow-removals" in ended.fault
        assert "kept       10 files that were not found again\n" in ended.out

        told = json.loads(crawler("index", tree, "-c", catalogue, "--workers", 0, "--json").out)
        assert (told["removed"], told["withheld"]) == (0, 10)

        ended = crawler("index", tree, "-c", catalogue, "--workers", 0, "--allow-removals")
        assert (ended.code, ended.err) == (0, "")
        assert "removed    10 files that are gone\n" in ended.out
        assert Catalogue(str(catalogue)).files.count_rows() == TREE_FILES - 10

    def test_all(self, crawler: Run, tree: Path, catalogue: Path) -> None:
        for path in tree.rglob("*.*"):
            path.unlink()
        ended = crawler("index", tree, "-c", catalogue, "--workers", 0)
        assert ended.code == 1
        assert ended.fault.startswith("nothing found in ")
        ended = crawler("index", tree, "-c", catalogue, "--workers", 0, "--allow-removals")
        assert (ended.code, ended.err) == (0, "")
        assert f"removed    {TREE_FILES} files that are gone\n" in ended.out


class TestWrongUsage:
    @pytest.mark.parametrize(
        ("args", "said"),
        [
            pytest.param(("indx",), "No such command 'indx'", id="command"),
            pytest.param(("index", "a", "-c", "b", "--nonsense"), "No such option", id="flag"),
            pytest.param(("index",), "there is nothing to index: name ROOTS", id="no-roots"),
            pytest.param(("index", "a"), "where is the catalogue to be? Give --catalogue", id="no-catalogue"),
            pytest.param(("index", "a", "-c", ""), "where is the catalogue to be?", id="empty-catalogue"),
            pytest.param(
                ("index", "", "-c", "b", "--workers", "0"),
                "an empty string is neither a path nor a URL",
                id="empty-root",
            ),
            pytest.param(("index", "a", "-c", "b", "--workers", "-1"), "'--workers'", id="workers"),
            pytest.param(("index", "a", "-c", "b", "--workers", "many"), "'--workers'", id="workers-text"),
            pytest.param(("index", "a", "-c", "b", "--concurrency", "0"), "'--concurrency'", id="concurrency"),
            pytest.param(("index", "a", "-c", "b", "--store", "tape"), "'--store'", id="store"),
            pytest.param(
                ("index", "a", "-c", "b", "--workers", "2", "--scheduler", "tcp://h:1"),
                "give one of them",
                id="cluster",
            ),
            pytest.param(("index", "tape://a", "-c", "b"), "no store reads tape:// URLs", id="scheme"),
            pytest.param(
                ("index", ".", "-c", "b", "--workers", "0", "--anon"),
                "local files take no storage options: anon",
                id="option",
            ),
            pytest.param(
                ("index", "s3://b/", "-c", "b", "--workers", "0", "--storage-option", "colour=red"),
                "s3 has no storage option colour",
                id="s3-option",
            ),
            pytest.param(("index", ".", "-c", "b", "--storage-option", "anon"), "K=V is expected", id="no-value"),
            pytest.param(("index", ".", "-c", "b", "--storage-option", "a..b=1"), "K=V is expected", id="no-name"),
            pytest.param(
                ("index", ".", "-c", "b", "--storage-option", "a=1", "--storage-option", "a.b=1"),
                "the storage option a.b lies in one that is no table",
                id="no-table",
            ),
            pytest.param(("index", "--job", "none.toml"), "job file none.toml: No such file", id="job-file"),
            pytest.param(("headers",), "Missing argument 'URL'", id="no-url"),
            pytest.param(("headers", "a", "--hdu", "-1"), "'--hdu'", id="hdu"),
            pytest.param(("headers", "tape://a"), "no store reads tape:// URLs", id="headers-scheme"),
            pytest.param(
                ("headers", "a.fits", "--region", "x"), "local files take no storage options", id="headers-option"
            ),
            pytest.param(("headers", "ftp://me:pass@host/a"), "holds a user or password", id="password"),
            pytest.param(("query", "catalogue"), "Missing argument 'SQL'", id="no-sql"),
            pytest.param(("info", "catalogue", "--version", "last"), "'--version'", id="version"),
            pytest.param(("vacuum",), "Missing argument 'CATALOGUE'", id="vacuum"),
        ],
    )
    def test_is_one_line(self, crawler: Run, args: tuple[str, ...], said: str) -> None:
        ended = crawler(*args)
        assert (ended.code, ended.out) == (2, "")
        assert said in ended.fault
        assert not Path("b").exists(), "no catalogue is made"


class TestFailures:
    def test_missing_folder(self, crawler: Run) -> None:
        ended = crawler("index", "nowhere", "-c", "made", "--workers", 0)
        assert (ended.code, ended.out) == (1, "")
        assert ended.fault.endswith("nowhere: no such file or folder")
        assert not Path("made").exists()

    def test_no_fits_files(self, crawler: Run) -> None:
        Path("data").mkdir()
        Path("data/readme.txt").touch()
        ended = crawler("index", "data", "-c", "made", "--workers", 0)
        assert (ended.code, ended.out) == (1, "")
        assert "no FITS files in data: 1 objects seen" in ended.fault
        assert "use --include" in ended.fault

    @pytest.mark.parametrize("command", ["info", "query", "vacuum"])
    def test_no_catalogue(self, crawler: Run, command: str) -> None:
        Path("data").mkdir()
        for where in ("data", "nowhere"):
            ended = crawler(command, where, *(["SELECT 1"] if command == "query" else []))
            assert (ended.code, ended.out) == (1, "")
            assert ended.fault.endswith("there is no catalogue here")

    @pytest.mark.parametrize("made", ["folder", "file"])
    def test_something_else_where_the_catalogue_should_be(self, crawler: Run, tree: Path, made: str) -> None:
        other = tree if made == "folder" else tree / "odd files" / "readme.txt"
        ended = crawler("index", tree, "-c", other, "--workers", 0)
        assert (ended.code, ended.out) == (1, "")
        assert ended.fault.startswith("catalogue file://")

    def test_earlier_version(self, crawler: Run, catalogue: Path) -> None:
        assert crawler("info", catalogue, "--version", 0).code == 0
        ended = crawler("info", catalogue, "--version", 99)
        assert (ended.code, ended.out) == (1, "")
        assert "99" in ended.fault

    @pytest.mark.parametrize("sql", ["SELEKT 1", "SELECT nonsense FROM files", "SELECT * FROM 'other.parquet'", ""])
    def test_bad_sql(self, crawler: Run, catalogue: Path, sql: str) -> None:
        ended = crawler("query", catalogue, sql)
        if sql:
            assert ended.code == 1
            assert ended.fault.startswith("query failed: ")
        else:
            assert (ended.code, ended.err) == (0, "")

    def test_404(self, crawler: Run) -> None:
        with RangeServer() as server:
            ended = crawler("headers", server.url("none.fits"))
        assert (ended.code, ended.out) == (1, "")
        assert server.url("none.fits") in ended.fault

    def test_server_that_ignores_ranges(self, crawler: Run) -> None:
        with RangeServer({"a.fits": FITS}) as server:
            server.ignore_range = True
            ended = crawler("headers", server.url("a.fits"))
            assert (ended.code, ended.out) == (1, "")
            assert server.url("a.fits") in ended.fault
            ended = crawler("index", server.url("a.fits"), "-c", "made", "--workers", 0)
        assert ended.code == 1
        assert ended.fault.startswith("none of 1 files could be read; the first: ")

    def test_disk_full(self, crawler: Run, catalogue: Path) -> None:
        with Path("/dev/full").open("w") as full, outside("info", catalogue, stdout=full) as process:
            _, err = process.communicate()
        assert (process.returncode, err) == (1, b"crawler: No space left on device\n")

    def test_interrupt_before_anything(self, crawler: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(api, "index", interrupted)
        ended = crawler("index", ".", "-c", "made", "--workers", 0)
        assert ended.code == 130
        assert ended.err.strip() == "crawler: interrupted"


class TestHeaders:
    def test_all(self, crawler: Run) -> None:
        Path("a.fits").write_bytes(FITS)
        ended = crawler("headers", "a.fits")
        assert (ended.code, ended.err) == (0, "")
        lines = ended.out.splitlines()
        assert lines[0] == "# HDU 0 primary: header 0+2880, data 2880+10"
        assert lines[1] == "SIMPLE  =                    T"
        assert "# HDU 1 IMAGE: header 5760+2880, data 8640+5000" in lines

    def test_one_hdu_and_one_keyword(self, crawler: Run) -> None:
        Path("a.fits").write_bytes(FITS)
        assert crawler("headers", "a.fits", "--hdu", 1).out.startswith("# HDU 1 IMAGE")
        assert crawler("headers", "a.fits", "--keyword", "extname").out == "1\tEXTNAME = 'SCI     '\n"

    @pytest.mark.parametrize(
        ("args", "said"),
        [
            pytest.param(("--hdu", "7"), "a.fits: there is no HDU 7, the file has 2", id="hdu"),
            pytest.param(("--keyword", "nope"), "a.fits: no card of NOPE", id="keyword"),
        ],
    )
    def test_what_is_not_there(self, crawler: Run, args: tuple[str, ...], said: str) -> None:
        Path("a.fits").write_bytes(FITS)
        ended = crawler("headers", "a.fits", *args)
        assert (ended.code, ended.out, ended.fault) == (1, "", said)

    def test_before_a_fault(self, crawler: Run) -> None:
        Path("a.fits").write_bytes(FITS[:-2880])
        ended = crawler("headers", "a.fits")
        assert ended.code == 1
        assert "# HDU 0 primary" in ended.out
        assert ended.fault.startswith("a.fits: file ends ")

    def test_no_fits(self, crawler: Run) -> None:
        Path("a.fits").write_text("<html>")
        ended = crawler("headers", "a.fits")
        assert (ended.code, ended.out) == (1, "")
        assert ended.fault.startswith("a.fits: does not begin with SIMPLE")


class TestCatalogue:
    def test_info(self, crawler: Run, catalogue: Path) -> None:
        ended = crawler("info", catalogue)
        assert (ended.code, ended.err) == (0, "")
        assert f"files  {TREE_FILES:>14,} rows" in ended.out
        assert "41 files ok" in ended.out
        assert "walked by 1 runs" in ended.out

    def test_query_is_csv_in_a_pipe(self, crawler: Run, catalogue: Path) -> None:
        sql = "SELECT keyword, value, integer FROM cards WHERE keyword IN ('LONGNAME', 'EXPTIME') ORDER BY ALL LIMIT 50"
        ended = crawler("query", catalogue, sql)
        assert (ended.code, ended.err) == (0, "")
        rows = list(csv.reader(io.StringIO(ended.out)))
        assert rows[0] == ["keyword", "value", "integer"]
        assert rows[1] == ["EXPTIME", "30.0", ""]
        assert rows[-1][1] == ("a string over several cards " * 5).strip()

    def test_query_is_a_table_on_a_terminal(
        self, crawler: Run, catalogue: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sql = "SELECT status, count(*) AS n FROM files GROUP BY 1 ORDER BY 2 DESC"
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert "┃ status" in crawler("query", catalogue, sql).out
        assert crawler("query", catalogue, sql, "--csv").out == "status,n\nok,41\nnot-fits,2\ntruncated,1\n"

    def test_vacuum(self, crawler: Run, tree: Path, catalogue: Path) -> None:
        (tree / "night0" / "exp000.fits").unlink()
        crawler("index", tree, "-c", catalogue, "--workers", 0)
        assert crawler("vacuum", catalogue) == (0, "deleted 0 files, 0 bytes\n", "")
        ended = crawler("vacuum", catalogue, "--now")
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith("deleted 3 files, ")
        assert len(list(catalogue.glob("table=*/**/*.parquet"))) == 3

    def test_demo(self, crawler: Run) -> None:
        ended = crawler("demo", "shown")
        assert (ended.code, ended.err) == (0, "")
        assert "Which exposures were taken through F606W" in ended.out
        assert Path("shown/catalogue/_delta_log").is_dir()


class TestHostileHeaders:
    """What a file says must not reach the terminal as it is: cards may hold any byte."""

    @pytest.fixture
    def hostile(self, crawler: Run) -> Path:
        evil = card(b"OBJECT  = '\x1b[31mred\x1b]0;title\x07\x9b2J\r'")
        extension = card(b"EXTNAME = '[bold]SCI[/]\nFAKE  '")
        path = Path("a.fits")
        path.write_bytes(image_hdu((), evil) + image_hdu((), extension, xtension="IM\x1b[31m"))
        assert crawler("index", path, "-c", "hostile", "--workers", 0).code == 0
        return path

    @staticmethod
    def printable(text: str) -> bool:
        return all(char.isprintable() or char == "\n" for char in text)

    def test_headers(self, crawler: Run, hostile: Path) -> None:
        ended = crawler("headers", hostile)
        assert ended.code == 0
        assert self.printable(ended.out)
        assert r"\x1b[31mred\x1b]0;title\x07\x9b2J\r" in ended.out
        assert r"EXTNAME = '[bold]SCI[/]\nFAKE  '" in ended.out

    def test_csv(self, crawler: Run, hostile: Path) -> None:
        sql = "SELECT value, kind FROM cards JOIN hdus USING (url, hdu) WHERE keyword = 'EXTNAME'"
        ended = crawler("query", "hostile", sql)
        assert self.printable(ended.out)
        assert ended.out.startswith("value,kind\n")
        assert r"[bold]SCI[/]\nFAKE" in ended.out
        assert ended.out.endswith(",IM\\x1b[31m\n")

    def test_table(self, crawler: Run, hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        ended = crawler("query", "hostile", "SELECT value FROM cards WHERE keyword IN ('OBJECT', 'EXTNAME')")
        assert self.printable(ended.out)
        assert r"[bold]SCI[/]\nFAKE" in ended.out
        assert r"\x1b[31mred" in ended.out

    def test_errors(self, crawler: Run) -> None:
        ended = crawler("headers", "no\x1b[31m\nsuch.fits")
        assert ended.code == 1
        assert self.printable(ended.fault)


class TestBrokenPipe:
    def test_while_it_writes(self, crawler: Run, catalogue: Path) -> None:
        sql = "SELECT range FROM range(1000000)"
        with outside("query", catalogue, sql, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"range\n"
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == b""
        assert process.returncode == 1

    def test_as_it_ends(self, crawler: Run, catalogue: Path) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with outside("info", catalogue, stdout=writer) as process:
            os.close(writer)
            assert process.stderr is not None
            assert process.stderr.read() == b""
        assert process.returncode == 1


class Asked(NamedTuple):
    """What `crawler.api.index` was asked."""

    roots: Any
    catalogue: Any
    others: dict[str, Any]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """Record what would be crawled, and crawl nothing."""
    calls: list[Asked] = []

    def record(roots: Any, catalogue: Any, **others: Any) -> Report:
        calls.append(Asked(roots, catalogue, others))
        return Report("id", "file:///c", listed=1, skipped=1)

    monkeypatch.setattr(api, "index", record)
    return calls


class TestOptions:
    def test_flags_of_s3(self, crawler: Run, asked: list[Asked]) -> None:
        flags = [
            "--anon",
            "--requester-pays",
            "--endpoint-url",
            "http://h:1",
            "--region",
            "us-west-2",
            "--profile",
            "p",
        ]
        more = ["--storage-option", "client_kwargs.verify=false", "--storage-option", "config_kwargs.s3.a=b=c"]
        assert crawler("index", "s3://b/", "-c", "c", *flags, *more).code == 0
        assert asked[0].others["storage_options"] == {
            "anon": True,
            "requester_pays": True,
            "endpoint_url": "http://h:1",
            "profile": "p",
            "client_kwargs": {"region_name": "us-west-2", "verify": False},
            "config_kwargs": {"s3": {"a": "b=c"}},
        }
        assert "catalogue_options" not in asked[0].others

    def test_only_those_given(self, crawler: Run, asked: list[Asked]) -> None:
        assert crawler("index", "s3://b/", "-c", "c").code == 0
        assert set(asked[0].others) == {"workers", "client", "progress"}

    def test_of_the_catalogue(self, crawler: Run, asked: list[Asked]) -> None:
        assert crawler("index", "s3://b/", "-c", "s3://c/", "--catalogue-option", "profile=mine").code == 0
        assert asked[0].others["catalogue_options"] == {"profile": "mine"}
        assert "storage_options" not in asked[0].others

    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("anon", "true", True),
            ("anon", "false", False),
            ("anon", "True", "True"),
            ("n", "3", 3),
            ("n", "-2.5", -2.5),
            ("n", '"3"', "3"),
            ("n", "'3'", "3"),
            ("n", "", ""),
            ("n", "null", None),
            ("n", "a b", "a b"),
            ("n", "2026-01-02", "2026-01-02"),
            ("n", "[1, 2]", [1, 2]),
            ("n", "{a = 1}", {"a": 1}),
            ("n", '{"a": 1}', {"a": 1}),
            ("n", "1\nother = 2", "1\nother = 2"),
            ("n", "9" * 5000, "9" * 5000),
            ("n", "[" * 5000, "[" * 5000),
            ("secret", "0123", "0123"),
            ("secret", "123", "123"),
            ("aws_secret_access_key", "1e5", "1e5"),
            ("token", '{"type": "service_account"}', {"type": "service_account"}),
            ("token", "null", None),
        ],
    )
    def test_values(self, name: str, text: str, value: object) -> None:
        read = read_value(name, text)
        assert (read, type(read)) == (value, type(value))

    def test_tables(self) -> None:
        assert nested([(("a", "b"), 1), (("a", "c"), 2), (("d",), 3), (("d",), 4)]) == {"a": {"b": 1, "c": 2}, "d": 4}
        with pytest.raises(UsageError, match=r"a\.b lies in one that is no table"):
            nested([(("a",), 1), (("a", "b"), 2)])

    def test_merged(self) -> None:
        assert merged({"a": {"x": 1, "y": 1}, "b": [1]}, {"a": {"y": 2}, "b": [2]}) == {"a": {"x": 1, "y": 2}, "b": [2]}


class TestSecrets:
    @pytest.mark.parametrize(
        "args",
        [
            pytest.param(("--storage-option", SECRET), id="no-name"),
            pytest.param(("--storage-option", f"={SECRET}"), id="empty-name"),
            pytest.param(("--storage-option", f"nonsense={SECRET}"), id="unknown"),
            pytest.param(("--storage-option", f"client_kwargs={SECRET}"), id="wrong-kind"),
            pytest.param(("--catalogue-option", SECRET), id="catalogue"),
            pytest.param(
                ("--storage-option", f"secret={SECRET}", "--storage-option", f"secret.x={SECRET}"), id="no-table"
            ),
        ],
    )
    def test_are_not_repeated(self, crawler: Run, args: tuple[str, ...]) -> None:
        ended = crawler("index", "s3://bucket/", "-c", "c", "--workers", 0, *args)
        assert ended.code == 2
        assert SECRET not in ended.fault

    def test_of_a_job_file(self, crawler: Run) -> None:
        Path("job.toml").write_text(f"[storage_options]\nsecret = '{SECRET}'\nsecret = '{SECRET}'\n")
        ended = crawler("index", "--job", "job.toml")
        assert ended.code == 2
        assert SECRET not in ended.fault

    def test_of_a_signed_url(self, crawler: Run) -> None:
        with RangeServer({"a.fits": FITS}) as server:
            ended = crawler("headers", f"{server.url('a.fits')}?signature={SECRET}", "--keyword", "nope")
            assert ended.code == 1
            assert SECRET not in ended.fault


class TestJobFile:
    JOB = """
        [crawl]
        roots = ["s3://b/one/", "s3://b/two/"]
        catalogue = "told"
        include = ["*.fits"]
        concurrency = 7
        allow_removals = true
        [storage_options]
        anon = true
        client_kwargs = {region_name = "us-east-1", verify = true}
        [catalogue_options]
        profile = "writer"
        [cluster]
        workers = 3
    """

    @pytest.fixture(autouse=True)
    def _job(self, crawler: Run) -> None:
        Path("job.toml").write_text(self.JOB)

    def test_says_everything(self, crawler: Run, asked: list[Asked]) -> None:
        assert crawler("index", "--job", "job.toml").code == 0
        roots, catalogue, others = asked[0]
        assert (list(roots), catalogue) == (["s3://b/one/", "s3://b/two/"], "told")
        assert (others["include"], others["concurrency"], others["workers"]) == (["*.fits"], 7, 3)
        assert others["allow_removals"] is True
        assert others["storage_options"] == {
            "anon": True,
            "client_kwargs": {"region_name": "us-east-1", "verify": True},
        }
        assert others["catalogue_options"] == {"profile": "writer"}

    def test_under_flags(self, crawler: Run, asked: list[Asked]) -> None:
        flags = ["-c", "mine", "--include", "*.fit", "--workers", 0, "--region", "eu-west-1", "--concurrency", 9]
        ended = crawler("index", "--job", "job.toml", "s3://b/three/", *flags, "--storage-option", "anon=false")
        assert ended.code == 0
        roots, catalogue, others = asked[0]
        assert (list(roots), catalogue) == (["s3://b/three/"], "mine")
        assert (list(others["include"]), others["concurrency"], others["workers"]) == (["*.fit"], 9, 0)
        assert others["storage_options"] == {
            "anon": False,
            "client_kwargs": {"region_name": "eu-west-1", "verify": True},
        }

    def test_scheduler_in_place_of_workers(
        self, crawler: Run, asked: list[Asked], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(clients, "_CONNECT", 0.3)
        assert crawler("index", "--job", "job.toml", "--scheduler", "tcp://127.0.0.1:1").code == 0
        assert "workers" not in asked[0].others
        with pytest.raises(ClusterError, match="no Dask scheduler answers"), asked[0].others["client"]():
            pass

    def test_workers_in_place_of_a_scheduler(self, crawler: Run, asked: list[Asked]) -> None:
        Path("job.toml").write_text("[cluster]\nscheduler = 'tcp://127.0.0.1:1'\n")
        assert crawler("index", "a", "-c", "b", "--job", "job.toml", "--workers", 2).code == 0
        assert asked[0].others["workers"] == 2

    @pytest.mark.parametrize(
        ("job", "said"),
        [
            pytest.param("[crawl]\nroots = 's3://b/'\n", "job.toml, line 2: roots must be a list", id="kind"),
            pytest.param("[crawl]\n\nrots = []\n", "job.toml, line 3: [crawl] has no rots", id="key"),
            pytest.param("[crawl\n", "job.toml, line 1: ", id="toml"),
            pytest.param("[crawl]\ncatalogue = 'c'\n", "roots in the section [crawl] of job.toml", id="no-roots"),
            pytest.param("[crawl]\nroots = ['r']\n", "catalogue in the section [crawl] of job.toml", id="no-catalogue"),
        ],
    )
    def test_bad(self, crawler: Run, job: str, said: str) -> None:
        Path("job.toml").write_text(job)
        ended = crawler("index", "--job", "job.toml")
        assert (ended.code, ended.out) == (2, "")
        assert said in ended.fault

    def test_runs(self, crawler: Run, tree: Path) -> None:
        Path("job.toml").write_text(f"[crawl]\nroots = ['{tree}']\ncatalogue = 'made'\n[cluster]\nworkers = 0\n")
        assert crawler("index", "--job", "job.toml").code == 0
        assert Catalogue("made").files.count_rows() == TREE_FILES


class TestS3:
    """From a bucket to a catalogue in another, by the command line alone."""

    @pytest.fixture
    def endpoint(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
        import botocore.session  # noqa: PLC0415
        from moto.server import ThreadedMotoServer  # noqa: PLC0415 - a second that other tests need not wait for

        for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_S3_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        client = botocore.session.Session().create_client(
            "s3", endpoint_url=url, aws_access_key_id="key", aws_secret_access_key=SECRET, region_name="us-east-1"
        )
        client.create_bucket(Bucket="data")
        client.create_bucket(Bucket="catalogues")
        for number in range(3):
            client.put_object(Bucket="data", Key=f"night/a{number}.fits", Body=FITS)
        try:
            yield url
        finally:
            client.close()
            server.stop()

    def test_all_commands(self, crawler: Run, endpoint: str) -> None:
        keys = ["--endpoint-url", endpoint, "--storage-option", "key=key", "--storage-option", f"secret={SECRET}"]
        options = {"endpoint_url": endpoint, "key": "key", "secret": SECRET, "client_kwargs.region_name": "us-east-1"}
        mine = [word for name, value in options.items() for word in ("--catalogue-option", f"{name}={value}")]
        catalogue = "s3://catalogues/of/data"

        ended = crawler("index", "s3://data/night/", "-c", catalogue, "--workers", 0, *keys, *mine)
        assert (ended.code, ended.err) == (0, "")
        assert "walked     3 files" in ended.out
        assert f"catalogue  {catalogue} " in ended.out

        sql = "SELECT url FROM hdus WHERE extname = 'SCI' ORDER BY url LIMIT 1"
        assert crawler("query", catalogue, sql, *mine) == (0, "url\ns3://data/night/a0.fits\n", "")
        assert crawler("info", catalogue, *mine).out.startswith(f"{catalogue} version 1\n")
        assert crawler("vacuum", catalogue, "--now", *mine) == (0, "deleted 0 files, 0 bytes\n", "")
        assert (
            crawler("headers", "s3://data/night/a0.fits", "--keyword", "OBJECT", *keys).out
            == "0\tOBJECT  = 'M 31    '\n"
        )
        assert SECRET not in ended.out
