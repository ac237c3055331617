import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save as save_tensors

from edgechat.runtime.errors import CheckpointError, DataError, UsageError
from edgechat.runtime.text import EOS, SEP
from edgechat.train.corpus import Corpus, open_corpus
from edgechat.train.dataset import DataConfig, EncodedPairs, PreparedCorpus, pick_samples, prepare_corpus
from edgechat.train.dialogue import Dialogue, Pair, Tally, Turn


class Texts:
    """A source of dialogues given as texts."""

    name = "texts"

    def __init__(self, dialogues: list[list[str]]) -> None:
        self.texts = dialogues

    def dialogues(self, tally: Tally):
        return (Dialogue(tuple(map(Turn, texts))) for texts in self.texts)


def corpus(*dialogues: list[str]) -> Corpus:
    return Corpus([Texts(list(dialogues))])


def options(**changes) -> DataConfig:
    return DataConfig(**{"vocab_size": 300, "valid_fraction": 0.2, **changes})


NUMBERED = [[f"question {i}", f"answer {i}", f"and {i}", f"well {i}"] for i in range(40)]


def decoded(prepared: PreparedCorpus, pairs: EncodedPairs) -> list[tuple[str, str]]:
    codec = prepared.codec
    return [(codec.decode(pairs.source(i)), codec.decode(pairs.target(i))) for i in range(len(pairs))]


def test_pairs_are_encoded_in_order_and_targets_end_with_eos() -> None:
    prepared = prepare_corpus(corpus(["a", "b"], ["c d", "e"]), options(valid_fraction=0))
    assert decoded(prepared, prepared.train) == [("a", "b"), ("c d", "e")]
    assert [prepared.train.target(i)[-1] for i in range(2)] == [EOS, EOS]
    assert len(prepared.valid) == 0
    assert prepared.train.src_ids.dtype == np.uint16
    assert prepared.train.src_offsets.dtype == np.int64


def test_context_is_joined_by_the_separator_oldest_first() -> None:
    prepared = prepare_corpus(corpus(["a", "b", "c", "d"]), options(turns=2, valid_fraction=0))
    encode = prepared.codec.encode
    sources = [prepared.train.source(i).tolist() for i in range(3)]
    assert sources == [encode("a"), [*encode("a"), SEP, *encode("b")], [*encode("b"), SEP, *encode("c")]]


def test_a_source_that_is_too_long_keeps_its_true_last_tokens() -> None:
    long = "one two three four five six seven eight"
    prepared = prepare_corpus(
        corpus(["old", "hi", long, "reply"]), options(turns=3, max_source=10, valid_fraction=0)
    )
    encode = prepared.codec.encode
    whole = [*encode("old"), SEP, *encode("hi"), SEP, *encode(long)]
    assert len(whole) > 10
    assert prepared.train.source(2).tolist() == whole[-10:]
    assert prepared.train.target(1).tolist() == [*encode(long)[:49], EOS]
    assert prepared.report.truncated_sources == 1
    assert prepared.report.truncated_targets == 0


def test_a_target_that_is_too_long_is_cut_and_counted() -> None:
    prepared = prepare_corpus(
        corpus(["a", "b c d e f g h"], ["a", "b"]), options(max_target=4, valid_fraction=0)
    )
    assert len(prepared.train.target(0)) == 4
    assert prepared.train.target(0)[-1] == EOS
    assert (prepared.report.truncated_sources, prepared.report.truncated_targets) == (0, 1)


