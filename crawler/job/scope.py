"""How files are walked, and how far."""

from __future__ import annotations

from dataclasses import dataclass

from crawler.fits.policy import ReadPolicy
from crawler.fits.walker import Limits


@dataclass(frozen=True, slots=True)
class Scope:
    """How files are walked, and how far.

    Attributes
    ----------
    policy : ReadPolicy
    limits : Limits
    max_hdus : int or None
        HDUs after which a walk stops; None to walk to the end.
    timeout : float
        Seconds after which a walk is given up, so that no file holds up all others.
    """

    policy: ReadPolicy = ReadPolicy()
    limits: Limits = Limits()
    max_hdus: int | None = None
    timeout: float = 1800.0
