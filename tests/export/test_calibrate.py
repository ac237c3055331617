"""Calibration: the fit on data with known parameters, errors computed by hand, and what is refused."""

import math

import numpy as np
import pytest

from edgechat.export import calibrate as module
from edgechat.export.calibrate import calibrate, fit_platt
from edgechat.runtime import BundleError, Candidate, EdgeChatError, Reply
from edgechat.runtime.calibration import IDENTITY_CALIBRATION, Calibration, log_odds
from edgechat.train.dialogue import Pair


def test_log_odds_are_those_of_the_probability():
    assert log_odds(math.log(0.5)) == pytest.approx(0.0)
    assert log_odds(math.log(0.9)) == pytest.approx(math.log(9))
    assert log_odds(-20.0) == pytest.approx(-20.0, abs=1e-6)
    assert math.isfinite(log_odds(0.0))
    assert math.isfinite(log_odds(-math.inf))


def test_the_identity_leaves_a_probability_unchanged():
    for p in (0.01, 0.5, 0.99):
        assert Calibration(1.0, 0.0).confidence(math.log(p)) == pytest.approx(p)


def test_confidence_is_a_probability_whatever_the_numbers():
    for a, b in ((1e5, 1e5), (1e5, -1e5), (0.0, 0.0)):
        for logp in (0.0, -1e-9, -5.0, -1e4, -math.inf):
            assert 0.0 <= Calibration(a, b).confidence(logp) <= 1.0


def samples(a: float, b: float, count: int) -> tuple[list[float], list[bool]]:
    """Log-probabilities of replies that are right with the probability of Calibration(a, b)."""
    random = np.random.default_rng(7)
    logps = (-random.exponential(1.5, count)).tolist()
    right = [bool(random.random() < Calibration(a, b).confidence(logp)) for logp in logps]
    return logps, right


@pytest.mark.parametrize(("a", "b"), [(1.0, 0.0), (0.5, -1.0), (2.0, 1.0)])
def test_the_fit_recovers_the_parameters_behind_many_pairs(a, b):
    fitted = fit_platt(*samples(a, b, 20_000))
    assert (fitted.a, fitted.b) == (pytest.approx(a, abs=0.1), pytest.approx(b, abs=0.1))


def test_the_fit_is_where_the_slope_of_its_loss_is_zero():
    logps, right = samples(0.7, 0.4, 50)
    fitted = fit_platt(logps, right)
    wrong_by = [fitted.confidence(logp) - was for logp, was in zip(logps, right, strict=True)]
    slope_a = sum(d * log_odds(logp) for d, logp in zip(wrong_by, logps, strict=True)) + (fitted.a - 1)
    assert slope_a == pytest.approx(0, abs=1e-6)
    assert sum(wrong_by) + fitted.b == pytest.approx(0, abs=1e-6)


def test_a_model_without_errors_does_not_get_full_confidence():
    fitted = fit_platt([-0.01] * 100, [True] * 100)
    assert fitted.confidence(-0.01) > 0.99
    assert fitted.confidence(-8.0) < 0.2  # no evidence that unlikely replies are right


class Model:
    """A model whose replies have the given log-probabilities."""

    class Defaults:
        sample = False

    defaults = Defaults()

    def __init__(self, logps: list[float], right: list[bool], cut: int = 0) -> None:
        self._logps, self._right = logps, right
        self._cut = cut  # number of replies, at the end, that are cut

    def reply_turns(self, conversations: list[list[str]]):
        return [self._reply(int(turn)) for (turn,) in conversations]

    def _reply(self, i: int) -> Reply:
        text = "right \u00e9" if self._right[i] else "wrong"
        only = Candidate(
            text, self._logps[i], self._logps[i], (text,), (), (), finished=i < len(self._right) - self._cut
        )
        return Reply(text, only.score, only.tokens, (only,), 1.0, truncated=False)


def pairs(count: int) -> list[Pair]:
    return [Pair([str(i)], "right e\u0301") for i in range(count)]  # compared in NFC


def test_a_calibration_reports_its_error_before_and_after():
    logps, right = samples(0.5, -1.0, 400)
    found = calibrate(Model(logps, right), pairs(400))
    fitted = fit_platt(logps, right)
    assert list(found) == ["kind", "a", "b", "pairs", "right", "ece_before", "ece"]
    assert (found["kind"], found["pairs"]) == ("platt", 400)
    assert (found["a"], found["b"]) == (pytest.approx(fitted.a, abs=1e-6), pytest.approx(fitted.b, abs=1e-6))
    assert found["right"] == pytest.approx(np.mean(right), abs=1e-4)
    assert found["ece"] < found["ece_before"]
    assert Calibration.from_json(found) == Calibration(found["a"], found["b"])


def test_a_fit_that_is_no_better_keeps_the_probability():
    # 20 replies at 0.55, 11 of them right, have error 0; 20 at 0.85, 18 of them right, have error 0.05.
    logps = [math.log(0.55)] * 20 + [math.log(0.85)] * 20
    right = [i < 11 for i in range(20)] + [i < 18 for i in range(20)]
    found = calibrate(Model(logps, right), pairs(40))
    assert (found["ece_before"], found["ece"]) == (0.025, 0.025)
    assert Calibration.from_json(found) == IDENTITY_CALIBRATION
    assert IDENTITY_CALIBRATION.confidence(math.log(0.85)) == pytest.approx(0.85)


def test_replies_that_were_cut_have_no_confidence_and_do_not_count():
    logps, right = samples(0.5, -1.0, 400)
    among_cut = Model([*logps, *[-0.1] * 100], [*right, *[False] * 100], cut=100)
    assert calibrate(among_cut, pairs(500)) == calibrate(Model(logps, right), pairs(400))


def test_too_few_finished_replies_are_refused():
    with pytest.raises(
        EdgeChatError, match="only 29 of 50 replies to held-out pairs finished within the length limit"
    ):
        calibrate(Model([-0.1] * 50, [True] * 50, cut=21), pairs(50))


def test_many_pairs_are_thinned_evenly(monkeypatch):
    monkeypatch.setattr(module, "MAX_PAIRS", 40)
    logps, right = samples(1.0, 0.0, 400)
    assert calibrate(Model(logps, right), pairs(400))["pairs"] == 40


def test_too_few_pairs_are_refused():
    with pytest.raises(EdgeChatError, match="holds out 29 pairs, but calibration needs at least 30"):
        calibrate(Model([], []), pairs(29))


def test_likelier_replies_that_are_less_often_right_are_refused():
    logps = [-0.05] * 200 + [-4.0] * 200
    with pytest.raises(EdgeChatError, match="likelier replies are not right more often"):
        calibrate(Model(logps, [False] * 200 + [True] * 200), pairs(400))


def test_the_calibration_in_a_manifest_is_checked():
    assert Calibration.from_json({"kind": "of a later version"}) is None
    for a in (None, "1", True, math.nan, math.inf, 1e9):
        with pytest.raises(BundleError, match="'a' and 'b' in 'calibration' must be numbers"):
            Calibration.from_json({"kind": "platt", "a": a, "b": 0})
