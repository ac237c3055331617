"""Calibration of confidence: how often a reply of a given probability is right, fitted on held-out pairs.

Platt scaling (Platt 1999; Guo et al. 2017, arXiv:1706.04599) with a Gaussian prior around the identity, which
is a = 1 and b = 0. Without the prior, a model that is right on every pair would get a confidence of 1 for
every reply.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..runtime.backend import Doubles
from ..runtime.calibration import IDENTITY_CALIBRATION, Calibration, log_odds
from ..runtime.chat import ChatModel
from ..runtime.errors import EdgeChatError
from ..runtime.text import to_nfc
from ..train.confidence import expected_calibration_error
from ..train.dialogue import Pair

#: Fewer pairs are not informative; more are not needed for two parameters.
MIN_PAIRS, MAX_PAIRS = 30, 500
_FOLDS = 5


class CalibrationError(EdgeChatError):
    """A model cannot be calibrated: its bundle gives no confidence."""


def fit_platt(logps: Sequence[float], right: Sequence[bool]) -> Calibration:
    """The a and b of largest posterior probability, for replies of natural-log probabilities `logps`, and
    whether each was `right`.

    Minimizes sum(log loss) + ((a - 1) ** 2 + b ** 2) / 2, which is convex, by Newton's method.
    """
    x = np.array([[log_odds(logp), 1.0] for logp in logps])  # [n, 2]
    y = np.array(right, dtype=np.float64)
    prior = np.array([1.0, 0.0])
    w = prior.copy()
    for _ in range(100):
        p = _sigmoid(x @ w)
        gradient = x.T @ (p - y) + (w - prior)
        hessian = (x.T * (p * (1 - p))) @ x + np.eye(2)
        newton_step = np.linalg.solve(hessian, gradient)
        step_size = 1.0
        while _loss(x, y, w - step_size * newton_step, prior) > _loss(x, y, w, prior) and step_size > 1e-6:
            step_size /= 2
        w = w - step_size * newton_step
        if np.abs(step_size * newton_step).max() < 1e-9:
            break
    return Calibration(float(w[0]), float(w[1]))


def calibrate(model: ChatModel, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Fit the `calibration` entry of a manifest, for the default options of `model`.

    It holds a and b, the number of pairs, the fraction of right replies, and the expected calibration error
    before and after. Only finished replies count; a reply cut at the length limit has no confidence.

    The error after is cross-validated in five folds. If it is not smaller than the error before, the model's
    own probability is kept (a = 1, b = 0), with its error.

    Raises:
        CalibrationError: there are too few pairs or finished replies, replies are sampled, or likelier
            replies are not right more often.
    """
    if model.defaults.sample:
        raise CalibrationError("sampled replies are not calibrated")
    if len(pairs) < MIN_PAIRS:
        raise CalibrationError(
            f"the run holds out {len(pairs)} pairs, but calibration needs at least {MIN_PAIRS}: "
            "train with a larger --valid-fraction, or with --valid FILE"
        )
    indices = np.linspace(0, len(pairs) - 1, num=min(len(pairs), MAX_PAIRS)).astype(int)
    chosen = [pairs[i] for i in indices]
    replied = zip(model.reply_turns([pair.turns for pair in chosen]), chosen, strict=True)
    finished = [(reply, pair) for reply, pair in replied if reply.candidates[0].finished]
    count = len(finished)
    if count < MIN_PAIRS:
        raise CalibrationError(
            f"only {count} of {len(chosen)} replies to held-out pairs finished within the length limit, "
            f"but calibration needs at least {MIN_PAIRS}: train longer, or with a larger --max-target"
        )
    logps = [reply.candidates[0].logp for reply, _ in finished]
    right = [reply.text == to_nfc(pair.response) for reply, pair in finished]
    fitted = fit_platt(logps, right)
    if round(fitted.a, 6) <= 0:
        raise CalibrationError(
            "no calibration fits the held-out pairs: likelier replies are not right more often"
        )
    cross_validated = [0.0] * count
    for fold in range(_FOLDS):
        other_folds = [i for i in range(count) if i % _FOLDS != fold]
        fold_fit = fit_platt([logps[i] for i in other_folds], [right[i] for i in other_folds])
        for i in range(fold, count, _FOLDS):
            cross_validated[i] = fold_fit.confidence(logps[i])
    before = expected_calibration_error([float(np.exp(logp)) for logp in logps], right)
    after = expected_calibration_error(cross_validated, right)
    if after >= before:
        fitted, after = IDENTITY_CALIBRATION, before
    return {
        "kind": "platt",
        "a": round(fitted.a, 6),
        "b": round(fitted.b, 6),
        "pairs": count,
        "right": round(sum(right) / count, 4),
        "ece_before": round(before, 4),
        "ece": round(after, 4),
    }


def _sigmoid(z: Doubles) -> Doubles:
    return np.exp(-np.logaddexp(0.0, -z))


def _loss(x: Doubles, y: Doubles, w: Doubles, prior: Doubles) -> float:
    z = x @ w
    return float(np.sum(np.logaddexp(0.0, z) - y * z) + ((w - prior) ** 2).sum() / 2)
