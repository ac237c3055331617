"""Confidence: the probability that a reply is right, computed from its log-probability.

p = 1 / (1 + exp(-(a x + b))), x = log(q / (1 - q)), q = exp(logp): Platt scaling (1999) of the log-odds of
the model's own probability q. With a = 1 and b = 0, p is q (IDENTITY_CALIBRATION). `edgechat
export` fits a and b on the held-out pairs (`export/calibrate.py`).
"""

import math
from dataclasses import dataclass
from typing import Any

from .arguments import short_repr
from .errors import BundleError

#: Log-probabilities are clipped to this range, so that log-odds are finite and no reply is entirely certain.
_MIN_LOGP, _MAX_LOGP = -1e3, -1e-6
#: Limit on the magnitude of a and b.
_MAX_PARAMETER = 1_000_000


def log_odds(logp: float) -> float:
    """log(q / (1 - q)) of q = exp(logp)."""
    logp = min(max(logp, _MIN_LOGP), _MAX_LOGP)
    return logp - math.log(-math.expm1(logp))


@dataclass(frozen=True)
class Calibration:
    a: float
    b: float

    def confidence(self, logp: float) -> float:
        """The probability, from 0 to 1, that a reply with this natural-log probability is right."""
        z = self.a * log_odds(logp) + self.b
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Calibration | None":
        """Parse the calibration in a manifest; None if this version does not know its kind.

        Raises:
            BundleError: a value is missing, not a number or too large, or a is not above 0, so that likelier
                replies would have a lower confidence.
        """
        if values.get("kind") != "platt":
            return None
        a, b = _number(values.get("a")), _number(values.get("b"))
        if a <= 0:
            raise BundleError(f"edgechat.json: 'a' in 'calibration' must be above 0, not {a}")
        return cls(a, b)


#: Leaves the model's own probability unchanged.
IDENTITY_CALIBRATION = Calibration(1.0, 0.0)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MAX_PARAMETER:
        raise BundleError(
            f"edgechat.json: 'a' and 'b' in 'calibration' must be numbers below {_MAX_PARAMETER:,} in "
            f"magnitude, not {short_repr(value)}"
        )
    return float(value)
