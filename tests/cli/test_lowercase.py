"""--lowercase, from a configuration file to an int8 reply, and everything that must respect it."""

import json
from pathlib import Path

import pytest

from edgechat.runtime import ChatModel, DecodingOptions
from edgechat.runtime.bundle import read_bundle
from edgechat.train.checkpoints import Checkpoints
from edgechat.train.run import open_run

TYPED = ["switch the light on", "SWITCH THE LIGHT ON", "Switch The Light On", "sWiTcH tHe LiGhT oN"]
PAIRS = [
    ("switch the light on", "Light ON"), ("Switch The Light OFF", "Light OFF"), ("hello", "Hi there"),
    ("GOOD NIGHT", "Sleep well"), ("Wie heißt DU?", "Ich bin Bot"), ("Bye", "See you"), ("jump", "JUMP"),
    ("ÜBER DIE STRAßE", "Links, dann rechts"), ("tell me a Joke", "A bit walks into a bar"),
]  # fmt: skip
SETTINGS = """
[model]
layers = 1
hidden = 48
embedding = 24
attention = 24
dropout = 0
[data]
lowercase = true
vocab_size = 320
[training]
epochs = 50
batch_size = 4
learning_rate = 0.01
schedule = "constant"
save_every = 50
"""
CPU = ["--threads", 1, "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cased") / "pairs.jsonl"
    pairs = [{"prompt": prompt, "response": response} for prompt, response in PAIRS * 2]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    held_out = [{"prompt": prompt.swapcase(), "response": response} for prompt, response in PAIRS[:3]]
    path.with_name("valid.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in held_out))
    path.with_name("run.toml").write_text(SETTINGS)
    return path


def train_command(data: Path, file: Path, *options: object) -> list[object]:
    return ["train", data, "--valid", data.with_name("valid.jsonl"), "--config", file, *options, *CPU]


@pytest.fixture(scope="module")
def run(data, invoke) -> Path:
    """A run whose configuration file sets it. Tests must not change it."""
    out = data.with_name("run")
    done = invoke(*train_command(data, data.with_name("run.toml"), "--out", out))
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def bundle(run, invoke) -> Path:
    """Its int8 bundle. Tests must not change it."""
    out = run.with_name("bundle")
    done = invoke("export", run, "--out", out, "--checkpoint", "last", "--beyond-limits")
    assert done.returncode == 0, done.stderr
    return out


def weights(run: Path) -> bytes:
    return (Checkpoints(run).last / "model.safetensors").read_bytes()


def test_prompts_that_differ_in_case_get_the_same_reply_with_its_case_kept(bundle, run, invoke):
    done = invoke("reply", bundle, *TYPED)
    assert done.stdout.splitlines() == ["Light ON"] * 4
    for model in (ChatModel.load(bundle), open_run(run).load_chat_model("last")[0]):
        assert {(r.text, r.tokens, r.score) for r in map(model.reply, TYPED)} == {
            ("Light ON", model.reply(TYPED[0]).tokens, model.reply(TYPED[0]).score)
        }
        assert [r.text for r in model.reply_batch(TYPED)] == ["Light ON"] * 4
        assert ["".join(model.stream(text)) for text in TYPED] == ["Light ON"] * 4
        assert [model.session().reply(text).text for text in TYPED] == ["Light ON"] * 4
        assert model.reply("über die straße").text == model.reply("Über Die Straße").text


def test_text_constraints_apply_to_replies_and_are_case_sensitive(bundle):
    model = ChatModel.load(bundle)
    assert {model.reply(text, DecodingOptions(replies=("Light ON", "LIGHT on"))).text for text in TYPED} == {
        "Light ON"
    }
    assert model.reply(TYPED[1], DecodingOptions(prefix="LIGHT")).text.startswith("LIGHT")
    barred = DecodingOptions(no_copy_ngram=1)  # applies to the lowercased prompt
    assert len({model.reply(text, barred).text for text in TYPED}) == 1
    assert "light" not in model.reply("LIGHT light Light", barred).text


def test_lowercase_is_recorded_in_the_run_and_the_bundle(run, bundle, invoke):
    assert open_run(run).config.data.lowercase is True
    assert "lowercase = true" in (run / "config.toml").read_text()
    assert json.loads((run / "run.json").read_text())["config"]["data"]["lowercase"] is True
    assert json.loads((bundle / "edgechat.json").read_text())["text"]["lowercase"] is True
    assert "the prompt alone, at most 50 tokens, in lower case" in (bundle / "MODEL_CARD.md").read_text()
    assert "1 turn, at most 50 tokens, in lower case" in invoke("info", bundle).stdout
    assert json.loads(invoke("info", bundle, "--json").stdout)["text"]["lowercase"] is True
    assert invoke("verify", bundle, "--against", run).returncode == 0


def test_an_evaluation_lowercases_prompts_as_the_model_does(run, bundle, invoke, tmp_path):
    typed = tmp_path / "typed.jsonl"
    typed.write_text("".join(json.dumps({"prompt": t, "response": "Light ON"}) + "\n" for t in TYPED))
    for model in (run, bundle):
        done = invoke("eval", model, "--data", typed, "--json", "--device", "cpu")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["exact_match"] == 1.0


def test_the_source_of_alignments_is_the_lowercased_prompt(bundle, invoke):
    done = invoke("reply", bundle, TYPED[1], "--json", "--alignments")
    values = json.loads(done.stdout)
    assert (values["prompt"], "".join(values["source"])) == (TYPED[1], TYPED[0])


def test_a_validation_lowercases_prompts_as_the_model_does(run):
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["valid_loss"] < 0.1


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_weights(run, data, invoke, tmp_path):
    out = tmp_path / "run"
    done = invoke(*train_command(data, data.with_name("run.toml"), "--out", out, "--max-steps", 30))
    assert done.returncode == 0, done.stderr
    refused = invoke("train", "--resume", "--out", out, "--no-lowercase")
    assert refused.returncode == 2
    assert "sets lowercase to False, but the run was started with True" in refused.sentence
    steps = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    again = invoke("train", "--resume", "--out", out, "--max-steps", steps)
    assert again.returncode == 0, again.stderr
    assert weights(out) == weights(run)


def test_a_run_from_a_run_inherits_lowercase(run, data, invoke, tmp_path):
    more = ["train", data, "--from-run", run, "--max-steps", 2, *CPU]
    assert invoke(*more, "--out", tmp_path / "more").returncode == 0
    assert open_run(tmp_path / "more").config.data.lowercase is True
    refused = invoke(*more, "--out", tmp_path / "other", "--no-lowercase")
    assert refused.returncode == 2
    assert f"sets lowercase to False, but the model of {run} has True" in refused.sentence
    assert not (tmp_path / "other").exists()


def test_the_option_and_the_file_are_equivalent(run, data, invoke, tmp_path):
    (tmp_path / "run.toml").write_text(SETTINGS.replace("lowercase = true\n", ""))
    command = train_command(data, tmp_path / "run.toml", "--max-steps", 2)
    assert invoke(*command, "--out", tmp_path / "on", "--lowercase").returncode == 0
    assert invoke(*command, "--out", tmp_path / "off").returncode == 0
    assert (tmp_path / "on" / "tokenizer.json").read_bytes() == (run / "tokenizer.json").read_bytes()
    assert (tmp_path / "off" / "tokenizer.json").read_bytes() != (run / "tokenizer.json").read_bytes()
    assert open_run(tmp_path / "off").config.data.lowercase is False


def test_an_ensemble_of_bundles_that_differ_in_lowercase_is_refused(run, bundle, invoke, tmp_path):
    """Both runs have the same tokenizer."""
    command = ["train", run.with_name("pairs.jsonl"), "--tokenizer", run / "tokenizer.json", "--hidden", 48]
    assert invoke(*command, "--max-steps", 2, "--out", tmp_path / "run", *CPU).returncode == 0
    cased = tmp_path / "cased"
    done = invoke("export", tmp_path / "run", "--out", cased, "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    assert "lowercase" not in json.loads((cased / "edgechat.json").read_text())["text"]
    assert "lower case" not in (cased / "MODEL_CARD.md").read_text()
    assert read_bundle(cased).files["tokenizer.json"] == read_bundle(bundle).files["tokenizer.json"]
    refused = invoke("reply", bundle, "hello", "--ensemble", cased)
    assert refused.returncode == 2
    assert f"only one of {bundle} and {cased} reads prompts in lower case" in refused.sentence
