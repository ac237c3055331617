"""SCAN (Lake & Baroni 2018) with each option of the model: a short run, exported as int8, beats an
untrained one."""

import pytest

from edgechat.runtime import ChatModel
from edgechat.train.corpus import open_corpus
from edgechat.train.dialogue import extract_pairs
from edgechat.train.evaluation import Evaluation, evaluate

pytestmark = pytest.mark.slow

OPTIONS = {
    "default": [],
    "normed": ["--attention-kind", "bahdanau-normed"],
    "dot": ["--attention-kind", "luong-dot"],
    "general": ["--attention-kind", "luong-general"],
    "scaled": ["--attention-kind", "scaled"],
    "unfed": ["--no-input-feeding"],
    "bidirectional": ["--bidirectional"],
    "residual": ["--layers", 2, "--residual"],
    "norm": ["--layers", 2, "--layer-norm"],
    "deep": ["--layers", 3, "--residual", "--layer-norm"],
    "tied": ["--tied-output"],
    "copy": ["--copy-attention"],
}


@pytest.mark.parametrize("option", OPTIONS)
def test_a_short_run_with_each_option_beats_an_untrained_one(option, scan, edgechat, tmp_path):
    corpus = open_corpus([str(scan / "simple.test.jsonl.gz")])
    pairs = [pair for dialogue in corpus for pair in extract_pairs(dialogue, turns=1, targets="all")][::40]

    def trained(name: str, *arguments: object) -> Evaluation:
        run, bundle = tmp_path / name, tmp_path / f"{name}.edgechat"
        done = edgechat(
            "train", scan / "simple.train.jsonl.gz", "--preset", "tiny", "--hidden", 128, "--embedding", 64,
            "--batch-size", 32, "--threads", 1, "--out", run, *OPTIONS[option], *arguments,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        exported = edgechat("export", run, "--out", bundle, "--beyond-limits")
        assert exported.returncode == 0, exported.stderr
        return evaluate(ChatModel.load(bundle), pairs)

    before = trained("before", "--max-steps", 1, "--learning-rate", 1e-9, "--schedule", "constant")
    after = trained("after", "--max-steps", 300, "--learning-rate", 3e-3)
    figures = [(e.perplexity, e.chrf) for e in (before, after)]
    print(f"{option}: perplexity and chrF {figures}")
    assert after.perplexity < 0.02 * before.perplexity
    assert after.chrf > before.chrf + 20
