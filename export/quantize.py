"""8-bit products with the same sums on every CPU, and the same result for a row in every batch.

A column w of the weight is quantized by its own largest value s, a row x of activations by its range r:

    qx = round(x / r * qa) + qa in uint8                    qw = round(w / s * qw_max) in int8, s = max |w|
    x @ w ~ (qx - qa) @ qw * (r / qa) * (s / qw_max)

r is the row's own largest |x|, or a fixed range, which saves a pass over the row and one over the product.
The integer sums are exact, so a row does not depend on the others.

x86 CPUs without VNNI add two products in 16 bits and saturate silently, so 2 * max(qx) * qw_max must not
exceed 32,767. With a range per row, qx is at most 2 qa, so qa * qw_max <= 8,191. With a fixed range, larger
values saturate at the 255 of uint8, so qw_max <= 64.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..runtime.backend import Floats

#: The largest sum of two products in 16 bits.
MAX_INT16_SUM = 32_767
#: Lower bound of a maximum that is divided by, so that a row of zeros stays zeros.
MIN_DIVISOR = 1e-30
#: A fixed range is chosen if its error is at most this many times that of the best levels with a range per
#: row. For rows of similar range, the errors are nearly the same.
MAX_FIXED_ERROR_RATIO = 2.0


@dataclass(frozen=True)
class Levels:
    """Largest absolute values of quantized activations (qa) and of quantized weights (qw_max)."""

    max_activation: int
    max_weight: int
    fixed_range: float | None = None  # of the activations; None: each row has its own

    @property
    def max_byte(self) -> int:
        """The largest uint8 value of a quantized activation."""
        return 2 * self.max_activation if self.fixed_range is None else 255

    def __post_init__(self) -> None:
        if not 1 <= self.max_activation <= 127 or not 1 <= self.max_weight <= 127:
            raise ValueError(f"levels must be from 1 to 127, but are {self}")
        if 2 * self.max_byte * self.max_weight > MAX_INT16_SUM:
            raise ValueError(
                f"{self.max_activation} x {self.max_weight} can saturate on CPUs without VNNI: "
                f"2 * {self.max_byte} * {self.max_weight} must be at most {MAX_INT16_SUM:,}"
            )


#: Finer weights mean coarser activations; which choice is best depends on the matrix.
LEVEL_CHOICES = (Levels(90, 91), Levels(63, 127), Levels(127, 64))


def quantize_columns(weight: Floats, max_level: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """weight [I, O] as int8 values in [-max_level, max_level], and the scale [O] of each column."""
    scale = np.maximum(np.abs(weight).max(axis=0), MIN_DIVISOR) / np.float32(max_level)
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


def quantized_product(x: Floats, weight: Floats, levels: Levels) -> Floats:
    """x [N, I] @ weight [I, O] as the int8 graph computes it."""
    values, scale = quantize_columns(weight, levels.max_weight)
    if levels.fixed_range is None:
        row_range = np.maximum(np.abs(x).max(axis=1, keepdims=True), MIN_DIVISOR)
    else:
        row_range = np.full((1, 1), levels.fixed_range, dtype=np.float32)
    row_scale = row_range / np.float32(levels.max_activation)
    rows = np.clip(np.rint(x / row_scale), -levels.max_activation, 255 - levels.max_activation)
    product: Floats = (rows @ values.astype(np.float32) * scale * row_scale).astype(np.float32)
    return product


def choose_levels(x: Floats, weight: Floats, fixed_range: float | None = None) -> Levels:
    """The levels for x [N, I] @ weight [I, O].

    That is `fixed_range`, if given and good enough (`MAX_FIXED_ERROR_RATIO`), or else the entry of
    `LEVEL_CHOICES` with the smallest root-mean-square error.
    """
    exact = x @ weight

    def error(levels: Levels) -> float:
        return float(np.sqrt(np.square(quantized_product(x, weight, levels) - exact).mean()))

    best_per_row = min(LEVEL_CHOICES, key=error)
    if fixed_range is None:
        return best_per_row
    fixed = Levels(127, 64, max(fixed_range, MIN_DIVISOR))
    return fixed if error(fixed) <= MAX_FIXED_ERROR_RATIO * error(best_per_row) else best_per_row