@given(
    st.lists(st.integers(0, 15), min_size=2, max_size=40).filter(lambda numbers: len(set(numbers)) > 1),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_no_dialogue_is_on_both_sides_of_the_split(numbers: list[int], fraction: float, seed: int) -> None:
    dialogues = [[f"question {i}", f"answer {i}"] for i in numbers]
    prepared = prepare_corpus(corpus(*dialogues), options(valid_fraction=fraction, seed=seed))
    train, valid = decoded(prepared, prepared.train), decoded(prepared, prepared.valid)
    assert not set(train) & set(valid)
    assert sorted(train + valid) == sorted(map(tuple, dialogues))
    distinct = len(set(numbers))
    assert len(set(valid)) == min(math.ceil(fraction * distinct), distinct - 1)


def test_all_pairs_of_a_dialogue_and_of_its_copies_are_on_one_side() -> None:
    prepared = prepare_corpus(corpus(*NUMBERED, *NUMBERED), options())
    train, valid = set(decoded(prepared, prepared.train)), set(decoded(prepared, prepared.valid))
    assert not train & valid
    # ceil(0.2 * 40) distinct dialogues, each twice, of three pairs.
    assert prepared.report.valid_dialogues == 16
    assert len(prepared.valid) == 48
    assert len(valid) == 24


def test_held_out_texts_are_those_of_the_encoded_pairs() -> None:
    prepared = prepare_corpus(corpus(*NUMBERED), options(turns=2))
    for i, pair in enumerate(prepared.valid_texts):
        assert prepared.valid.source(i).tolist() == prepared.codec.encode_source(pair.turns).ids
        assert prepared.codec.decode(prepared.valid.target(i)) == pair.response
    assert len(prepared.valid_texts) == len(prepared.valid)


def test_the_split_depends_on_the_seed_and_not_on_the_order() -> None:
    def held_out(seed: int, dialogues: list[list[str]]) -> set[str]:
        return {pair.response for pair in prepare_corpus(corpus(*dialogues), options(seed=seed)).valid_texts}

    assert held_out(0, NUMBERED) == held_out(0, NUMBERED[::-1])
    assert held_out(0, NUMBERED) != held_out(1, NUMBERED)


def test_the_tokenizer_learns_from_the_training_part_alone() -> None:
    words = ["zebra", "yellow", "quartz", "violin", "jigsaw"]
    prepared = prepare_corpus(corpus(*([f"{w} {w} {w}", w] for w in words)), options(vocab_size=1000))
    [held_out] = {pair.response for pair in prepared.valid_texts}
    lengths = {word: len(prepared.codec.encode(word)) for word in words}
    assert lengths.pop(held_out) > 1
    assert set(lengths.values()) == {1}


def test_a_given_tokenizer_is_used_as_it_is() -> None:
    first = prepare_corpus(corpus(*NUMBERED), options())
    again = prepare_corpus(
        corpus(["other", "words"], ["more", "words"]), options(), tokenizer=first.tokenizer
    )
    assert again.tokenizer == first.tokenizer
    assert again.report.vocab_size == first.codec.vocab_size


def test_with_a_corpus_to_validate_nothing_else_is_held_out() -> None:
    prepared = prepare_corpus(corpus(*NUMBERED), options(), valid=corpus(["x", "y"]))
    assert prepared.valid_texts == [(["x"], "y")]
    assert prepared.report.train_dialogues == 40
    assert [source.dialogues for source in prepared.report.valid_sources] == [1]


def test_with_a_corpus_to_validate_each_line_of_the_report_says_what_it_counts() -> None:
    report = prepare_corpus(corpus(["a", "b", "c"], ["d", "e"]), options(), valid=corpus(["x", "y"])).report
    sha256 = report.sha256[:12]
    assert [" ".join(line.split()) for line in report.lines()[:6]] == [
        "texts 2 dialogues",
        "texts 1 dialogue, held out",
        f"dialogues 2 in the training data, sha256 {sha256}",
        "turns 5 in the training data",
        "pairs 4 in the training and held-out data",
        "to train 3 pairs of 2 dialogues",
    ]


def test_held_out_pairs_that_are_learned_too_are_counted() -> None:
    learned = corpus(["a", "b"], ["c", "d"], ["c", "d"], ["e", "f"])
    prepared = prepare_corpus(
        learned, options(), valid=corpus(["c", "d"], ["c", "d"], ["a", "f"], ["x", "y"])
    )
    assert prepared.report.valid_learned == 2  # c d twice, no matter how often it is learned
    (line,) = (line for line in prepared.report.lines() if line.startswith("held out"))
    assert line.endswith("4 pairs of 4 dialogues, 2 of them learned too")
    apart = prepare_corpus(learned, options(), valid=corpus(["x", "y"])).report
    assert apart.valid_learned == 0
    assert any(line.endswith(" 1 pair of 1 dialogue") for line in apart.lines())


def test_prompts_with_more_than_one_reply_are_counted_with_their_pairs() -> None:
    # a has x twice and y, b has x and, held out, z; c has one reply, twice.
    learned = corpus(["a", "x"], ["a", "x"], ["a", "y"], ["b", "x"], ["c", "x"], ["c", "x"])
    report = prepare_corpus(learned, options(), valid=corpus(["b", "z"], ["d", "x"])).report
    assert (report.ambiguous_prompts, report.ambiguous_pairs) == (2, 3 + 2)
    assert "ambiguous      2 prompts with more than one reply, in 5 pairs" in report.lines()
    plain = prepare_corpus(learned, options(max_source=9), valid=corpus(["d", "x"])).report
    assert (plain.ambiguous_prompts, plain.ambiguous_pairs) == (1, 3)
    assert plain.to_json()["ambiguous_prompts"] == 1


def test_without_ambiguous_prompts_the_report_has_no_such_line() -> None:
    report = prepare_corpus(
        corpus(["a", "x"], ["a", "x"], ["b", "x"]), options(), valid=corpus(["c", "x"])
    ).report
    assert (report.ambiguous_prompts, report.ambiguous_pairs) == (0, 0)
    assert not any(line.startswith("ambiguous") for line in report.lines())


def test_the_same_words_after_another_turn_are_another_prompt() -> None:
    dialogues = (["a", "ok", "b"], ["c", "ok", "d"])
    for turns, found in ((1, (1, 2)), (2, (0, 0))):
        report = prepare_corpus(corpus(*dialogues), options(turns=turns), valid=corpus(["x", "y"])).report
        assert (report.ambiguous_prompts, report.ambiguous_pairs) == found


def test_only_the_second_speaker_is_learned_if_asked_for() -> None:
    prepared = prepare_corpus(corpus(*NUMBERED[:1]), options(targets="second", valid_fraction=0))
    assert [target for _, target in decoded(prepared, prepared.train)] == ["answer 0", "well 0"]


@pytest.mark.parametrize(
    ("dialogues", "sentence"),
    [
        ([], "texts holds no dialogue"),
        ([["a", "b"]], "texts holds one distinct dialogue"),
        ([["a", "b"]] * 9, "texts holds one distinct dialogue"),
        (
            [["a b c d", "e f g h"], ["i j k l", "m n o p"]],
            "every pair is longer than --max-source 3 / --max-ta",
        ),
    ],
    ids=["empty", "one pair", "one pair repeated", "all too long"],
)
def test_a_corpus_that_cannot_be_learned_gives_a_one_sentence_error(
    dialogues: list[list[str]], sentence: str
) -> None:
    with pytest.raises(DataError) as caught:
        prepare_corpus(corpus(*dialogues), options(max_source=3, max_target=3))
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_a_corpus_without_a_pair_to_learn_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"turns": ["a", {"text": "b", "train": false}, "c"]}\n')
    with pytest.raises(DataError, match=r"a\.jsonl holds no pair to learn"):
        prepare_corpus(open_corpus([str(path)]), options(targets="second"))
    path.write_text('{"prompt": "a", "response": ""}\n' * 3)
    with pytest.raises(DataError, match=r"a\.jsonl holds no dialogue \(dropped: 3 × empty response\)"):
        prepare_corpus(open_corpus([str(path)]), options())
    with pytest.raises(DataError, match=r"a\.jsonl holds no pair to validate with \(dropped: 3"):
        prepare_corpus(corpus(*NUMBERED), options(), valid=open_corpus([str(path)]))


