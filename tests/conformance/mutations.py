"""Index mutated headers of real files, and compare what is found with astropy and CFITSIO.

``python -m tests.conformance.mutations [--count N] [--seed N] [--keep FOLDER]`` prints what it counted, and one line
for every difference; it exits with 1 if rows are wrong, or HDUs at other places. For each mutant it is checked that

- the catalogue has one row of the file, and one of each HDU,
- the header bytes of each HDU are those of the file, and an END card follows them,
- where astropy and CFITSIO find HDUs at the same places, a file whose status is ``ok`` has them at these places.

HDUs behind these, which both libraries refuse to read, are printed and counted too, but are no failure: the libraries
refuse much that does not matter to where data lie, such as a table without TFORM.

CFITSIO is asked where the module ``fitsio`` is installed; without it no places are compared.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from crawler.catalogue.reader import Catalogue
from crawler.driver.driver import Crawl
from crawler.driver.executor import InProcess
from crawler.job.crawl_job import CrawlJob
from crawler.stores.urls import file_url
from tests.conformance.faults import BLOCK, CARD
from tests.conformance.libraries import LIBRARIES, Library
from tests.conformance.mutants import Mutant, Source, astropy_sources, corpus_sources, mutants

CORPUS = Path(os.environ.get("CRAWLER_CORPUS_PACK", Path(__file__).parents[3] / "shared" / "corpus" / "corpus.parquet"))

_BATCH = 200  # mutants that are indexed together
_MORE = "more HDUs: "
_STATUSES = {"ok", "truncated", "corrupt", "not-fits"}

Row = dict[str, Any]


@dataclass
class Outcome:
    """What was compared.

    Attributes
    ----------
    counts : Counter
        Mutants by status, and by what the libraries say of them.
    wrong_rows : list of str
        One line for every mutant that has no rows, or rows that cannot be.
    other_places : list of str
        One line for every mutant of status ``ok`` whose HDUs are not where both libraries find them.
    refused : list of str
        One line for every mutant of status ``ok`` that has more HDUs than both libraries find, the others being where
        both find them: HDUs that both refuse to read.
    """

    counts: Counter[str] = field(default_factory=Counter)
    wrong_rows: list[str] = field(default_factory=list)
    other_places: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def sources(count: int | None = None) -> list[Source]:
    """Return the files of the corpus, or astropy's own where there is none: all, or ``count`` from all over them."""
    found = list(corpus_sources(CORPUS) if CORPUS.is_file() else astropy_sources())
    return found[:: max(1, len(found) // count)] if count else found


def run(wanted: Iterator[Mutant], folder: Path) -> Outcome:
    """Index mutants, and compare.

    Parameters
    ----------
    wanted : iterator of Mutant
    folder : Path
        Empty; the mutants of which something is wrong stay there.
    """
    outcome = Outcome()
    with ExitStack() as stack:
        libraries = [stack.enter_context(Library(name)) for name in LIBRARIES if Library.is_installed(name)]
        numbered = enumerate(wanted)
        for batch in range(sys.maxsize):
            those = dict(islice(numbered, _BATCH))
            if not those:
                break
            _run_batch(those, folder / f"batch-{batch}", libraries, outcome)
        for library in libraries:
            outcome.counts[f"{library.name} died"] += library.deaths
    return outcome


def _run_batch(batch: dict[int, Mutant], folder: Path, libraries: list[Library], outcome: Outcome) -> None:
    files = folder / "files"
    files.mkdir(parents=True)
    paths = {number: files / f"{number:06}.fits" for number in batch}
    for number, path in paths.items():
        batch[number].write(path)
    catalogue = folder / "catalogue"
    job = CrawlJob(roots=(str(files),), catalogue=str(catalogue), include=("*",))
    Crawl(job, InProcess(), lambda _: None).run()
    opened = Catalogue(str(catalogue))
    rows = {row["url"]: row for row in opened.files.to_table().to_pylist()}
    table = opened.hdus.to_table().sort_by([("url", "ascending"), ("hdu", "ascending")])
    hdus = {url: list(group) for url, group in groupby(table.to_pylist(), key=itemgetter("url"))}
    if extra := set(rows) - {file_url(str(path)) for path in paths.values()}:
        outcome.wrong_rows.append(f"rows of no file: {sorted(extra)[:3]}")
    for number, path in paths.items():
        url = file_url(str(path))
        what = f"{path}: {batch[number].name}, {', '.join(batch[number].faults)}"
        outcome.counts["mutants"] += 1
        if fault := _row_fault(path, rows.get(url), hdus.get(url, [])):
            outcome.wrong_rows.append(f"{what}: {fault}")
        elif difference := _compare(path, rows[url], hdus.get(url, []), libraries, outcome.counts):
            (outcome.refused if difference.startswith(_MORE) else outcome.other_places).append(f"{what}: {difference}")
        else:
            path.unlink()


def _row_fault(path: Path, row: Row | None, hdus: list[Row]) -> str | None:
    """Return what is wrong with the rows of a file."""
    if row is None:
        return "no row"
    if row["status"] not in _STATUSES or (row["status"] == "ok") != (row["error"] is None):
        return f"status {row['status']}, error {row['error']}"
    if [hdu["hdu"] for hdu in hdus] != list(range(row["n_hdus"])):
        return f"{row['n_hdus']} HDUs, but rows {[hdu['hdu'] for hdu in hdus]}"
    with path.open("rb") as file:
        for hdu in hdus:
            file.seek(hdu["header_offset"])
            stored = file.read(len(hdu["header"]) + CARD)
            if not stored.startswith(hdu["header"]) or not stored.startswith(b"END", len(hdu["header"])):
                return f"header of HDU {hdu['hdu']} is not that of the file"
    return None


def _compare(path: Path, row: Row, hdus: list[Row], libraries: list[Library], counts: Counter[str]) -> str | None:
    """Compare the places of HDUs; return the difference where both libraries agree."""
    counts[f"status {row['status']}"] += 1
    for library in libraries:
        library.ask(path)
    answers = [library.answer() for library in libraries]
    offsets = [[place[:2] for place in answer] for answer in answers]
    if len(offsets) < 2 or offsets[0] != offsets[1] or not offsets[0]:
        counts["libraries disagree" if any(offsets) else "no library reads it"] += 1
        return None
    counts["libraries agree"] += 1
    if row["status"] != "ok":
        counts[f"libraries agree, status {row['status']}"] += 1
        return None
    counts["compared"] += 1
    ours = [(hdu["header_offset"], hdu["data_offset"]) for hdu in hdus]
    if ours != offsets[0]:
        more = _MORE if ours[: len(offsets[0])] == offsets[0] else ""
        return f"{more}libraries {_show(offsets[0])}, catalogue {_show(ours)}"
    if answers[0] == answers[1]:
        counts["ends of data compared"] += 1
        last = hdus[-1]
        end = last["data_offset"] + -(-last["data_size"] // BLOCK) * BLOCK
        if end != answers[0][-1].end:
            return f"libraries end the last data unit at {answers[0][-1].end}, the catalogue at {end}"
    return None


def _show(offsets: list[Any]) -> str:
    shown = ", ".join(f"{start}+{stop - start}" for start, stop in offsets[:12])
    return f"[{shown}{', ...' if len(offsets) > 12 else ''}]"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000, help="mutants [default: 3000]")
    parser.add_argument("--seed", type=int, default=1, help="number from which all mutants follow [default: 1]")
    parser.add_argument("--keep", type=Path, help="empty folder in which mutants with a difference are kept")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        outcome = run(mutants(sources(), arguments.count, arguments.seed), folder)
    for line in outcome.wrong_rows + outcome.other_places + outcome.refused:
        print(line)
    for name, count in sorted(outcome.counts.items()):
        print(f"{count:8,} {name}")
    print(f"{len(outcome.wrong_rows):8,} with wrong rows")
    print(f"{len(outcome.other_places):8,} with HDUs at other places")
    print(f"{len(outcome.refused):8,} with HDUs that both libraries refuse")
    sys.exit(1 if outcome.wrong_rows or outcome.other_places else 0)


if __name__ == "__main__":
    main()
