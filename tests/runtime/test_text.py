"""Encoding and decoding: texts round trip to NFC, typed text never becomes a special token, and long text is
cut."""

import json
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgechat.runtime import BundleError
from edgechat.runtime.text import EOS, SEP, SPECIAL_TOKENS, TextCodec, to_lowercase
from edgechat.train.tokenizer import train_tokenizer

TEXTS = [
    "hello there, how are you?",
    "turn left twice and jump",
    "你好，你好吗",
    "שלום לך",
    "yes, green tea 🍵",
    "👩‍👩‍👧‍👦",
] * 4
TOKENIZER = train_tokenizer(TEXTS, 300)

WRITTEN = [
    "你好，世界",
    "👩‍👩‍👧‍👦 🇺🇦 👍🏽",
    "שָׁלוֹם مَرْحَبًا",
    "e\u0301 a\u0323\u0302 o\u0302\u0323 ﬁ Å",
    "한국어 \u1112\u1161\u11ab",
    "\u202eevil\u202c \u200f",
    "\x00\x1b[31m\x7f\x85\ufeff",
    " \t\r\n  ",
    "",
    *SPECIAL_TOKENS,
]


def codec(**limits: int) -> TextCodec:
    return TextCodec(TOKENIZER, **{"max_source": 50, "max_target": 50, **limits})


CODEC = codec()
#: Text without lone surrogates, which cannot be encoded; and with them.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ANY_TEXT = st.text(st.characters(exclude_categories=[]) | st.characters(categories=["Cs", "Cc", "Mn", "Cf"]))


# --- there and back -------------------------------------------------------------------------------


@given(text=TEXT | st.sampled_from(WRITTEN))
@settings(max_examples=300)
@example("x".join(WRITTEN))
def test_any_text_is_decoded_to_its_nfc_form(text):
    assert CODEC.decode(CODEC.encode(text)) == unicodedata.normalize("NFC", text)


@given(text=ANY_TEXT)
@example("\ud800")
@example("a\udfff\ud800b")
@settings(max_examples=200)
def test_lone_surrogates_become_question_marks_and_the_rest_stays(text):
    expected = unicodedata.normalize("NFC", "".join("?" if "\ud800" <= c <= "\udfff" else c for c in text))
    assert CODEC.decode(CODEC.encode(text)) == expected


@given(parts=st.lists(st.sampled_from(SPECIAL_TOKENS) | st.text(max_size=3), max_size=6))
def test_typed_special_tokens_are_encoded_as_text(parts):
    ids = CODEC.encode("".join(parts))
    assert all(id >= len(SPECIAL_TOKENS) for id in ids)


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_a_typed_special_token_is_decoded_as_it_was_typed(token):
    assert CODEC.decode(CODEC.encode(f"say {token}!")) == f"say {token}!"


def test_special_ids_have_no_text():
    assert CODEC.decode([0, 1, 2, 3, 4]) == ""


def test_ids_outside_the_vocabulary_have_no_text():
    assert CODEC.decode([CODEC.vocab_size, 10**6]) == ""


def test_decoding_does_not_normalize():
    assert CODEC.decode([*CODEC.encode("e"), *CODEC.encode("\u0301")]) == "e\u0301"
    assert CODEC.decode(CODEC.encode("e\u0301")) == "\u00e9"


def test_a_token_outside_the_byte_alphabet_is_decoded_literally():
    values = json.loads(TOKENIZER)
    values["model"]["vocab"]["new word é"] = CODEC.vocab_size
    other = TextCodec(json.dumps(values).encode(), max_source=9, max_target=9)
    assert other.decode([CODEC.vocab_size]) == "new word é"


# --- pieces ---------------------------------------------------------------------------------------


@given(ids=st.lists(st.integers(0, CODEC.vocab_size - 1)))
@settings(max_examples=200)
def test_pieces_join_to_the_text_whatever_the_ids(ids):
    pieces = CODEC.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == CODEC.decode(ids)


@given(ids=st.lists(st.integers(0, CODEC.vocab_size - 1)), data=st.data())
@settings(max_examples=200)
def test_whole_characters_of_a_prefix_begin_the_text(ids, data):
    n = data.draw(st.integers(0, len(ids)))
    assert CODEC.decode(ids).startswith(CODEC.decode_complete_characters(ids[:n]))


def byte_ids(text: str) -> list[int]:
    """The ids of a text, one per byte."""
    of_byte = {CODEC.token_bytes(id): id for id in range(CODEC.vocab_size)}
    return [of_byte[bytes([byte])] for byte in text.encode()]


