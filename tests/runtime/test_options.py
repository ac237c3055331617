"""Options are checked when they are created, and errors name the option and its value."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechat.runtime import DecodingOptions, UsageError

WRONG = [
    ({"beam": 0}, "beam", "0"),
    ({"beam": -3}, "beam", "-3"),
    ({"beam": 1025}, "beam", "1025"),
    ({"beam": 2.0}, "beam", "2.0"),
    ({"beam": True}, "beam", "True"),
    ({"beam": "5"}, "beam", "'5'"),
    ({"beam": None}, "beam", "None"),
    ({"n_best": 0}, "n_best", "0"),
    ({"n_best": 2.5}, "n_best", "2.5"),
    ({"n_best": False}, "n_best", "False"),
    ({"min_length": -1}, "min_length", "-1"),
    ({"min_length": 10_001}, "min_length", "10001"),
    ({"min_length": None}, "min_length", "None"),
    ({"max_length": 0}, "max_length", "0"),
    ({"max_length": 10_001}, "max_length", "10001"),
    ({"max_length": "9"}, "max_length", "'9'"),
    ({"normalize": "GNMT"}, "normalize", "'GNMT'"),
    ({"normalize": None}, "normalize", "None"),
    ({"normalize": ["gnmt"]}, "normalize", "['gnmt']"),
    ({"stop": "soon"}, "stop", "'soon'"),
    ({"length_penalty": -0.1}, "length_penalty", "-0.1"),
    ({"length_penalty": 10.1}, "length_penalty", "10.1"),
    ({"length_penalty": math.nan}, "length_penalty", "nan"),
    ({"length_penalty": math.inf}, "length_penalty", "inf"),
    ({"length_penalty": True}, "length_penalty", "True"),
    ({"length_penalty": "0.6"}, "length_penalty", "'0.6'"),
    ({"coverage_penalty": -1}, "coverage_penalty", "-1"),
    ({"coverage_penalty": None}, "coverage_penalty", "None"),
    ({"repetition_penalty": 0.9}, "repetition_penalty", "0.9"),
    ({"repetition_penalty": math.nan}, "repetition_penalty", "nan"),
    ({"no_repeat_ngram": 0}, "no_repeat_ngram", "0"),
    ({"no_copy_ngram": 2.0}, "no_copy_ngram", "2.0"),
    ({"banned": "word"}, "banned", "'word'"),
    ({"banned": ("",)}, "banned", "''"),
    ({"banned": [7]}, "banned", "7"),
    ({"prefix": ""}, "prefix", "''"),
    ({"prefix": 7}, "prefix", "7"),
    ({"alignments": 1}, "alignments", "1"),
]


def test_numbers_of_numpy_become_pythons_own():
    given = DecodingOptions(
        beam=np.int64(4), n_best=np.uint8(2), coverage_penalty=np.float32(0.5), length_penalty=np.float64(1.5)
    )
    assert given == DecodingOptions(beam=4, n_best=2, coverage_penalty=0.5, length_penalty=1.5)
    assert DecodingOptions.from_json(json.loads(json.dumps(given.to_json()))) == given
    assert {type(given.beam), type(given.coverage_penalty), type(given.length_penalty)} == {int, float}
    for wrong in ({"beam": np.float64(5)}, {"beam": np.int64(0)}, {"coverage_penalty": np.float32("nan")}):
        with pytest.raises(UsageError, match="must be a"):
            DecodingOptions(**wrong)
    with pytest.raises(UsageError, match="must be a"):
        DecodingOptions(beam=np.True_)


OPTIONS = st.builds(
    DecodingOptions,
    beam=st.integers(4, 1024),
    n_best=st.integers(1, 4),
    normalize=st.just("gnmt"),
    length_penalty=st.none() | st.floats(0, 10),
    min_length=st.integers(0, 5),
    max_length=st.none() | st.integers(6, 10_000),
    stop=st.sampled_from(["exact", "first"]),
    banned=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)).map(tuple),
    prefix=st.none() | st.just("well, "),
    no_repeat_ngram=st.none() | st.integers(1, 9),
    no_copy_ngram=st.none() | st.integers(1, 9),
    repetition_penalty=st.floats(1, 9),
    coverage_penalty=st.floats(0, 9),
    alignments=st.booleans(),
)


@pytest.mark.parametrize(("values", "name", "shown"), WRONG, ids=lambda value: str(value))
def test_a_wrong_value_is_refused_by_name(values, name, shown):
    with pytest.raises(UsageError) as caught:
        DecodingOptions(**values)
    assert str(caught.value).startswith(name)
    assert str(caught.value).endswith(f"not {shown}")


def test_more_replies_than_the_beam_holds_are_refused():
    with pytest.raises(UsageError, match="n_best is 3, more than beam, which is 2"):
        DecodingOptions(beam=2, n_best=3)


@pytest.mark.parametrize("normalize", ["none", "average"])
def test_a_length_penalty_goes_with_gnmt_alone(normalize):
    with pytest.raises(UsageError, match=f"length_penalty needs normalize gnmt, not .*{normalize}"):
        DecodingOptions(normalize=normalize, length_penalty=0.6)


def test_the_minimum_length_must_leave_room_for_the_end():
    assert DecodingOptions(min_length=4, max_length=5).min_length == 4  # 4 tokens and the end
    with pytest.raises(UsageError, match="min_length is 5, which must be less than max_length, 5"):
        DecodingOptions(min_length=5, max_length=5)
    assert DecodingOptions(min_length=4).max_reply_length(5) == 5
    assert DecodingOptions(min_length=5, max_length=6).max_reply_length(5) == 6
    with pytest.raises(UsageError, match="min_length is 5, but replies of this model have at most 5 tokens"):
        DecodingOptions(min_length=5).max_reply_length(5)


def test_the_limits_themselves_are_allowed():
    options = DecodingOptions(beam=1024, n_best=1024, min_length=9_999, max_length=10_000, length_penalty=10)
    assert options.alpha == 10.0
    assert DecodingOptions(length_penalty=0).alpha == 0.0


def test_half_a_surrogate_pair_is_refused():
    for values in ({"banned": ["a\udc80"]}, {"prefix": "\ud800"}):
        with pytest.raises(UsageError, match="without lone surrogates"):
            DecodingOptions(**values)


def test_texts_are_limited_in_number_and_length_and_in_total():
    """An untrusted manifest may contain them, and must not take half a gigabyte."""
    assert len(DecodingOptions(banned=["x" * 20] * 1000).banned) == 1000
    for values, said in (
        ({"banned": ["x"] * 1001}, "banned must be a list of at most 1000 texts"),
        ({"required": ["x"] * 17}, "required must be a list of at most 16 texts"),
        ({"banned": ["x" * 1001]}, "banned must be text of 1 to 1000 characters"),
        (
            {"banned": ["x" * 1000] * 20 + ["y"]},
            "banned must have at most 20,000 characters in total, not 20,001",
        ),
    ):
        with pytest.raises(UsageError, match=said):
            DecodingOptions(**values)


def test_given_lists_the_options_that_differ_from_their_defaults():
    assert DecodingOptions().non_default == frozenset()
    assert DecodingOptions(beam=5, prefix="a", banned=["b"]).non_default == {"prefix", "banned"}


def test_options_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DecodingOptions().beam = 3


def test_a_sentence_has_at_least_two_rows():
    assert [DecodingOptions(beam=beam).rows for beam in (1, 2, 3)] == [2, 2, 3]


@given(options=OPTIONS)
def test_options_come_back_from_json(options):
    assert DecodingOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_options_missing_in_json_have_their_defaults():
    assert DecodingOptions.from_json({"beam": 3}) == DecodingOptions(beam=3)


def test_an_unknown_option_is_refused_by_name():
    with pytest.raises(UsageError, match="unknown decoding option 'patience'"):
        DecodingOptions.from_json({"beam": 3, "patience": 0.7})


def test_a_wrong_value_in_json_is_refused_too():
    with pytest.raises(UsageError, match="beam must be a whole number from 1 to 1024, not '5'"):
        DecodingOptions.from_json({"beam": "5"})
