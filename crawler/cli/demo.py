"""``crawler demo``: index real and invented FITS files, and print a few questions with their answers.

The real files come with astropy (its test data). Nothing is downloaded.
"""

from __future__ import annotations

import shlex
import sys
from importlib.resources import as_file, files
from pathlib import Path

from crawler import Catalogue, index, load_headers
from crawler.cli import output
from crawler.demo import NEXT_QUESTION, QUESTIONS, make_survey
from crawler.stores.urls import one_line

_WIDTH = 110
"""Columns of tables where there is no terminal."""


def run_demo(folder: str | Path, *, command: str = "crawler") -> None:
    """Index the files of the demonstration, and print questions to their catalogue with the answers.

    Parameters
    ----------
    folder : str or pathlib.Path
        Gets ``survey``, the generated files, and ``catalogue``. What is there already is kept and brought up to date.
    command : str
        What runs ``crawler`` in the user's shell, for the commands that are printed.
    """
    survey, catalogue = Path(folder) / "survey", str(Path(folder) / "catalogue")
    make_survey(survey)
    with as_file(files("astropy")) as astropy:
        report = index([str(survey), str(astropy)], catalogue)
    print(output.summary(report))
    opened = Catalogue(catalogue)
    for question, query in QUESTIONS:
        print(f"\n{question}")
        with opened.text_of_sql(query) as rows:
            output.print_rows(rows, width=None if sys.stdout.isatty() else _WIDTH)

    exposure = survey / "demo0000_flt.fits"
    unit = next(unit for unit in load_headers(str(exposure)) if unit.index == 1)
    print(f"\nOne HDU, straight from its file: {exposure}, HDU 1")
    print(f"its data are bytes {unit.data_offset:,} to {unit.data_offset + unit.data_size:,}, its header begins")
    print("\n".join(f"  {one_line(card.image).rstrip()}" for card in unit.fits.cards[:5]))
    print("\nNow ask for yourself:")
    print(f"  {command} info {shlex.quote(catalogue)}")
    print(f"  {command} query {shlex.quote(catalogue)} {shlex.quote(NEXT_QUESTION)}")
    print(f"  {command} headers {shlex.quote(str(exposure))} --keyword FILTER")