def test_half_a_character_is_withheld():
    ids = byte_ids("a🍵b")  # 1 + 4 + 1 bytes
    assert [CODEC.decode_complete_characters(ids[:n]) for n in range(7)] == [
        "",
        "a",
        "a",
        "a",
        "a",
        "a🍵",
        "a🍵b",
    ]
    assert CODEC.pieces(ids) == ["a", "", "", "", "🍵", "b"]


def test_a_character_that_never_comes_whole_is_shown_as_replaced():
    ids = byte_ids("a🍵")[:-1]
    assert CODEC.decode(ids) == "a\ufffd"
    assert CODEC.decode_complete_characters(ids) == "a"
    assert CODEC.pieces(ids) == ["a", "", "", "\ufffd"]


def test_every_byte_has_an_id():
    assert {CODEC.token_bytes(id) for id in range(CODEC.vocab_size)} >= {bytes([b]) for b in range(256)}


# --- sources and targets --------------------------------------------------------------------------


def test_an_empty_source_is_one_end_of_sentence():
    for turns in ([""], [], ["old", ""]):
        encoded = CODEC.encode_source(turns)
        assert (encoded.ids, encoded.truncated) == ([EOS], False)


def test_turns_are_joined_by_the_separator_oldest_first():
    encoded = codec(turns=3).encode_source(["zero", "one", "two", "three"])
    one, two, three = map(CODEC.encode, ("one", "two", "three"))
    assert encoded.ids == [*one, SEP, *two, SEP, *three]
    assert not encoded.truncated


def test_a_model_of_one_turn_sees_the_prompt_alone():
    assert CODEC.encode_source(["one", "two"]).ids == CODEC.encode("two")


def test_the_oldest_is_cut_first():
    b, c, d = (CODEC.encode(letter)[0] for letter in "bcd")
    whole = byte_ids("b c")  # b, space, c or b, space-c
    assert codec(turns=2).encode_source(["bcz", "d"]).ids == [*CODEC.encode("bcz"), SEP, d]
    cut = codec(turns=2, max_source=4).encode_source(["zbc", "d"])
    assert (cut.ids, cut.truncated) == ([b, c, SEP, d], True)
    assert len(whole) == 3
    cut = codec(turns=2, max_source=1).encode_source(["zbc", "d"])
    assert (cut.ids, cut.truncated) == ([d], True)


def test_a_source_that_just_fits_is_not_cut():
    d = CODEC.encode("d")
    fitting = codec(turns=2, max_source=3).encode_source(["b", "d"])
    assert (len(fitting.ids), fitting.truncated) == (3, False)
    assert codec(turns=2, max_source=1).encode_source(["d"]) == codec(max_source=1).encode_source(["d"])
    assert codec(max_source=1).encode_source(["d"]).ids == d


@pytest.mark.parametrize("around", [" {}", "{} ", "\t{}\r\n", "\u3000{}\xa0"])
def test_space_around_a_turn_is_removed(around):
    """As in training: whitespace from a text box or a pipe does not change a reply."""
    shown = codec(turns=2, max_source=9)
    assert shown.encode_source(["b", around.format("c d")]) == shown.encode_source(["b", "c d"])
    assert shown.encode_source([around.format("b"), "c d"]) == shown.encode_source(["b", "c d"])
    assert shown.encode_source([around.format("")]) == shown.encode_source([""])


@given(turns=st.lists(TEXT, max_size=5), limits=st.tuples(st.integers(1, 4), st.integers(1, 40)))
@settings(max_examples=300)
def test_a_source_is_the_end_of_the_whole_conversation(turns, limits):
    shown, longest = limits
    encoded = codec(turns=shown, max_source=longest).encode_source(turns)
    whole: list[int] = []
    for turn in turns[-shown:]:
        whole += [SEP, *CODEC.encode(turn.strip())]
    whole = whole[1:]
    assert encoded.ids == (whole[-longest:] or [EOS])
    assert encoded.truncated == (len(whole) > longest)


