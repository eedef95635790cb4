"""Crawling on Dask: the only place that knows it."""

from crawler.cluster.clients import local_client, remote_client
from crawler.cluster.monitoring import dashboard_of, performance_report, warn_without_workers
from crawler.cluster.plans import ClusterPlan, planned_client
from crawler.cluster.quarantine import DaskExecutor
from crawler.cluster.tls import Tls

__all__ = [
    "ClusterPlan",
    "DaskExecutor",
    "Tls",
    "dashboard_of",
    "local_client",
    "performance_report",
    "planned_client",
    "remote_client",
    "warn_without_workers",
]
