"""Reading a catalogue: datasets, headers, SQL, and what they must not reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from crawler.catalogue.fragments import new_batch, write_fragment
from crawler.catalogue.log import CatalogueLog, Change
from crawler.catalogue.merge import without_urls
from crawler.catalogue.reader import Catalogue
from crawler.catalogue.schema import TABLES
from crawler.errors import CatalogueError, QueryError, UsageError
from tests.tables import add_objects, rows_of

URLS = ["file:///a", "file:///b", "file:///c"]


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "catalogue"


@pytest.fixture
def catalogue(location: Path) -> Catalogue:
    """Three objects, each in files of its own."""
    log = CatalogueLog(str(location))
    log.create()
    for url in URLS:
        add_objects(log, [url])
    return Catalogue(str(location))


def delete_files_of(catalogue: Catalogue, location: Path, *urls: str) -> None:
    """Delete the Parquet files of some objects, so that opening one of them fails."""
    for fragment in catalogue.fragments:
        if fragment.first_url in urls:
            (location / fragment.path).unlink()


class TestDatasets:
    @pytest.mark.parametrize(("name", "rows"), [("files", 3), ("hdus", 6), ("cards", 12)])
    def test_have_the_columns_of_the_contract(self, catalogue: Catalogue, name: str, rows: int) -> None:
        dataset = getattr(catalogue, name)

        assert dataset.schema.equals(TABLES[name])
        assert dataset.to_table().schema.equals(TABLES[name])
        assert dataset.count_rows() == rows

    @pytest.mark.parametrize("name", TABLES)
    def test_of_an_empty_catalogue_are_empty(self, tmp_path: Path, name: str) -> None:
        CatalogueLog(str(tmp_path / "empty")).create()

        table = getattr(Catalogue(str(tmp_path / "empty")), name).to_table()

        assert table.schema.equals(TABLES[name])
        assert table.num_rows == 0

    @pytest.mark.parametrize(
        "wanted",
        [
            pytest.param(pc.field("url") == "file:///b", id="equal"),
            pytest.param(pc.field("url").isin(["file:///b", "file:///bb"]), id="is in"),
            pytest.param((pc.field("url") > "file:///a") & (pc.field("url") < "file:///c"), id="between"),
            pytest.param((pc.field("url") == "file:///b") & (pc.field("etag") == "1"), id="and another column"),
        ],
    )
    def test_filters_on_url_open_only_files_that_may_match(
        self, catalogue: Catalogue, location: Path, wanted: pc.Expression
    ) -> None:
        delete_files_of(catalogue, location, "file:///a", "file:///c")

        assert catalogue.files.to_table(filter=wanted)["url"].to_pylist() == ["file:///b"]

    def test_nothing_is_opened_before_it_is_asked_for(self, catalogue: Catalogue, location: Path) -> None:
        delete_files_of(catalogue, location, *URLS)

        assert Catalogue(str(location)).cards.schema.equals(TABLES["cards"])

    def test_a_version_is_kept_while_others_write(self, catalogue: Catalogue, location: Path) -> None:
        log = CatalogueLog(str(location))
        add_objects(log, ["file:///d"])
        log.commit(lambda now: without_urls(log.folder, now.fragments, ["file:///a"], "run"), {})

        assert catalogue.files.count_rows() == catalogue.sql("FROM files").num_rows == 3
        assert catalogue.header_bytes("file:///a") == b"file:///a 0 1"
        assert (catalogue.version, Catalogue(str(location)).version) == (3, 5)
        assert Catalogue(str(location), version=3).files.to_table().equals(catalogue.files.to_table())


class TestHeader:
    def add_header(self, location: Path, url: str, header: bytes) -> Catalogue:
        log = CatalogueLog(str(location))
        log.create()
        rows = rows_of("hdus", url=[url], header=[header])
        fragment = write_fragment(log.folder, "hdus", rows, new_batch("run"))
        assert fragment is not None
        log.commit(lambda _: Change([fragment]), {})
        return Catalogue(str(location))

    @pytest.mark.parametrize(
        "cards",
        [
            pytest.param([], id="none"),
            pytest.param([b"SIMPLE  =                    T"], id="one card"),
            pytest.param([b"SIMPLE  =                    T", b"A       = 1D0", b"", b"COMMENT x"], id="several"),
            pytest.param([b"SIMPLE  =                    T", b"NAME    = 'M\xfcnchen'"], id="latin-1"),
            pytest.param([b"A       =1", b"lower   = 'O''Neill'", b"HIERARCH ESO A B = 1 0"], id="against the rules"),
        ],
    )
    def test_is_what_the_file_has(self, location: Path, cards: list[bytes]) -> None:
        header = b"".join(card.ljust(80) for card in cards)

        assert self.add_header(location, "file:///x", header).header_bytes("file:///x") == header

    def test_is_one_of_astropy(self, location: Path) -> None:
        cards = [b"SIMPLE  =                    T", b"A       = 1D0 / one", b"HISTORY x", b"A       = 'b'"]
        header = b"".join(card.ljust(80) for card in cards)

        found = self.add_header(location, "file:///x", header).header("file:///x")

        assert [card.image.encode() for card in found.cards] == [card.ljust(80) for card in cards]
        assert found["A", 0] == 1.0

    def test_opens_only_the_files_that_may_hold_it(self, catalogue: Catalogue, location: Path) -> None:
        delete_files_of(catalogue, location, "file:///a", "file:///c")

        assert catalogue.header_bytes("file:///b", 1) == b"file:///b 1 1"

    def test_takes_a_local_path(self, location: Path, tmp_path: Path) -> None:
        catalogue = self.add_header(location, f"file://{tmp_path}/a%20b.fits", b"x")

        assert catalogue.header_bytes(f"{tmp_path}/a b.fits") == b"x"

    @pytest.mark.parametrize(("url", "hdu"), [("file:///a", 2), ("file:///a", -1), ("file:///zz", 0)])
    def test_that_is_not_there(self, catalogue: Catalogue, url: str, hdu: int) -> None:
        with pytest.raises(CatalogueError, match=f"holds no HDU {hdu} of {url}"):
            catalogue.header(url, hdu)

    def test_of_no_url(self, catalogue: Catalogue) -> None:
        with pytest.raises(UsageError):
            catalogue.header("")

    def test_whose_file_is_gone(self, catalogue: Catalogue, location: Path) -> None:
        delete_files_of(catalogue, location, "file:///b")

        with pytest.raises(CatalogueError, match="version 3 cannot be read") as caught:
            catalogue.header("file:///b")
        assert str(caught.value).isprintable()

    def test_whose_file_is_damaged(self, catalogue: Catalogue, location: Path) -> None:
        for fragment in catalogue.fragments:
            (location / fragment.path).write_bytes(b"garbage" * 100)

        with pytest.raises(CatalogueError, match="version 3 cannot be read") as caught:
            catalogue.header("file:///b")
        assert str(caught.value).isprintable()


def text_of(catalogue: Catalogue, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query as text."""
    with catalogue.text_of_sql(query) as rows:
        return [row for batch in rows.batches for row in zip(*(c.to_pylist() for c in batch.columns), strict=True)]