@pytest.mark.parametrize("unit", ["word ", "你好", "👩‍👩‍👧‍👦", "a\u0301", "\na", "<eos> "])
def test_the_last_tokens_of_a_megabyte_are_exact_and_the_rest_is_not_encoded(unit):
    class Counting(TextCodec):
        looked_at = 0

        def encode(self, text: str) -> list[int]:
            self.looked_at += len(text)
            return super().encode(text)

    text = unit * (1_000_000 // len(unit.encode())) + " bye"
    limited = Counting(TOKENIZER, max_source=20, max_target=20)
    encoded = limited.encode_source([text])
    longest = max(len(limited.token_bytes(id)) for id in range(limited.vocab_size))
    # An id has at most `longest` characters, and NFC makes one of up to four.
    assert limited.looked_at <= 20 * 4 * longest
    assert encoded.truncated
    assert encoded.ids == CODEC.encode(text[-3000:])[-20:]


def test_the_cut_by_characters_allows_for_four_that_become_one():
    word = " ᾯᾯᾯ"  # Ω with breathing, circumflex and iota subscript, three times
    typed = unicodedata.normalize("NFD", word)
    assert (len(word), len(typed)) == (1 + 3, 1 + 3 * 4)
    tokenizer = train_tokenizer([word * 3] * 3, 300)
    limited = TextCodec(tokenizer, max_source=10, max_target=10)
    assert len(limited.encode(word)) == 1
    assert limited.encode_source([typed * 50]).ids == limited.encode(word) * 10


@pytest.mark.parametrize(
    ("text", "lower"),
    [
        ("SWITCH The Light oN", "switch the light on"),
        ("STRAßE straße Strasse", "straße straße strasse"),  # no case folding
        ("ΟΔΟΣ οδοσ", "οδος οδοσ"),  # the sigma at the end of a word
        ("İI", "i̇i"),  # no language's own rules
        ("E\u0301É", "éé"),
        ("J\u030c", "ǰ"),  # the one letter that there is only in lower case
        ("你好 🍵 42 <EOS>", "你好 🍵 42 <eos>"),
    ],
)
def test_lower_case_is_pythons_in_nfc(text, lower):
    assert to_lowercase(text) == unicodedata.normalize("NFC", lower)


@given(text=ANY_TEXT | st.sampled_from(WRITTEN))
@settings(max_examples=300)
@example("\u0130\u0323 J\u030c \u1e9e \u03a3")
def test_lower_case_is_idempotent_and_the_same_for_equivalent_texts(text):
    lower = to_lowercase(text)
    assert lower == unicodedata.normalize("NFC", lower) == to_lowercase(lower)
    assert to_lowercase(unicodedata.normalize("NFD", text)) == lower


def test_a_source_is_read_in_lower_case_with_its_context_and_a_target_keeps_its_case():
    reading = codec(turns=2, lowercase=True)
    typed = reading.encode_source(["HELLO There", "Turn LEFT Twice, <EOS>"])
    assert typed == codec(turns=2).encode_source(["hello there", "turn left twice, <eos>"])
    assert typed == reading.encode_source(["hello there", "turn left twice, <eos>"])
    assert reading.encode_target("Turn LEFT") == CODEC.encode_target("Turn LEFT")
    assert reading.encode("Turn LEFT") == CODEC.encode("Turn LEFT")
    assert codec(turns=2).encode_source(["Turn LEFT"]) != reading.encode_source(["Turn LEFT"])
    assert reading.with_limits(max_source=9, max_target=9).encode_source(["HI"]).ids == CODEC.encode("hi")


@given(turns=st.lists(ANY_TEXT, max_size=5), limits=st.tuples(st.integers(1, 4), st.integers(1, 40)))
@settings(max_examples=200)
def test_a_lower_case_source_equals_that_of_the_lower_cased_conversation(turns, limits):
    shown, longest = limits
    limited = codec(turns=shown, max_source=longest, lowercase=True).encode_source(turns)
    assert limited == codec(turns=shown, max_source=longest).encode_source([*map(to_lowercase, turns)])


def test_a_megabyte_is_cut_before_it_is_lower_cased(monkeypatch):
    looked_at = []
    monkeypatch.setattr(
        "edgechat.runtime.text.to_lowercase", lambda text: looked_at.append(len(text)) or to_lowercase(text)
    )
    encoded = codec(max_source=20, lowercase=True).encode_source(["WORD " * 200_000 + "Bye"])
    assert encoded.ids == CODEC.encode("word " * 9 + "bye")[-20:]
    assert encoded.truncated
    assert sum(looked_at) < 10_000


def test_a_target_ends_with_the_end_and_is_cut_before_it():
    a, b, c = (CODEC.encode(letter)[0] for letter in "abc")
    assert codec(max_target=4).encode_target("abc") == ([a, b, c, EOS], False)
    assert codec(max_target=3).encode_target("abc") == ([a, b, EOS], True)
    assert CODEC.encode_target("") == ([EOS], False)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"model": null}'])
def test_a_broken_tokenizer_is_refused(raw):
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot be read"):
        TextCodec(raw, max_source=9, max_target=9)


def test_a_tokenizer_with_other_special_ids_is_refused():
    swapped = TOKENIZER.replace(b'"<go>":1,"<eos>":2', b'"<eos>":1,"<go>":2')
    assert swapped != TOKENIZER
    with pytest.raises(BundleError, match=r"tokenizer\.json gives '<go>' the id 2, not 1"):
        TextCodec(swapped, max_source=9, max_target=9)
