"""Presets, files and options: unknown names, wrong types and values out of range are refused by name."""

import dataclasses
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgechat.runtime.device import DEVICES
from edgechat.runtime.errors import UsageError
from edgechat.train.config import ConfigFile, RunConfig, load_preset, preset_names
from edgechat.train.option_types import DeviceName
from edgechat.train.request import TrainingRequest


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


def test_an_unknown_key_is_refused_with_the_closest_known_one():
    with pytest.raises(UsageError, match="unknown key 'hiden'; did you mean 'hidden'"):
        RunConfig.from_dict({"model": {"hiden": 3}}, "file.toml")
    with pytest.raises(UsageError, match="unknown key 'trainin'; did you mean 'training'"):
        RunConfig.from_dict({"trainin": {}}, "file.toml")


def test_a_configuration_survives_its_own_json():
    config = load_preset("small").with_values({"epochs": 3, "turns": 4, "hidden": 7})
    assert RunConfig.from_dict(config.to_json(), "run.json") == config
    assert (config.training.epochs, config.data.turns, config.model.hidden) == (3, 4, 7)


def test_one_seed_sets_that_of_the_split_and_that_of_the_training():
    config = RunConfig().with_values({"seed": 9})
    assert (config.data.seed, config.training.seed) == (9, 9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layers", 0), ("hidden", -1), ("dropout", 1.0), ("batch_size", 0), ("learning_rate", 0.0),
        ("clip", 0.0), ("epochs", 0), ("max_steps", 0), ("save_every", 0), ("warmup_steps", -1),
        ("schedule", "steps"), ("optimizer", "lion"), ("amp", "fp8"), ("early_stop", "wer"),
        ("targets", "third"), ("attention_kind", "soft"), ("learning_rate", float("nan")),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(UsageError, match=name):
        RunConfig().with_values({name: value})


@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "hidden": st.integers(1, 1 << 16), "dropout": st.floats(0, 0.99), "reverse_source": st.booleans(),
            "targets": st.sampled_from(["all", "second"]), "max_steps": st.none() | st.integers(1, 10**9),
            "lowercase": st.booleans(),
            "learning_rate": st.floats(1e-300, 1e30), "clip": st.floats(1e-9, float("inf")),
        },
    )
)  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_configuration_survives_its_own_toml(tmp_path: Path, changes):
    config = load_preset("small").with_values(changes)
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    assert ConfigFile.read(path).to_config() == config


