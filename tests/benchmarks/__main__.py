"""Measure the crawler: beside other readers, product by product, under load; print tables, and plot.

``python -m tests.benchmarks [--only PARTS] [--files N] [--sample N] [--scratch FOLDER] [--write-readme]``, PARTS being
some of cards, peers, local, products, estimate, flight, scale, memory, listing, catalogue, fleet, with commas between.
Needs nginx with its echo module, which it starts itself on loopback, and the extra ``benchmark``. Buckets are made in a
folder, part by part; data units are holes, so they take little space.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.benchmarks import markdown
from tests.benchmarks.figures import FOLDER, draw
from tests.benchmarks.measure import REPOSITORY
from tests.benchmarks.parts import cards, catalogue, estimate, fleet, listing, load, peers, products
from tests.benchmarks.parts.base import Counts, Section

README = REPOSITORY / "tests" / "benchmarks" / "README.md"

_Part = Callable[[Path, Counts], Section]


def main() -> None:
    """Run the command."""
    parts: dict[str, _Part] = {
        "cards": cards.run,
        "peers": peers.run,
        "local": peers.run_local,
        "products": products.run,
        "estimate": estimate.run,
        "flight": load.flight,
        "scale": load.scale,
        "memory": load.memory,
        "listing": listing.run,
        "catalogue": catalogue.run,
        "fleet": fleet.run,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"parts, comma-separated, of {', '.join(parts)}; all by default")
    parser.add_argument("--files", type=int, help="at most so many files in any bucket")
    parser.add_argument("--sample", type=int, default=350, help="files that each peer reads (350)")
    parser.add_argument("--gap", type=int, help="bytes between headers of one cluster; by default the crawler's policy")
    parser.add_argument("--scratch", type=Path, help="folder for the buckets, some GB; the system's own by default")
    parser.add_argument(
        "--write-readme",
        action="store_true",
        help="replace the sections of tests/benchmarks/README.md that were measured, and draw the figures",
    )
    arguments = parser.parse_args()
    wanted = list(parts) if arguments.only is None else arguments.only.split(",")
    if unknown := set(wanted) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    counts = Counts(arguments.files, arguments.sample)
    parts["products"] = partial(products.run, gap=arguments.gap)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nginx is stopped and the buckets are deleted
    sections = []
    for name in wanted:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="buckets-", dir=arguments.scratch) as temporary:
            section = parts[name](Path(temporary), counts)
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        print(f"\n{section.markdown(FOLDER.relative_to(README.parent))}\n", flush=True)
        sections.append(section)
    if arguments.write_readme:
        draw(figure for section in sections for figure in section.figures)
        markdown.replace_in(README, [section.markdown(FOLDER.relative_to(README.parent)) for section in sections])


if __name__ == "__main__":
    main()
