"""Golden vectors pass on the machine that made them, and detect a model that computes something else."""

import json
import math

import numpy as np
import pytest

from edgechat.runtime import BundleError, ChatModel, UsageError
from edgechat.runtime.bundle import read_bundle
from edgechat.runtime.golden import MIN_MARGIN, TOLERANCE, check_golden, golden_sources, make_golden
from edgechat.runtime.text import UNK

from .table_model import Ids, Table, TableBackend, random_table

V = 20


def clear_table(seed: int) -> Table:
    """A random table whose best replies are far above the rest."""

    def logp(source: Ids, prefix: Ids):
        row = 12.0 * random_table(seed, V)(source, prefix).astype(np.float64)
        return (row - np.log(np.exp(row).sum())).astype(np.float32)

    return logp


def golden_of(table: Table, **changed: int) -> bytes:
    arguments = {"seed": 1, "count": 12, "max_source": 9, "max_length": 8, **changed}
    return make_golden(TableBackend(table, V), **arguments)


GOLDEN = golden_of(clear_table(1))


def shifted(by: float) -> Table:
    """The same model with each log-probability lowered by `by`."""
    return lambda source, prefix: clear_table(1)(source, prefix) - np.float32(by)


def test_a_model_passes_its_own_vectors():
    result = check_golden(TableBackend(clear_table(1), V), GOLDEN)
    assert result.passed
    assert result.sources == 12
    assert result.replies + result.near_ties == 2 * 12  # greedy, and a beam of five
    assert result.replies > 12
    assert result.mismatches == 0
    assert result.worst_difference < 1e-3


def test_a_bundle_passes_its_own_vectors(bundle_folder):
    bundle = read_bundle(bundle_folder)
    with ChatModel.from_bundle(bundle, device="cpu") as model:
        result = model.verify()
    assert result.passed
    assert result.replies > 0


def test_an_ensemble_has_no_golden_vectors_to_verify(bundle_folder):
    model = ChatModel.load_ensemble([bundle_folder, bundle_folder], device="cpu")
    with pytest.raises(UsageError, match="verify works with one bundle, not with an ensemble"):
        model.verify()


def test_a_model_with_other_weights_fails():
    result = check_golden(TableBackend(clear_table(2), V), GOLDEN)
    assert not result.passed
    assert result.mismatches > 0
    assert result.worst_difference > TOLERANCE


def test_a_difference_within_the_tolerance_passes_and_one_beyond_it_fails():
    # A reply of 8 tokens sums 8 shifts, and 8 * 0.005 = 0.04; a first token alone shows 0.06.
    within = check_golden(TableBackend(shifted(0.005), V), GOLDEN)
    assert within.passed
    assert within.worst_difference >= 0.0049
    beyond = check_golden(TableBackend(shifted(0.06), V), GOLDEN)
    assert beyond.mismatches == 0
    assert not beyond.passed


def from_the_second_token(changed: Table) -> Table:
    return lambda source, prefix: (changed if prefix else clear_table(1))(source, prefix)


def test_replies_are_compared_and_not_first_tokens_alone():
    result = check_golden(TableBackend(from_the_second_token(clear_table(2)), V), GOLDEN)
    assert result.worst_difference < 1e-3  # of what could be compared
    assert result.mismatches > 0
    assert not result.passed


def test_log_probabilities_of_replies_are_compared():
    result = check_golden(TableBackend(from_the_second_token(shifted(0.06)), V), GOLDEN)
    assert result.mismatches == 0
    assert result.worst_difference > TOLERANCE
    assert not result.passed


def test_a_reply_that_does_not_end_where_it_should_is_a_mismatch():
    ended = json.loads(GOLDEN)
    clear = next(case for case in ended["cases"] if case["greedy"]["margin"] > MIN_MARGIN)
    clear["greedy"]["finished"] = not clear["greedy"]["finished"]
    result = check_golden(TableBackend(clear_table(1), V), json.dumps(ended).encode())
    assert (result.mismatches, result.passed) == (1, False)


def test_each_first_candidate_is_compared():
    other = json.loads(GOLDEN)
    other["cases"][0]["candidates"]["logp"][3] += 0.25
    result = check_golden(TableBackend(clear_table(1), V), json.dumps(other).encode())
    assert result.worst_difference == pytest.approx(0.25, abs=1e-3)
    assert not result.passed


@pytest.mark.parametrize(("above", "passes"), [(0.0, True), (0.25, False)])
def test_a_candidate_that_one_side_lacks_must_lie_near_the_last(above, passes):
    other = json.loads(GOLDEN)
    candidates = other["cases"][0]["candidates"]
    candidates["ids"][-1] = next(id for id in range(V) if id not in candidates["ids"])
    candidates["logp"][-1] += above
    result = check_golden(TableBackend(clear_table(1), V), json.dumps(other).encode())
    assert result.worst_difference == pytest.approx(above, abs=1e-3)
    assert result.passed is passes


class GivesNaN(TableBackend):
    """A graph may return NaN anywhere: here for an id that never occurs in a reply."""

    def step(self, *arguments, **options):
        out, state = super().step(*arguments, **options)
        out.cand_logp[:, 0] = math.nan
        out.cand_ids[:, 0] = UNK
        return out, state


def test_a_model_that_gives_no_numbers_fails():
    result = check_golden(GivesNaN(clear_table(1), V), GOLDEN)
    assert math.isnan(result.worst_difference)
    assert not result.passed


