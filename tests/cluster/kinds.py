"""Classes of clusters that job files of tests name: none is of Dask's own kind, all behave as one."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from distributed import LocalCluster


class Wrapped:
    """A cluster that has another one, as the services of some companies do.

    Parameters
    ----------
    notes : str
        A file that is told what becomes of it, a word a line.
    workers : int
    """

    def __init__(self, notes: str, *, workers: int = 0) -> None:
        self._notes = Path(notes)
        print("Wrapped says hello")  # as some do
        self._inner = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # who asks for a port that is taken leaves a socket open
            silence_logs=50,
        )
        self._note("started")

    @property
    def scheduler_address(self) -> str:
        return str(self._inner.scheduler_address)

    @property
    def loop(self) -> Any:
        return self._inner.loop

    @property
    def status(self) -> Any:
        return self._inner.status

    def scale(self, n: int) -> None:
        self._note(f"scale-{n}")
        self._inner.scale(n)

    def adapt(self, *, minimum: int, maximum: int) -> Any:
        self._note(f"adapt-{minimum}-{maximum}")
        return self._inner.adapt(minimum=minimum, maximum=maximum)

    def close(self) -> None:
        self._inner.close()
        self._note("closed")

    def _note(self, word: str) -> None:
        with self._notes.open("a") as notes:
            notes.write(f"{word}\n")


class NeverReady(Wrapped):
    """A cluster whose start takes longer than anybody waits."""

    def __init__(self, notes: str) -> None:
        self._notes = Path(notes)
        self._note("starting")
        threading.Event().wait()

    def close(self) -> None:
        self._note("closed")


class Failing(Wrapped):
    """A cluster that cannot be started, and says more than it should."""

    def __init__(self, zone: str, environment: dict[str, str]) -> None:
        raise RuntimeError(f"no machine is free\nin {zone} for {environment}")


def no_class() -> None:
    """Be no class."""
