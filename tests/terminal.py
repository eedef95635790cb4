"""A terminal for a command: what it prints there, column by column."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

_STYLES = re.compile(r"\x1b\[[0-9;]*m")


def on_terminal(
    command: Sequence[str], *, columns: int, cwd: Path, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run a command on a pseudo-terminal of a width; return its exit code and what it printed, without colours."""
    inside, outside = pty.openpty()
    fcntl.ioctl(outside, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    env |= {"TERM": "xterm", **(environment or {})}
    with subprocess.Popen(command, cwd=cwd, env=env, stdin=outside, stdout=outside, stderr=outside) as process:
        os.close(outside)
        printed = b""
        while True:
            try:
                data = os.read(inside, 65536)
            except OSError:  # EIO: every process has closed the terminal
                break
            if not data:
                break
            printed += data
    os.close(inside)
    return process.returncode, _STYLES.sub("", printed.decode().replace("\r\n", "\n"))
