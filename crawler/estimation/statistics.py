"""Totals of many files from a sample of them, with 95 % intervals.

A stratified sample (W. G. Cochran, Sampling Techniques, 3rd ed. 1977, chapter 5): the total is the sum over the strata
of mean times files; its variance is that of the means, with the finite population correction; its degrees of freedom
are Satterthwaite's (eq. 5.16). Two points go beyond the textbook:

- Files of a product often cost the same to the request, so that the variance of the sample is 0. Yet n equal files
  only show that fewer than about 3 in n differ (the rule of three: J. A. Hanley and A. Lippman-Hand, JAMA 249, 1743,
  1983). So the variance, but not the mean, counts one more file in each stratum: as unlike as a file can be. This is
  also the floor for a stratum with one file in the sample.
- Costs have a long tail upwards: 2 HDUs as a rule, 225 in rare files. An interval of the logarithm follows the tail
  and never goes below 0 (S. T. Buckland et al., Introduction to Distance Sampling, 2001, section 3.6.1).

Pure: knows no files and no stores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95
"""Probability that an interval holds the true value."""

_T = (math.inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t, two-sided, for `CONFIDENCE`, by degrees of freedom (Abramowitz and Stegun, table 26.10)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimated figure: its most likely value, and a 95 % interval with both ends included."""

    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Interval:
        """Return a figure that is known."""
        return cls(value, value, value)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __add__(self, other: Interval) -> Interval:
        """Return the sum of two figures. Their errors are taken to have the same sign, which is the worst case."""
        return Interval(self.value + other.value, self.low + other.low, self.high + other.high)

    def times(self, factor: float) -> Interval:
        """Return a multiple of the figure."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    def widen(self, factor: float) -> Interval:
        """Return the figure with its low end divided, and its high end multiplied, by a factor."""
        return Interval(self.value, self.low / factor, self.high * factor)


@dataclass(frozen=True, slots=True)
class Stratum:
    """Files that are alike as far as the listing tells, and what those of the sample cost.

    Attributes
    ----------
    files : float
        All files of the stratum.
    costs : sequence of float
        Costs of the files of the sample, at least one.
    unlike : float
        Cost of a file that is as unlike these files as it can be.
    borrowed : bool
        The costs are those of files of other strata.
    """

    files: float
    costs: Sequence[float]
    unlike: float
    borrowed: bool = False

    @property
    def mean(self) -> float:
        """Mean cost of the files of the sample."""
        return math.fsum(self.costs) / len(self.costs)

    @property
    def variance(self) -> float:
        """Variance of the estimated total; 0 where the sample has every file."""
        count = len(self.costs)
        share = 1 / count - (0 if self.borrowed else 1 / self.files)
        if share <= 0:
            return 0.0
        mean = self.mean
        strange = (self.unlike - mean) ** 2
        squares = math.fsum((cost - mean) ** 2 for cost in self.costs)
        squares += strange * count / (count + 1)  # around the mean of both
        variance = self.files**2 * share * squares / count
        # Files of other strata may differ in the very property that makes a file expensive.
        return variance + self.files * max(strange, squares / count) if self.borrowed else variance


def total(strata: Sequence[Stratum], *, least: float = 0.0, slack: float = 0.0) -> Interval:
    """Estimate the cost of all files together.

    Parameters
    ----------
    strata : sequence of Stratum
    least : float
        Lower bound of the total.
    slack : float
        Error of what is not sampled but assumed, added to both ends.
    """
    strata = [one for one in strata if one.files > 0]
    value = math.fsum(one.files * one.mean for one in strata)
    parts = [(one.variance, len(one.costs)) for one in strata]
    variance = math.fsum(part for part, _ in parts)
    factor = 1.0
    if variance and value:
        freedom = variance**2 / math.fsum(part**2 / count for part, count in parts)
        factor = math.exp(quantile(freedom) * math.sqrt(math.log1p(variance / value**2)))
    return Interval(value, min(value, max(value / factor - slack, least)), value * factor + slack)


def quantile(freedom: float) -> float:
    """Return Student's t for `CONFIDENCE`, by the series of Cornish and Fisher (Abramowitz and Stegun, 26.7.5).

    Parameters
    ----------
    freedom : float
        Degrees of freedom, at least 1; a fraction of less than 11 is rounded down.
    """
    if freedom < len(_T):
        return _T[max(1, int(freedom))]
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
