"""Crawling on Dask: the only place that knows it."""

from crawler.cluster.clients import ClusterPlan, Tls, local_client, planned_client, remote_client, reported
from crawler.cluster.executor import DaskExecutor

__all__ = ["ClusterPlan", "DaskExecutor", "Tls", "local_client", "planned_client", "remote_client", "reported"]
