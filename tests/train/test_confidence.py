"""The quality of confidences, by hand."""

import pytest

from edgechat.train.confidence import AnswerCounts, expected_calibration_error, measure_confidence


def test_the_expected_calibration_error_by_hand():
    # Two pairs at 0.95, one right: |0.5 - 0.95|; two at 0.25, none right: |0 - 0.25|; each half of all.
    error = expected_calibration_error([0.95, 0.95, 0.25, 0.25], [True, False, False, False])
    assert error == pytest.approx(0.5 * 0.45 + 0.5 * 0.25)
    assert expected_calibration_error([1.0, 1.0], [True, True]) == 0.0


def test_answers_at_each_threshold_by_hand():
    # The fourth reply was cut: it has no confidence, and is answered at no threshold.
    confidences = [0.97, 0.9, 0.85, None, 0.5, 0.49]
    found = measure_confidence(confidences, [True, False, True, False, True, True])
    assert found is not None
    assert found.answered == (
        AnswerCounts(0.5, answered=4, right=3),
        AnswerCounts(0.8, answered=3, right=2),
        AnswerCounts(0.9, answered=2, right=1),  # one of just 0.9 passes
        AnswerCounts(0.95, answered=1, right=1),
    )
    # Of five: two from 0.9 on, 0.935 in the mean, half of them right; one at 0.85, one at 0.5, one at 0.49.
    error = (2 * abs(0.5 - 0.935) + abs(1 - 0.85) + abs(1 - 0.5) + abs(1 - 0.49)) / 5
    assert found.expected_error == pytest.approx(error)


def test_without_confidences_there_is_no_result():
    assert measure_confidence([None, None], [True, False]) is None
