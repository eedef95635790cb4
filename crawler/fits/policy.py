"""How many bytes to ask for: a decision, made from what a request costs and what a byte does.

Asking for more at once saves requests where another header lies in what was read, and wastes bytes where none does. So
all that a walk has to know of prices is how many bytes cost as much as one request: `Costs.gap`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

from crawler.errors import UsageError
from crawler.fits.units import BLOCK

Goal = Literal["requests", "bytes", "time"]


@dataclass(frozen=True, slots=True)
class Costs:
    """What reading costs. The defaults are those of S3, read by a worker in the bucket's region.

    Attributes
    ----------
    usd_per_request : float
        A GET: $0.0004 per 1,000 ("Amazon S3 pricing", us-east-1, S3 Standard).
    usd_per_list : float
        A page of a listing: $0.005 per 1,000 (there).
    usd_per_gb : float
        10^9 bytes that leave the store: nothing in its region, $0.02 to another one, $0.09 to the internet.
    usd_per_hour : float
        One core of a worker and its memory.
    first_byte_seconds : float
        From a request to the first byte of its answer.
    mb_per_second : float
        10^6 bytes that one worker reads in a second, all its requests together.
    in_flight : float
        Requests that a worker has under way at once: each has its share of all that.
    """

    usd_per_request: float = 4e-7
    usd_per_list: float = 5e-6
    usd_per_gb: float = 0.0
    usd_per_hour: float = 0.10
    first_byte_seconds: float = 0.03
    mb_per_second: float = 100.0
    in_flight: float = 32.0

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise UsageError(f"{one.name} must be a number that is not negative, not {value}")
        if not (self.mb_per_second and self.in_flight):
            raise UsageError("mb_per_second and in_flight cannot be 0")

    @property
    def gap(self) -> int:
        """Bytes that cost as much as one request: a shorter gap between headers is read, a longer one jumped."""
        slot = self.usd_per_hour / 3600 / self.in_flight  # one request under way for a second
        request = self.usd_per_request + slot * self.first_byte_seconds
        byte = self.usd_per_gb / 1e9 + slot * self.in_flight / (self.mb_per_second * 1e6)
        return int(min(_LONGEST, request / byte)) if byte else _LONGEST


_LONGEST = 2**24  # bytes: what is read at once is held

GOALS: dict[Goal, Costs] = {
    "requests": Costs(),
    "bytes": Costs(usd_per_gb=0.09),
    "time": Costs(usd_per_request=0.0),
}
"""What a crawl can be made cheap in: dollars where bytes are free and requests are not; dollars where bytes leave the
region; or time, a request being worth what is read while its first byte is waited for."""


@dataclass(frozen=True, slots=True)
class ReadPolicy:
    """How many bytes to ask for.

    Attributes
    ----------
    first : int
        At the start of a file of which nothing is known.
    header : int
        At the first extension; a later one is expected to have a header as long as the one before.
    longest : int
        A header that goes on is asked for in reads that double up to this.
    gap : int
        Headers that are known to lie no further apart are read with what is between them, and a file that is no
        larger is read whole.
    """

    first: int = 12 * BLOCK
    header: int = 2 * BLOCK
    longest: int = 2**20
    gap: int = 32 * BLOCK

    @classmethod
    def of(cls, costs: Costs) -> ReadPolicy:
        """Return the policy for which reading is cheapest.

        The shares of the gap are those that cost least on 350 archive files of 2 to 56 HDUs, for gaps of 2 kB, 94 kB
        and 1.5 MB.
        """
        gap = costs.gap
        first = _blocks(gap * 3 / 8, least=4)
        return cls(first=first, header=_blocks(gap / 16, least=2), longest=max(cls().longest, 2 * gap), gap=gap)


def _blocks(size: float, least: int) -> int:
    """Return a size in bytes as whole blocks."""
    return max(least, round(size / BLOCK)) * BLOCK


def prices(goal: Goal = "time", figures: Mapping[str, float] | None = None) -> Costs:
    """Return what a store charges: as `GOALS` has it, but that a request is never taken to be free.

    Parameters
    ----------
    goal, figures
        As of `read_policy`.
    """
    charged = {"usd_per_request": Costs().usd_per_request, **(figures or {})}
    return replace(GOALS[goal], **charged)


def read_policy(goal: Goal = "time", figures: Mapping[str, float] | None = None) -> ReadPolicy:
    """Return the policy for a goal, some of its figures being known better.

    Parameters
    ----------
    goal : {'requests', 'bytes', 'time'}
    figures : mapping of str to float, optional
        Attributes of `Costs` by name.

    Raises
    ------
    UsageError
        No such goal or figure, or one that makes no sense.
    """
    if goal not in GOALS:
        raise UsageError(f"optimize is one of {', '.join(get_args(Goal))}, not {goal!r}")
    known = [one.name for one in fields(Costs)]
    if unknown := sorted(set(figures or {}) - set(known)):
        raise UsageError(f"no such cost: {', '.join(unknown)} (known: {', '.join(known)})")
    return ReadPolicy.of(replace(GOALS[goal], **(figures or {})))
