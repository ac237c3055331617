"""How a closed set fits the data, counted by hand."""

import pytest

from edgechat.export.closed_set import ClosedSetFit, measure_closed_set_fit
from edgechat.train.corpus import Corpus
from edgechat.train.dataset import DataConfig, prepare_corpus
from edgechat.train.dialogue import Dialogue, Turn


class Pairs:
    name = "pairs"

    def __init__(self, *responses: str) -> None:
        self._responses = responses

    def dialogues(self, tally):
        for i, response in enumerate(self._responses):
            yield Dialogue((Turn(f"prompt {i}"), Turn(response)))


LEARNED = ("ON", "OFF", "DIM", "caf\u00e9", "ON", "a long one " * 9)


def fit(*replies: str, held_out: tuple[str, ...] = ("ON", "OFF", "ON", "BRIGHT")) -> ClosedSetFit:
    options = DataConfig(vocab_size=300, max_target=20)
    prepared = prepare_corpus(Corpus([Pairs(*LEARNED)]), options, valid=Corpus([Pairs(*held_out)]))
    return measure_closed_set_fit(replies, prepared.codec, prepared.train, prepared.valid)


def test_a_closed_set_is_compared_with_training_and_held_out_data():
    # BRIGHT is held out but not in the set; "never" is in the set but not in the data.
    found = fit("ON", "OFF", "never", "caf\u00e9", "ON")
    assert found == ClosedSetFit(replies=4, held_out=4, held_out_outside=1, never_learned=1, alike=0)
    assert list(found.hints()) == [
        "hint: 1 of 4 held-out responses is not in the closed set: the bundle cannot give them",
        "hint: 1 of 4 replies of the closed set is not a response in the training data: check the spelling",
    ]


def test_a_closed_set_that_misses_held_out_responses_gets_a_hint():
    found = fit("DIM")
    assert (found.held_out_outside, found.never_learned) == (4, 0)
    assert list(found.hints()) == [
        "hint: 4 of 4 held-out responses are not in the closed set: the bundle cannot give them"
    ]


@pytest.mark.parametrize(
    ("replies", "alike"),
    [
        (("ON", "On", "on", "OFF"), 2),
        (("turn  on", "turn on"), 1),
        (("ON", "ON"), 0),
        (("\u00e9", "e\u0301"), 0),
    ],
)
def test_replies_that_differ_only_in_white_space_or_case_get_a_hint(replies, alike):
    found = fit(*replies)
    assert found.alike == alike
    assert any("only in white space or case" in hint for hint in found.hints()) is (alike > 0)


def test_a_closed_set_that_fits_gets_no_hint():
    assert list(fit("ON", "OFF", "DIM", held_out=("ON", "DIM")).hints()) == []
