"""An untrusted tokenizer.json, with a right hash, is refused before `tokenizers` reads it."""

import copy
import dataclasses
import json
import random
from typing import Any

import pytest
from byte_fuzz import mutate_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechat.runtime import ChatModel, text
from edgechat.runtime.bundle import find_bundle, read_bundle
from edgechat.runtime.errors import BundleError
from edgechat.runtime.text import TextCodec
from edgechat.runtime.tokenizer_check import WORD_PATTERN, check_tokenizer
from edgechat.train.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(["he said hello", "hello to the hen"] * 3, 290)
SPLIT = {"type": "Split", "pattern": {"Regex": WORD_PATTERN}, "behavior": "Isolated", "invert": False}
ADDED = json.loads(TOKENIZER)["added_tokens"]
#: A word as Hugging Face adds it, which swallows the spaces around it and has no bytes.
WORD = {"id": 290, "content": "he", "single_word": False, "lstrip": True, "rstrip": True, "normalized": True}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
SENTENCES = {
    # What some would do if accepted: 20 GB at the first prompt, 2^60 letters, a panic of the regular
    # expressions, a thousand prompts of one, a panic of the reader.
    "padding": (
        {"padding": {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_id": 0, "pad_token": "a"}},
        "truncates or pads",
    ),
    "truncation": ({"truncation": {"max_length": 1, "strategy": "LongestFirst", "stride": 0}}, "truncates"),
    "growing": (
        {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 60,
            }
        },
        "changes text.*'Sequence'",
    ),
    "no normal form": ({"normalizer": None}, "changes text.*'nothing'"),
    "panicking": ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "'Precompiled'"),
    "backtracking": (
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [SPLIT | {"pattern": {"Regex": "(a+)+$"}}, BYTES],
            }
        },
        "differently from edgechat",
    ),
    "dropping": (
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT | {"behavior": "Removed"}, BYTES]}},
        "differently from edgechat",
    ),
    "bytes of bytes": (
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 40}},
        "differently from edgechat",
    ),
    "no bytes": ({"pre_tokenizer": SPLIT}, "split words into bytes"),
    "no steps": (
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": []}},
        "split words into bytes",
    ),
    "bytes as a word": ({"pre_tokenizer": "ByteLevel"}, "split words into bytes"),
    "a step as a word": (
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": ["ByteLevel"]}},
        "split words into bytes",
    ),
    "steps as a word": ({"pre_tokenizer": "Sequence"}, "split words into bytes"),
    "a form as a word": ({"normalizer": "NFC"}, "'NFC', not 'str'"),
    "a space in front": ({"pre_tokenizer": BYTES | {"add_prefix_space": True}}, "adds a leading space"),
    "a thousand times": (
        {
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 1000,
            }
        },
        "post_processor 'TemplateProcessing'",
    ),
    "decoder": ({"decoder": {"type": "Strip", "content": "a", "start": 1, "stop": 1}}, "decoder 'Strip'"),
    "a word more": ({"added_tokens": [*ADDED, WORD | {"special": False}]}, "added_tokens are not just <pad>"),
    "none added": ({"added_tokens": []}, "added_tokens are not just"),
    **{
        f"special with {option}": (
            {"added_tokens": [*ADDED[:4], ADDED[4] | {option: not ADDED[4][option]}]},
            "added_tokens are not just",
        )
        for option in ("single_word", "lstrip", "rstrip", "normalized", "special")
    },
    "unknown": ({"plugin": "x"}, "unknown part 'plugin'"),
}
MODELS = {
    "type": ({"type": "Unigram"}, "not a BPE"),
    "dropout": ({"dropout": 0.5}, "encodes at random"),
    "prefix": ({"continuing_subword_prefix": "##"}, "continuing_subword_prefix"),
    "fused": ({"fuse_unk": True}, "fuse_unk"),
    "words without merges": ({"ignore_merges": True}, "ignore_merges"),
    "merge of nothing": (
        {"merges": [["h", "<pad>"]]},
        "parts or result are not tokens",
    ),  # a panic
    "merge of three": ({"merges": ["h e l"]}, "parts or result are not tokens"),
    "merge of numbers": ({"merges": [[1, 2]]}, "parts or result are not tokens"),
    "no merges": ({"merges": None}, "parts or result are not tokens"),
    "the same merge twice": ({"merges": [["h", "e"], "h e"]}, "has the same merge twice"),
    "merges without end": ({"merges": [["h", "e"]] * 291}, "has 291 merges, more than its 275 tokens"),
}


def refused(values: dict[str, Any], said: str) -> None:
    raw = json.dumps(values).encode()
    with pytest.raises(BundleError, match=rf"^tokenizer\.json .*{said}"):
        check_tokenizer(raw)
    with pytest.raises(BundleError):
        TextCodec(raw, max_source=9, max_target=9)


@pytest.mark.parametrize("which", SENTENCES)
def test_a_tokenizer_that_is_harmful_or_changes_text_is_refused(which):
    changed, said = SENTENCES[which]
    refused(json.loads(TOKENIZER) | changed, said)


@pytest.mark.parametrize("which", MODELS)
def test_a_model_that_is_not_a_plain_bpe_is_refused(which):
    changed, said = MODELS[which]
    values = json.loads(TOKENIZER)
    refused(values | {"model": values["model"] | changed}, said)


def test_a_tokenizer_without_all_bytes_is_refused():
    values = json.loads(TOKENIZER)
    del values["model"]["vocab"]["q"]
    refused(values, "1 of the 256 bytes have no token")