class TestText:
    """What Arrow and Python have no value for is text as DuckDB writes it."""

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("DATE '20000-01-01'", "20000-01-01"),
            ("DATE '-4000-01-01'", "4001-01-01 (BC)"),
            ("TIMESTAMP '290000-01-01 01:02:03'", "290000-01-01 01:02:03"),
            ("'infinity'::DATE", "infinity"),
            ("'-infinity'::TIMESTAMPTZ", "-infinity"),
            ("TIMESTAMPTZ '2020-01-01 00:00:00+02'", "2019-12-31 22:00:00+00"),
            ("TIMESTAMP_NS '2020-01-01 00:00:00.123456789'", "2020-01-01 00:00:00.123456789"),
            ("'12:34:56+02'::TIMETZ", "12:34:56+02"),
            ("INTERVAL 100000 YEARS", "100000 years"),
            ("'nan'::DOUBLE", "nan"),
            ("'-inf'::FLOAT", "-inf"),
            ("0.1::FLOAT", "0.1"),
            ("340282366920938463463374607431768211455::UHUGEINT", "340282366920938463463374607431768211455"),
            ("'-170141183460469231731687303715884105728'::HUGEINT", "-170141183460469231731687303715884105728"),
            ("(repeat('9', 60))::BIGNUM", "9" * 60),
            ("12345678901234567890.123::DECIMAL(38, 3)", "12345678901234567890.123"),
            ("[1, 2]", "[1, 2]"),
            ("{'when': [DATE '20000-01-01'], 'what': NULL}", "{'when': [20000-01-01], 'what': NULL}"),
            ("MAP {'a': 1}", "{a=1}"),
            ("union_value(x := 2)", "2"),
            ("'10101'::BIT", "10101"),
            ("'x'::ENUM ('x', 'y')", "x"),
            ("repeat('x', 1000000)", "x" * 1_000_000),
            ("'\\x00\\xFF'::BLOB", b"\x00\xff"),
            ("true", "true"),
            ("''", ""),
            ("NULL", None),
        ],
    )
    def test_of_any_value(self, catalogue: Catalogue, value: str, text: str | bytes | None) -> None:
        assert text_of(catalogue, f"SELECT {value}") == [(text,)]

    def test_of_columns_of_one_name(self, catalogue: Catalogue) -> None:
        query = """SELECT 1 AS a, 'x' AS a, 3 AS "a:1", 4 AS a_1, 5 AS "A""b" """
        with catalogue.text_of_sql(query) as rows:
            assert rows.names == ("a", "a", "a:1", "a_1", 'A"b')
            assert rows.numbers == (True, False, True, True, True)
            assert [batch.to_pydict() for batch in rows.batches] == [
                {"c0": ["1"], "c1": ["x"], "c2": ["3"], "c3": ["4"], "c4": ["5"]}
            ]

    def test_of_no_rows_keeps_the_columns(self, catalogue: Catalogue) -> None:
        with catalogue.text_of_sql("SELECT url, size FROM files WHERE false") as rows:
            assert (rows.names, list(rows.batches)) == (("url", "size"), [])

    def test_keeps_the_order_of_many_rows(self, catalogue: Catalogue) -> None:
        found = text_of(catalogue, "SELECT range * 7919 % 300007 AS n FROM range(300000) ORDER BY n DESC")
        numbers = [int(row[0]) for row in found]
        assert numbers == sorted(numbers, reverse=True)
        assert len(numbers) == 300_000

    def test_fault_after_some_rows_is_one_line(self, catalogue: Catalogue) -> None:
        query = "SELECT CASE WHEN range = 299999 THEN error('at\nlast') ELSE range END FROM range(300000)"
        with pytest.raises(QueryError, match=r"^query failed: .*last"):
            text_of(catalogue, query)

    def test_faults_of_whoever_reads_the_rows_are_their_own(self, catalogue: Catalogue) -> None:
        with pytest.raises(BrokenPipeError), catalogue.text_of_sql("SELECT 1"):
            raise BrokenPipeError

    def test_arrow_gets_text_of_types_that_it_lacks(self, catalogue: Catalogue) -> None:
        largest = "340282366920938463463374607431768211455"
        query = f'SELECT {largest}::UHUGEINT AS a, 1 AS a, \'01:00:00+02\'::TIMETZ AS "b"""'
        found = catalogue.sql(query)
        assert found.column_names == ["a", "a", 'b"']
        assert [column.to_pylist() for column in found.columns] == [
            [largest],
            [1],
            ["01:00:00+02"],
        ]
        assert found.column(1).type == pa.int32()

    def test_times_are_in_utc(self, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TZ", "Pacific/Auckland")
        found = catalogue.sql("SELECT TIMESTAMPTZ '2020-01-01 00:00:00+00' AS t")
        assert str(found["t"].type) == "timestamp[us, tz=UTC]"


class TestSql:
    def test_sees_three_views(self, catalogue: Catalogue) -> None:
        found = catalogue.sql(
            "SELECT url, count(*) AS n FROM files JOIN hdus USING (url) JOIN cards USING (url, hdu) "
            "WHERE keyword = 'KEY1' GROUP BY url ORDER BY url"
        )

        assert found.to_pylist() == [{"url": url, "n": 2} for url in URLS]
        assert catalogue.sql("SHOW TABLES")["name"].to_pylist() == ["cards", "files", "hdus"]

    def test_opens_only_the_files_that_may_match(self, catalogue: Catalogue, location: Path) -> None:
        delete_files_of(catalogue, location, "file:///a", "file:///c")

        assert catalogue.sql("SELECT etag FROM files WHERE url = 'file:///b'").num_rows == 1
        assert catalogue.sql("SELECT hdu FROM cards WHERE url IN ('file:///b', 'x')").num_rows == 4

    @pytest.mark.parametrize("query", ["", "  ", "-- nothing", ";", " ;; /* x */ ;"])
    def test_without_a_statement_is_wrong_usage(self, catalogue: Catalogue, query: str) -> None:
        with pytest.raises(UsageError, match=r"^the query has no statement: give one, such as FROM files LIMIT 5$"):
            catalogue.sql(query)

    @pytest.mark.parametrize("query", ["SELECT 1; SELECT 2", "FROM files;FROM hdus;", "CREATE TABLE t (x INT); FROM t"])
    def test_of_several_statements_is_wrong_usage(self, catalogue: Catalogue, query: str) -> None:
        with pytest.raises(UsageError, match=r"^the query has 2 statements: give one"):
            catalogue.sql(query)

    @pytest.mark.parametrize(
        "query",
        [
            "BEGIN",
            "DROP VIEW files",
            "CREATE TABLE t AS SELECT 1",
            "DELETE FROM files",
            "PREPARE a AS SELECT 1",
            "CHECKPOINT",
        ],
    )
    def test_that_gives_no_rows_is_refused(self, catalogue: Catalogue, query: str) -> None:
        with pytest.raises(QueryError, match="is no query: a catalogue is read by SELECT"):
            catalogue.sql(query)
        assert catalogue.sql("FROM files").num_rows == 3

    @pytest.mark.parametrize(
        ("query", "rows"),
        [
            ("SELECT 1;", 1),
            ("SELECT ';' -- ; SELECT 2", 1),
            ("EXPLAIN SELECT * FROM files", 1),
            ("DESCRIBE files", len(TABLES["files"])),
            ("SUMMARIZE SELECT url FROM files", 1),
            ("PIVOT (SELECT url, status FROM files) ON status USING count(*)", 3),
            ("PRAGMA table_info('cards')", len(TABLES["cards"])),
            ("VALUES (1), (2)", 2),
            ("FROM files", 3),
        ],
    )
    def test_of_every_kind_that_gives_rows(self, catalogue: Catalogue, query: str, rows: int) -> None:
        assert catalogue.sql(query).num_rows == rows
        assert len(text_of(catalogue, query)) == rows

    @pytest.mark.parametrize(
        ("query", "words"),
        [
            pytest.param("SELEC 1", "syntax error", id="syntax"),
            pytest.param("SELECT\n\n  nope\nFROM files", "nope", id="column"),
            pytest.param("SELECT * FROM nope", "nope", id="table"),
            pytest.param("SELECT CAST(url AS INT) FROM files", "Could not convert", id="while it runs"),
            pytest.param("SELECT * FROM files WHERE url = $1", "parameter", id="parameter"),
            pytest.param("SELECT error('a\r\nb\tc\x1b[31m')", "", id="message of the user"),
            pytest.param("SELECT '\ud800'", "surrogate", id="lone surrogate"),
        ],
    )
    def test_that_cannot_be_run_is_one_line(self, catalogue: Catalogue, query: str, words: str) -> None:
        with pytest.raises(QueryError) as caught:
            catalogue.sql(query)
        text = str(caught.value)
        assert text.startswith("query failed: ")
        assert words in text
        assert text.isprintable()

    def test_of_a_damaged_file_is_one_line(self, catalogue: Catalogue, location: Path) -> None:
        for fragment in catalogue.fragments:
            (location / fragment.path).write_bytes(b"garbage" * 100)

        with pytest.raises(QueryError) as caught:
            catalogue.sql("SELECT url FROM files")
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize(
        "query",
        [
            "SELECT * FROM read_csv('{secret}')",
            "SELECT * FROM read_text('{secret}')",
            "SELECT * FROM read_blob('{secret}')",
            "SELECT * FROM '{secret}'",
            "SELECT * FROM glob('{folder}/*')",
            "SELECT * FROM read_parquet('{folder}/catalogue/*/*.parquet')",
            "COPY files TO '{folder}/out.csv'",
            "COPY (SELECT 1) TO '{folder}/out.parquet'",
            "EXPORT DATABASE '{folder}/out'",
            "IMPORT DATABASE '{folder}'",
            "ATTACH '{folder}/out.db'",
            "COPY files FROM '{secret}'",
            "EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/out.csv'",
            "CREATE PERSISTENT SECRET s (TYPE s3)",
            "INSTALL httpfs",
            "LOAD httpfs",
            "LOAD '{folder}/extension'",
            "SELECT * FROM read_csv('http://127.0.0.1:9/x')",
        ],
    )
    def test_reaches_nothing_outside(self, catalogue: Catalogue, tmp_path: Path, query: str) -> None:
        secret = tmp_path / "secret.csv"
        secret.write_text("password\nhunter2\n")
        before = sorted(tmp_path.rglob("*"))

        with pytest.raises(QueryError) as caught:
            catalogue.sql(query.format(secret=secret, folder=tmp_path))
        assert "hunter2" not in str(caught.value)
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize(
        "query",
        [
            "SET enable_external_access = true",
            "SET lock_configuration = false",
            "RESET lock_configuration",
            "SET memory_limit = '1GB'",
            "SET temp_directory = '/tmp'",
            "PRAGMA threads = 1",
            "SET allowed_paths = ['/etc/passwd']",
        ],
    )
    def test_changes_no_setting(self, catalogue: Catalogue, query: str) -> None:
        with pytest.raises(QueryError, match=r"locked|Cannot change|is no query"):
            catalogue.sql(query)

    @pytest.mark.parametrize("name", ["local_table", "GLOBAL_TABLE", "TABLES", "catalogue"])
    def test_sees_no_variable_of_python(self, catalogue: Catalogue, name: str) -> None:
        local_table = GLOBAL_TABLE

        with pytest.raises(QueryError, match="does not exist"):
            catalogue.sql(f"SELECT * FROM {name}")
        assert local_table.num_rows == 1


GLOBAL_TABLE = pa.table({"x": [1]})
