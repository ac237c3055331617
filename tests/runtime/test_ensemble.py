"""Ensembles: the mean of the models' probabilities, searched as exactly as a single model."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechat.runtime import BundleError, ChatModel, DecodingOptions, UsageError
from edgechat.runtime.bundle import read_bundle, write_bundle
from edgechat.runtime.closed_set import encode_replies
from edgechat.runtime.ensemble import EnsembleBackend
from edgechat.runtime.scheduler import decode

from .table_model import Ids, TableBackend, random_table, reference_beam_search, scripted_table, token_ids

V, SOURCE = 8, (5, 6)


def mixed(*tables):
    """The table of the mean, by definition."""

    def logp(source: Ids, prefix: Ids):
        return np.log(np.mean([np.exp(table(source, prefix).astype(float)) for table in tables], axis=0))

    return logp


def test_the_mean_is_of_probabilities():
    one = scripted_table(V, {(): {5: 0.8, 6: 0.2}})
    other = scripted_table(V, {(): {5: 0.2, 6: 0.2, 7: 0.6}})
    backend = EnsembleBackend([TableBackend(one, V), TableBackend(other, V)])
    state = backend.encode(np.array([SOURCE]), np.array([2]))
    out, _ = backend.step(state, np.array([1, 0]), np.array([0, 0]), 3, return_logp=True)
    assert out.cand_ids[0].tolist() == [5, 7, 6]
    assert np.exp(out.cand_logp[0]) == pytest.approx([0.5, 0.3, 0.2])
    assert np.exp(out.logp[0]).sum() == pytest.approx(1.0)
    assert backend.step(state, np.array([1, 0]), np.array([0, 0]), 3)[0].logp is None


class Looking(TableBackend):
    """A table whose attention is on one token of the source."""

    at = 0

    def step(self, *fed, **asked):
        out, following = super().step(*fed, **asked)
        align = np.zeros_like(out.align)
        align[:, self.at] = 1
        return out._replace(align=align), following


def test_the_attention_is_the_mean_of_the_models():
    one, other = Looking(random_table(1, V), V), Looking(random_table(2, V), V)
    other.at = 1
    backend = EnsembleBackend([one, other, other])
    state = backend.encode(np.array([SOURCE]), np.array([2]))
    out, _ = backend.step(state, np.array([1, 1]), np.array([0, 0]), 1)
    np.testing.assert_allclose(out.align, [[1 / 3, 2 / 3], [1 / 3, 2 / 3]], rtol=1e-6)
    (search,) = decode(
        EnsembleBackend([one, other]), [list(SOURCE)], DecodingOptions(alignments=True), max_length=4
    )
    for row in search.hypotheses()[0].alignments:
        assert row == [0.5, 0.5]


@given(seed=st.integers(0, 10_000), beam=st.integers(1, 4), normalize=st.sampled_from(["none", "gnmt"]))
@settings(max_examples=30)
def test_an_ensemble_gives_the_replies_of_one_model_of_the_mean(seed, beam, normalize):
    tables = [random_table(seed + i, V) for i in range(3)]
    options = DecodingOptions(beam=beam + 1, n_best=beam, normalize=normalize)
    backend = EnsembleBackend([TableBackend(table, V) for table in tables])
    (search,) = decode(backend, [list(SOURCE)], options, max_length=6)
    expected = reference_beam_search(mixed(*tables), SOURCE, V, options, 6)
    assert token_ids(search.hypotheses()) == token_ids(expected)
    assert [h.score for h in search.hypotheses()] == pytest.approx([h.score for h in expected], abs=1e-5)


def test_sentences_leave_an_ensemble_like_a_single_model():
    tables = [random_table(i, V, ending=2.0) for i in range(2)]
    sources = [list(ids) for ids in itertools.product(range(5, V), repeat=2)]
    backend = EnsembleBackend([TableBackend(table, V) for table in tables])
    together = decode(backend, sources, DecodingOptions(beam=2), max_length=9)
    for source, search in zip(sources, together, strict=True):
        (alone,) = decode(backend, [source], DecodingOptions(beam=2), max_length=9)
        assert search.hypotheses() == alone.hypotheses()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("beam", [1, 5])
def test_a_model_that_returns_nan_raises_one_clear_error(value, beam):
    def damaged(source: Ids, prefix: Ids):
        logp = random_table(1, V)(source, prefix).copy()
        logp[6] = value
        return logp

    backend = EnsembleBackend([TableBackend(random_table(2, V), V), TableBackend(damaged, V)])
    with pytest.raises(BundleError, match="of the ensemble gave log-probabilities that are not numbers"):
        decode(backend, [list(SOURCE)], DecodingOptions(beam=beam), max_length=6)


# --- of bundles -----------------------------------------------------------------------------------


def changed(bundle_folder, path, *, files=None, **text):
    """A copy of the bundle with changes."""
    read = read_bundle(bundle_folder)
    manifest = dataclasses.replace(read.manifest, text=dataclasses.replace(read.manifest.text, **text))
    write_bundle(path, manifest, {**read.files, **(files or {})}, replace_existing=False)
    return path


def test_a_bundle_with_itself_replies_as_it_does_alone(bundle_folder):
    with (
        ChatModel.load(bundle_folder, device="cpu") as alone,
        ChatModel.load_ensemble([bundle_folder] * 2, device="cpu") as twice,
    ):
        for prompt in ("hello", "do you like tea", "你好吗"):
            one, two = alone.reply(prompt), twice.reply(prompt)
            assert (two.text, two.score) == (one.text, pytest.approx(one.score, abs=1e-4))
            assert "".join(twice.stream(prompt)) == one.text
        assert twice.defaults == alone.defaults
        assert twice.reply_batch(["jump"])[0].text == "JUMP"


def test_the_smallest_limits_hold(bundle_folder, tmp_path):
    other = changed(bundle_folder, tmp_path / "other", max_target=3, max_source=4)
    with ChatModel.load_ensemble([bundle_folder, other], device="cpu") as both:
        assert (both.codec.max_target, both.codec.max_source) == (3, 4)
        assert len(both.reply("how are you").tokens) <= 3


def test_defaults_that_the_shortest_replies_cannot_satisfy_are_refused_when_loaded(bundle_folder, tmp_path):
    read = read_bundle(bundle_folder)
    short = changed(bundle_folder, tmp_path / "short", max_target=10)
    for name, options in (("length", {"min_length": 12}), ("prefix", {"prefix": "a b c d e f g"})):
        manifest = dataclasses.replace(read.manifest, decoding=DecodingOptions(**options))
        write_bundle(tmp_path / name, manifest, read.files, replace_existing=False)
        ChatModel.load(tmp_path / name, device="cpu").close()
        with pytest.raises(UsageError) as refused:
            ChatModel.load_ensemble([tmp_path / name, short], device="cpu")
        said = f"the default options of {tmp_path / name} allow no reply of this ensemble: "
        assert str(refused.value).startswith(said + next(iter(options)))
        ChatModel.load_ensemble([short, tmp_path / name], device="cpu").close()  # the defaults of the first


def test_bundles_that_do_not_match_are_refused(bundle_folder, tmp_path):
    tokenizer = read_bundle(bundle_folder).files["tokenizer.json"]
    cases = {
        "different tokenizers": {"files": {"tokenizer.json": tokenizer + b" "}},
        "see 1 and 3 turns": {"turns": 3},
        "reads prompts in lower case": {"lowercase": True},
        "different closed sets": {"files": {"replies.json": encode_replies(["JUMP"])}},
    }
    for said, change in cases.items():
        other = changed(bundle_folder, tmp_path / said, **change)
        with pytest.raises(UsageError, match=said):
            ChatModel.load_ensemble([bundle_folder, other], device="cpu")
    with pytest.raises(UsageError, match="at least one bundle"):
        ChatModel.load_ensemble([])
    for one in ("demo", bundle_folder):
        with pytest.raises(UsageError, match=r"takes a list of bundles, not .*: give"):
            ChatModel.load_ensemble(one)


def test_the_same_closed_set_is_the_ensembles(bundle_folder, tmp_path):
    files = {"replies.json": encode_replies(["JUMP", "hi there"])}
    closed = [changed(bundle_folder, tmp_path / name, files=files) for name in "ab"]
    with ChatModel.load_ensemble(closed, device="cpu") as both:
        assert both.reply("do you like tea").text in ("JUMP", "hi there")
