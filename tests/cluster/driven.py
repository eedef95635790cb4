"""Crawls in processes of their own (`driver.py`), for tests that kill them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

DRIVER = Path(__file__).parent / "driver.py"


def driven(location: Path, roots: list[str], **told: Any) -> subprocess.CompletedProcess[str]:
    """Run `driver.py` to its end."""
    return subprocess.run(command(location, roots, **told), capture_output=True, text=True, timeout=120, check=False)


def command(location: Path, roots: list[str], **told: Any) -> list[str]:
    """Return the command that runs `driver.py`; see there for what it takes."""
    task = {"roots": roots, "catalogue": str(location), **told}
    return [sys.executable, "-W", "error", str(DRIVER), json.dumps(task)]
