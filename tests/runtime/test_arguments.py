"""Arguments of the wrong type raise a short, one-line error that names the argument."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechat.runtime import ChatModel, DecodingOptions, UsageError
from edgechat.runtime.arguments import check_path, short_repr, to_list

from .test_chat import table_model

HUGE = 10**5000  # Python refuses to print more than 4,300 digits
LONG = "x" * 5_000_000
ARRAY = np.array([["gnmt"], ["exact"]])


class Silent:
    def __repr__(self) -> str:
        raise KeyError("no repr")


FLAT = st.none() | st.integers() | st.floats() | st.text() | st.binary()


@given(value=FLAT | st.lists(FLAT, max_size=6))
def test_a_short_value_is_shown_as_its_repr(value):
    if len(repr(value)) < 30:
        assert short_repr(value) == repr(value)
    assert len(short_repr(value).splitlines()) == 1


@pytest.mark.parametrize(
    "value",
    [HUGE, -HUGE, [HUGE], LONG, [LONG] * 99, {LONG: {LONG: [LONG]}}, ARRAY, Silent(), {Silent()}, b"x" * 999],
    ids=lambda value: type(value).__name__,
)
def test_a_long_value_or_one_whose_repr_fails_is_shortened(value):
    assert 0 < len(short_repr(value)) < 1000
    assert "\n" not in short_repr(value)


def test_any_iterable_but_text_is_a_list():
    for values in (["a", "b"], ("a", "b"), iter("ab"), np.array(["a", "b"]), {"a": 1, "b": 2}):
        assert to_list(values, "takes a list") == ["a", "b"]
    for one in ("ab", b"ab", None, 1, Path("ab"), np.array("ab")):
        with pytest.raises(UsageError, match=r"^takes a list, not .*: give more$"):
            to_list(one, "takes a list", ": give more")


def test_a_path_is_text_or_path_like():
    assert [check_path("key", path) for path in ("a", Path("a"))] == ["a", "a"]
    for wrong in (None, 1, b"a", ["a"], Silent()):
        with pytest.raises(UsageError, match=r"^key must be a path, not "):
            check_path("key", wrong)


@pytest.mark.parametrize(
    "values",
    [{name: value} for name in ("beam", "seed", "length_penalty", "max_length") for value in (HUGE, -HUGE)]
    + [{name: value} for name in ("normalize", "stop", "sample", "prefix") for value in (ARRAY, LONG, HUGE)]
    + [{"banned": value} for value in (LONG, [LONG], [HUGE], [LONG] * 1001, ARRAY)],
    ids=lambda values: f"{next(iter(values))}-{type(next(iter(values.values()))).__name__}",
)
def test_options_of_any_kind_and_size_are_refused_by_name(values):
    with pytest.raises(UsageError, match=f"^{next(iter(values))} must be ") as caught:
        DecodingOptions(**values)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("values", ["", 1, [], None, [("beam", 2)], {1: 2, "x": 3}, {"x": 3, 1: 2}], ids=str)
def test_options_in_json_must_be_an_object(values):
    with pytest.raises(
        UsageError, match=r"^(decoding options must be an object, not|unknown decoding option) "
    ):
        DecodingOptions.from_json(values)


@pytest.mark.parametrize("bundle", [None, 1, b"demo", ["demo"]], ids=str)
def test_a_bundle_must_be_a_path(bundle):
    with pytest.raises(UsageError, match=r"^bundle must be a path, not "):
        ChatModel.load(bundle)
    with pytest.raises(UsageError, match=r"^bundle must be a path, not "):
        ChatModel.load_ensemble([bundle])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (1, "must be a path, or the content of a PEM file as bytes, not 1"),
        (["demo"], r"must be a path, or the content of a PEM file as bytes, not \['demo'\]"),
        (b"demo", "is not an Ed25519 public key in PEM"),
        (b"", "is not an Ed25519 public key in PEM"),
    ],
    ids=str,
)
def test_a_wrong_key_is_refused(key, said):
    with pytest.raises(UsageError, match=f"^require_signature {said}"):
        ChatModel.load("demo", require_signature=key)


def test_an_empty_key_is_refused():
    with pytest.raises(UsageError, match=r"^the key '' cannot be read"):
        ChatModel.load("demo", require_signature="")


@pytest.mark.parametrize("device", [ARRAY, HUGE, None, LONG], ids=lambda value: type(value).__name__)
def test_a_wrong_device_is_refused_in_a_short_message(device):
    with pytest.raises(UsageError, match=r"^device must be one of auto, cpu, cuda, not ") as caught:
        ChatModel.load("demo", device=device)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("wrong", [None, 1, HUGE, LONG, b"hen"], ids=lambda value: type(value).__name__)
def test_every_list_argument_refuses_what_is_not_a_list(wrong):
    chat, _ = table_model()
    for ask, said in (
        (chat.reply_batch, r"reply_batch takes a list of prompts, not .*: give \[prompt\], or call reply"),
        (chat.reply_turns, "reply_turns takes a list of conversations, not "),
        (lambda turns: chat.reply_turns([turns]), "a conversation must be a list of texts, not "),
        (chat.stream_turns, "a conversation must be a list of texts, not "),
        (chat.session, "a conversation must be a list of texts, not "),
        (ChatModel.load_ensemble, r"load_ensemble takes a list of bundles, not .*: give \[bundle\]"),
    ):
        with pytest.raises(UsageError, match=f"^{said}") as caught:
            ask(wrong)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("prompt", [HUGE, ["hen"] * 1_000_000, None, b"hen"], ids=lambda p: type(p).__name__)
def test_a_wrong_prompt_is_refused_in_a_short_message(prompt):
    chat, _ = table_model()
    for ask in (
        chat.reply,
        chat.session().reply,
        lambda p: chat.reply_batch(["hen", p]),
        lambda p: chat.session(["hen", p]),
    ):
        with pytest.raises(UsageError, match=r"^a prompt must be text \(str\), not ") as caught:
            ask(prompt)
        assert len(str(caught.value)) < 1000


def test_turns_may_be_a_generator():
    chat, _ = table_model(turns=3)
    (reply,) = chat.reply_turns(["he", "hello", "hen"] for _ in range(1))
    assert chat.reply_turns([iter(("he", "hello", "hen"))])[0].text == reply.text


def test_wrong_default_options_are_refused_too():
    chat, _ = table_model()
    chat.defaults = {"beam": 2}
    with pytest.raises(UsageError, match=r"options must be a DecodingOptions, not \{'beam': 2\}"):
        chat.reply("hen")


def test_progress_may_be_any_callable():
    class Bar(list[int]):
        __call__ = list.append

    chat, _ = table_model()
    bar: Any = Bar()  # an empty list, and so false
    chat.reply_batch(["hen", "he"], progress=bar)
    assert bar == [2]
    with pytest.raises(TypeError, match="not callable"):
        chat.reply_batch(["hen"], progress=0)
