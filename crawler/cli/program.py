"""How this program was started, so that printed commands can be run as printed; and how it says that it failed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path

NAME = "crawler"


def program() -> str:
    """Return the command by which this process was started, quoted for a shell.

    Returns
    -------
    str
        The name alone where the shell finds this program by it; else the path that was typed, or ``python -m crawler``.
    """
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return f"{shlex.quote(sys.orig_argv[0])} -m {NAME}"
    if not os.access(started, os.X_OK) or not started.is_file():  # as where Python called `crawler.cli.main`
        return NAME
    found = shutil.which(started.name)
    if found is not None and started.samefile(found):
        return shlex.quote(started.name)
    return shlex.quote(sys.argv[0])


def fail(message: str, code: int) -> int:
    """Print one line that says what went wrong, and return the exit code."""
    from crawler.stores.urls import one_line  # noqa: PLC0415 - `crawler --help` does without it

    with suppress(OSError):  # of standard error: the exit code says it still
        print(f"crawler: {one_line(message, limit=2000)}", file=sys.stderr)  # noqa: T201
    return code
