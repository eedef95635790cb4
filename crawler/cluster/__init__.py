"""Crawling on Dask: the only place that knows it."""

from crawler.cluster.clients import local_client, remote_client
from crawler.cluster.executor import DaskExecutor

__all__ = ["DaskExecutor", "local_client", "remote_client"]
