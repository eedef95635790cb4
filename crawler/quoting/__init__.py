"""What a crawl would cost, before it is paid for: listed in full, walked in part, and quoted with intervals.

The package is not called after its function: `crawler.estimate` is that.
"""

from crawler.quoting.estimate import estimate
from crawler.quoting.kept import compared, fingerprint_of, keep_quote, kept_quote
from crawler.quoting.quote import Quote, Spent
from crawler.quoting.statistics import Interval

__all__ = ["Interval", "Quote", "Spent", "compared", "estimate", "fingerprint_of", "keep_quote", "kept_quote"]
