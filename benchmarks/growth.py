"""How fast something grows: the exponent by which it follows the size."""

from __future__ import annotations

import math
from collections.abc import Mapping


def slope(measured: Mapping[int, float]) -> float:
    """The exponent by which a positive measure grows with the size: least squares through the logarithms.

    1 is linear, 0 constant. At least two sizes.
    """
    points = [(math.log(size), math.log(value)) for size, value in measured.items()]
    mean_x, mean_y = (sum(each) / len(points) for each in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
