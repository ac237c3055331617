"""Copy attention from data to replies: invented names that no training reply contains."""

import json
import random
import subprocess
from pathlib import Path

import pytest

from edgechat.runtime import ChatModel, DecodingOptions
from edgechat.runtime.bundle import read_bundle

_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


def names(count: int, seed: int) -> list[str]:
    """Names of three syllables."""
    chosen = random.Random(seed)
    return ["".join(chosen.choices(_SYLLABLES, k=3)).capitalize() for _ in range(count)]


LEARNED = sorted(set(names(220, 1)))
HELD_OUT = [name for name in sorted(set(names(60, 2))) if name not in LEARNED]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("names") / "names.jsonl"
    pairs = [{"prompt": f"my name is {name}", "response": f"hello {name}"} for name in LEARNED]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


def bundle(edgechat, data: Path, *options: str) -> Path:
    """The int8 bundle of a short run. The vocabulary has only bytes and special tokens, so that every letter
    of a name was seen in training, though not the name."""
    out = data.with_name("copying" if options else "plain")
    done: subprocess.CompletedProcess[str] = edgechat(
        "train", data, "--out", out, "--hidden", 64, "--embedding", 32, "--attention", 32,
        "--vocab-size", 261, "--epochs", 12, "--batch-size", 16, "--learning-rate", 0.005, "--dropout", 0.1,
        "--threads", 1, "--device", "cpu", "--save-every", 1000, *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    exported = edgechat(
        "export", out, "--out", out.with_suffix(".edgechat"), "--checkpoint", "last", "--beyond-limits"
    )
    assert exported.returncode == 0, exported.stderr
    return out.with_suffix(".edgechat")


def copied(path: Path, beam: int) -> float:
    """The fraction of unseen names that are greeted letter by letter."""
    model = ChatModel.load(path)
    prompts = [f"my name is {name}" for name in HELD_OUT]
    replies = model.reply_batch(prompts, DecodingOptions(beam=beam))
    return sum(str(r) == f"hello {n}" for r, n in zip(replies, HELD_OUT, strict=True)) / len(HELD_OUT)


@pytest.mark.slow
def test_unseen_names_are_copied_by_an_int8_bundle_with_beam_search(edgechat, data):
    learned = data.read_text()
    assert not any(name in learned for name in HELD_OUT)
    copying, plain = bundle(edgechat, data, "--copy-attention"), bundle(edgechat, data)
    shares = {beam: (copied(copying, beam), copied(plain, beam)) for beam in (1, 5)}
    print(shares)
    for with_copying, without in shares.values():
        assert with_copying > 0.9
        assert with_copying > without + 0.3
    sealed = read_bundle(copying)
    assert (sealed.manifest.model.copy_attention, sealed.manifest.precision) == (True, "int8")
    assert sealed.manifest.memory == ("keys", "values", "bias")
    assert "copy attention" in sealed.files["MODEL_CARD.md"].decode()
    assert "src" not in json.dumps(read_bundle(plain).manifest.to_json())
