"""Calibration: what a reply's probability is worth, measured on pairs that were held out.

Of Platt 1999 and Guo et al. 2017 (arXiv:1706.04599), with a Gaussian prior that keeps the parameters
near those that change nothing: without it, a model that was right on every pair would be called certain
of everything.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..runtime.backend import Doubles
from ..runtime.calibration import AS_IT_IS, Calibration, log_odds
from ..runtime.chat import ChatModel
from ..runtime.errors import EdgeChatError
from ..runtime.text import normal_form
from ..train.confidence import expected_calibration_error
from ..train.dialogue import Pair

#: Fewer pairs say nothing; more are not needed for two numbers.
LEAST_PAIRS, MOST_PAIRS = 30, 500
_FOLDS = 5


def fit_platt(logps: Sequence[float], right: Sequence[bool]) -> Calibration:
    """a and b with the largest posterior, given which replies of these natural-log probabilities were right.

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
        move = np.linalg.solve(hessian, gradient)
        step = 1.0
        while _loss(x, y, w - step * move, prior) > _loss(x, y, w, prior) and step > 1e-6:
            step /= 2
        w = w - step * move
        if np.abs(step * move).max() < 1e-9:
            break
    return Calibration(float(w[0]), float(w[1]))


def calibrate(model: ChatModel, pairs: Sequence[Pair]) -> dict[str, Any]:
    """What goes into a manifest as `calibration`: a and b for the model's own options, how many pairs they
    are from, the share of right replies, and the expected calibration error before and after. Only replies
    that finished count: others have no confidence.

    The error after is of pairs that were left out of the fit it is measured with, a fifth at a time. Where it
    is no smaller than the one before, the model's own probability is kept as it is, and so is its error.

    Raises:
        EdgeChatError: too few pairs or replies that finish, replies drawn at random, or the likelier are not
            more often right.
    """
    if model.defaults.sample:
        raise EdgeChatError("replies that are drawn at random are not calibrated")
    if len(pairs) < LEAST_PAIRS:
        raise EdgeChatError(
            f"the run holds out {len(pairs)} pairs, and a calibration takes at least {LEAST_PAIRS}: "
            "train with a larger --valid-fraction, or with --valid FILE"
        )
    places = np.linspace(0, len(pairs) - 1, num=min(len(pairs), MOST_PAIRS)).astype(int)
    chosen = [pairs[i] for i in places]
    replied = zip(model.reply_turns([pair.turns for pair in chosen]), chosen, strict=True)
    finished = [(reply, pair) for reply, pair in replied if reply.candidates[0].finished]
    count = len(finished)
    if count < LEAST_PAIRS:
        raise EdgeChatError(
            f"of {len(chosen)} replies to held-out pairs {count} were not cut at their longest, and a "
            f"calibration takes at least {LEAST_PAIRS}: train longer, or with a larger --max-target"
        )
    logps = [reply.candidates[0].logp for reply, _ in finished]
    right = [reply.text == normal_form(pair.response) for reply, pair in finished]
    fitted = fit_platt(logps, right)
    if round(fitted.a, 6) <= 0:
        raise EdgeChatError(
            "no calibration fits the held-out pairs: the likelier replies are not more often right"
        )
    unseen = [0.0] * count
    for fold in range(_FOLDS):
        kept = [i for i in range(count) if i % _FOLDS != fold]
        fit = fit_platt([logps[i] for i in kept], [right[i] for i in kept])
        for i in range(fold, count, _FOLDS):
            unseen[i] = fit.confidence(logps[i])
    before = expected_calibration_error([float(np.exp(logp)) for logp in logps], right)
    after = expected_calibration_error(unseen, right)
    if after >= before:
        fitted, after = AS_IT_IS, before
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
