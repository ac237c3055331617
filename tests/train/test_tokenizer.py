import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from edgechat.runtime.errors import DataError, EdgeChatError, UsageError
from edgechat.runtime.text import SPECIAL_TOKENS, TextCodec
from edgechat.runtime.tokenizer_check import MAX_TOKEN_BYTES
from edgechat.train import tokenizer
from edgechat.train.tokenizer import MIN_VOCAB_SIZE, load_tokenizer, train_tokenizer

TEXTS = [
    "walk left and I_TURN_LEFT I_WALK",
    "don't walk, run! api_call italian rome six cheap",
    "你好，你好世界",
    "שָׁלוֹם עולם",
    "नमस्ते दुनिया",
    "l'amour, c'est 42 %",
] * 3

#: Without unassigned characters: the tokenizer's Unicode tables may be newer than Python's.
ANY_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cn")))


@pytest.fixture(scope="module")
def trained() -> bytes:
    return train_tokenizer(TEXTS, 400)


@pytest.fixture(scope="module")
def codec(trained: bytes) -> TextCodec:
    return TextCodec(trained, max_source=50, max_target=50)


EXPLICIT = (
    "我想要一杯咖啡，谢谢！",
    "👩‍👩‍👧‍👦 👍🏽 🇺🇦",
    "مرحبا بالعالم \u200fשלום\u200e",
    "Z\u0335\u0322a\u0301\u0302l\u0323go e\u0301 \u1100\u1161",
    " \t\r\n\x85\u2028\ufeff ",
    "\x00\x1b[31m\x7f",
)


def with_explicit(test):
    for text in EXPLICIT:
        test = example(text)(test)
    return test


@given(ANY_TEXT)
@with_explicit
def test_any_text_comes_back_in_its_nfc_form(codec: TextCodec, text: str) -> None:
    assert codec.decode(codec.encode(text)) == unicodedata.normalize("NFC", text)


@given(st.lists(ANY_TEXT | st.sampled_from(SPECIAL_TOKENS)).map("".join))
@example("<eos>")
@example("a<pad><sep> <unk><go>b")
def test_a_special_token_that_is_typed_stays_text(codec: TextCodec, text: str) -> None:
    ids = codec.encode(text)
    assert not set(ids) & set(range(len(SPECIAL_TOKENS)))
    assert codec.decode(ids) == unicodedata.normalize("NFC", text)


