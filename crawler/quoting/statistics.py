"""Totals of many files from a few of them, with intervals that hold the truth nineteen times in twenty.

A stratified sample (W. G. Cochran, Sampling Techniques, 3rd ed. 1977, chapter 5): the total is the sum of each
stratum's mean times its files, its variance that of the means with the finite population correction, its degrees of
freedom Satterthwaite's (eq. 5.16). Two things that survey textbooks may take for granted are not so here:

- *Files of a product often cost the same to the request*, so that the sample's variance is 0. But of ``n`` files that
  are all alike no more can be said than that fewer than some 3 in ``n`` are not (the rule of three: J. A. Hanley and
  A. Lippman-Hand, JAMA 249, 1743, 1983). So each stratum is taken to hold one more file, unlike the others as far as
  its files can be (`Stratum.unlike`), when its variance is computed; never for its mean.
- *Costs have a tail to one side*: 2 HDUs as a rule, 225 now and then. An interval of the logarithm follows it, and
  never goes below 0 (S. T. Buckland et al., Introduction to Distance Sampling, 2001, section 3.6.1).

Pure: knows no files and no stores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95
"""That an interval holds the truth."""

_T = (math.inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t, two-sided, of `CONFIDENCE`, by degrees of freedom (any textbook; Abramowitz and Stegun, table 26.10)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure that is not known exactly.

    Attributes
    ----------
    value : float
        The best guess.
    low, high : float
        Both inclusive; the truth lies between them nineteen times in twenty.
    """

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Interval:
        """Return a figure that is known."""
        return cls(value, value, value)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __add__(self, other: Interval) -> Interval:
        """Return the sum of two figures; errors are taken to go the same way, which is the worst that they can do."""
        return Interval(self.value + other.value, self.low + other.low, self.high + other.high)

    def times(self, factor: float) -> Interval:
        """Return so many times the figure."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    def spread(self, factor: float) -> Interval:
        """Return the figure with an end so many times lower, and one so many times higher."""
        return Interval(self.value, self.low / factor, self.high * factor)


@dataclass(frozen=True, slots=True)
class Stratum:
    """Files that are alike in what is known of them, and what some of them cost.

    Attributes
    ----------
    files : int
        All of them.
    costs : sequence of float
        Of those that were walked, at least one, chosen at random.
    unlike : float
        What a file would cost that is unlike those that were walked, as far as one can be.
    borrowed : bool
        The costs are of other files that are taken to be like these.
    """

    files: int
    costs: Sequence[float]
    unlike: float
    borrowed: bool = False

    @property
    def mean(self) -> float:
        """Of the files that were walked."""
        return math.fsum(self.costs) / len(self.costs)

    @property
    def variance(self) -> float:
        """Of the estimated total; 0 where every file was walked."""
        count = len(self.costs)
        share = 1 / count - (0 if self.borrowed else 1 / self.files)
        if share <= 0:
            return 0.0
        mean = self.mean
        strange = (self.unlike - mean) ** 2
        squares = math.fsum((cost - mean) ** 2 for cost in self.costs)
        squares += strange * count / (count + 1)  # around the mean of both
        variance = self.files**2 * share * squares / count
        # What sets files apart that others had to stand for may be just what makes them cost something else.
        return variance + self.files * max(strange, squares / count) if self.borrowed else variance


def total(strata: Sequence[Stratum], *, each: float = 0.0, model: float = 0.0) -> Interval:
    """Estimate what all files cost together.

    Parameters
    ----------
    strata : sequence of Stratum
    each : float
        What a file costs at least.
    model : float
        Standard error of what was assumed rather than sampled.
    """
    value = math.fsum(one.files * one.mean for one in strata)
    parts = [(one.variance, len(one.costs)) for one in strata]
    variance = math.fsum(part for part, _ in parts)
    freedom = math.inf
    if variance:
        freedom = variance**2 / math.fsum(part**2 / count for part, count in parts)
    variance += model**2
    if not (variance and value):
        return Interval.exactly(value)
    factor = math.exp(quantile(freedom) * math.sqrt(math.log1p(variance / value**2)))
    least = each * sum(one.files for one in strata)
    return Interval(value, min(value, max(value / factor, least)), value * factor)


def quantile(freedom: float) -> float:
    """Return Student's t for `CONFIDENCE`, by Cornish and Fisher's series (Abramowitz and Stegun, 26.7.5).

    Parameters
    ----------
    freedom : float
        Degrees of freedom, at least 1; fractions are rounded down where there are few.
    """
    if freedom < len(_T):
        return _T[max(1, int(freedom))]
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
