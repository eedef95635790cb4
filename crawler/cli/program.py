"""What a shell runs this program by, so that every command that is printed can be run as it is printed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
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
