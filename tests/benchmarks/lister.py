"""A process that lists a bucket into partitions, and tells what that took: one JSON object in, one out."""

from __future__ import annotations

import json
import resource
import sys
import time

from crawler.job.settings import Settings
from crawler.listing import list_roots, partitions
from crawler.stores import open_store
from crawler.stores.s3 import range_listing as s3_listing


def main() -> None:
    """Do what standard input says: ``endpoint``, ``bucket``, ``listers``."""
    task = json.loads(sys.stdin.read())
    s3_listing.LISTERS = task["listers"]
    store = open_store("s3", {"endpoint_url": task["endpoint"], "key": "key", "secret": "secret"})
    next(iter(store.list("s3://flat-1/")))  # what is opened once is not measured
    before = getattr(store, "list_requests", 0)
    cpu, begun = time.process_time(), time.perf_counter()
    listing = list_roots([f"s3://{task['bucket']}/"], include=None, exclude=(), open_store=lambda _: store)
    count = rows = 0
    first = 0.0
    sizes = Settings()
    for partition in partitions(listing, first=sizes.first_partition, growth=sizes.growth, size=sizes.partition):
        first = first or time.perf_counter() - begun
        count += 1
        rows += partition.num_rows
    found = {
        "keys": rows,
        "partitions": count,
        "first": first,
        "seconds": time.perf_counter() - begun,
        "cpu": time.process_time() - cpu,
        "requests": getattr(store, "list_requests", 0) - before,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
