"""Compare two checkouts on the product buckets: ``python -m tests.benchmarks.compare OTHER [--products NAMES]``.

OTHER is the folder of another checkout of the project; the first one is the checkout that this command runs in. Both
index the same buckets, in turn, without and with a pause to the first byte. Printed are, for each bucket and checkout,
files/s, CPU milliseconds, requests and round trips per file (the medians of the rounds), and the ratio of the two
checkouts. With ``--counts``, one round without a pause gives requests and round trips alone: they do not depend on how
busy the machine is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product as combinations
from pathlib import Path
from statistics import median

from tests.benchmarks.contender import BEGIN, END, Task
from tests.benchmarks.markdown import table
from tests.benchmarks.measure import REPOSITORY, write_bucket
from tests.benchmarks.nginx import PAUSE, Nginx, nginx
from tests.benchmarks.products.all import PRODUCTS

_WARM = "warm"

Figures = tuple[float, float, float, float]
"""Of one run: files/s, CPU milliseconds, requests and round trips per file."""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("--products", default=",".join(PRODUCTS), help="names of products, with commas between")
    parser.add_argument("--files", type=int, help="maximum number of files in a bucket")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each bucket (3)")
    parser.add_argument("--counts", action="store_true", help="one round, no pause: requests and round trips only")
    parser.add_argument("--scratch", type=Path, help="folder for the buckets; the system's own by default")
    arguments = parser.parse_args()
    checkouts = (REPOSITORY, arguments.other.resolve())
    names = arguments.products.split(",")
    with tempfile.TemporaryDirectory(prefix="buckets-", dir=arguments.scratch) as temporary:
        folder = Path(temporary)
        write_bucket(folder, "survey", 20, name=_WARM)
        for name in names:
            write_bucket(folder, name, min(arguments.files or PRODUCTS[name].usual, PRODUCTS[name].usual))
        rounds, pauses = (1, (False,)) if arguments.counts else (arguments.rounds, (False, True))
        with nginx(folder) as server:
            for slow in pauses:
                rows = [row for name in names for row in _rows(server, checkouts, name, slow=slow, rounds=rounds)]
                columns = ("product", "checkout", "files/s", "CPU ms", "requests", "round trips")
                print(f"\n{PAUSE * slow * 1e3:.0f} ms to the first byte\n\n{table(columns, rows)}", flush=True)


def _rows(
    server: Nginx, checkouts: tuple[Path, ...], bucket: str, *, slow: bool, rounds: int
) -> Iterator[list[object]]:
    found: dict[Path, list[Figures]] = {checkout: [] for checkout in checkouts}
    for _, checkout in combinations(range(rounds), checkouts):
        found[checkout].append(_measure(server, checkout, bucket, slow=slow))
    medians = [[median(column) for column in zip(*found[checkout], strict=True)] for checkout in checkouts]
    for checkout, figures in zip(checkouts, medians, strict=True):
        yield [bucket, checkout.name, *figures]
    yield [bucket, "ratio", *(one / other for one, other in zip(*medians, strict=True))]


def _measure(server: Nginx, checkout: Path, bucket: str, *, slow: bool) -> Figures:
    """Index a bucket with the code of a checkout, in a process of its own."""
    task = Task("crawler", server.slow if slow else server.fast, bucket, warm=_WARM)
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.contender"],
        input=json.dumps(asdict(task)),
        capture_output=True,
        text=True,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        check=False,
    )
    if not done.stdout:
        raise SystemExit(f"{checkout}: {bucket}: {done.stderr.strip()}")
    result = json.loads(done.stdout)
    traffic = server.traffic(BEGIN, END)
    files = result["files"]
    if result["failed"] or traffic.failed or not files:
        raise SystemExit(f"{checkout}: {bucket}: files failed: {result['error']} {dict(traffic.failed)}")
    requests = traffic.requests - traffic.kinds["LIST"]
    return (
        files / result["seconds"],
        result["cpu"] / files * 1e3,
        requests / files,
        result["report"]["round_trips"] / files,
    )


if __name__ == "__main__":
    main()
