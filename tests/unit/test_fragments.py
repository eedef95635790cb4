"""Parquet files of the catalogue: order, row groups, statistics, types."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.catalogue import fragments as fragments_module
from crawler.catalogue.folder import Folder, open_folder
from crawler.catalogue.fragments import (
    MAX_GROUP,
    MIN_GROUP,
    Fragment,
    group_cuts,
    groups_of,
    new_batch,
    read_fragment,
    write_fragment,
)
from crawler.catalogue.schema import CARDS, FILES, HDUS, TABLES
from tests.tables import rows_of

ODD_URLS = [
    "file:///z",
    "file:///é",
    "s3://b/\uffff",
    "s3://b/\U0001f52d",  # above U+FFFF: sorts before \uffff in UTF-16, after it in UTF-8
    "s3://b/a",
    "s3://b/a b",
    "s3://b/a/b",
    "s3://b/A",
]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return open_folder(str(tmp_path / "catalogue"))


def written(folder: Folder, name: str, rows: pa.Table) -> Fragment:
    fragment = write_fragment(folder, name, rows, new_batch("run"))
    assert fragment is not None
    return fragment


def parquet(folder: Folder, fragment: Fragment) -> pq.ParquetFile:
    return pq.ParquetFile(folder.join(fragment.path))


def card_rows(rows: Sequence[tuple[str, str, int, int]]) -> pa.Table:
    """Return rows of cards of (keyword, url, hdu, card)."""
    keyword, url, hdu, card = zip(*rows, strict=True)
    return rows_of("cards", keyword=keyword, url=url, hdu=hdu, card=card)


class TestOrder:
    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["", "A", "FILTER", "é", "long keyword"]),
                st.sampled_from(ODD_URLS),
                st.integers(0, 12),
                st.integers(0, 12),
            ),
            min_size=1,
            max_size=60,
        )
    )
    def test_cards_are_in_order_of_keyword_url_hdu_card_as_utf8_bytes(
        self, tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int, int]]
    ) -> None:
        folder = open_folder(str(tmp_path_factory.mktemp("order")))

        back = read_fragment(folder, written(folder, "cards", card_rows(rows)))

        found = list(zip(*(back[name].to_pylist() for name in ("keyword", "url", "hdu", "card")), strict=True))
        assert found == sorted(rows, key=lambda row: (row[0].encode(), row[1].encode(), *row[2:]))

    @pytest.mark.parametrize("name", ["files", "hdus"])
    def test_others_are_in_order_of_url(self, folder: Folder, name: str) -> None:
        fragment = written(folder, name, rows_of(name, url=ODD_URLS))

        assert read_fragment(folder, fragment)["url"].to_pylist() == sorted(ODD_URLS, key=str.encode)
        assert (fragment.first_url, fragment.last_url) == ("file:///z", "s3://b/\U0001f52d")

    def test_hdus_of_one_file_are_in_order_of_their_number(self, folder: Folder) -> None:
        fragment = written(folder, "hdus", rows_of("hdus", url=["b", "a", "b", "a"], hdu=[11, 1, 2, 0]))

        back = read_fragment(folder, fragment)

        assert list(zip(back["url"].to_pylist(), back["hdu"].to_pylist(), strict=True)) == [
            ("a", 0),
            ("a", 1),
            ("b", 2),
            ("b", 11),
        ]


class TestGroupCuts:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(1, 2 * MAX_GROUP // 3), max_size=12))
    def test_of_any_keywords(self, lengths: list[int]) -> None:
        ranks = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)

        cuts = group_cuts(ranks)

        sizes = np.diff(cuts)
        assert cuts[0] == 0
        assert cuts[-1] == len(ranks)
        assert (sizes > 0).all()
        assert (sizes <= MAX_GROUP).all()
        assert (sizes[:-1] >= MIN_GROUP).all()
        for cut, size in zip(cuts[1:-1], sizes[:-1], strict=True):
            assert ranks[cut - 1] != ranks[cut] or size == MAX_GROUP

    @pytest.mark.parametrize(
        ("lengths", "cuts"),
        [
            pytest.param([], [0], id="no rows"),
            pytest.param([1], [0, 1], id="one row"),
            pytest.param([MIN_GROUP], [0, MIN_GROUP], id="just enough"),
            pytest.param([MIN_GROUP, 1], [0, MIN_GROUP, MIN_GROUP + 1], id="a rest of one row"),
            pytest.param([MIN_GROUP - 1, 1, 1], [0, MIN_GROUP, MIN_GROUP + 1], id="two keywords make a group"),
            pytest.param([MIN_GROUP - 1, 2], [0, MIN_GROUP + 1], id="a group ends where a keyword does"),
            pytest.param([MAX_GROUP], [0, MAX_GROUP], id="as long as may be"),
            pytest.param([MAX_GROUP + 1, 9], [0, MAX_GROUP, MAX_GROUP + 10], id="a keyword too long is cut inside"),
        ],
    )
    def test_at_the_limits(self, lengths: list[int], cuts: list[int]) -> None:
        assert group_cuts(np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)).tolist() == cuts

    def test_are_the_row_groups_of_the_file(self, folder: Folder) -> None:
        rows = [(keyword, "u", 0, card) for keyword in ("A", "B", "C") for card in range(MIN_GROUP + 10)]

        metadata = parquet(folder, written(folder, "cards", card_rows(rows))).metadata

        assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [MIN_GROUP + 10] * 3
        at = CARDS.get_field_index("keyword")
        for number, keyword in enumerate("ABC"):
            statistics = metadata.row_group(number).column(at).statistics
            assert (statistics.min, statistics.max) == (keyword, keyword)

    def test_of_hdus_are_short(self, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fragments_module, "_HDU_GROUP", 3)

        fragment = written(folder, "hdus", rows_of("hdus", url=[f"u{n}" for n in range(7)]))

        metadata = parquet(folder, fragment).metadata
        assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [3, 3, 1]


class TestStatistics:
    @pytest.mark.parametrize("length", [10, 65, 500, 1024, 4000], ids="{} characters".format)
    @pytest.mark.parametrize("name", TABLES)
    def test_in_each_row_group_urls_are_whole(
        self, folder: Folder, monkeypatch: pytest.MonkeyPatch, name: str, length: int
    ) -> None:
        monkeypatch.setattr(fragments_module, "MIN_GROUP", 2)
        monkeypatch.setattr(fragments_module, "_HDU_GROUP", 2)
        first, last = "a".ljust(length, "x"), "é".ljust(length, "z")
        columns = {"keyword": ["K" * length] * 2 + ["L" * length] * 2} if name == "cards" else {}
        fragment = written(folder, name, rows_of(name, url=[last, first, first, last], **columns))

        metadata = parquet(folder, fragment).metadata

        found = set()
        for number in range(metadata.num_row_groups):
            statistics = metadata.row_group(number).column(TABLES[name].get_field_index("url")).statistics
            found |= {statistics.min, statistics.max}
            if name == "cards":
                keywords = metadata.row_group(number).column(CARDS.get_field_index("keyword")).statistics
                assert len(keywords.min) == len(keywords.max) == length
        assert found == {first, last}

    def test_in_the_log_bound_all_rows(self, folder: Folder) -> None:
        fragment = written(folder, "files", rows_of("files", url=[*ODD_URLS, "x" * 3000]))

        statistics = json.loads(fragment.stats())

        urls = [url.encode() for url in read_fragment(folder, fragment)["url"].to_pylist()]
        assert statistics == {
            "numRecords": len(ODD_URLS) + 1,
            "minValues": {"url": min(urls).decode()},
            "maxValues": {"url": max(urls).decode()},
            "nullCount": {"url": 0},
        }
        assert fragment.size == Path(folder.join(fragment.path)).stat().st_size

    def test_bound_the_rows_left_where_a_dictionary_holds_more(self, folder: Folder) -> None:
        urls = pa.array(["a", "m", "z"]).dictionary_encode()
        rows = rows_of("files", url=["a", "m", "z"]).set_column(0, "url", urls).slice(1, 1)

        fragment = written(folder, "files", rows)

        assert (fragment.first_url, fragment.last_url, fragment.rows) == ("m", "m", 1)


class TestTypes:
    @pytest.mark.parametrize("name", TABLES)
    def test_of_no_rows_no_file_is_made(self, folder: Folder, name: str) -> None:
        assert write_fragment(folder, name, TABLES[name].empty_table(), "b") is None
        assert not Path(folder.path).exists()

    @pytest.mark.parametrize("name", TABLES)
    def test_columns_of_nulls_come_back_as_they_are(self, folder: Folder, name: str) -> None:
        rows = rows_of(name, url=["a", "b"])

        back = read_fragment(folder, written(folder, name, rows))

        assert back.schema.equals(TABLES[name])
        assert back.equals(rows)

    @pytest.mark.parametrize(
        ("name", "row"),
        [
            pytest.param(
                "files",
                {
                    "size": 2**62,
                    "etag": '"é"',
                    "last_modified": datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
                    "error": "",
                    "n_hdus": 2**31 - 1,
                    "pinned": False,
                },
                id="files",
            ),
            pytest.param(
                "hdus",
                {
                    "hdu": 2**31 - 1,
                    "bitpix": -64,
                    "shape": [2**40, 0, 3],
                    "extver": -(2**63),
                    "header": bytes(range(256)) * 400,
                },
                id="hdus",
            ),
            pytest.param("hdus", {"shape": [], "header": b""}, id="hdus without data"),
            pytest.param(
                "cards",
                {
                    "keyword": "",
                    "value": "\x7f\x80ÿ\0",
                    "integer": 2**63 - 1,
                    "real": 5e-324,
                    "logical": False,
                    "comment": "",
                },
                id="cards",
            ),
        ],
    )
    def test_values_come_back_as_they_are(self, folder: Folder, name: str, row: dict[str, object]) -> None:
        rows = rows_of(name, url=["u"], **{key: [value] for key, value in row.items()})

        back = read_fragment(folder, written(folder, name, rows))

        assert back.equals(rows)

    @pytest.mark.parametrize("chunks", [1, 2], ids=["one chunk", "chunks of different dictionaries"])
    def test_dictionary_encoded_strings_are_written_as_plain_ones(self, folder: Folder, chunks: int) -> None:
        plain = card_rows([("B", "v", 0, 0), ("A", "u", 0, 1), ("A", "é", 0, 0), ("C", "u", 0, 0)])
        plain = plain.set_column(CARDS.get_field_index("value"), "value", pa.array(["x", None, "", "x"]))

        def encoded(rows: pa.Table) -> pa.Table:
            for name in ("url", "keyword", "value"):
                column = rows[name].combine_chunks().dictionary_encode()
                rows = rows.set_column(rows.schema.get_field_index(name), name, column)
            return rows

        step = plain.num_rows // chunks
        pieces = [encoded(plain.slice(start, step)) for start in range(0, plain.num_rows, step)]

        fragment = written(folder, "cards", pa.concat_tables(pieces))

        assert parquet(folder, fragment).schema_arrow.equals(CARDS)
        assert read_fragment(folder, fragment).equals(
            read_fragment(folder, written(folder, "cards", plain.select(CARDS.names)))
        )

    def test_some_columns_are_read_alone(self, folder: Folder) -> None:
        back = read_fragment(folder, written(folder, "files", rows_of("files", url=["a"], size=[3])), ["size"])

        assert back.schema.equals(pa.schema([FILES.field("size")]))

    def test_columns_may_come_in_any_order(self, folder: Folder) -> None:
        rows = rows_of("hdus", url=["a"], hdu=[3])

        back = read_fragment(folder, written(folder, "hdus", rows.select(HDUS.names[::-1])))

        assert back.equals(rows)

    def test_batches_of_one_run_begin_with_its_name(self) -> None:
        names = {new_batch("run") for _ in range(100)}

        assert len(names) == 100
        assert all(name.startswith("run-") for name in names)


def piece(name: str, rows: int, header: int = 1) -> Fragment:
    return Fragment("hdus", f"table=hdus/{name}.parquet", 1, rows, name, name, header)


@pytest.mark.parametrize(
    ("pieces", "groups"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([piece("a", 1)], [], id="one file"),
        pytest.param([piece("a", 1), piece("b", 1)], ["ab"], id="two files"),
        pytest.param([piece("a", 1), piece("b", 13), piece("c", 1)], ["ac"], id="a good file stands between"),
        pytest.param([piece("a", 1), piece("b", 1), piece("c", 13)], ["ab"], id="good files are left alone"),
        pytest.param([piece(c, 12) for c in "abcdefghij"], ["abcdefgh", "ij"], id="no more rows than a good file"),
        pytest.param([piece(c, 1, 120) for c in "abcdefghij"], ["abcdefgh", "ij"], id="no more bytes of headers"),
    ],
)
def test_groups_of_small_files(pieces: list[Fragment], groups: list[str]) -> None:
    found = ["".join(one.first_url for one in group) for group in groups_of(pieces, 100, 1000, 2)]

    assert found == groups


def test_few_small_files_are_not_worth_merging() -> None:
    assert list(groups_of([piece(name, 1) for name in "abcde"], 100, 1000, 6)) == []
    assert len(list(groups_of([piece(name, 1) for name in "abcdef"], 100, 1000, 6))) == 1