def test_the_toml_of_a_configuration_has_every_value_that_is_not_left_out():
    config = RunConfig()
    sections = tomllib.loads(config.to_toml())
    for name, part in vars(config).items():
        given = {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
        assert sections[name] == {key: value for key, value in given.items() if value is not None}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[model]\nhiden = 3", "section model: unknown key 'hiden'; did you mean 'hidden'"),
        ("[modell]", "unknown key 'modell'; did you mean 'model'"),
        ("hidden = 3", "'hidden' is in no section: write [model] on the line above it"),
        ("out = 'a'", "'out' is in no section: write [run] on the line above it"),
        ("colour = 3", "unknown key 'colour'; the known keys are data, model, run, training"),
        ("model = 3", "section model must be a section of keys and values, not 3"),
        ("[model]\nhidden = 'big'", "hidden must be a whole number, not 'big'"),
        ("[model]\nhidden = true", "hidden must be a whole number, not True"),
        ("[model]\nhidden = 1.5", "hidden must be a whole number, not 1.5"),
        ("[model]\ndropout = '0.1'", "dropout must be a number, not '0.1'"),
        ("[model]\nreverse_source = 1", "reverse_source must be true or false, not 1"),
        ("[training]\nschedule = 'linear'", "schedule must be constant"),
        ("[training]\nmax_steps = 'all'", "max_steps must be a whole number, not 'all'"),
        ("[model]\nlayers = 0", "layers must be at least 1, not 0"),
        ("[data]\nturns = 0", "section data: turns must be at least 1, not 0"),
        ("[model", "is not a TOML file"),
        ("[run]\nouts = 'a'", "section run: unknown key 'outs'; did you mean 'out'"),
        ("[run]\nseed = 3", "section run: seed belongs in section data or training"),
        ("[model]\nbatch_size = 3", "section model: batch_size belongs in section training"),
        ("[training]\nhidden = 3", "section training: hidden belongs in section model"),
        ("[run]\nforce = true", "section run: force is an option of the command line only"),
        ("[run]\ndata = [3]", "section run: data must be a string or a list of strings, not [3]"),
        ("[run]\nout = 3", "section run: out must be a string, not 3"),
        ("[run]\nthreads = 0", "section run: threads must be at least 1, not 0"),
        ("[run]\nmax_minutes = 0", "section run: max_minutes must be above 0, not 0"),
        ("[run]\ndevice = 'gpu'", "section run: device must be auto, cpu or cuda, not 'gpu'"),
        ("[run]\nskip_bad = 1", "section run: skip_bad must be true or false, not 1"),
        ("[run]\nthreads = 1025", "section run: threads must be at most 1024, not 1025"),
        ('[run]\nout = "a\\u0000"', r"section run: out must be a string without NUL, not 'a\x00'"),
        ('[run]\ndata = ["a", "\\u0000"]', r"section run: data must be a string without NUL, not '\x00'"),
        ('[run]\nvalid = "\\u0000"', r"section run: valid must be a string without NUL, not '\x00'"),
        ("[training]\nseed = -1", "section training: seed must be at least 0, not -1"),
        ("[data]\nseed = 9007199254740992", "seed must be at most 9007199254740991, not 9007199254740992"),
        ("[data]\nvocab_size = -3", "section data: vocab_size must be at least 261, not -3"),
        ("[data]\nvocab_size = 1048577", "vocab_size must be at most 1048576, not 1048577"),
        ("[data]\nturns = 10001", "section data: turns must be at most 10000, not 10001"),
        ("[data]\nmax_source = 20000", "section data: max_source must be at most 10000, not 20000"),
        ("[data]\nmax_target = 20000", "section data: max_target must be at most 10000, not 20000"),
        ("[model]\nhidden = 9999999999", "section model: hidden must be at most 65536, not 9999999999"),
        # (2 * 16 + 1) * 32768 = 1,081,344 numbers
        ("[model]\nlayers = 16\nhidden = 32768", "layers 16 with hidden 32768 make a state of 1,081,344"),
        ("[training]\nlearning_rate = inf", "learning_rate must be a finite number, not inf"),
        ("[training]\nlearning_rate = 1" + "0" * 400, "learning_rate is too large a number"),
        ("[training]\nclip = nan", "section training: clip must be above 0, not nan"),
        ("[training]\nbatch_size = 99999999999", "batch_size must be at most 2147483647, not 99999999999"),
        ("[run]\npreset = 'tiny'\n[training]\nbatchsize = 1", "section training: unknown key 'batchsize'"),
    ],
)
def test_a_file_with_a_mistake_is_refused_with_its_name_and_the_fix(tmp_path, text, sentence):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        ConfigFile.read(path).to_config()
    assert str(error.value).startswith(str(path))
    assert sentence in str(error.value)


def test_a_missing_file_gives_a_one_sentence_error(tmp_path):
    with pytest.raises(UsageError, match=r"none.toml cannot be read: No such file"):
        ConfigFile.read(tmp_path / "none.toml")


def test_a_whole_number_is_accepted_as_a_number(tmp_path):
    (tmp_path / "a.toml").write_text("[training]\nlearning_rate = 1\nclip = 5")
    assert ConfigFile.read(tmp_path / "a.toml").to_config().training.learning_rate == 1.0


