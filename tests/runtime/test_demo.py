"""The bundle that comes with the package."""

import os
from importlib.resources import files
from pathlib import Path

import pytest

from edgechat.runtime import ChatModel, UsageError
from edgechat.runtime.bundle import find_bundle, read_bundle


def test_the_demo_is_small_sealed_and_gives_its_golden_replies_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where no path is called demo
    bundle = read_bundle(find_bundle("demo"))
    assert bundle.size < 6_000_000
    # What came after it is left out where it is not so.
    assert bundle.manifest.to_bytes() == bundle.manifest_bytes
    assert ChatModel.from_bundle(bundle, device="cpu").verify().passed


def test_the_demo_loses_less_than_a_percent_of_perplexity_to_int8_and_says_what_it_learned_from():
    manifest = read_bundle(find_bundle("demo")).manifest
    assert manifest.precision == "int8"
    quality = manifest.quality["against_fp32"]
    assert abs(quality["perplexity"] / quality["fp32_perplexity"] - 1) < 0.01
    card = (files("edgechat.models") / "demo" / "MODEL_CARD.md").read_text()
    assert "chitchat, chatterbot:english" in card
    assert "MIT (chitchat-dataset), BSD-3-Clause (chatterbot-corpus)" in card


def test_a_folder_called_demo_that_is_not_a_bundle_does_not_hide_the_demo(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert find_bundle("demo").is_absolute()
    with pytest.raises(UsageError, match="demo is not a bundle"):  # a path is a path
        ChatModel.load("./demo", device="cpu")
    (tmp_path / "demo" / "edgechat.json").touch()
    assert find_bundle("demo") == Path("demo")
    (tmp_path / "demo" / "edgechat.json").rename(tmp_path / "demo" / "run.json")
    with pytest.raises(UsageError, match="demo is a run, not a bundle"):
        find_bundle("demo")


def test_a_file_called_demo_that_is_not_a_bundle_does_not_hide_the_demo(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("demo").write_bytes(b"notes")
    assert find_bundle("demo").is_absolute()
    with pytest.raises(UsageError, match="demo is not a bundle"):  # a path is a path
        ChatModel.load("./demo", device="cpu")
    Path("demo").write_bytes(b"PK\x03\x04")
    assert find_bundle("demo") == Path("demo")
    Path("demo").unlink()
    os.mkfifo("demo")  # and none waits for what comes out of it
    assert find_bundle("demo").is_absolute()


def test_the_demo_replies_by_its_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with ChatModel.load("demo", device="cpu") as model:
        assert str(model.reply("how are you?")).strip()
