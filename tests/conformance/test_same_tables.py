"""The command that compares the tables of two catalogues sees what differs, and nothing else."""

from __future__ import annotations

from pathlib import Path

from crawler.catalogue.log import CatalogueLog
from crawler.catalogue.reader import Catalogue
from tests.conformance.same_tables import describe, differences
from tests.tables import add_objects


def written(folder: Path, crawl: str, etags: dict[str, str]) -> Catalogue:
    log = CatalogueLog(str(folder))
    log.create()
    for url, etag in etags.items():
        add_objects(log, [url], crawl, etag)
    return Catalogue(str(folder))


def test_same_rows_of_other_runs_are_no_difference(tmp_path: Path) -> None:
    first = written(tmp_path / "first", "one", {"file:///a": "1", "file:///b": "1"})
    second = written(tmp_path / "second", "two", {"file:///b": "1", "file:///a": "1"})
    assert [differences(first, second, name) for name in ("files", "hdus", "cards")] == [[], [], []]


def test_rows_that_differ_and_rows_of_one_side_are_told(tmp_path: Path) -> None:
    first = written(tmp_path / "first", "one", {"file:///a": "1", "file:///b": "1"})
    second = written(tmp_path / "second", "one", {"file:///a": "2", "file:///c": "1"})
    lines = [describe("files", *pair) for pair in differences(first, second, "files")]
    assert lines[0] == "files: file:///a: etag '1' -> '2'"
    assert lines[1].startswith("files: file:///b: only in the first: ")
    assert lines[2].startswith("files: file:///c: only in the second: ")
    assert len(differences(first, second, "cards")) == 12