def test_a_file_starts_from_the_preset_that_it_names(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[run]\npreset = 'tiny'\n[model]\nhidden = 24\n[training]\nepochs = 2\n")
    assert ConfigFile.read(path).to_config() == load_preset("tiny").with_values({"hidden": 24, "epochs": 2})
    path.write_text("[run]\npreset = 'huge'")
    with pytest.raises(UsageError, match="there is no preset 'huge'"):
        ConfigFile.read(path).to_config()


def test_a_file_without_a_preset_starts_from_the_default_preset(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[training]\nepochs = 3\n")
    request = TrainingRequest.from_options({"config": path})
    assert (
        request.config_of_new_run()
        == TrainingRequest.from_options({"epochs": 3}).config_of_new_run()
        == load_preset("tiny").with_values({"epochs": 3})
    )
    assert request.resumable_values == {"epochs": 3}


def test_the_devices_of_a_training_are_those_of_the_runtime():
    assert get_args(DeviceName) == DEVICES


def test_a_file_may_begin_with_a_byte_order_mark_as_windows_writes_it(tmp_path):
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf[training]\nepochs = 3\n")
    assert ConfigFile.read(tmp_path / "a.toml").to_config().training.epochs == 3


def test_a_batch_size_replaces_the_batch_tokens_of_a_lower_layer(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[training]\nbatch_tokens = 400\n")
    assert TrainingRequest.from_options({"config": path}).config_of_new_run().training.batch_tokens == 400
    training = TrainingRequest.from_options({"config": path, "batch_size": 8}).config_of_new_run().training
    assert (training.batch_size, training.batch_tokens) == (8, None)
    tokens = RunConfig().with_values({"batch_tokens": 300})
    assert ConfigFile.read(path).to_config(tokens).training.batch_tokens == 400
    path.write_text("[training]\nbatch_size = 8\n")
    assert ConfigFile.read(path).to_config(tokens).training.batch_tokens is None
    assert (
        TrainingRequest.from_options({"config": path, "batch_tokens": 400})
        .config_of_new_run()
        .training.batch_tokens
        == 400
    )


def test_the_toml_of_a_run_with_batch_tokens_is_accepted_by_a_training(tmp_path):
    path, config = tmp_path / "config.toml", load_preset("tiny").with_values({"batch_tokens": 400})
    path.write_text(config.to_toml())
    assert TrainingRequest.from_options({"config": path}).config_of_new_run() == config


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[run]\nvalid = 'v.tsv'\n[data]\nvalid_fraction = 0.1", "valid_fraction cannot be used with valid"),
        ("[run]\ntokenizer = 't'\n[data]\nvocab_size = 300", "vocab_size cannot be used with tokenizer"),
        ("[run]\nfrom_run = 'a'\n[data]\nvocab_size = 300", "vocab_size cannot be used with from_run"),
        ("[run]\nfrom_run = 'a'\ntokenizer = 't'", "tokenizer cannot be used with from_run"),
        ("[training]\nbatch_size = 3\nbatch_tokens = 99", "batch_size cannot be used with batch_tokens"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, text, sentence):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    for resume in (None, True):
        with pytest.raises(UsageError) as refused:
            TrainingRequest.from_options({"config": path, "resume": resume})
        assert str(refused.value).startswith(f"{path}: {sentence}: ")


@pytest.mark.parametrize("text", ["data = ['chats.jsonl']", "training = 3", "[[training]]\nepochs = 3"])
def test_a_section_that_is_not_a_table_is_refused(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"section (data|training) must be a section of keys and values"):
        TrainingRequest.from_options({"config": path}).config_of_new_run()


def test_an_error_names_the_value_that_is_in_the_wrong_section(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[model]\nbatch_size = 3")
    with pytest.raises(UsageError, match="section model: batch_size belongs in section training"):
        TrainingRequest.from_options({"config": path}).config_of_new_run()


def test_held_out_data_on_the_command_line_replaces_that_of_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    halves = {"valid_source": Path("s"), "valid_target": Path("t")}
    path.write_text("[run]\nvalid = 'v.tsv'")
    options = TrainingRequest.from_options({"config": path, **halves}).options
    assert (options.valid, options.valid_source, options.valid_target) == (None, Path("s"), Path("t"))
    path.write_text("[run]\nvalid_source = 's'\nvalid_target = 't'")
    options = TrainingRequest.from_options({"config": path, "valid": "v.tsv"}).options
    assert (options.valid, options.valid_source, options.valid_target) == ("v.tsv", None, None)


def test_the_command_line_overrides_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[data]\nvocab_size = 300\nvalid_fraction = 0.1")
    assert (
        TrainingRequest.from_options({"config": path, "tokenizer": Path("t"), "valid": "v.tsv"}).options.valid
        == "v.tsv"
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"patience": 5}, "patience 5 has no effect without early_stop: set early_stop too"),
        (
            {"decay": 0.5, "schedule": "cosine"},
            "decay 0.5 has no effect with schedule cosine, only with plateau or luong",
        ),
        (
            {"plateau_patience": 2},
            "plateau_patience 2 has no effect with schedule constant, only with plateau",
        ),
        ({"momentum": 0.0}, "momentum 0.0 has no effect with optimizer adam, only with sgd"),
        (
            {"attention": 64, "attention_kind": "luong-dot"},
            "attention 64 has no effect with attention_kind luong-dot, only with bahdanau, bahdanau",
        ),
        (
            {"bidirectional": True, "reverse_source": True},
            "reverse_source has no effect with bidirectional: leave it out",
        ),
    ],
)
def test_an_option_without_effect_is_refused_at_its_default_too(given, sentence):
    with pytest.raises(UsageError, match=sentence):
        RunConfig().with_values(given)


def test_a_file_may_have_defaults_without_effect_and_sizes_for_another_kind_of_model(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        "[model]\nattention = 64\nattention_kind = 'luong-dot'\nbidirectional = true\n"
        "reverse_source = false\n"
        "[training]\npatience = 5\nschedule = 'cosine'\ndecay = 0.5\n"
    )
    request = TrainingRequest.from_options({"config": path})
    assert request.config_of_new_run().model.attention == 64
    other = (
        TrainingRequest.from_options({"config": path, "attention_kind": "bahdanau"}).config_of_new_run().model
    )
    assert (other.attention, other.attention_kind) == (64, "bahdanau")


def test_a_run_from_another_one_does_not_inherit_values_chosen_for_its_length():
    schedule = {"schedule": "luong", "decay": 0.7, "epochs": 4}
    of_the_data = {"max_steps": 9, "early_stop": "bleu", "patience": 3, "warmup_steps": 7}
    config = RunConfig().with_values({**schedule, **of_the_data, "decay_start": 40, "decay_every": 5})
    assert config.for_fine_tuning() == RunConfig().with_values(schedule)
    needed = RunConfig().with_values({"schedule": "inverse-sqrt", "warmup_steps": 7})
    assert needed.for_fine_tuning() == needed


def test_a_file_is_read_once(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[run]\nout = 'run'\n[training]\nepochs = 3\n")
    request = TrainingRequest.from_options({"config": path})
    path.unlink()
    assert request.config_of_new_run().training.epochs == request.resumable_values["epochs"] == 3
    assert request.options.out == tmp_path / "run"


def test_the_paths_of_a_file_are_relative_to_it_and_packaged_corpora_are_names(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        "[run]\ndata = ['a.jsonl', 'chatterbot:english', '/b.txt']\nvalid = 'v.tsv'\nout = 'runs/x'"
    )
    options = ConfigFile.read(path).options
    assert options.data == (str(tmp_path / "a.jsonl"), "chatterbot:english", "/b.txt")
    assert options.valid == str(tmp_path / "v.tsv")
    assert options.out == tmp_path / "runs/x"
    path.write_text("[run]\ndata = 'a.jsonl'")
    assert ConfigFile.read(path).options.data == (str(tmp_path / "a.jsonl"),)


def test_data_of_any_kind_replaces_the_data_of_a_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[run]\nsource = 'a.txt'\ntarget = 'b.txt'\nskip_bad = true\nthreads = 3")
    options = ConfigFile.read(path).options
    assert options.with_values({"data": (), "skip_bad": False, "threads": None}) == options
    changed = options.with_values({"data": ("c.tsv",), "threads": 1})
    assert (changed.data, changed.source, changed.target) == (("c.tsv",), None, None)
    assert (changed.skip_bad, changed.threads) == (True, 1)
    with pytest.raises(UsageError, match="max_minutes must be above 0, not 0"):
        options.with_values({"max_minutes": 0.0})
