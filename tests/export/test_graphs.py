"""The ONNX graphs compared with PyTorch: one file for every batch, length, beam and candidate count."""

import itertools

import numpy as np
import onnx
import pytest
import torch

from edgechat.export import ProofError
from edgechat.export.graphs import build_decoder, build_encoder, graph_spec
from edgechat.export.proof import prove
from edgechat.runtime.backend import pad
from edgechat.runtime.options import DecodingOptions
from edgechat.runtime.ort import OrtBackend
from edgechat.runtime.scheduler import decode
from edgechat.runtime.text import EOS, GO
from edgechat.train.backend import TorchBackend
from edgechat.train.model import ModelConfig, Seq2Seq

V = 60


def make_model(*, layers: int, reverse: bool) -> Seq2Seq:
    torch.manual_seed(5)
    config = ModelConfig(
        layers=layers, hidden=16, embedding=6, attention=10, dropout=0.3, reverse_source=reverse
    )
    model = Seq2Seq(config, V).eval()
    with torch.no_grad():  # sharper than initial weights, so that differences show
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model


def backend_of(model: Seq2Seq) -> OrtBackend:
    graphs = build_encoder(model), build_decoder(model)
    return OrtBackend(graph_spec(model), *graphs, device="cpu", threads=1)


def random_sources(count: int, longest: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(5, V, size=random.integers(1, longest + 1)).tolist() for _ in range(count)]


@pytest.fixture(scope="module", params=[(1, True), (2, True), (3, False)], ids=str)
def both(request) -> tuple[TorchBackend, OrtBackend]:
    layers, reverse = request.param
    model = make_model(layers=layers, reverse=reverse)
    return TorchBackend(model), backend_of(model)


def test_one_file_serves_a_grid_of_batches_lengths_beams_and_candidates(both):
    ours, theirs = both
    for B, S, K, C in itertools.product((1, 3), (1, 2, 9), (1, 2, 5), (1, 7, V)):
        sources = [*random_sources(B - 1, S, seed=S), [5] * S]
        a, b = ours.encode(*pad(sources)), theirs.encode(*pad(sources))
        tokens = np.full(B * K, GO, dtype=np.int64)
        parents = np.repeat(np.arange(B), K)
        for step in range(3):
            out, a = ours.step(a, tokens, parents, C, return_logp=True)
            other, b = theirs.step(b, tokens, parents, C, return_logp=True)
            np.testing.assert_allclose(out.logp, other.logp, atol=1e-5)
            np.testing.assert_allclose(out.align, other.align, atol=1e-5)
            np.testing.assert_allclose(out.cand_logp, other.cand_logp, atol=1e-5)
            assert other.cand_ids.shape == (B * K, C)
            for name, tensor in zip(("h", "c", "attn"), a.decoder, strict=True):
                np.testing.assert_allclose(tensor.numpy(), b.recurrent[name], atol=1e-5)
            tokens = (tokens + step + 5 + np.arange(B * K)) % V
            parents = np.arange(B).repeat(K) * K + np.tile(np.arange(K)[::-1], B)  # rows are permuted


def test_memory_is_in_text_order_and_masked_by_length(both):
    ours, theirs = both
    src, src_len = pad([[5, 6, 7], [8]])
    a, b = ours.encode(src, src_len), theirs.encode(src, src_len)
    np.testing.assert_allclose(a.memory.values[0].numpy(), b.memory["values"][0], atol=1e-5)
    np.testing.assert_allclose(a.memory.values[1, :1].numpy(), b.memory["values"][1, :1], atol=1e-5)
    assert b.memory["bias"].tolist() == [[0, 0, 0], [0, -1e9, -1e9]]


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_a_search_finds_the_same_replies_with_both(both, batch_size):
    sources = random_sources(16, 8)
    options = DecodingOptions(beam=4, n_best=4, normalize="none")
    found = [decode(backend, sources, options, max_length=12, batch_size=batch_size) for backend in both]
    for a, b in zip(*found, strict=True):
        if min(a.min_gap, b.min_gap) > 1e-4:
            assert [h.tokens for h in a.hypotheses()] == [h.tokens for h in b.hypotheses()]
            assert [h.score for h in a.hypotheses()] == pytest.approx(
                [h.score for h in b.hypotheses()], abs=1e-4
            )


