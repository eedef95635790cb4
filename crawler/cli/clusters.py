"""The cluster that a command line and its job file ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# Dask is loaded where a cluster is wanted: `crawler --help` should not wait for it.
# ruff: noqa: PLC0415


@contextmanager
def client_of(
    cluster: Mapping[str, Any], workers: int, performance_report: str | None, tell: Callable[[str], None]
) -> Iterator[Any]:
    """Give a client of the cluster that is asked for, and tell where its dashboard is.

    Parameters
    ----------
    cluster : mapping
        What `crawler.cli.options.OF_CLUSTER` names, ``workers`` aside.
    workers : int
        Of a cluster on this machine, where ``cluster`` is empty.
    performance_report : str or None
        Where Dask's report of the run is to be written.
    tell : callable
        Given each line that people should see.
    """
    from crawler.cluster import (
        ClusterPlan,
        Tls,
        dashboard_of,
        local_client,
        planned_client,
        remote_client,
        warn_without_workers,
    )
    from crawler.cluster import performance_report as write_report
    from crawler.cluster.monitoring import check_report
    from crawler.stores.urls import one_line

    check_report(performance_report)
    if "scheduler" in cluster:
        tls = Tls(cluster.get("tls_ca_file"), cluster.get("tls_cert"), cluster.get("tls_key"))
        made = remote_client(cluster["scheduler"], tls)
    elif "cluster_class" in cluster:
        options, scale = cluster.get("cluster_options", {}), cluster.get("cluster_scale", {})
        plan = ClusterPlan(cluster["cluster_class"], options, scale, cluster.get("cluster_places", {}))
        made = planned_client(plan, tell)
    else:
        made = local_client(workers, dashboard=True)
    with made as client, warn_without_workers(client, tell), write_report(client, performance_report, tell):
        if link := dashboard_of(client):
            tell(f"dashboard: {one_line(link, limit=500)}")
        yield client
