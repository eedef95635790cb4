"""What listing costs: keys a second, requests and memory, of buckets of millions of keys that exist as numbers only."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crawler.stores.s3.range_listing import LISTERS
from tests.benchmarks.markdown import table
from tests.benchmarks.measure import REPOSITORY
from tests.benchmarks.parts.base import Counts, Section

_DELAY = 100  # ms to the first byte of a page: about what S3 takes
_MILLION = 1_000_000
# Layout, keys, listers, delay.
_RUNS = (
    ("flat", _MILLION, 1, 0),
    ("flat", _MILLION, LISTERS, 0),
    ("flat", _MILLION, 1, _DELAY),
    ("flat", _MILLION, LISTERS, _DELAY),
    ("folders", _MILLION, LISTERS, _DELAY),
    ("flat", 10 * _MILLION, LISTERS, 0),
    ("flat", 10 * _MILLION, LISTERS, _DELAY),
    ("folders", 10 * _MILLION, LISTERS, _DELAY),
)


def run(_: Path, counts: Counts) -> Section:
    """List buckets into partitions, by one request at a time and by many."""
    rows: list[list[object]] = []
    with _server() as endpoint:
        for layout, usual, listers, delay in _RUNS:
            keys = counts.at_most(usual)
            found = _listed(endpoint, f"{layout}-{keys}" + (f"-{delay}" if delay else ""), listers)
            if found["keys"] != keys:
                raise RuntimeError(f"{found['keys']} keys were listed, not {keys}")
            rows.append(
                [
                    layout,
                    keys,
                    listers,
                    f"{delay} ms",
                    round(keys / found["seconds"]),
                    found["requests"],
                    found["cpu"] / keys * 1e6,
                    found["first"],
                    found["partitions"],
                    found["peak"] / 1e6,
                ]
            )
    columns = (
        "keys lie", "keys", "listers", "a page after", "keys/s", "LIST requests", "CPU us a key", "first partition, s",
        "partitions", "peak MB",
    )  # fmt: skip
    text = f"""
Pages of 1,000 keys, listed, filtered by name and cut into partitions by one process; the server computes them. Keys
lie flat (`img_00000000.fits`) or in folders of a night.

{table(columns, rows)}
"""
    return Section("Listing", text)


@contextmanager
def _server() -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.key_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


def _listed(endpoint: str, bucket: str, listers: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.lister"],
        input=json.dumps({"endpoint": endpoint, "bucket": bucket, "listers": listers}),
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise RuntimeError(f"listing {bucket}: {said[-1] if said else done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
