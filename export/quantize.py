"""8-bit products that give the same sums on every CPU, and a row the same result whatever its batch.

A column of the weight is quantized by its own largest value, a row x of activations by its range r:

    qx = round(x / r * qa) + qa in uint8                    qw = round(w / s * qw_max) in int8, s = max |w|
    x @ w ~ (qx - qa) @ qw * (r / qa) * (s / qw_max)

r is the row's own largest |x|, or a fixed range, which spares a pass over the row and one over the product.
The integer sums are exact, so nothing depends on the other rows. x86 CPUs without VNNI add two products in
16 bits and saturate silently: 2 * max(qx) * qw_max must stay within 32,767. By row qx is at most 2 qa, so
qa * qw_max <= 8,191; with a fixed range uint8 itself cuts off what exceeds it, at 255, so qw_max <= 64.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..runtime.backend import Floats

#: What a sum of two products may be in 16 bits.
LARGEST_SUM = 32_767
#: The smallest row maximum that is divided by; a row of zeros stays zeros.
TINY = 1e-30
#: A fixed range is taken where its error is at most so many times that of the best levels by row. Where rows
#: are alike, it is hardly larger.
FIXED_COSTS = 2.0


@dataclass(frozen=True)
class Levels:
    """Largest absolute values of quantized activations and of quantized weights."""

    activation: int
    weight: int
    range: float | None = None  # of the activations; None: of each row its own

    @property
    def largest_byte(self) -> int:
        """That a quantized activation can be."""
        return 2 * self.activation if self.range is None else 255

    def __post_init__(self) -> None:
        if not 1 <= self.activation <= 127 or not 1 <= self.weight <= 127:
            raise ValueError(f"levels must be from 1 to 127, not {self}")
        if 2 * self.largest_byte * self.weight > LARGEST_SUM:
            raise ValueError(
                f"{self.activation} x {self.weight} can saturate on CPUs without VNNI: "
                f"2 * {self.largest_byte} * {self.weight} must be at most {LARGEST_SUM:,}"
            )


#: Coarse or fine weights, the other way round for the activations: which is best depends on the matrix.
CHOICES = (Levels(90, 91), Levels(63, 127), Levels(127, 64))


def quantize_columns(weight: Floats, most: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """int8 values in +-`most` of weight [I, O], and the scale [O] of each column."""
    scale = np.maximum(np.abs(weight).max(axis=0), TINY) / np.float32(most)
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


def quantized_product(x: Floats, weight: Floats, levels: Levels) -> Floats:
    """x [N, I] @ weight [I, O] as the int8 graph computes it."""
    values, scale = quantize_columns(weight, levels.weight)
    if levels.range is None:
        largest = np.maximum(np.abs(x).max(axis=1, keepdims=True), TINY)
    else:
        largest = np.full((1, 1), levels.range, dtype=np.float32)
    row_scale = largest / np.float32(levels.activation)
    rows = np.clip(np.rint(x / row_scale), -levels.activation, 255 - levels.activation)
    product: Floats = (rows @ values.astype(np.float32) * scale * row_scale).astype(np.float32)
    return product


def choose_levels(x: Floats, weight: Floats, largest: float | None = None) -> Levels:
    """A fixed range of `largest` where it is given and good enough, or else those of `CHOICES` with the
    smallest error, the root of the mean square, of x [N, I] @ weight [I, O]."""
    exact = x @ weight

    def error(levels: Levels) -> float:
        return float(np.sqrt(np.square(quantized_product(x, weight, levels) - exact).mean()))

    by_row = min(CHOICES, key=error)
    if largest is None:
        return by_row
    fixed = Levels(127, 64, max(largest, TINY))
    return fixed if error(fixed) <= FIXED_COSTS * error(by_row) else by_row
