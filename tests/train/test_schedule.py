"""Learning rates, by hand."""

import math

import pytest

from edgechat.runtime.errors import UsageError
from edgechat.train.config import TrainingConfig
from edgechat.train.schedule import learning_rate, sampling_probability


def rates(config: TrainingConfig, total: int, *steps: int, scale: float = 1.0) -> list[float]:
    return [learning_rate(step, total, config, scale) for step in steps]


def test_the_learning_rate_warms_up_and_falls_along_half_a_cosine():
    config = TrainingConfig(learning_rate=0.4, schedule="cosine", warmup_steps=4)
    assert rates(config, 104, 0, 1, 3) == pytest.approx([0.1, 0.2, 0.4])
    # half-way: cos(pi / 2) = 0
    assert rates(config, 104, 4, 54, 104) == pytest.approx([0.4, 0.2, 0.0])


def test_a_constant_rate_stays():
    assert rates(TrainingConfig(learning_rate=0.4), 104, 0, 50, 103) == [0.4, 0.4, 0.4]


def test_inverse_square_root_is_the_formula_of_vaswani_et_al():
    config = TrainingConfig(learning_rate=0.5, schedule="inverse-sqrt", warmup_steps=16)
    assert rates(config, 1000, 0, 7, 15) == pytest.approx([0.5 / 16, 0.25, 0.5])
    # update 64 is four times as late as the peak, so half as high; update 400 a fifth: sqrt(16 / 400)
    assert rates(config, 1000, 63, 399) == pytest.approx([0.25, 0.1])
    size = 16 * 0.5**2  # the size d_model for which d^-0.5 * min(t^-0.5, t * w^-1.5) peaks at 0.5
    for t in (1, 5, 16, 17, 300):
        theirs = (1 / math.sqrt(size)) * min(t**-0.5, t * 16**-1.5) * 16 * 0.5 * 0.5
        assert learning_rate(t - 1, 1000, config) == pytest.approx(theirs)


def test_luong_halves_from_the_middle_on_each_tenth_of_the_steps():
    # The paper: 10 epochs, after 5 the rate is halved each epoch; here an epoch is 10 steps.
    config = TrainingConfig(learning_rate=1.0, schedule="luong")
    assert rates(config, 100, 0, 49, 50, 59, 60, 99) == [1, 1, 0.5, 0.5, 0.25, 0.5**5]


def test_luong_decays_at_the_given_steps():
    config = TrainingConfig(learning_rate=1.0, schedule="luong", decay_start=3, decay_every=2, decay=0.1)
    assert rates(config, 100, 2, 3, 4, 5) == pytest.approx([1, 0.1, 0.1, 0.01])


def test_luong_on_a_handful_of_steps_does_not_divide_by_zero():
    assert rates(TrainingConfig(learning_rate=1.0, schedule="luong"), 3, 0, 1, 2) == [1, 0.5, 0.25]


def test_the_plateau_schedule_is_scaled_by_its_decays():
    config = TrainingConfig(learning_rate=0.4, schedule="plateau", warmup_steps=4)
    assert rates(config, 100, 1, 4, scale=0.25) == pytest.approx([0.2, 0.1])


def test_scheduled_sampling_rises_on_a_line():
    config = TrainingConfig(scheduled_sampling=0.5)
    assert [sampling_probability(step, 11, config) for step in (0, 4, 10)] == pytest.approx([0, 0.2, 0.5])
    assert sampling_probability(0, 1, config) == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"schedule": "inverse-sqrt"}, "needs a warm-up"),
        ({"decay_start": 3}, "decay_start 3 has no effect with schedule constant, only with luong"),
        (
            {"decay_every": 3, "schedule": "plateau"},
            "decay_every 3 has no effect with schedule plateau, only with luong",
        ),
        ({"weight_decay": 0.1}, "weight_decay 0.1 has no effect with optimizer adam, only with adamw or sgd"),
        (
            {"decay": 0.1, "schedule": "cosine"},
            "decay 0.1 has no effect with schedule cosine, only with plateau or luong",
        ),
        (
            {"plateau_patience": 3, "schedule": "luong"},
            "plateau_patience 3 has no effect with schedule luong, only with plateau",
        ),
        ({"patience": 3}, "patience 3 has no effect without early_stop: set early_stop too"),
        (
            {"momentum": 0.9, "optimizer": "adamw"},
            "momentum 0.9 has no effect with optimizer adamw, only with sgd",
        ),
        (
            {"adam_beta2": 0.98, "optimizer": "sgd"},
            "adam_beta2 0.98 has no effect with optimizer sgd, only with adam or adamw",
        ),
        ({"decay": 1.0}, "decay must be below 1, not 1.0"),
        ({"label_smoothing": 1.0}, "label_smoothing must be below 1, not 1.0"),
        ({"scheduled_sampling": 1.5}, "scheduled_sampling must be at most 1, not 1.5"),
        ({"ema": -0.1}, "ema must be"),
        ({"keep": 0}, "keep must be at least 1"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"weight_decay": float("nan"), "optimizer": "sgd"}, "weight_decay must be at least 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        TrainingConfig(**options)