def test_a_corpus_that_changes_while_it_is_read_is_refused() -> None:
    source = Texts([["a", "b"], ["c", "d"]])

    def change(stage: str, count: int) -> None:
        source.texts = [["x", "y"], *source.texts]

    source.texts *= 500
    with pytest.raises(DataError, match="texts changed while it was read"):
        prepare_corpus(Corpus([source]), options(), progress=change)


def test_sources_are_read_in_lower_case_where_that_is_asked_and_targets_never() -> None:
    texts = ["Turn LEFT", "Yes, Sir", "And STOP", "Done"]
    prepared = prepare_corpus(corpus(texts), options(turns=2, lowercase=True, valid_fraction=0))
    assert decoded(prepared, prepared.train) == [
        ("turn left", "Yes, Sir"), ("turn leftyes, sir", "And STOP"), ("yes, sirand stop", "Done"),
    ]  # fmt: skip
    assert pick_samples(prepared, 3)[1].source == ["turn left", "yes, sir"]
    assert prepared.codec.lowercase
    held_out = prepare_corpus(corpus(["a", "b"]), options(lowercase=True), valid=corpus(texts)).valid_texts
    assert held_out[0] == Pair(["Turn LEFT"], "Yes, Sir")  # as it was typed


def test_prompts_in_lower_case_are_learned_as_they_are_without_the_option() -> None:
    pairs = corpus(*([f"light {i} on", f"LIGHT {i} On"] for i in range(40)))
    plain, lower = (prepare_corpus(pairs, options(lowercase=lowercase)) for lowercase in (False, True))
    assert lower.tokenizer == plain.tokenizer
    assert lower.train.to_bytes() == plain.train.to_bytes()
    assert lower.valid_texts == plain.valid_texts


@pytest.mark.parametrize("lowercase", [False, True])
def test_no_token_is_spent_on_capitals_that_no_prompt_will_have(lowercase: bool) -> None:
    """Their capitals are in the vocabulary if prompts keep their case."""
    pairs = [[f"SWITCH {i} Heating", f"Heizung {i}"] for i in range(9)]
    wanted = options(lowercase=lowercase, vocab_size=400, valid_fraction=0)
    vocabulary = b" ".join(t for t in prepare_corpus(corpus(*pairs), wanted).codec.vocabulary if len(t) > 1)
    assert (b"SWI" in vocabulary, b"switch" in vocabulary) == (not lowercase, lowercase)
    assert b"Heizung" in vocabulary


