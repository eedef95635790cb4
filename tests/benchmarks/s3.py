"""Index a bucket, beside astropy with s3fs reading every header of the same objects.

One loopback S3 in a process of its own; both clients in this one, one after the other; CPU time of this process, and
requests as the server counts them. Files of 4 HDUs, 60 to 100 cards each, with data units of 700 kB. Run
``python -m tests.benchmarks.s3 [--files N]``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from astropy.io import fits

import crawler
from tests.benchmarks.siblings import write_siblings


@contextmanager
def s3(folder: Path) -> Iterator[str]:
    """Serve a folder of buckets; give the endpoint's URL."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.s3_server", str(folder)], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()


def measured(endpoint: str, work: Callable[[], Any]) -> tuple[Any, float, int]:
    """Return what work returns, the CPU seconds that it took, and the requests that it made."""
    urllib.request.urlopen(f"{endpoint}/-/count").read()
    start = time.process_time()
    result = work()
    cpu = time.process_time() - start
    return result, cpu, int(urllib.request.urlopen(f"{endpoint}/-/count").read())


def read_with_astropy(names: list[str], options: dict[str, Any]) -> int:
    """Read keyword, value and comment of every card of some objects."""
    cards = 0
    for name in names:
        with fits.open(name, use_fsspec=True, fsspec_kwargs=options) as hdus:
            for hdu in hdus:
                for card in hdu.header.cards:
                    _ = card.keyword, card.value, card.comment
                    cards += 1
    return cards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    count = parser.parse_args().files
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_siblings(root / "buckets" / "survey", count)
        write_siblings(root / "buckets" / "warm", 20)
        with s3(root / "buckets") as endpoint:
            options = {"endpoint_url": endpoint, "key": "benchmark", "secret": "benchmark"}
            small = {**options, "default_block_size": 64 * 1024}
            names = [f"s3://survey/{path.name}" for path in sorted((root / "buckets" / "survey").iterdir())]
            # Imports, connections and first calls are not what is measured.
            crawler.index("s3://warm", str(root / "warm"), storage_options=options)
            read_with_astropy(["s3://warm/survey00000000_flt.fits"], options)

            some = names[: max(1, count // 5)]
            rows = []
            for name, given in (("astropy + s3fs", options), ("astropy + s3fs, 64 kB blocks", small)):
                _, cpu, requests = measured(endpoint, lambda given=given: read_with_astropy(some, given))
                rows.append((name, cpu / len(some), requests / len(some)))
            for name, store in (("crawler", "auto"), ("crawler --store fsspec", "fsspec")):
                into = str(root / store)
                report, cpu, requests = measured(
                    endpoint,
                    lambda into=into, store=store: crawler.index(
                        "s3://survey", into, storage_options=options, store=store
                    ),
                )
                assert report.walked == {"ok": count}, report
                pinned = crawler.Catalogue(into).sql("SELECT count(*) AS n FROM files WHERE pinned")["n"][0].as_py()
                assert pinned == count
                rows.append((name, cpu / count, requests / count))
    print(f"{count} objects of 4 HDUs; reads of the crawler are pinned to the listed ETag\n")
    print("| | CPU ms a file | requests a file | CPU, times the crawler's |\n|---|---|---|---|")
    ours = rows[-2][1]
    for name, cpu, requests in rows:
        print(f"| {name} | {cpu * 1e3:.2f} | {requests:.2f} | {cpu / ours:.1f} |")


if __name__ == "__main__":
    main()