def test_a_name_that_is_given_twice_is_refused():
    with pytest.raises(BundleError, match="has a duplicate name"):
        check_tokenizer(TOKENIZER.replace(b'"padding":null', b'"padding":{},"padding":null'))


def test_nesting_without_end_is_refused():
    with pytest.raises(BundleError, match="cannot be read"):
        check_tokenizer(b"[" * 100_000)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"[]", "it has a value of the wrong type"),
        (b'{"model": {"vocab": ["a"]}}', "it has a value of the wrong type"),
        (b"{}", "it has no 'model'"),
        (b'{"model": {"vocab": ' + b"9" * 5000 + b"}}", "it has a number with thousands of digits"),
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_a_file_that_is_not_a_tokenizer_is_refused_in_a_clear_sentence(raw, said):
    with pytest.raises(BundleError, match=rf"\Atokenizer\.json cannot be read: {said}\Z"):
        check_tokenizer(raw)


def with_a_token_of(doublings: int) -> dict[str, Any]:
    """A tokenizer in which each merge doubles the length of the longest token."""
    values = json.loads(TOKENIZER)
    tokens, merges = values["model"]["vocab"], values["model"]["merges"]
    for n in range(doublings):
        tokens["^" * 2 ** (n + 1)] = len(tokens)
        merges.append(["^" * 2**n] * 2)
    return values


def test_a_token_that_makes_a_reply_of_gigabytes_is_refused():
    check_tokenizer(json.dumps(with_a_token_of(8)).encode())
    refused(with_a_token_of(9), "has a token of 512 bytes, more than the 256 allowed")


def test_a_token_that_is_taken_literally_counts_with_all_its_bytes():
    values = json.loads(TOKENIZER)
    vocabulary = values["model"]["vocab"]
    vocabulary["🍵" * 64] = len(vocabulary)
    check_tokenizer(json.dumps(values).encode())
    vocabulary["🍵" * 65] = len(vocabulary)
    refused(values, "has a token of 260 bytes, more than the 256 allowed")


def test_another_number_of_tokens_than_the_model_has_is_refused_before_it_is_loaded(monkeypatch):
    monkeypatch.setattr(text, "Tokenizer", None)
    count = len(json.loads(TOKENIZER)["model"]["vocab"])
    with pytest.raises(BundleError, match=rf"^tokenizer\.json has {count} tokens, but the model has 7$"):
        TextCodec(TOKENIZER, max_source=9, max_target=9, vocab_size=7)


def test_the_tokenizer_of_a_bundle_is_checked_before_its_graphs(monkeypatch):
    def seen(*_: object, **__: object) -> None:
        pytest.fail("ONNX Runtime has seen the graphs")

    monkeypatch.setattr("edgechat.runtime.chat.OrtBackend", seen)
    demo = read_bundle(find_bundle("demo"))
    for raw in (b"{}", TOKENIZER):
        files = demo.files | {"tokenizer.json": raw}
        with pytest.raises(BundleError, match=r"tokenizer\.json (cannot be read|has 275 tokens)"):
            ChatModel.from_bundle(dataclasses.replace(demo, files=files))


@pytest.mark.parametrize(
    "steps", [BYTES, BYTES | {"use_regex": True}, {"type": "Sequence", "pretokenizers": [BYTES]}]
)
def test_a_byte_level_pre_tokenizer_without_the_split_is_accepted(steps):
    changed = json.loads(TOKENIZER) | {"pre_tokenizer": steps, "post_processor": BYTES}
    codec = TextCodec(json.dumps(changed).encode(), max_source=9, max_target=9)
    assert codec.decode(codec.encode("hello é🍵 the  hen")) == "hello é🍵 the  hen"


#: The places where a tokenizer.json is changed: every part except single tokens and merges.
VALUES = json.loads(TOKENIZER)
PLACES = [(part,) for part in VALUES] + [
    (part, name) for part in ("normalizer", "pre_tokenizer", "decoder", "model") for name in VALUES[part]
]
LEAVES = st.sampled_from(
    [
        None,
        True,
        0,
        1,
        -1,
        300,
        1 << 63,
        1e300,
        "",
        "a",
        "<pad>",
        [],
        {},
        [[]],
        ["h", "e"],
        {"type": "Sequence"},
        BYTES,
    ]
)


@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), LEAVES), min_size=1, max_size=2))
@settings(max_examples=300)
def test_any_other_value_is_refused_or_preserves_text(changes):
    values = json.loads(TOKENIZER)
    for place, leaf in changes:
        holder = values if len(place) == 1 else values[place[0]]
        if isinstance(holder, dict):
            holder[place[-1]] = copy.deepcopy(leaf)
    is_refused_or_works(json.dumps(values).encode())


def test_damage_is_refused_or_preserves_text():
    rng = random.Random(3)
    outcomes = [is_refused_or_works(mutate_bytes(TOKENIZER, rng)) for _ in range(500)]
    assert any(outcomes)
    assert not all(outcomes)


def is_refused_or_works(raw: bytes) -> bool:
    """Whether it works. Anything but a `BundleError` with one sentence fails the test, including a Rust
    panic."""
    said = ""
    try:
        codec = TextCodec(raw, max_source=9, max_target=9)
        ids = codec.encode("hello <pad> é🍵 1 ' hen")
        codec.decode(ids)
    except BundleError as error:
        said = str(error)
    else:
        assert len(ids) < 100
    assert "\n" not in said
    assert len(said) < 500
    return not said
