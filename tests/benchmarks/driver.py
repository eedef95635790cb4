"""A process that drives crawls of buckets on a cluster, and tells what each took: one JSON object in, one out."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from distributed import Client

import crawler
from crawler.cluster import local_client


def main() -> None:
    """Do what standard input says: ``endpoint``, ``buckets``, and ``workers`` or the ``scheduler`` that has them."""
    task = json.loads(sys.stdin.read())
    options = {"endpoint_url": task["endpoint"], "key": "key", "secret": "secret"}
    cluster: AbstractContextManager[Client] = (
        Client(task["scheduler"]) if task["scheduler"] else local_client(task["workers"])
    )
    crawls = []
    with cluster as client, tempfile.TemporaryDirectory() as folder:
        for bucket in task["buckets"]:
            catalogue = str(Path(folder) / bucket)
            report = crawler.index(f"s3://{bucket}/", catalogue, storage_options=options, client=client)
            crawls.append({"seconds": report.seconds, "requests": report.requests, "walked": dict(report.walked)})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"crawls": crawls, "peak": peak}))


if __name__ == "__main__":
    main()
