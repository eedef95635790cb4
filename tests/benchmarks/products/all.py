"""Every product, by the name of its bucket."""

from __future__ import annotations

from tests.benchmarks.products.ground import GROUND
from tests.benchmarks.products.space import SPACE

PRODUCTS = {product.name: product for product in (*SPACE, *GROUND)}
