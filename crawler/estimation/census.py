"""What a listing holds: its files counted by product, and a random few of them, in bounded memory.

The files that are held are those whose URLs have the smallest hashes: a random sample without replacement (bottom-k:
E. Cohen and H. Kaplan, "Summarizing data using bottom-k sketches", PODC 2007). The same listing gives the same sample.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b

from crawler.fits.layouts import PRODUCTS, product_of
from crawler.stores import ObjectRef

HELD = 20_000
"""Files that are held while the listing lasts, some 10 MB: the sample is chosen from them."""

COUNTED = 50_000
"""Products that are counted apart from each other, some 20 MB."""

LEAST = 4
"""Files of a group in the sample, unless the group has fewer."""

_ROOM = 8
"""Files of the sample for each group, on average and at least: this bounds the number of groups."""

_PACKED_BYTES = 2 * 10**9
"""Bytes of compressed files in the sample, about: a walk reads such a file up to its last header."""

_COMPRESSED = (".gz", ".bz2")  # a hint: the content of a file tells whether it is compressed


@dataclass(slots=True)
class Group:
    """Files that are sampled together: those of one product, or of all products that are too small for that.

    Attributes
    ----------
    files : int
    products : int
        How many products they are of, as far as these are counted.
    visits : int
        How often a worker of the crawl meets a product that it does not know, at most.
    held : list of ObjectRef
        Some of the files, in random order.
    count : int
        How many of these are in the sample, from the first.
    """

    files: int = 0
    products: int = 0
    visits: int = 0
    held: list[ObjectRef] = field(default_factory=list)
    count: int = 0

    def unlike(self) -> float:
        """Return the share of files that cannot use the layout of a sibling which is walked at the same time.

        That is the chance that two files of a product differ in size; and all compressed files, which wait for none.
        """
        latest: dict[str, ObjectRef] = {}
        pairs = differ = 0
        for ref in self.held:
            sibling = latest.get(name := product_of(ref.url))
            latest[name] = ref
            if sibling is not None:
                pairs += 1
                differ += is_compressed(ref) or ref.size is None or ref.size != sibling.size
        return differ / pairs if pairs else 0.0


@dataclass(slots=True)
class _Product:
    files: int = 0
    partitions: int = 0
    latest: int = -1  # number of the last partition that has files of the product


class Census:
    """Counts of the files of a listing, and some of the files.

    Attributes
    ----------
    files, size : int
        Files, and their bytes.
    """

    def __init__(self) -> None:
        self.files = 0
        self.size = 0
        self._products: dict[str, _Product] = {}
        self._uncounted = 0  # files of products beyond `COUNTED`
        self._heap: list[tuple[int, int, ObjectRef]] = []  # hashes are negated, so that the largest comes first

    @property
    def products(self) -> int:
        """Products that were counted apart from each other."""
        return len(self._products)

    def add(self, partition: int, ref: ObjectRef) -> None:
        """Count a file; all files of one partition are added before those of the next."""
        self.files += 1
        self.size += ref.size or 0
        name = product_of(ref.url)
        product = self._products.get(name)
        if product is None and len(self._products) < COUNTED:
            product = self._products[name] = _Product()
        if product is None:
            self._uncounted += 1
        else:
            product.files += 1
            product.partitions += product.latest != partition
            product.latest = partition
        number = int.from_bytes(blake2b(ref.url.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        entry = -number, self.files, ref
        if len(self._heap) < HELD:
            heapq.heappush(self._heap, entry)
        elif entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def groups(self, sample: int, workers: int) -> list[Group]:
        """Return all files in groups, with the number of files of each that are in the sample.

        Parameters
        ----------
        sample : int
            Files in the sample. Many small groups make it up to half as many more.
        workers : int
            Processes of the crawl, each of which learns layouts for itself.
        """
        refs = [ref for _, _, ref in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]
        held = Counter(product_of(ref.url) for ref in refs)
        names = sorted(self._products, key=lambda name: (-self._products[name].files, name))
        largest = names[: max(1, sample // _ROOM - 1)]
        groups = {name: Group() for name in largest if held[name] >= min(LEAST, self._products[name].files)}
        rest = Group(files=self._uncounted, visits=self._uncounted)
        for name, product in self._products.items():
            group = groups.get(name, rest)
            group.files += product.files
            group.products += 1
            group.visits += min(workers, product.partitions)
        if rest.products > PRODUCTS:  # layouts are forgotten before a sibling comes
            rest.visits = rest.files
        for ref in refs:
            groups.get(product_of(ref.url), rest).held.append(ref)
        found = [group for group in (*groups.values(), rest) if group.files]
        for group in found:
            group.count = min(len(group.held), self._share(group, sample))
        return found

    def _share(self, group: Group, sample: int) -> int:
        share = group.files / self.files
        count = max(LEAST, math.ceil(sample * share))
        packed = sum(ref.size or 0 for ref in group.held if is_compressed(ref)) / max(1, len(group.held))
        return min(count, max(LEAST, int(_PACKED_BYTES * share / packed))) if packed else count


def is_compressed(ref: ObjectRef) -> bool:
    """Tell whether the name of a file says that it is compressed."""
    return ref.url.lower().endswith(_COMPRESSED)
