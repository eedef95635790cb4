"""At which counts, sizes and times the driver of a crawl changes its way: one frozen value that a job carries."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Thresholds of the driver. No option sets them: the defaults suit every crawl, and tests set them low.

    Attributes
    ----------
    first_partition, partition : int
        Files of the first partition, and of the largest ones. Small crawls are spread over all workers, and large
        crawls make few tasks.
    growth : float
        How many times larger each partition is than the partition before it.
    shares : int
        Near the end of a crawl, a worker gets at most this fraction (1/`shares`) of its share of the remaining files at
        once, so that all workers end at about the same time. It gets at least `first_partition` files, because each
        partition costs some 50 ms.
    listers : int
        Pages of a listing that are requested at once.
    partitions_in_memory : int
        Partitions that wait in memory. Later ones wait in the listing that lies in the catalogue's folder.
    commit_seconds : float
        Seconds between two commits.
    commit_receipts : int
        Finished partitions that are committed at once. A commit costs some 40 ms.
    commit_share : float
        Minimum interval between commits, as a multiple of the last commit's duration: in a catalogue of 50,000 files a
        commit takes half a second.
    reused_keys : int
        Keys that a saved listing must have to be resumed. A smaller listing is made again soon, and then has the
        files that were added since.
    reused_hours : float
        Age, in hours, from which a saved listing is not resumed.
    removable : float
        Share of a catalogue's files that a run removes without being asked to. More files missing at once is more often
        a disk that is not mounted, or a prefix that was renamed, than files that were deleted.
    """

    first_partition: int = 100
    partition: int = 2000
    growth: float = 2
    shares: int = 2
    listers: int = 16
    partitions_in_memory: int = 64
    commit_seconds: float = 30.0
    commit_receipts: int = 500
    commit_share: float = 20
    reused_keys: int = 100_000
    reused_hours: float = 24.0
    removable: float = 0.1

    def partitions_of(self, files: int) -> int:
        """Return the number of partitions that a listing of so many files is cut into."""
        count, size, left = 0, float(self.first_partition), float(files)
        while left > 0:
            count, left, size = count + 1, left - size, min(size * self.growth, float(self.partition))
        return count
