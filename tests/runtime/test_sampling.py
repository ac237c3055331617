"""The distribution to draw from, by hand; and seeds, which repeat draws everywhere."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechat.runtime import BundleError, ChatModel, DecodingOptions, UsageError
from edgechat.runtime.constraints import make_text_rules
from edgechat.runtime.sampling import Sampler, sampling_distribution
from edgechat.runtime.scheduler import decode
from edgechat.runtime.text import EOS, NEVER_GENERATED

from .table_model import (
    TableBackend,
    may_begin_reply,
    may_end_reply,
    random_table,
    reference_hypothesis,
    scripted_table,
    token_ids,
)
from .test_constraints import RULES, SOURCE, VOCABULARY, V, ruled

P = [0.4, 0.3, 0.2, 0.1]


def drawn_from(p: list[float], **options: object) -> list[float]:
    with np.errstate(divide="ignore"):
        logp = np.log(np.array(p))
    return sampling_distribution(logp, DecodingOptions(sample=True, **options)).tolist()


def drawn(table, options: DecodingOptions, max_length: int, sources=(SOURCE,)):
    rules = make_text_rules(options, VOCABULARY)
    searches = decode(
        TableBackend(table, V), [list(s) for s in sources], options, max_length=max_length, text_rules=rules
    )
    return [search.hypotheses() for search in searches]


# --- the distribution -----------------------------------------------------------------------------


def test_by_default_the_distribution_is_the_models_own():
    assert drawn_from(P) == pytest.approx(P)
    assert drawn_from([0.2, 0.2, 0.0, 0.0]) == pytest.approx([0.5, 0.5, 0, 0])  # the rest was banned


def test_a_temperature_raises_probabilities_to_its_inverse():
    squares = [0.16, 0.09, 0.04, 0.01]
    assert drawn_from(P, temperature=0.5) == pytest.approx([p / 0.30 for p in squares])
    roots = [math.sqrt(p) for p in P]
    assert drawn_from(P, temperature=2.0) == pytest.approx([p / sum(roots) for p in roots])


def test_top_k_keeps_the_k_likeliest():
    assert drawn_from(P, top_k=2) == pytest.approx([4 / 7, 3 / 7, 0, 0])
    assert drawn_from([0.25] * 4, top_k=1) == [1, 0, 0, 0]  # ties go to the lower id
    assert drawn_from(P, top_k=99) == pytest.approx(P)


def test_top_p_keeps_the_fewest_ids_with_the_mass():
    assert drawn_from(P, top_p=0.39) == [1, 0, 0, 0]
    assert drawn_from(P, top_p=0.5) == pytest.approx([4 / 7, 3 / 7, 0, 0])
    assert drawn_from(P, top_p=0.75) == pytest.approx([4 / 9, 3 / 9, 2 / 9, 0])
    assert drawn_from(P, top_p=1.0) == pytest.approx(P)


def test_typical_keeps_those_nearest_to_the_expected_surprise():
    # The entropy is 1.28; the surprises are 0.92, 1.20, 1.61 and 2.30, so |surprise - H| is 0.36, 0.08,
    # 0.33 and 1.02: the second is the most typical, then the third, the first, the fourth.
    assert drawn_from(P, typical_p=0.2) == [0, 1, 0, 0]
    assert drawn_from(P, typical_p=0.4) == pytest.approx([0, 0.6, 0.4, 0])
    assert drawn_from(P, typical_p=0.6) == pytest.approx([4 / 9, 3 / 9, 2 / 9, 0])


def test_each_cut_is_applied_to_the_result_of_the_one_before():
    # top_k leaves 4/7 and 3/7; the first alone has 0.5 of that.
    assert drawn_from(P, top_k=2, top_p=0.5) == [1, 0, 0, 0]


def test_numbers_that_are_evenly_spread_draw_each_id_as_often_as_it_is_likely():
    sampler = Sampler(DecodingOptions(sample=True))

    class Even:
        at = -0.5 / 1000

        def random(self) -> float:
            self.at += 1 / 1000
            return self.at

    sampler._random = Even()
    with np.errstate(divide="ignore"):
        logp = np.log(np.array([0.0, 0.25, 0.0, 0.65, 0.1, 0.0]))
    ids = [sampler.draw(logp)[0] for _ in range(1000)]
    assert [ids.count(id) for id in range(6)] == [0, 250, 0, 650, 100, 0]


def test_a_draw_reports_the_distance_to_the_nearest_other_id():
    sampler = Sampler(DecodingOptions(sample=True, seed=3))
    u = np.random.default_rng(3).random()
    id, gap = sampler.draw(np.log(np.array([0.5, 0.5])))
    assert id == int(u >= 0.5)
    assert gap == pytest.approx(min(abs(u - edge) for edge in (0, 0.5, 1)))


# --- whole replies --------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), beam=st.integers(1, 4), temperature=st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=40)
def test_replies_are_drawn_row_by_row_as_defined(seed, beam, temperature):
    table = random_table(seed, V)
    options = DecodingOptions(sample=True, beam=beam, n_best=beam, seed=seed, temperature=temperature)
    random = np.random.default_rng(seed)
    rows, ended, cut = [()] * beam, [], []
    for _step in range(6):
        following = []
        for tokens in rows:
            p = np.exp(table(SOURCE, tokens).astype(float) / temperature)
            p[list(NEVER_GENERATED)] = 0
            at, id = random.random() * p.sum(), 0
            while p[: id + 1].sum() <= at:
                id += 1
            if id == EOS:
                ended.append(tokens)
            else:
                following.append((*tokens, id))
        rows = following
        if len(ended) == beam:
            break
    cut = rows
    (found,) = drawn(table, options, 6)
    assert set(token_ids(found)) == set(ended or cut)  # a reply drawn twice is listed once
    for h in found:
        assert h.score == pytest.approx(
            reference_hypothesis(table, SOURCE, h.tokens, options, finished=h.finished)[1].score
        )


SAMPLED = ruled(
    beam=st.integers(1, 4),
    n_best=st.integers(1, 3),
    sample=st.just(True),
    seed=st.integers(0, 99),
    temperature=st.sampled_from([None, 0.3, 3.0]),
    top_k=st.none() | st.integers(1, 4),
    top_p=st.none() | st.sampled_from([0.3, 0.9]),
    typical_p=st.none() | st.sampled_from([0.3, 0.9]),
)


@given(seed=st.integers(0, 10_000), options=SAMPLED)
@settings(max_examples=100)
def test_draws_follow_every_rule_and_have_the_models_scores(seed, options):
    table = random_table(seed, V)
    (found,) = drawn(table, options, 6)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    for h in found:
        assert may_begin_reply(h.tokens, SOURCE, options, VOCABULARY)
        assert not h.finished or may_end_reply(h.tokens, options, VOCABULARY)
        expected = reference_hypothesis(table, SOURCE, h.tokens, options, finished=h.finished)[1]
        assert h.score == pytest.approx(expected.score, abs=1e-6)
        assert h.token_logps == pytest.approx(expected.token_logps, abs=1e-6)


def test_the_rules_of_the_property_are_those_of_the_search():
    assert set(RULES) <= {field.name for field in dataclasses.fields(DecodingOptions)}


@pytest.mark.parametrize("batch_size", [2, 7])
def test_a_seed_draws_the_same_alone_and_in_a_batch(batch_size):
    table = random_table(5, V, ending=1.0)
    options = DecodingOptions(sample=True, beam=2, n_best=2, seed=11)
    sources = [(*(5, 6, 7)[: 1 + i % 3], 5 + i % 4) for i in range(9)]
    together = decode(
        TableBackend(table, V), [list(s) for s in sources], options, max_length=9, batch_size=batch_size
    )
    for source, search in zip(sources, together, strict=True):
        assert [search.hypotheses()] == drawn(table, options, 9, [source])


def test_other_seeds_draw_otherwise_and_none_draws_anew():
    table = random_table(5, V, ending=-2.0)
    seeds = [*range(10), None, None, None]
    found = [
        token_ids(drawn(table, DecodingOptions(sample=True, beam=1, seed=seed), 12)[0])[0] for seed in seeds
    ]
    assert len(set(found)) > 10


def test_the_best_of_many_draws_is_the_likeliest():
    table = random_table(2, V)
    all_ten = drawn(table, DecodingOptions(sample=True, beam=10, n_best=10, seed=1), 6)[0]
    (best,) = drawn(table, DecodingOptions(sample=True, beam=10, seed=1), 6)[0]
    assert best.score == max(h.score for h in all_ten)


def test_impossible_ids_are_never_drawn():
    table = scripted_table(V, {(): {5: 1.0}, (5,): {6: 1.0}})
    (found,) = drawn(table, DecodingOptions(sample=True, beam=3, seed=1), 9)
    assert [(h.tokens, h.finished) for h in found] == [((5, 6), False)]


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.01])
def test_invalid_log_probabilities_raise(value):
    with pytest.raises(BundleError, match="not numbers: its weights are damaged"):
        drawn(lambda source, prefix: np.full(V, value, dtype=np.float32), DecodingOptions(sample=True), 5)


def test_sampling_options_need_sample():
    for option, value in {"temperature": 0.5, "top_k": 1, "top_p": 0.5, "typical_p": 0.5, "seed": 1}.items():
        with pytest.raises(UsageError, match=f"{option} needs sample, which is off"):
            DecodingOptions(**{option: value})
    with pytest.raises(
        UsageError, match="stop cannot be used with sample: each sample is drawn on its own, until it ends"
    ):
        DecodingOptions(sample=True, stop="first")


# --- on a real bundle -----------------------------------------------------------------------------


def test_a_bundle_draws_the_same_in_every_way_to_reply(bundle_folder):
    with ChatModel.load(bundle_folder, device="cpu") as model:
        options = DecodingOptions(sample=True, beam=3, n_best=3, seed=4, temperature=3.0, max_length=8)
        for prompt in ("hello", "do you like tea"):
            stream = model.stream(prompt, options)
            pieces = "".join(stream)
            batch = model.reply_batch([prompt, "how are you", "x"], options)
            assert pieces == stream.reply.text == batch[0].text == model.reply(prompt, options).text
        drawn = {model.reply("hello", dataclasses.replace(options, seed=seed)).text for seed in range(8)}
        assert len(drawn) > 2
