"""What the parts of the benchmark share: how large they are, and what comes of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.nginx import PAUSE

AT_PAUSE = f"{PAUSE * 1e3:.0f} ms"
"""The pause of the slow server, for columns."""


@dataclass(frozen=True)
class Counts:
    """How large the benchmark is.

    Attributes
    ----------
    files : int or None
        At most so many in any bucket; what each part finds fit, if None.
    sample : int
        Files that a peer reads, of those that the crawler does.
    """

    files: int | None = None
    sample: int = 350

    def at_most(self, usual: int) -> int:
        """Return how many files to take where so many are usual."""
        return usual if self.files is None else min(usual, self.files)


@dataclass(frozen=True)
class Series:
    """A line of a plot."""

    label: str
    points: list[tuple[float, float]]
    dashed: bool = False


@dataclass(frozen=True)
class Figure:
    """A plot with logarithmic axes.

    Attributes
    ----------
    name : str
        Of its file, without ending.
    x, y : str
        What the axes are.
    series : list of Series
    log_y : bool
    """

    name: str
    x: str
    y: str
    series: list[Series]
    log_y: bool = True


@dataclass(frozen=True)
class Section:
    """What a part found: Markdown, and plots for it."""

    title: str
    text: str
    figures: list[Figure] = field(default_factory=list)

    def markdown(self, folder: Path) -> str:
        """Return the section, its figures shown from a folder."""
        shown = [
            f"![{figure.y} against {figure.x}]({(folder / figure.name).as_posix()}.png)" for figure in self.figures
        ]
        return "\n\n".join([f"### {self.title}", self.text.strip(), *shown])


def spread(keys: list[str], count: int) -> list[str]:
    """Return so many of some keys, evenly spread."""
    return keys if count >= len(keys) else [keys[at * len(keys) // count] for at in range(count)]