def test_names_and_shapes_are_those_of_the_format():
    model = make_model(layers=2, reverse=True)
    encoder, decoder = (onnx.load_from_string(build(model)) for build in (build_encoder, build_decoder))

    def signature(values):
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}

    assert signature(encoder.graph.input) == {"src": ["B", "S"], "src_len": ["B"]}
    assert signature(encoder.graph.output) == {
        "keys": ["B", "S", 10],
        "values": ["B", "S", 16],
        "bias": ["B", "S"],
        "h": [2, "B", 16],
        "c": [2, "B", 16],
    }
    assert signature(decoder.graph.input) == {
        "tokens": ["N"],
        "parent": ["N"],
        "h": [2, "M", 16],
        "c": [2, "M", 16],
        "attn": ["M", 16],
        "keys": ["B", "S", 10],
        "values": ["B", "S", 16],
        "bias": ["B", "S"],
        "top_k": [1],
    }
    assert signature(decoder.graph.output) == {
        "cand_ids": ["N", "C"],
        "cand_logp": ["N", "C"],
        "next_h": [2, "N", 16],
        "next_c": [2, "N", 16],
        "next_attn": ["N", 16],
        "align": ["N", "S"],
        "logp": ["N", V],
    }


def test_the_same_weights_give_the_same_bytes():
    model = make_model(layers=2, reverse=True)
    assert build_encoder(model) == build_encoder(model)
    assert build_decoder(model) == build_decoder(model)


def test_the_proof_passes_and_counts_what_it_compared(both):
    sources = random_sources(9, 7)
    targets = [[*source[:3], EOS] for source in sources]
    proof = prove(*both, sources, targets, max_length=10)
    assert (proof.pairs, proof.steps) == (9, 3 * sum(map(len, targets)))  # in batches of 1, 7 and 64
    assert proof.replies == 9 * len(proof.beams) * len(proof.batch_sizes)
    assert 0 < proof.worst_logp < 1e-4


def test_a_proof_that_fails_of_a_diverged_model_says_so():
    model = make_model(layers=1, reverse=True)
    exported = backend_of(model)
    with torch.no_grad():
        model.output.bias[6] -= 5000.0
    with pytest.raises(ProofError, match=r"as low as -5\.\d+e\+03, .* so the training has diverged"):
        prove(TorchBackend(model), exported, random_sources(3, 5), [[6, EOS]] * 3, max_length=4)


@pytest.mark.parametrize(
    "name", ["attention.query.weight", "encoder.weight_hh_l0", "cells.1.bias_ih", "output.bias"]
)
def test_the_proof_fails_if_a_weight_differs(name):
    model = make_model(layers=2, reverse=True)
    exported = backend_of(model)
    with torch.no_grad():
        model.get_parameter(name)[4] += 0.5
    sources = random_sources(5, 7)
    with pytest.raises(
        ProofError, match=r"differ from the PyTorch model: .* by [0-9.e-]+, but at most 0.0001"
    ):
        prove(TorchBackend(model), exported, sources, [[6, EOS]] * 5, max_length=10)


def test_the_proof_fails_if_only_replies_differ():
    """A backend with correct numbers, but its candidates in another order."""
    model = make_model(layers=1, reverse=True)

    class Swapped(OrtBackend):
        def step(self, state, tokens, parents, candidates, *, return_logp=False):
            out, state = super().step(state, tokens, parents, candidates, return_logp=return_logp)
            return type(out)(out.cand_ids[:, ::-1].copy(), out.cand_logp, out.align, out.logp), state

    exported = backend_of(model)
    exported.__class__ = Swapped
    with pytest.raises(ProofError, match="reply to prompt 0 of the proof differs"):
        prove(TorchBackend(model), exported, random_sources(3, 5), [[6, EOS]] * 3, max_length=10)


@pytest.mark.parametrize("what", ["align", "logp", "attn", "keys"])
def test_the_proof_fails_if_a_number_is_nan(what):
    """The candidates are correct, so only the comparison of numbers can notice it."""

    class Damaged(OrtBackend):
        def encode(self, src, src_len):
            state = super().encode(src, src_len)
            self.clean = state.memory["keys"]
            if what == "keys":
                state.memory["keys"] = np.full_like(self.clean, np.nan)
            return state

        def step(self, state, tokens, parents, candidates, *, return_logp=False):
            clean = {**state.memory, "keys": self.clean} if what == "keys" else state.memory
            out, state = super().step(
                type(state)(clean, state.recurrent), tokens, parents, candidates, return_logp=return_logp
            )
            fields = {name: getattr(out, name) for name in ("cand_ids", "cand_logp", "align", "logp")}
            if return_logp and what in fields:
                fields[what] = np.full_like(fields[what], np.nan)
            if return_logp and what == "attn":
                state.recurrent["attn"] = np.full_like(state.recurrent["attn"], np.nan)
            return type(out)(**fields), state

    model = make_model(layers=1, reverse=True)
    sources = random_sources(3, 5)
    exported = backend_of(model)
    exported.__class__ = Damaged
    with pytest.raises(ProofError, match=r"by nan, but at most 0.0001"):
        prove(TorchBackend(model), exported, sources, [[6, EOS]] * 3, max_length=4)
