"""Scores by arithmetic, and the bound compared with every continuation."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechat.runtime.options import DecodingOptions
from edgechat.runtime.scoring import (
    apply_repetition_penalty,
    coverage_penalty,
    gnmt_length_penalty,
    score,
    score_bound,
)

NORMALIZATIONS = [
    DecodingOptions(normalize="none"),
    DecodingOptions(normalize="average"),
    DecodingOptions(normalize="gnmt", length_penalty=0.0),
    DecodingOptions(normalize="gnmt"),
    DecodingOptions(normalize="gnmt", length_penalty=10),
]


def test_the_gnmt_length_penalty_is_equation_14():
    assert gnmt_length_penalty(1, 0.6) == 1.0  # (6 / 6) ** 0.6
    assert gnmt_length_penalty(7, 1.0) == 2.0  # (12 / 6) ** 1
    assert gnmt_length_penalty(19, 0.5) == 2.0  # (24 / 6) ** 0.5
    assert gnmt_length_penalty(7, 0.0) == 1.0
    assert gnmt_length_penalty(0, 1.0) == pytest.approx(5 / 6)


def test_no_normalization_leaves_the_log_probability():
    assert score(-3.5, 7, DecodingOptions(normalize="none")) == -3.5


def test_average_divides_by_the_number_of_tokens():
    assert score(-3.5, 7, DecodingOptions(normalize="average")) == -0.5  # -3.5 / 7


def test_the_average_of_an_empty_reply_does_not_divide_by_zero():
    assert score(0.0, 0, DecodingOptions(normalize="average")) == 0.0


def test_gnmt_divides_by_its_penalty():
    options = DecodingOptions(normalize="gnmt", length_penalty=1.0)
    assert score(-3.0, 7, options) == -1.5  # -3 / ((5 + 7) / 6)


def test_alpha_is_0_6_by_default():
    assert score(-3.0, 7, DecodingOptions(normalize="gnmt")) == pytest.approx(-3.0 / 2**0.6)


def test_the_coverage_penalty_is_the_second_half_of_equation_14():
    # Source token 0 got 0.5 + 0.25 in all, token 1 got 0.5 + 0.75, which counts as 1.
    attention = [(0.5, 0.5), (0.25, 0.75)]
    assert coverage_penalty(attention, 2.0) == pytest.approx(2.0 * (math.log(0.75) + math.log(1.0)))
    assert coverage_penalty([(1.0, 1.0)], 2.0) == 0.0
    assert coverage_penalty([(1.0, 0.0)], 1.0) == pytest.approx(math.log(1e-10))  # and not -inf


def test_the_repetition_penalty_multiplies_a_log_probability():
    assert apply_repetition_penalty(-1.5, 2.0) == -3.0
    assert apply_repetition_penalty(-1.5, 1.0) == -1.5


@pytest.mark.parametrize("options", NORMALIZATIONS, ids=lambda o: f"{o.normalize}-{o.alpha}")
@given(
    logps=st.lists(st.floats(-20, 0), min_size=1, max_size=12),
    data=st.data(),
)
def test_no_continuation_scores_above_the_bound(options, logps, data):
    lived = data.draw(st.integers(0, len(logps) - 1))
    max_length = data.draw(st.integers(len(logps), 20))
    assert (
        score(sum(logps), len(logps), options) <= score_bound(sum(logps[:lived]), max_length, options) + 1e-12
    )


@pytest.mark.parametrize("options", NORMALIZATIONS, ids=lambda o: f"{o.normalize}-{o.alpha}")
def test_the_bound_is_reached_by_certain_tokens_up_to_the_maximum_length(options):
    assert score_bound(-2.0, 9, options) == score(-2.0 + 7 * 0.0, 9, options)
    assert score_bound(-2.0, 9, options) >= score_bound(-2.0, 8, options)
