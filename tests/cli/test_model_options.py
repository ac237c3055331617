"""All options of the model at once, from the command line to a reply."""

import json

import pytest

from edgechat.runtime import ChatModel


@pytest.mark.slow
def test_every_option_of_the_model_goes_from_training_to_an_int8_reply(edgechat, corpus_file, tmp_path):
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    trained = edgechat(
        "train", corpus_file, "--out", run, "--hidden", 48, "--embedding", 24, "--attention", 24,
        "--vocab-size", 320, "--epochs", 40, "--batch-size", 4, "--learning-rate", 0.01, "--dropout", 0,
        "--save-every", 200, "--valid-fraction", 0.1, "--threads", 1, "--device", "cpu", "--layers", 2,
        "--attention-kind", "scaled", "--no-input-feeding", "--bidirectional", "--residual", "--layer-norm",
        "--tied-output", "--copy-attention",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    exported = edgechat("export", run, "--out", bundle, "--checkpoint", "last")
    assert exported.returncode == 0, exported.stderr
    verified = edgechat("verify", bundle, "--against", run)
    assert verified.returncode == 0, verified.stderr
    reply = edgechat("reply", bundle, "turn left twice", "--json")
    assert json.loads(reply.stdout)["reply"] == "LEFT LEFT"
    assert [str(r) for r in ChatModel.load(bundle).reply_batch(["jump", "bye"])] == ["JUMP", "see you"]
    info = edgechat("info", bundle)
    assert (
        "scaled attention, no input feeding, bidirectional encoder, residual connections, layer norm, "
        "output tied to the embedding, copy attention" in info.stdout
    )
    resumed = edgechat("train", "--resume", "--out", run, "--no-copy-attention")
    assert resumed.returncode == 2
    assert (
        "--no-copy-attention sets copy_attention to False, but the run was started with True"
        in resumed.stderr
    )


def test_options_that_do_not_go_together_are_refused_in_a_sentence(edgechat, corpus_file, tmp_path):
    done = edgechat("train", corpus_file, "--out", tmp_path / "run", "--layers", 1, "--residual")
    assert done.returncode == 2
    assert "--residual works between layers: set --layers to 2 or more, not 1" in done.stderr
    assert not (tmp_path / "run").exists()
