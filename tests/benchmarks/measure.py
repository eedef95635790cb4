"""The parent's side of a measurement: buckets to measure on, processes that do it, and what the server saw."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import crawler
from tests.benchmarks.contender import BEGIN, END, Result, Task
from tests.benchmarks.nginx import Nginx, Traffic, nginx
from tests.benchmarks.peers import PEERS
from tests.benchmarks.products.all import PRODUCTS

REPOSITORY = Path(__file__).parents[2]
_CORPUS = REPOSITORY.parent / "shared" / "corpus" / "unpack.py"
_WARM = "warm"
_WARM_FILES = 20


@dataclass(frozen=True)
class Measured:
    """A result, and what the server saw of it: nothing where folders were read."""

    result: Result
    traffic: Traffic | None = None

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds a file."""
        return self.result.cpu / max(1, self.result.files) * 1e3

    @property
    def rate(self) -> float:
        """Files a second."""
        return self.result.files / self.result.seconds

    @property
    def requests(self) -> float:
        """Requests of objects a file; those of listings are one in a thousand files more."""
        assert self.traffic is not None
        return (self.traffic.requests - self.traffic.kinds["LIST"]) / max(1, self.result.files)

    @property
    def body_bytes(self) -> float:
        """Bytes a file."""
        assert self.traffic is not None
        return self.traffic.body_bytes / max(1, self.result.files)


class Bench:
    """A folder of buckets, and the servers over it."""

    def __init__(self, buckets: Path, server: Nginx | None) -> None:
        self._buckets = buckets
        self._server = server
        self._warm_keys = self.keys(_WARM)[:3]

    def keys(self, bucket: str) -> list[str]:
        """Return all keys of a bucket, sorted."""
        root = self._buckets / bucket
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    def crawl(self, bucket: str, *, slow: bool = False, **task: Any) -> Measured:
        """Index a bucket with the crawler.

        Raises
        ------
        RuntimeError
            It failed, some file could not be read, or the server refused something.
        """
        measured = self._measure("crawler", bucket, slow, **task)
        if measured.result.failed:
            raise RuntimeError(f"{bucket}: {measured.result.failed} files were not read: {measured.result.error}")
        if measured.traffic is not None and measured.traffic.failed:
            raise RuntimeError(f"{bucket}: the server refused requests: {dict(measured.traffic.failed)}")
        return measured

    def read(self, peer: str, bucket: str, keys: list[str], *, slow: bool = False, **task: Any) -> Measured:
        """Read some objects with another reader."""
        hints: Mapping[str, list[int]] = task.pop("with_data", {})
        known = {**{key: [1, 2, 3] for key in self._warm_keys}, **{key: hints.get(key, []) for key in keys}}
        return self._measure(peer, bucket, slow, keys=keys, warm_keys=self._warm_keys, with_data=known, **task)

    def _measure(self, reader: str, bucket: str, slow: bool, **task: Any) -> Measured:
        """Do a task in a process of its own."""
        if self._server is None:
            endpoint, bucket, warm = "", str(self._buckets / bucket), str(self._buckets / _WARM)
        else:
            endpoint, warm = self._server.slow if slow else self._server.fast, _WARM
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.contender"],
            input=json.dumps(asdict(Task(reader, endpoint, bucket, warm=warm, **task))),
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            check=False,
        )
        if not done.stdout:
            said = done.stderr.strip().splitlines()
            raise RuntimeError(f"{reader} on {bucket}: {said[-1] if said else done.returncode}")
        result = Result(**json.loads(done.stdout))
        return Measured(result, self._server.traffic(BEGIN, END) if self._server else None)


@contextmanager
def bench(buckets: Path, *, served: bool = True) -> Iterator[Bench]:
    """Serve a folder of buckets, or let it be read as it is; a bucket to warm up on is added."""
    write_bucket(buckets, "survey", _WARM_FILES, name=_WARM)
    if not served:
        yield Bench(buckets, None)
        return
    with nginx(buckets) as server:
        yield Bench(buckets, server)


def write_bucket(buckets: Path, product: str, count: int, *, name: str = "") -> str:
    """Write a bucket of files of one product; return its name."""
    PRODUCTS[product].write(buckets / (name or product), range(count))
    return name or product


def write_archive(buckets: Path, only: str) -> str | None:
    """Write a bucket of real headers, where the corpus is at hand; return its name.

    It is looked for where ``CRAWLER_CORPUS`` says (a folder of files, or the script that unpacks them), or beside this
    repository.
    """
    where = Path(os.environ.get("CRAWLER_CORPUS", _CORPUS))
    folder = buckets / "archive"
    if where.is_file():
        subprocess.run([sys.executable, where, folder, "--only", only], check=True, stdout=subprocess.DEVNULL)
        return folder.name
    paths = [path for path in where.rglob("*") if path.is_file() and only in str(path)] if where.is_dir() else []
    for path in paths:
        link = folder / path.relative_to(where)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return folder.name if paths else None


def with_data(catalogue: str, bucket: str) -> dict[str, list[int]]:
    """Return the numbers of the HDUs that have data, by key."""
    rows = crawler.Catalogue(catalogue).sql(
        "SELECT url, list(hdu ORDER BY hdu) AS hdus FROM hdus WHERE data_size > 0 GROUP BY url"
    )
    return {row["url"].removeprefix(f"s3://{bucket}/"): row["hdus"] for row in rows.to_pylist()}


def installed(peer: str) -> bool:
    """Tell whether a peer's module is there."""
    return importlib.util.find_spec(PEERS[peer].module) is not None