def test_a_reply_without_a_clear_winner_is_not_compared():
    close = json.loads(golden_of(random_table(1, V)))
    margins = [case[name]["margin"] for case in close["cases"] for name in ("greedy", "beam5")]
    result = check_golden(TableBackend(random_table(1, V), V), json.dumps(close).encode())
    assert result.near_ties == sum(margin <= MIN_MARGIN for margin in margins) > 0
    assert result.replies == sum(margin > MIN_MARGIN for margin in margins) > 0


def test_the_same_seed_gives_the_same_bytes():
    assert golden_of(clear_table(1)) == GOLDEN
    assert golden_of(clear_table(1), seed=2) != GOLDEN


def test_a_check_takes_no_more_rows_of_the_decoder_than_the_longest_reply():
    # Two rows for greedy search and five for the beam, of 12 sources: 200,000 // (12 * 7) = 2,380 tokens.
    assert json.loads(golden_of(clear_table(1), max_length=10_000))["max_length"] == 2_380
    many = json.loads(GOLDEN)
    many["cases"], many["max_length"] = many["cases"][:1] * 64, 447  # 64 * 7 * 447 = 200,256
    with pytest.raises(
        BundleError, match="its replies take 200,256 rows of the decoder, 200,000 are allowed"
    ):
        check_golden(TableBackend(clear_table(1), V), json.dumps(many).encode())


@pytest.mark.parametrize("max_source", [1, 5, 50])
def test_sources_are_random_words_of_the_vocabulary_and_fit(max_source):
    golden = json.loads(golden_of(clear_table(1), max_source=max_source))
    for case in golden["cases"]:
        assert 1 <= len(case["src"]) <= max_source
        assert all(5 <= id < V for id in case["src"])


def changed(change) -> bytes:
    golden = json.loads(GOLDEN)
    change(golden)
    return json.dumps(golden).encode()


def of_first_case(**values):
    return lambda golden: golden["cases"][0].update(values)


MALFORMED = {
    "nothing": b"",
    "no JSON": b"{",
    "no UTF-8": b"\xff\xfe\x00",
    "a name twice": GOLDEN.replace(b'"max_length": 8', b'"max_length": 8, "max_length": 8'),
    "a list": b"[]",
    "null": b"null",
    "nested beyond reason": b"[" * 100_000,
    "no cases": changed(lambda golden: golden.update(cases=[])),
    "cases of another kind": changed(lambda golden: golden.update(cases={"a": 1})),
    "cases beyond count": changed(lambda golden: golden.update(cases=golden["cases"][:1] * 65)),
    "a source without end": changed(of_first_case(src=[5] * 1001)),
    "no maximum length": changed(lambda golden: golden.pop("max_length")),
    "an endless maximum length": GOLDEN.replace(b'"max_length": 8', b'"max_length": 1e999'),
    "a giant maximum length": changed(lambda golden: golden.update(max_length=10**12)),
    "a maximum length of zero": changed(lambda golden: golden.update(max_length=0)),
    "an id outside the vocabulary": changed(of_first_case(src=[V])),
    "a negative id": changed(of_first_case(src=[-1])),
    "an empty source": changed(of_first_case(src=[])),
    "a source of text": changed(of_first_case(src="abc")),
    "candidates in a list": changed(of_first_case(candidates=[[5], [-1.0]])),
    "candidates without probabilities": changed(of_first_case(candidates={"ids": [5]})),
    "more ids than probabilities": changed(of_first_case(candidates={"ids": [5, 6], "logp": [-1.0]})),
    "no candidates": changed(of_first_case(candidates={"ids": [], "logp": []})),
    "a probability of text": changed(of_first_case(candidates={"ids": [5], "logp": ["x"]})),
    "a probability that is no number": changed(of_first_case(candidates={"ids": [5], "logp": [math.nan]})),
    "no greedy reply": changed(lambda golden: golden["cases"][0].pop("greedy")),
    "a margin of text": changed(of_first_case(greedy={"margin": "wide"})),
}  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (MALFORMED["a list"], "it has a value of the wrong type"),
        (MALFORMED["no maximum length"], "it has no 'max_length'"),
        (MALFORMED["more ids than probabilities"], "it does not have one log-probability for each candidate"),
        (MALFORMED["no candidates"], "it has a source without candidates"),
        (b'{"cases": ' + b"9" * 5000 + b"}", "it has a number with thousands of digits"),
    ],
    ids=range(5),
)
def test_messages_say_what_is_wrong_with_a_golden_file(raw, said):
    with pytest.raises(BundleError, match=rf"\Agolden\.json cannot be used: {said}\Z"):
        check_golden(TableBackend(clear_table(1), V), raw)


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_file_is_refused_in_one_sentence(raw):
    with pytest.raises(BundleError, match=r"\Agolden\.json cannot be used: [^\n]+\Z"):
        check_golden(TableBackend(clear_table(1), V), raw)


def test_sources_alone_are_read_within_the_same_bounds():
    assert golden_sources(GOLDEN, V) == [case["src"] for case in json.loads(GOLDEN)["cases"]]
    for which in ("no JSON", "no cases", "cases beyond count", "a source without end", "a negative id",
                  "an id outside the vocabulary", "an empty source", "a source of text"):  # fmt: skip
        with pytest.raises(BundleError, match=r"\Agolden\.json cannot be used: [^\n]+\Z"):
            golden_sources(MALFORMED[which], V)
