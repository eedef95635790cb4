"""Compare the tables of two catalogues, and print each row that only one of them has.

``python -m tests.conformance.same_tables CATALOGUE CATALOGUE [--show N]`` compares the rows as multisets; columns that
tell of the run and not of the files are left out. It exits with 1 if the tables differ.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from itertools import zip_longest
from typing import Any

import duckdb

from crawler.catalogue.reader import Catalogue
from crawler.catalogue.schema import TABLES
from tests.tables import OF_THE_RUN

IGNORED = {*OF_THE_RUN, "run_id", "walker_version"}
KEYS = {"files": ("url",), "hdus": ("url", "hdu"), "cards": ("url", "hdu", "card")}

Row = dict[str, Any]


def differences(first: Catalogue, second: Catalogue, name: str) -> list[tuple[Row, Row]]:
    """Return the rows of a table that only one catalogue has, or has more often.

    Returns
    -------
    list of (dict, dict)
        Rows of the first catalogue and of the second that have the same key; an empty one where the other has none.
    """
    columns = ", ".join(f'"{column}"' for column in TABLES[name].names if column not in IGNORED)
    with duckdb.connect() as connection:
        connection.register("a", getattr(first, name).to_table())
        connection.register("b", getattr(second, name).to_table())
        sides = [
            connection.sql(f"SELECT {columns} FROM {one} EXCEPT ALL SELECT {columns} FROM {other}").arrow().read_all()
            for one, other in (("a", "b"), ("b", "a"))
        ]
    pairs: dict[tuple[Any, ...], tuple[list[Row], list[Row]]] = defaultdict(lambda: ([], []))
    for side, rows in enumerate(sides):
        for row in rows.to_pylist():
            pairs[tuple(row[key] for key in KEYS[name])][side].append(row)
    found: list[tuple[Row, Row]] = []
    for _, (left, right) in sorted(pairs.items()):
        found += zip_longest(left, right, fillvalue={})
    return found


def describe(name: str, left: Row, right: Row) -> str:
    """Return one line: the key, and the columns that differ."""
    key = " ".join(str((left or right)[column]) for column in KEYS[name])
    if not left or not right:
        return f"{name}: {key}: only in the {'first' if left else 'second'}: {_short(left or right)}"
    changes = {column: (left[column], right[column]) for column in left if repr(left[column]) != repr(right[column])}
    return f"{name}: {key}: " + ", ".join(f"{column} {_short(a)} -> {_short(b)}" for column, (a, b) in changes.items())


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", help="catalogue")
    parser.add_argument("second", help="catalogue")
    parser.add_argument("--show", type=int, default=100, help="rows of each table that are printed [default: 100]")
    arguments = parser.parse_args()
    first, second = Catalogue(arguments.first), Catalogue(arguments.second)
    total = 0
    for name in TABLES:
        found = differences(first, second, name)
        total += len(found)
        for left, right in found[: arguments.show]:
            print(describe(name, left, right))
        print(f"{name}: {getattr(first, name).count_rows():,} rows, {len(found):,} differ")
    sys.exit(1 if total else 0)


if __name__ == "__main__":
    main()