def test_special_tokens_come_first_and_all_256_bytes_have_a_token(trained: bytes) -> None:
    content = json.loads(trained)
    vocabulary = content["model"]["vocab"]
    assert [vocabulary[token] for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert set(pre_tokenizers.ByteLevel.alphabet()) < set(vocabulary)
    assert content["model"]["unk_token"] is None


def test_the_same_texts_give_the_same_bytes(trained: bytes) -> None:
    assert train_tokenizer(iter(TEXTS), 400) == trained


@pytest.mark.parametrize(
    "text", ["I_TURN_LEFT", " api_call", "don't", " l'amour", "नमस्ते", "שָׁלוֹם", " walk", "你好"]
)
def test_a_word_with_its_underscores_marks_and_apostrophes_can_be_one_token(text: str) -> None:
    codec = TextCodec(train_tokenizer([f"walk {text.strip()}", text] * 3, 1000), max_source=9, max_target=9)
    assert codec.pieces(codec.encode(text)) == [text]


def test_no_token_is_made_of_a_pair_that_occurred_once() -> None:
    assert len(json.loads(train_tokenizer(["abc def"], 1000))["model"]["vocab"]) == MIN_VOCAB_SIZE


def test_tokens_do_not_cross_words_numbers_or_signs() -> None:
    content = json.loads(train_tokenizer(["no 12.5, x"] * 9, 1000))
    tokens = [token.replace("Ġ", " ") for token in content["model"]["vocab"]]
    whole = re.compile(r" ?[^\W\d]+| ?\d+| ?[^\w\s]+|\s+")
    learned = [token for token in tokens[MIN_VOCAB_SIZE:] if token.isascii()]
    assert {"no", " 12", " x"} <= set(learned)
    assert all(whole.fullmatch(token) for token in learned)


def test_a_long_line_of_signs_does_not_become_an_overlong_token() -> None:
    trained = train_tokenizer(["=" * 1024, "and " + "=" * 700] * 3, 400)
    assert 128 < max(map(len, json.loads(trained)["model"]["vocab"])) <= MAX_TOKEN_BYTES
    codec = TextCodec(trained, max_source=9, max_target=9)
    assert codec.decode(codec.encode("=" * 1024)) == "=" * 1024


@pytest.mark.parametrize(
    "long",
    ["b" * 900_000, "=" * 200_000, "".join(chr(0x4E00 + n % 20_000) for n in range(100_000)), "1" * 300_000],
    ids=["letters", "signs", "Chinese", "digits"],
)
def test_a_word_without_an_end_is_learned_from_in_parts(long: str) -> None:
    """Without the cuts the first text would take half an hour."""
    texts = [f"turn on light {n}" for n in range(40)] * 2
    trained = train_tokenizer([*texts, f"so {long} it is", f"so {long} it is"], 2000)
    assert "Ġlight" in json.loads(trained)["model"]["vocab"]


def test_a_long_text_of_words_with_an_end_is_learned_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["".join(f"don't word{n % 700}  {'x' * n}!\n" for n in range(1, 999)), *TEXTS]
    bounded = train_tokenizer(texts, 600)
    monkeypatch.setattr(tokenizer, "_MAX_WORD_LENGTH", 1 << 30)
    assert train_tokenizer(texts, 600) == bounded


def test_a_vocabulary_without_room_for_the_bytes_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 261, not 260"):
        train_tokenizer(TEXTS, 260)
    assert len(json.loads(train_tokenizer(TEXTS, 261))["model"]["vocab"]) == 261


def test_progress_reports_the_number_of_texts() -> None:
    told: list[tuple[str, int]] = []
    train_tokenizer(["a"] * 2500, 300, progress=lambda *args: told.append(args))
    assert told == [("tokenizer", 1000), ("tokenizer", 2000)]


def test_a_ready_tokenizer_is_taken_byte_for_byte(trained: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(json.dumps(json.loads(trained), indent=2).encode())
    assert load_tokenizer(path) == path.read_bytes()


def changed(trained: bytes, change) -> bytes:
    tokenizer = Tokenizer.from_str(trained.decode())
    change(tokenizer)
    return tokenizer.to_str().encode()


def special_ids_swapped(tokenizer: bytes) -> bytes:
    return tokenizer.replace(b"<pad>", b"<p>").replace(b"<go>", b"<pad>")


def no_byte_level(_: bytes) -> bytes:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(special_tokens=list(SPECIAL_TOKENS)))
    return tokenizer.to_str().encode()


def dropout(trained: bytes) -> bytes:
    content = json.loads(trained)
    content["model"]["dropout"] = 0.5
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda _: b"", "cannot be read"),
        (lambda _: b"\xff\xfe", "cannot be read"),
        (lambda _: b"{}", "cannot be read"),
        (special_ids_swapped, "added_tokens are not just <pad>"),
        (no_byte_level, "not a byte-level tokenizer"),
        (dropout, "encodes at random"),
        (lambda t: changed(t, lambda k: k.add_tokens(["hello"])), "added_tokens are not just <pad>"),
        (lambda t: changed(t, lambda k: k.enable_truncation(4)), "truncates or pads"),
        (lambda t: changed(t, lambda k: k.enable_padding()), "truncates or pads"),
        (
            lambda t: changed(t, lambda k: setattr(k, "normalizer", normalizers.Lowercase())),
            "changes text: its normalizer must be 'NFC', not 'Lowercase'",
        ),
    ],
    ids=[
        *("empty", "binary", "no tokenizer", "ids", "byte level", "dropout", "added", "truncation"),
        *("padding", "lossy"),
    ],
)
def test_a_tokenizer_that_behaves_differently_is_refused(
    trained: bytes, tmp_path: Path, make, sentence: str
) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(make(trained))
    with pytest.raises(DataError) as caught:
        load_tokenizer(path)
    assert str(caught.value).startswith(str(path))
    assert sentence in str(caught.value)


def test_a_missing_tokenizer_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--tokenizer .*no\.json is not a file"):
        load_tokenizer(tmp_path / "no.json")


def test_a_tokenizer_that_leaves_out_ids_is_refused(tmp_path):
    model = json.loads(train_tokenizer(["hello there"] * 3, 270))
    vocabulary = model["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = 5000
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(model))
    with pytest.raises(EdgeChatError, match="skips ids"):
        load_tokenizer(path)


def test_a_ready_tokenizer_with_more_tokens_than_a_bundle_may_have_is_refused(trained, tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(trained)
    count = Tokenizer.from_str(trained.decode()).get_vocab_size()
    monkeypatch.setattr(tokenizer, "MAX_ROW_ELEMENTS", count - 1)
    with pytest.raises(DataError, match=rf"json has {count} tokens, and a bundle has room for {count - 1}:"):
        load_tokenizer(path)
    monkeypatch.setattr(tokenizer, "MAX_ROW_ELEMENTS", count)
    assert load_tokenizer(path) == trained
