"""Plots of what was measured, as PNG."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.parts.base import Figure

FOLDER = Path(__file__).parent / "figures"


def draw(figures: Iterable[Figure], folder: Path = FOLDER) -> None:
    """Write plots into a folder."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    folder.mkdir(exist_ok=True)
    for figure in figures:
        fig, axes = plt.subplots(figsize=(6, 3.75), layout="constrained")
        for series in figure.series:
            x, y = zip(*series.points, strict=True)
            axes.plot(x, y, "--" if series.dashed else "o-", label=series.label)
        axes.set_xscale("log")
        axes.set_xlabel(figure.x)
        axes.set_ylabel(figure.y)
        ticks = sorted({x for series in figure.series for x, _ in series.points})
        axes.set_xticks(ticks, [f"{x:,.0f}" for x in ticks])
        axes.minorticks_off()
        if figure.log_y:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if len(figure.series) > 1:
            axes.legend()
        fig.savefig(folder / f"{figure.name}.png", dpi=110)
        plt.close(fig)
