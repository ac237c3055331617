"""Word vectors from files: the tokens that they go to, and the errors for files that do not fit."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from edgechat.runtime.bundle import read_bundle
from edgechat.runtime.errors import CheckpointError, DataError, UsageError
from edgechat.runtime.text import TextCodec
from edgechat.train.checkpoints import Checkpoints
from edgechat.train.pretrained import read_pretrained_vectors, tokens_of_words
from edgechat.train.run import open_run
from edgechat.train.tokenizer import train_tokenizer

TEXTS = ["hello world", "hello there world", "say hello café", "café café"] * 3


@pytest.fixture(scope="module")
def codec() -> TextCodec:
    return TextCodec(train_tokenizer(TEXTS, 400), max_source=9, max_target=9)


def ids_of(codec: TextCodec, text: str) -> int:
    (id,) = codec.encode(text)
    return id


def test_a_token_takes_the_vector_of_its_text_with_and_without_its_space(codec, tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("hello 1 2\nHello 3 4\nworld 5 6\nello 9 9\nhello 7 8\ncafe\u0301 0.5 -1e-2\n")
    found = read_pretrained_vectors(path, codec, 2)
    rows = dict(zip(found.ids.tolist(), found.vectors.tolist(), strict=True))
    assert rows[ids_of(codec, "hello")] == rows[ids_of(codec, " hello")] == [1, 2]
    assert rows[ids_of(codec, " world")] == [5, 6]
    assert rows[ids_of(codec, " café")] == pytest.approx([0.5, -0.01])  # however the accent is written
    assert (
        found.found
        == len(rows)
        == sum(len(tokens_of_words(codec)[w]) for w in ("hello", "world", "café"))
        + (len(tokens_of_words(codec)["ello"]))
    )


def test_special_tokens_and_parts_of_characters_have_no_vector(codec):
    words = tokens_of_words(codec)
    assert not {"<pad>", "<go>", "", " ", "\ufffd"} & set(words)
    assert all(id > 4 for ids in words.values() for id in ids)


@pytest.mark.parametrize("name", ["v.txt", "v.vec", "v.txt.gz"])
def test_text_with_and_without_a_first_line_of_sizes_gzipped_or_not(codec, tmp_path, name):
    path = tmp_path / name
    text = "" if name == "v.txt" else "2 3\n"
    text += "world 1 2 3\n. . . 4 5 6\n"  # a word with spaces, as GloVe has them
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert read_pretrained_vectors(path, codec, 3).vectors.tolist()[0] == [1, 2, 3]


def test_safetensors_with_words(codec, tmp_path):
    path = tmp_path / "v.safetensors"
    vectors = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float16)
    safetensors.torch.save_file({"vectors": vectors}, path, {"words": json.dumps(["nowhere", "world"])})
    found = read_pretrained_vectors(path, codec, 2)
    assert ids_of(codec, " world") in found.ids
    assert found.vectors.tolist()[0] == [3, 4]


def test_the_embedding_of_a_run_fits_its_own_tokenizer_alone(run_folder, codec):
    run = open_run(run_folder)
    weights = Checkpoints(run_folder).last / "model.safetensors"
    found = read_pretrained_vectors(weights, run.codec, 24)
    model, _ = run.load_model("last")
    assert found.found == run.codec.vocab_size - 5
    np.testing.assert_array_equal(found.vectors, model.embedding.weight[5:].detach().numpy())
    with pytest.raises(UsageError, match="another tokenizer"):
        read_pretrained_vectors(weights, codec, 24)


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        ("hello 1 2 3\n", UsageError, r"vectors of 3 numbers, but the embedding has 2: set --embedding 3"),
        ("5 300\nhello 1 2\n", UsageError, r"vectors of 300 numbers"),
        ("zzz 1 2\n", UsageError, r"has none of the \d+ tokens"),
        ("hello 1 2\nworld 1 x\n", DataError, r"v\.txt, line 2: not a word and 2 numbers"),
        ("hello 1 2\n1 2\n", DataError, r"v\.txt, line 2"),
        ("hello 1 2\n\n", DataError, r"v\.txt, line 2"),
        ("\x80PK\x03\n", DataError, r"v\.txt, line 1: not a word and 2 numbers"),
        ("hello 1 nan\n", DataError, r"v\.txt, line 1: a number is not finite, or too large for 32 bits"),
        ("hello 1 2\nworld 1 1e39\n", DataError, r"v\.txt, line 2: a number is not finite, or too large"),
        ("3 2\nhello 1 2\nyou 1 2\n", DataError, r"is not complete: .* announces 3 vectors, and it has 2"),
        ("", UsageError, r"has none of"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_the_reason(codec, tmp_path, content, error, said):
    path = tmp_path / "v.txt"
    path.write_text(content)
    with pytest.raises(error, match=said):
        read_pretrained_vectors(path, codec, 2)


@pytest.mark.parametrize("damage", ["cut", "a bit"])
def test_a_truncated_or_damaged_gzip_file_is_named(codec, tmp_path, damage):
    raw = bytearray(gzip.compress(b"hello 1 2\n" * 100, mtime=0))
    if damage == "cut":
        del raw[-9:]
    else:
        raw[10] ^= 6  # an invalid type of the first deflate block
    path = tmp_path / "v.txt.gz"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"v\.txt\.gz is not a complete gzip file"):
        read_pretrained_vectors(path, codec, 2)


def test_damaged_and_strange_safetensors_are_refused(codec, tmp_path):
    path = tmp_path / "v.safetensors"
    path.write_bytes(b"not one")
    with pytest.raises(DataError, match=r"v\.safetensors cannot be read"):
        read_pretrained_vectors(path, codec, 2)
    for tensors, words, said in (
        ({"other": torch.zeros(2, 2)}, None, "neither a tensor embedding.weight nor"),
        ({}, ["one"], "nor words in its metadata with one tensor of vectors"),
        ({"v": torch.zeros(1, 2), "w": torch.zeros(1, 2)}, ["one"], "nor words in its metadata with one"),
        ({"v": torch.zeros(2, 2)}, ["one"], "a JSON list of 2 strings, one for each vector"),
        (
            {"v": torch.zeros(2)},
            ["a", "b"],
            r"v must be a matrix of floating-point numbers, not flo",
        ),
        ({"v": torch.zeros(2, 2, dtype=torch.int64)}, ["a", "b"], r"numbers, not int64 \(2, 2\)"),
    ):
        safetensors.torch.save_file(tensors, path, words and {"words": json.dumps(words)})
        with pytest.raises(DataError, match=said):
            read_pretrained_vectors(path, codec, 2)


@pytest.mark.slow
def test_a_run_begins_with_the_vectors_and_its_bundle_says_so_without_path_or_hash(
    edgechat, corpus_file: Path, tmp_path
):
    vectors = tmp_path / "secret-vectors.txt"
    vectors.write_text("hello " + " ".join(["0.25"] * 8) + "\nyou " + " ".join(["-0.5"] * 8) + "\n")
    sizes = ["--hidden", 8, "--embedding", 8, "--attention", 8, "--vocab-size", 330, "--threads", 1]
    train = ["train", corpus_file, "--out", tmp_path / "run", "--device", "cpu", *sizes]
    begun = ["--max-steps", 1, "--learning-rate", 1e-9, "--pretrained-embeddings", vectors]
    done = edgechat(*train, *begun)
    assert done.returncode == 0, done.stderr
    assert "tokens have a pretrained vector" in done.stderr
    run = open_run(tmp_path / "run")
    weight = run.load_model("last")[0].embedding.weight
    (you,) = run.codec.encode(" you")
    assert weight[you].tolist() == pytest.approx([-0.5] * 8, abs=1e-6)
    resumed = edgechat(*train[:1], "--out", tmp_path / "run", "--resume", "--max-steps", 2, *begun[-2:])
    assert resumed.returncode == 0, resumed.stderr
    vectors.write_text("hello" + " 1" * 8)
    refused = edgechat(*train[:1], "--out", tmp_path / "run", "--resume", "--max-steps", 3, *begun[-2:])
    assert refused.returncode == 2
    assert "--pretrained-embeddings is not the same" in refused.stderr
    exported = edgechat("export", tmp_path / "run", "--out", tmp_path / "b", "--precision", "fp32")
    assert exported.returncode == 0, exported.stderr
    bundle = read_bundle(tmp_path / "b")
    assert bundle.manifest.provenance["pretrained_tokens"] == run.pretrained["found"]
    assert "initialized from pretrained vectors" in bundle.files["MODEL_CARD.md"].decode()
    whole = b"".join(bundle.files.values()) + bundle.manifest.to_bytes()
    assert b"secret-vectors" not in whole
    assert run.pretrained["sha256"].encode() not in whole
    kept = tmp_path / "run" / "embedding.safetensors"
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=r"embedding\.safetensors is damaged or belongs to another run"):
        run.make_initial_model()
    kept.unlink()
    with pytest.raises(CheckpointError, match=r"is not a complete run: it has no embedding\.safetensors"):
        run.make_initial_model()
    run.load_model("last")  # the checkpoint has all weights
