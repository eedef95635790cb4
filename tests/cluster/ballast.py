"""A preload of Dask workers that are short of memory: it holds nearly as much as Dask lets a worker use."""

from __future__ import annotations

from typing import Any

SHARE = 0.79
"""Of the memory limit; at 0.8 Dask gives a worker nothing more to do ("Worker Memory Management")."""

held: list[bytes] = []


def dask_setup(worker: Any) -> None:
    """Called by Dask as it starts a worker."""
    limit = worker.memory_manager.memory_limit
    process = worker.monitor.proc.memory_info().rss
    held.append(b"1" * max(0, int(limit * SHARE) - process))
