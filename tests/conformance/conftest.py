"""Real files, indexed once, for the tests that hold the catalogue against astropy.

Those installed with astropy are always there. The corpus is more: 1,541 files of 140 repositories and archives, found
where ``CRAWLER_CORPUS`` says (a folder of files, or the script that unpacks them) or beside this repository.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import astropy
import pytest

from crawler.catalogue.reader import Catalogue
from crawler.driver.driver import Crawl
from crawler.driver.executor import InProcess
from crawler.driver.report import Report
from crawler.job.crawl_job import CrawlJob
from crawler.stores.urls import file_url

NAMES = (".fits", ".fit", ".fits.gz", ".fits.bz2", ".fits.Z", ".fits.xz", ".fits.zip", ".fz", ".hdr")
"""How the names of astropy's own files end that are FITS, or hold FITS."""

CORPUS = Path(__file__).parents[3] / "shared" / "corpus" / "unpack.py"

_told = pytest.StashKey[list[str]]()


@dataclass(frozen=True)
class Indexed:
    """A collection of files, and the catalogue of them."""

    name: str
    paths: dict[str, Path]
    """Of every file on disk, by the url that the catalogue should have."""
    catalogue: Catalogue
    report: Report


@pytest.fixture(scope="session", params=["astropy", "corpus"])
def indexed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    """Index a collection in this process."""
    if request.param == "astropy":
        paths = [path for path in Path(astropy.__file__).parent.rglob("*") if path.name.endswith(NAMES)]
        roots = tuple(str(path) for path in paths)
    else:
        folder = _corpus(tmp_path_factory)
        paths = [path for path in folder.rglob("*") if path.is_file()]
        roots = (str(folder),)
    catalogue = str(tmp_path_factory.mktemp("catalogue"))
    report = Crawl(CrawlJob(roots=roots, catalogue=catalogue, include=("*",)), InProcess(), lambda _: None).run()
    urls = {file_url(str(path)): path for path in sorted(paths)}
    return Indexed(request.param, urls, Catalogue(catalogue), report)


def _corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = Path(os.environ.get("CRAWLER_CORPUS", CORPUS))
    if where.is_dir():
        return where
    if not where.is_file():
        pytest.skip(f"no corpus at {where}: set CRAWLER_CORPUS to a folder of FITS files")
    folder = tmp_path_factory.mktemp("corpus")
    subprocess.run([sys.executable, where, folder], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture
def tell(request: pytest.FixtureRequest, indexed: Indexed) -> Callable[[str], None]:
    """Return a function that shows a line after the test run: what was compared, and how much of it."""
    lines = request.config.stash.setdefault(_told, [])
    return lambda text: lines.append(f"{indexed.name}: {text}")


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    """Show what was compared with astropy."""
    lines = config.stash.get(_told, [])
    if lines:
        terminalreporter.section("compared with astropy")
        for line in lines:
            terminalreporter.write_line(line)
    return (yield)
