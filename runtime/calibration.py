"""From the log-probability of a reply to the probability that it is the right one.

p = 1 / (1 + exp(-(a x + b))), x = log(q / (1 - q)), q = exp(logp): Platt 1999 on the log-odds of the
probability that the model itself gives; a = 1 and b = 0 leave that as it is (AS_IT_IS). `edgechat
export` fits a and b (`export/calibrate.py`) on the held-out split.
"""

import math
from dataclasses import dataclass
from typing import Any

from .arguments import shown
from .errors import BundleError

_LEAST, _MOST = (
    -1e3,
    -1e-6,
)  # natural logs between which log-odds stay finite, and certainty is not taken whole


def log_odds(logp: float) -> float:
    """log(q / (1 - q)) of q = exp(logp)."""
    logp = min(max(logp, _LEAST), _MOST)
    return logp - math.log(-math.expm1(logp))


@dataclass(frozen=True)
class Calibration:
    a: float
    b: float

    def confidence(self, logp: float) -> float:
        """The probability, from 0 to 1, that a reply of this log-probability is right."""
        z = self.a * log_odds(logp) + self.b
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Calibration | None":
        """What a manifest says of it; None where it is of a kind that this version does not know.

        Raises:
            BundleError: a value is missing or no finite number, or the likelier replies would be less
                often right.
        """
        if values.get("kind") != "platt":
            return None
        a, b = _number(values.get("a")), _number(values.get("b"))
        if a <= 0:
            raise BundleError(f"edgechat.json: a of 'calibration' must be above 0, not {a}")
        return cls(a, b)


#: A probability stays what it is.
AS_IT_IS = Calibration(1.0, 0.0)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e6:
        raise BundleError(f"edgechat.json: a and b of 'calibration' must be numbers, not {shown(value)}")
    return float(value)
