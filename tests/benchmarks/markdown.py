"""Tables of numbers in Markdown, and their place in the README."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

BEGIN, END = "<!-- benchmark -->", "<!-- /benchmark -->"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; numbers have three digits or more, and None is a dash."""
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *([shown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(cell: object) -> str:
    """Return a number with three digits or more, anything else as it is."""
    if cell is None:
        return "-"
    if not isinstance(cell, float):
        return f"{cell:,}" if isinstance(cell, int) else str(cell)
    digits = 0 if abs(cell) >= 100 else 1 if abs(cell) >= 10 else 2
    return f"{cell:,.{digits}f}"


def replace_in(path: Path, sections: Sequence[str]) -> None:
    """Put sections, each below a heading of level 3, between the two markers of a file.

    A section takes the place of the one of the same heading; others that are there stay.

    Raises
    ------
    SystemExit
        The file has no markers.
    """
    before, begin, rest = path.read_text().partition(BEGIN)
    held, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no {BEGIN} ... {END}")
    known = {_heading(text): text for text in re.split(r"^(?=### )", held, flags=re.MULTILINE) if text[:4] == "### "}
    known |= {_heading(text): text for text in sections}
    text = "\n\n".join(one.strip() for one in known.values())
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def _heading(text: str) -> str:
    return text.partition("\n")[0].strip()