def test_context_and_replies_that_are_prompts_too_are_learned_by_the_tokenizer_in_both_cases() -> None:
    turns = ["Start", "READY", "Go", "RUNNING", "Halt", "STOPPED"]
    wanted = options(lowercase=True, turns=4, targets="second", vocab_size=500, valid_fraction=0)
    vocabulary = prepare_corpus(corpus(turns, turns), wanted).codec.vocabulary
    assert {b"ready", b"READY", b"running", b"RUNNING", b"STOPPED", b"halt"} <= set(vocabulary)
    assert not {b"Halt", b"Start", b"stopped"} & set(vocabulary)


def test_dialogues_whose_prompts_differ_only_in_case_are_on_one_side() -> None:
    typed = [[*(text.upper() for text in read), last] for *read, last in NUMBERED]
    said = [[*(text.title() for text in read), last] for *read, last in NUMBERED]
    prepared = prepare_corpus(corpus(*NUMBERED, *typed, *said), options(lowercase=True))
    held_out = {pair.turns[-1].lower() for pair in prepared.valid_texts}
    assert len(prepared.valid) == 3 * len(held_out) == 3 * 8 * 3  # 8 of 40 dialogues, three pairs each
    learned = {prepared.codec.decode(prepared.train.source(i)) for i in range(len(prepared.train))}
    assert not held_out & learned


@pytest.mark.parametrize(
    ("name", "value"),
    [("turns", 0), ("max_source", 0), ("max_target", 1), ("valid_fraction", 1.0), ("targets", "first")],
)
def test_a_wrong_option_is_named_with_its_value(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"{name} must be .*{value}"):
        DataConfig(**{name: value})


def test_encoded_pairs_come_back_from_their_file(tmp_path: Path) -> None:
    pairs = prepare_corpus(corpus(*NUMBERED), options()).train
    again = EncodedPairs.from_bytes(pairs.to_bytes(), tmp_path / "train.safetensors")
    for name, array in vars(pairs).items():
        assert np.array_equal(getattr(again, name), array)
        assert getattr(again, name).dtype == array.dtype


def encoded(**changes) -> bytes:
    arrays = {
        "src_ids": np.array([5, 6, 7], np.uint16),
        "src_offsets": np.array([0, 1, 3], np.int64),
        "tgt_ids": np.array([5, 2, 6, 2], np.uint16),
        "tgt_offsets": np.array([0, 2, 4], np.int64),
    }
    return save_tensors({name: a for name, a in (arrays | changes).items() if a is not None})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nonsense" * 9,
        encoded()[:-3],
        encoded(src_ids=None),
        encoded(more=np.zeros(1)),
        encoded(src_ids=np.array([5, 6], np.uint16)),
        encoded(src_ids=np.array([5.0, 6.0, 7.0])),
        encoded(src_offsets=np.array([0, 3], np.int64)),
        encoded(src_offsets=np.array([0, 0, 3], np.int64)),
        encoded(src_offsets=np.array([1, 2, 3], np.int64)),
        encoded(src_offsets=np.zeros(0, np.int64)),
    ],
)
def test_a_damaged_file_of_pairs_is_named(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "train.safetensors"
    with pytest.raises(CheckpointError) as caught:
        EncodedPairs.from_bytes(raw, path)
    assert str(caught.value).startswith(str(path))


def test_the_good_file_of_the_damaged_ones_is_good(tmp_path: Path) -> None:
    assert EncodedPairs.from_bytes(encoded(), tmp_path).source(1).tolist() == [6, 7]


def test_samples_show_text_ids_and_pieces() -> None:
    prepared = prepare_corpus(corpus(*NUMBERED), options(turns=2))
    shown = pick_samples(prepared, 3)
    assert len(shown) == 3
    first = shown[0]
    assert first.source_ids == prepared.train.source(0).tolist()
    assert "".join(first.source_pieces) == "<sep>".join(first.source)
    assert first.target_pieces[-1] == "<eos>"
    assert "".join(first.target_pieces[:-1]) == first.target
    assert len(pick_samples(prepare_corpus(corpus(["a", "b"]), options(valid_fraction=0)), 3)) == 1


def test_the_report_is_json_and_a_table() -> None:
    prepared = prepare_corpus(corpus(*NUMBERED * 30), options())
    content = json.loads(json.dumps(prepared.report.to_json()))
    assert content["pairs"] == 3600
    assert content["sources"][0]["name"] == "texts"
    lines = prepared.report.lines()
    assert f"dialogues      {prepared.report.dialogues:,}, sha256 {prepared.report.sha256[:12]}" in lines
    assert "pairs          3,600" in lines
    assert "truncated      0 sources, 0 targets" in lines
