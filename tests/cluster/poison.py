"""A preload of Dask workers: walks of some files end the process that tries, as a fault below Python would.

Such files are those with ``poison`` in their name.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from crawler import context


def dask_setup(_worker: object) -> None:
    """Called by Dask as it starts a worker."""
    walk_file = context.walk_file

    def deadly(store: Any, ref: Any, *others: Any, **options: Any) -> Any:
        if "poison" in ref.url:
            os.kill(os.getpid(), signal.SIGSEGV)
        return walk_file(store, ref, *others, **options)

    context.walk_file = deadly
