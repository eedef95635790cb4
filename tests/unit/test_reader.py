"""Reading a catalogue: datasets, headers, SQL, and what they must not reach."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from crawler.catalogue.fragments import new_batch, write_fragment
from crawler.catalogue.log import CatalogueLog, Change
from crawler.catalogue.reader import Catalogue
from crawler.catalogue.rewrite import without_urls
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

    @pytest.mark.parametrize(
        "query",
        ["", "  ", "-- nothing", ";", "BEGIN", "DROP VIEW files"],
        ids=["empty", "blank", "comment", "semicolon", "begin", "drop"],
    )
    def test_statements_without_rows_give_none(self, catalogue: Catalogue, query: str) -> None:
        found = catalogue.sql(query)

        assert isinstance(found, pa.Table)
        assert found.num_rows == 0

    def test_of_several_statements_the_last_counts(self, catalogue: Catalogue) -> None:
        query = "CREATE TABLE t AS SELECT url FROM files; DELETE FROM t WHERE url = 'file:///a'; SELECT * FROM t"

        assert catalogue.sql(query).num_rows == 2

    def test_calls_know_nothing_of_each_other(self, catalogue: Catalogue) -> None:
        catalogue.sql("CREATE TABLE t AS SELECT 1; DROP VIEW files")

        assert catalogue.sql("FROM files").num_rows == 3
        with pytest.raises(QueryError, match="Table with name t does not exist"):
            catalogue.sql("FROM t")

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
            "CREATE TABLE t (x INT); COPY t FROM '{secret}'",
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
        with pytest.raises(QueryError, match=r"locked|Cannot change"):
            catalogue.sql(query)

    @pytest.mark.parametrize("name", ["local_table", "GLOBAL_TABLE", "TABLES", "catalogue"])
    def test_sees_no_variable_of_python(self, catalogue: Catalogue, name: str) -> None:
        local_table = GLOBAL_TABLE

        with pytest.raises(QueryError, match="does not exist"):
            catalogue.sql(f"SELECT * FROM {name}")
        assert local_table.num_rows == 1


GLOBAL_TABLE = pa.table({"x": [1]})
