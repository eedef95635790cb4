"""What a crawl would take, from a listing and a sample of its files: requests, bytes, dollars, time, catalogue."""

from crawler.estimation.estimator import EstimateProgress, estimate
from crawler.estimation.model import Estimate, Spent
from crawler.estimation.saved import compare, fingerprint_of, load_estimate, save_estimate
from crawler.estimation.statistics import Interval

__all__ = [
    "Estimate",
    "EstimateProgress",
    "Interval",
    "Spent",
    "compare",
    "estimate",
    "fingerprint_of",
    "load_estimate",
    "save_estimate",
]
