"""8-bit products that give the same sums on every CPU, and a row the same result whatever its batch.

A row x of activations is quantized by its own largest value, a column of the weight by its own:

    qx = round(x / r * qa) + qa in uint8, r = max |x|       qw = round(w / s * qw_max) in int8, s = max |w|
    x @ w ~ (qx - qa) @ qw * (r / qa) * (s / qw_max)

The integer sums are exact, so nothing depends on the other rows. x86 CPUs without VNNI add two products in
16 bits and saturate silently: 2 * (2 qa) * qw_max must stay within 32,767, that is qa * qw_max <= 8,191.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: The largest qa * qw_max whose pair of products fits in 16 bits.
LARGEST_PRODUCT = 8191
#: The smallest row maximum that is divided by; a row of zeros stays zeros.
TINY = 1e-30


@dataclass(frozen=True)
class Limits:
    """Largest absolute values of quantized activations and of quantized weights."""

    activation: int
    weight: int

    def __post_init__(self) -> None:
        if not 1 <= self.activation <= 127 or not 1 <= self.weight <= 127:
            raise ValueError(f"limits must be from 1 to 127, not {self}")
        if self.activation * self.weight > LARGEST_PRODUCT:
            raise ValueError(
                f"{self.activation} x {self.weight} can saturate on CPUs without VNNI: "
                f"the product must be at most {LARGEST_PRODUCT}"
            )


#: Coarse or fine weights, the other way round for the activations: which is best depends on the matrix.
CHOICES = (Limits(90, 91), Limits(63, 127), Limits(127, 64))


def quantize_columns(weight: Floats, limit: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """int8 values in +-`limit` of weight [I, O], and the scale [O] of each column."""
    scale = np.maximum(np.abs(weight).max(axis=0), TINY) / np.float32(limit)
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


def quantized_product(x: Floats, weight: Floats, limits: Limits) -> Floats:
    """x [N, I] @ weight [I, O] as the int8 graph computes it."""
    values, scale = quantize_columns(weight, limits.weight)
    row_scale = np.maximum(np.abs(x).max(axis=1, keepdims=True), TINY) / np.float32(limits.activation)
    rows = np.rint(x / row_scale)
    product: Floats = (rows @ values.astype(np.float32) * scale * row_scale).astype(np.float32)
    return product


def choose_limits(x: Floats, weight: Floats) -> Limits:
    """Those of `CHOICES` with the smallest squared error of x [N, I] @ weight [I, O]."""
    exact = x @ weight

    def error(limits: Limits) -> float:
        return float(np.square(quantized_product(x, weight, limits) - exact).mean())

    return min(CHOICES, key=error)
