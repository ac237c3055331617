"""Presets and options: what is unknown or out of range is refused by name."""

import pytest

from edgechat.runtime.errors import UsageError
from edgechat.train.config import RunConfig, load_preset, preset_names


def test_every_preset_loads():
    assert preset_names() == ["tiny", "small", "base", "classic"]
    for name in preset_names():
        load_preset(name)


def test_classic_has_the_size_of_the_old_tutorials():
    classic = load_preset("classic")
    assert (classic.model.hidden, classic.model.layers, classic.model.embedding) == (1024, 2, 1024)
    training = classic.training
    assert (training.learning_rate, training.batch_size, training.epochs) == (1e-4, 128, 30)
    assert (training.clip, training.save_every) == (5.0, 100)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"'huge'.*tiny, small, base, classic"):
        load_preset("huge")


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    with pytest.raises(UsageError, match="unknown key 'hiden'; did you mean 'hidden'"):
        RunConfig.from_dict({"model": {"hiden": 3}}, "file.toml")
    with pytest.raises(UsageError, match="unknown key 'trainin'; did you mean 'training'"):
        RunConfig.from_dict({"trainin": {}}, "file.toml")


def test_a_configuration_survives_its_own_json():
    config = load_preset("small").changed({"epochs": 3, "turns": 4, "hidden": 7})
    assert RunConfig.from_dict(config.to_json(), "run.json") == config
    assert (config.training.epochs, config.data.turns, config.model.hidden) == (3, 4, 7)


def test_one_seed_sets_that_of_the_split_and_that_of_the_training():
    config = RunConfig().changed({"seed": 9})
    assert (config.data.seed, config.training.seed) == (9, 9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layers", 0), ("hidden", -1), ("dropout", 1.0), ("batch_size", 0), ("learning_rate", 0.0),
        ("clip", 0.0), ("epochs", 0), ("max_steps", 0), ("save_every", 0), ("warmup_steps", -1),
        ("schedule", "steps"), ("learning_rate", float("nan")),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(UsageError, match=name):
        RunConfig().changed({name: value})
