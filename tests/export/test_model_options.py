"""Graphs of every option of the model: compared with PyTorch, in every precision, and proved."""

import itertools

import numpy as np
import onnx
import pytest
import torch
from model_options import OPTIONS, model_with

from edgechat.export import ProofError
from edgechat.export.bundle_graphs import build_graphs, prove_graphs
from edgechat.export.graphs import build_decoder, build_encoder, graph_spec
from edgechat.runtime.backend import pad
from edgechat.runtime.manifest import PRECISIONS
from edgechat.runtime.ort import OrtBackend
from edgechat.runtime.text import EOS, GO
from edgechat.train.backend import TorchBackend

V = 60


def sources_of(count: int, longest: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(5, V, size=random.integers(1, longest + 1)).tolist() for _ in range(count)]


@pytest.mark.parametrize("option", OPTIONS)
def test_the_graphs_compute_what_pytorch_computes_over_a_grid_of_sizes(option):
    model = model_with(option, V)
    graphs = build_encoder(model), build_decoder(model)
    ours, theirs = TorchBackend(model), OrtBackend(graph_spec(model), *graphs, device="cpu", threads=1)
    for B, S, K, C in itertools.product((1, 3), (1, 9), (2, 5), (1, V)):
        sources = [*sources_of(B - 1, S, seed=S), [5] * S]
        a, b = ours.encode(*pad(sources)), theirs.encode(*pad(sources))
        assert set(b.recurrent) <= {"h", "c", "attn"}
        tokens, parents = np.full(B * K, GO, dtype=np.int64), np.repeat(np.arange(B), K)
        for step in range(3):
            out, a = ours.step(a, tokens, parents, C, return_logp=True)
            other, b = theirs.step(b, tokens, parents, C, return_logp=True)
            np.testing.assert_allclose(out.logp, other.logp, atol=5e-5)
            np.testing.assert_allclose(out.align, other.align, atol=1e-5)
            np.testing.assert_allclose(out.cand_logp, other.cand_logp, atol=5e-5)
            np.testing.assert_allclose(np.exp(other.logp).sum(axis=1), 1, atol=1e-4)
            for name, tensor in b.recurrent.items():
                np.testing.assert_allclose(getattr(a.decoder, name).numpy(), tensor, atol=5e-5)
            tokens = (tokens + step + 5 + np.arange(B * K)) % V
            parents = np.arange(B).repeat(K) * K + np.tile(np.arange(K)[::-1], B)  # rows are permuted


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("option", OPTIONS)
def test_each_precision_is_proved_alone_and_in_ragged_batches(option, precision):
    model = model_with(option, V)
    sources = sources_of(8, 6)
    targets = [[*source[:3], EOS] for source in sources]
    built = build_graphs(model, precision, (sources, targets))
    proof = prove_graphs(model, built, sources, targets, max_length=6)
    assert proof["replies"] == 8 * len(proof["beams"]) * len(proof["batch_sizes"])
    assert precision == "fp32" or proof[precision]["replies"] > 0
    assert precision != "int8" or built.size < 0.75 * built.fp32_size


@pytest.mark.parametrize("option", ["normed", "general", "deep-unfed", "copy", "all"])
def test_the_proof_sees_one_changed_weight_of_any_tensor(option):
    model = model_with(option, V)
    sources = sources_of(4, 7)
    built = build_graphs(model, "fp32", (sources, sources))
    for parameter in model.parameters():
        with torch.no_grad():
            before = parameter.clone()
            changed = parameter if parameter.ndim == 0 else parameter[..., -1]
            changed += 0.7 + changed.abs()
            with pytest.raises(ProofError):
                prove_graphs(model, built, sources, [[6, 7, EOS]] * 4, max_length=4)
            parameter.copy_(before)


def test_names_that_an_option_does_not_use_are_absent():
    model = model_with("unfed", V)
    decoder = onnx.load_from_string(build_decoder(model)).graph
    assert "attn" not in {value.name for value in decoder.input}
    assert "next_attn" not in {value.name for value in decoder.output}
    assert [tensor.input for tensor in graph_spec(model).state] == ["h", "c"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_tied_embedding_is_stored_once_in_a_graph(precision):
    model = model_with("tied", V)
    sources = sources_of(4, 5)
    built = build_graphs(model, precision, (sources, sources))
    for graph in (built.encoder, built.decoder):
        weights = onnx.load_from_string(graph).graph.initializer
        assert [tuple(w.dims) for w in weights if np.prod(w.dims) == V * 6] == [(V, 6)]


@pytest.mark.parametrize("size", [1.0, 200.0])
@pytest.mark.parametrize("gate", [-100.0, 0.0, 100.0])
def test_copying_equals_pytorch_where_probabilities_vanish(gate, size):
    model = model_with("copy", V)
    with torch.no_grad():
        model.copying.gate.bias.fill_(gate)
        model.output.weight.mul_(size)
    graphs = build_encoder(model), build_decoder(model)
    ours, theirs = TorchBackend(model), OrtBackend(graph_spec(model), *graphs, device="cpu", threads=1)
    src, src_len = pad([[5, 6, 5, 7, 5], [8, 8]])
    tokens, parents = np.full(4, GO, dtype=np.int64), np.array([0, 0, 1, 1])
    out, _ = ours.step(ours.encode(src, src_len), tokens, parents, 5, return_logp=True)
    other, _ = theirs.step(theirs.encode(src, src_len), tokens, parents, 5, return_logp=True)
    np.testing.assert_allclose(out.logp, other.logp, atol=1e-3 if size > 1 else 1e-5)
    assert np.isfinite(other.logp).all()
    if gate < 0:  # tokens that are not in the source have no probability
        likely = {tuple(sorted(set(np.flatnonzero(row > -20)))) for row in other.logp}
        assert likely == {(5, 6, 7), (8,)}
