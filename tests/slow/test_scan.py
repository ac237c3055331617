"""SCAN (Lake & Baroni 2018), simple split: from the data to a bundle that gets nearly every test command
right, word for word, and gives the same replies as PyTorch for all 4,182 test prompts."""

from pathlib import Path

import pytest

from edgechat.runtime import ChatModel
from edgechat.runtime.scheduler import decode
from edgechat.train.corpus import open_corpus
from edgechat.train.dialogue import Pair, extract_pairs
from edgechat.train.run import open_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(scan: Path, edgechat, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scan") / "run"
    trained = edgechat(
        "train",
        scan / "simple.train.jsonl.gz",
        "--preset",
        "tiny",
        "--epochs",
        25,
        "--out",
        out,
        timeout=4 * 3600,
    )
    assert trained.returncode == 0, trained.stderr
    return out


@pytest.fixture(scope="module")
def bundle(run: Path, edgechat) -> Path:
    return _exported(run, edgechat, "fp32")


@pytest.fixture(scope="module")
def int8_bundle(run: Path, edgechat) -> Path:
    return _exported(run, edgechat, "int8")


def _exported(run: Path, edgechat, precision: str) -> Path:
    out = run.with_name(precision)
    exported = edgechat("export", run, "--out", out, "--precision", precision)
    assert exported.returncode == 0, exported.stderr
    return out


@pytest.fixture(scope="module")
def pairs(scan: Path) -> list[Pair]:
    corpus = open_corpus([str(scan / "simple.test.jsonl.gz")])
    return [pair for dialogue in corpus for pair in extract_pairs(dialogue, turns=1, targets="all")]


def test_the_exported_bundle_gets_at_least_99_5_percent_of_the_test_prompts_exactly(bundle, pairs):
    assert len(pairs) == 4182
    assert _exact(bundle, pairs) >= 0.995


def test_int8_loses_at_most_a_tenth_of_a_point(bundle, int8_bundle, pairs):
    assert _exact(int8_bundle, pairs) >= _exact(bundle, pairs) - 0.001


def _exact(bundle: Path, pairs: list[tuple[list[str], str]]) -> float:
    """The fraction of test prompts that get exactly the reply of the data."""
    replies = ChatModel.load(bundle).reply_batch([turns[-1] for turns, _ in pairs])
    exact = sum(str(reply) == response for reply, (_, response) in zip(replies, pairs, strict=True))
    print(f"{bundle.name}: exact match {exact / len(pairs):.2%} of {len(pairs):,}")
    return exact / len(pairs)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_pytorch_and_the_bundle_give_the_same_tokens_on_every_test_prompt(run, bundle, pairs, batch_size):
    models = (open_run(run).load_chat_model("best")[0], ChatModel.load(bundle))
    found = []
    for model in models:
        sources = [model.codec.encode_source(turns).ids for turns, _ in pairs]
        options = model.defaults
        assert options.beam == 5
        searches = decode(
            model.backend, sources, options, max_length=model.maker.max_length(options), batch_size=batch_size
        )
        found.append([search.hypotheses()[0].tokens for search in searches])
    differences = sum(a != b for a, b in zip(*found, strict=True))
    assert differences == 0
