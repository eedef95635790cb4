"""A batch queue of this machine: programs named as SLURM's are, which run each job at once."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_SBATCH = """#!/bin/sh
# sbatch SCRIPT: what is submitted is kept, and runs in a session of its own, as on another machine.
set -e
kept=$(mktemp "{folder}/job.XXXXXX")
cp "$1" "$kept"
env >"$kept.environment"
setsid sh -c 'exec bash "$0"' "$kept" >"$kept.log" 2>&1 </dev/null &
until kill -s 0 -- "-$!" 2>/dev/null; do sleep 0.01; done
echo $! >>"{folder}/jobs"
echo "Submitted batch job $!"
"""

_SCANCEL = """#!/bin/sh
# scancel JOB
echo "$1" >>"{folder}/cancelled"
kill -s TERM -- "-$1"
"""

_REFUSES = """#!/bin/sh
echo "sbatch: error: invalid partition specified: batch" >&2
exit 1
"""


class Queue:
    """``sbatch`` and ``scancel`` in a folder, for the PATH.

    Attributes
    ----------
    programs : pathlib.Path
        The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.programs = folder / "bin"
        self.programs.mkdir(parents=True)
        self._program("sbatch", _SBATCH.replace("{folder}", str(folder)))
        self._program("scancel", _SCANCEL.replace("{folder}", str(folder)))

    def refuse(self) -> None:
        """Refuse all that is submitted from now on."""
        self._program("sbatch", _REFUSES)

    @property
    def jobs(self) -> list[int]:
        """Jobs that were begun, by process group."""
        return self._numbers("jobs")

    @property
    def cancelled(self) -> list[int]:
        """Jobs that were ended by ``scancel``."""
        return self._numbers("cancelled")

    def kept(self) -> str:
        """Return every script that was submitted, with its environment and what it printed."""
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("job.*")))

    def processes(self) -> list[int]:
        """Return the processes of all jobs."""
        groups = set(self.jobs)
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.getpgid(int(path.name)) in groups and (path / "cmdline").read_bytes():
                    found.append(int(path.name))
        return found

    def end(self) -> None:
        """End whatever still runs, which is nothing after a run that was closed well."""
        for job in self.jobs:
            with suppress(ProcessLookupError):
                os.killpg(job, signal.SIGKILL)

    def ends(self, seconds: float = 30) -> bool:
        """Wait for all jobs to end; tell whether they did."""
        until = time.monotonic() + seconds
        while self.processes() and time.monotonic() < until:
            time.sleep(0.05)
        return not self.processes()

    def _program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)

    def _numbers(self, name: str) -> list[int]:
        path = self._folder / name
        return [int(line) for line in path.read_text().split()] if path.exists() else []
