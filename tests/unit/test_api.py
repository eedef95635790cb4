"""The public calls: what they take for a path, and which arguments they refuse."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import crawler
from crawler.catalogue.vacuum import vacuum
from crawler.errors import UsageError
from crawler.stores.urls import text_of, texts_of
from tests.conftest import TREE_FILES
from tests.unit.test_cli import Run, commands


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return commands(monkeypatch, capsys, tmp_path)


class TestPaths:
    """A `pathlib.Path` wherever a path is taken."""

    @pytest.fixture
    def catalogue(self, tree: Path, tmp_path: Path) -> Path:
        crawler.index(tree, tmp_path / "a catalogue")
        return tmp_path / "a catalogue"

    def test_index_takes_a_path(self, catalogue: Path) -> None:
        assert crawler.Catalogue(catalogue).files.count_rows() == TREE_FILES

    def test_index_takes_a_list_of_paths_and_strings(self, tree: Path, tmp_path: Path) -> None:
        roots = [tree / "night0", str(tree / "night1"), tree / "night2" / "exp020.fits"]
        assert crawler.index(roots, tmp_path / "made").files == 21

    def test_relative_path_and_home(self, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert crawler.index(Path("tree"), Path("~/made")).files == TREE_FILES
        assert (tmp_path / "made" / "_delta_log").is_dir()

    def test_index_on_processes_takes_a_path(self, tree: Path, tmp_path: Path) -> None:
        assert crawler.index(tree / "night0", tmp_path / "made", workers=1).files == 10

    def test_path_that_begins_with_an_at_sign_is_no_key_file(
        self, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tree / "night0").rename("@night")
        assert crawler.index(Path("@night"), tmp_path / "made").files == 10

    def test_catalogue_header_takes_a_path(self, tree: Path, catalogue: Path) -> None:
        path = tree / "night0" / "exp000.fits"
        header = crawler.Catalogue(catalogue).header(path)
        assert header.tostring() == crawler.Catalogue(str(catalogue)).header(path.as_uri()).tostring()

    def test_load_headers_takes_a_path(self, tree: Path) -> None:
        path = tree / "night0" / "exp000.fits"
        assert [unit.index for unit in crawler.load_headers(path)] == [
            unit.index for unit in crawler.load_headers(str(path))
        ]

    def test_estimate_takes_paths(self, tree: Path, catalogue: Path) -> None:
        assert crawler.estimate(tree, catalogue).unchanged == TREE_FILES
        assert crawler.estimate([tree / "night0", tree / "night1"]).listed == 20

    def test_vacuum_takes_a_path(self, catalogue: Path) -> None:
        assert vacuum(catalogue).deleted == 0

    def test_job_file_may_be_a_path(self, tmp_path: Path) -> None:
        from crawler.job.job_file import read_job_file  # noqa: PLC0415

        (tmp_path / "job.toml").write_text("[crawl]\ncatalogue = 'c'\n")
        assert read_job_file(tmp_path / "job.toml") == {"catalogue": "c"}

    def test_demo_takes_a_path(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        from crawler.cli.demo import run_demo  # noqa: PLC0415

        run_demo(tmp_path / "shown")
        assert "Which exposures" in capsys.readouterr().out

    @pytest.mark.parametrize("url", ["s3://bucket/key", "https://example.org/a.fits", "gs://b/c"])
    def test_path_made_of_a_url_is_refused(self, tmp_path: Path, url: str) -> None:
        for call in (
            lambda: crawler.index(Path(url), tmp_path / "made"),
            lambda: crawler.index(tmp_path, Path(url)),
            lambda: crawler.Catalogue(Path(url)),
            lambda: list(crawler.load_headers(Path(url))),
            lambda: crawler.estimate([Path(url)]),
        ):
            with pytest.raises(UsageError, match="give the URL as a string"):
                call()
        assert not (tmp_path / "made").exists()

    def test_file_url_survives_pathlib(self, tree: Path, tmp_path: Path) -> None:
        assert crawler.index(Path(tree.as_uri()), tmp_path / "made").files == TREE_FILES

    @pytest.mark.parametrize("place", [7, None, 1.5, object()])
    def test_other_things_are_refused(self, tmp_path: Path, place: Any) -> None:
        for call in (
            lambda: crawler.index(place, tmp_path / "made"),
            lambda: crawler.index([place], tmp_path / "made"),
            lambda: crawler.index(tmp_path, place),
            lambda: crawler.Catalogue(place),
            lambda: list(crawler.load_headers(place)),
        ):
            with pytest.raises(UsageError, match=f"a path or URL is expected, not {type(place).__name__}"):
                call()

    def test_text_is_what_a_user_would_type(self) -> None:
        class Place(os.PathLike[str]):
            def __fspath__(self) -> str:
                return "b"

        assert texts_of(["a", Place(), Path("c/d")]) == ("a", "b", "c/d")
        assert texts_of("s3://a/b") == ("s3://a/b",)
        assert text_of(Path("a:/b")) == "a:/b", "no scheme has one letter"


class TestGlobs:
    def test_one_glob_is_not_taken_letter_by_letter(self, tree: Path, tmp_path: Path) -> None:
        assert crawler.index(tree, tmp_path / "made", include="exp00*", exclude="*9.fits").files == 9
        assert crawler.estimate(tree, include="exp00*", exclude="*9.fits").listed == 9


class TestWorkers:
    MANY = 99_999

    def test_index_refuses_more_than_the_machine_bears(self, tree: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"^99,999 workers are too many: this machine has \d+ cores?, on which at"):
            crawler.index(tree, tmp_path / "made", workers=self.MANY)
        assert not (tmp_path / "made").exists()

    def test_command_line_and_job_file_refuse_them(self, run: Run, tree: Path) -> None:
        for args in (("--workers", self.MANY), ("--job", "job.toml"), ("--cluster", "job.toml")):
            Path("job.toml").write_text(f"[cluster]\nworkers = {self.MANY}\n")
            ended = run("index", tree, "-c", "made", *args)
            assert (ended.code, ended.out) == (2, "")
            assert ended.fault.startswith("99,999 workers are too many")
        assert not Path("made").exists()

    @pytest.mark.parametrize(("cores", "most"), [(1, 32), (4, 32), (64, 512)])
    def test_limit_follows_the_cores(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: int, most: int
    ) -> None:
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        with pytest.raises(UsageError, match=f"this machine has {cores} cores?, on which at most {most} processes"):
            crawler.index(tmp_path, tmp_path / "made", workers=most + 1)
        with pytest.raises(UsageError, match="no store reads tape://"):  # the next thing that is looked at
            crawler.index("tape://a", tmp_path / "made", workers=most)
