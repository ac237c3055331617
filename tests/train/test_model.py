"""The model against arithmetic, and against itself: padding, other sentences of the batch and single steps
change nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechat.runtime.backend import pad
from edgechat.runtime.text import EOS, GO
from edgechat.train.attention import BahdanauAttention
from edgechat.train.backend import TorchBackend
from edgechat.train.model import ModelConfig, Seq2Seq

V = 20


def make_model(*, layers: int = 2, reverse: bool = True, dropout: float = 0.0) -> Seq2Seq:
    torch.manual_seed(1)
    config = ModelConfig(
        layers=layers, hidden=12, embedding=6, attention=8, dropout=dropout, reverse_source=reverse
    )
    return Seq2Seq(config, V).eval()


def encode(model: Seq2Seq, sources: list[list[int]], extra_padding: int = 0):
    src, src_len = pad(sources)
    src = np.pad(src, ((0, 0), (0, extra_padding)))
    return model.encode(torch.from_numpy(src), torch.from_numpy(src_len))


def test_attention_equals_its_formula_written_out():
    attention = BahdanauAttention(1, 1)
    with torch.no_grad():
        attention.query.weight.fill_(2.0)
        attention.v.fill_(3.0)
    keys = torch.tensor([[[0.5], [-1.0], [9.0]]])
    values = torch.tensor([[[10.0], [20.0], [1000.0]]])
    bias = torch.tensor([[0.0, 0.0, -1e9]])
    context, align = attention(attention.query(torch.tensor([[0.25]])), keys, values, bias)
    # q = 2 * 0.25 = 0.5; scores 3 tanh(0.5 + 0.5) and 3 tanh(0.5 - 1.0); the third is padding.
    a, b = np.exp(3 * np.tanh(1.0)), np.exp(3 * np.tanh(-0.5))
    assert align[0].tolist() == pytest.approx([a / (a + b), b / (a + b), 0.0])
    assert context.item() == pytest.approx((10 * a + 20 * b) / (a + b))


def test_padding_gets_no_attention_at_all():
    model = make_model()
    memory, state = encode(model, [[5, 6], [5, 6, 7, 8]])
    _, _, align = model.step(torch.tensor([GO, GO]), state, memory)
    assert align[0, 2:].tolist() == [0.0, 0.0]
    assert align[0].sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("reverse", [True, False])
@given(sources=st.lists(st.lists(st.integers(5, V - 1), min_size=1, max_size=7), min_size=2, max_size=5))
@settings(max_examples=15)
def test_batch_mates_and_padding_do_not_change_an_encoding(reverse, sources):
    model = make_model(reverse=reverse)
    memory, state = encode(model, sources, extra_padding=3)
    for i, source in enumerate(sources):
        alone, alone_state = encode(model, [source])
        n = len(source)
        torch.testing.assert_close(memory.values[i, :n], alone.values[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(memory.keys[i, :n], alone.keys[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(state.h[:, i], alone_state.h[:, 0], atol=1e-6, rtol=0)
        torch.testing.assert_close(state.c[:, i], alone_state.c[:, 0], atol=1e-6, rtol=0)


def test_a_reversed_source_encodes_its_true_first_word_last():
    """The old tutorials padded in front of the reversed source and passed the true length, so the first
    words of a padded sentence were cut off. Here the first word is the last read: it moves the final
    state, and what the encoder holds at each word has seen only that word and those behind it."""
    model = make_model(reverse=True)
    padded = [[7, 8, 9], [10, 11, 12, 13, 14, 15]]
    memory, state = encode(model, padded)
    other_memory, other_state = encode(model, [[6, 8, 9], padded[1]])
    assert not torch.allclose(state.h[:, 0], other_state.h[:, 0])
    torch.testing.assert_close(memory.values[0, 1:3], other_memory.values[0, 1:3])
    assert not torch.allclose(memory.values[0, 0], other_memory.values[0, 0])
    # The final state of the top layer is what the encoder holds at the first word.
    torch.testing.assert_close(state.h[-1, 0], memory.values[0, 0])


def test_a_reversed_source_equals_an_unreversed_model_fed_backwards():
    model, plain = make_model(reverse=True), make_model(reverse=False)
    memory, state = encode(model, [[7, 8, 9]])
    backwards, backwards_state = encode(plain, [[9, 8, 7]])
    torch.testing.assert_close(memory.values, backwards.values.flip(1))
    torch.testing.assert_close(state.h, backwards_state.h)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_teacher_forcing_computes_what_single_steps_compute(layers):
    model = make_model(layers=layers)
    src, src_len = (torch.from_numpy(a) for a in pad([[5, 6, 7], [8]]))
    target = torch.tensor([[9, 10, EOS], [11, EOS, 0]])
    logits, labels = model(src, src_len, target, torch.tensor([3, 2]))
    assert labels.tolist() == [9, 10, EOS, 11, EOS]
    memory, state = model.encode(src, src_len)
    fed = torch.tensor([[GO, 9, 10], [GO, 11, EOS]])
    stepped = []
    for t in range(3):
        out, state, _ = model.step(fed[:, t], state, memory)
        stepped.append(out)
    expected = torch.stack(stepped, dim=1)[torch.tensor([[True] * 3, [True, True, False]])]
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=1e-5)


def test_input_feeding_feeds_the_attention_vector():
    model = make_model()
    memory, state = encode(model, [[5, 6, 7]])
    fed = state._replace(attn=torch.ones_like(state.attn))
    with_zeros, _, _ = model.step(torch.tensor([GO]), state, memory)
    with_ones, _, _ = model.step(torch.tensor([GO]), fed, memory)
    assert not torch.allclose(with_zeros, with_ones)


def test_a_step_of_many_rows_equals_steps_of_one_row_each():
    model = make_model()
    backend = TorchBackend(model)
    sources = [[5, 6, 7], [8, 9]]
    tokens = np.array([9, 10, 11, 12])
    state = backend.encode(*pad(sources))
    together, _ = backend.step(state, tokens, np.array([0, 0, 1, 1]), 4, return_logp=True)
    for row, (source, token) in enumerate(zip([sources[0]] * 2 + [sources[1]] * 2, tokens, strict=True)):
        alone, _ = backend.step(
            backend.encode(*pad([source])), np.array([token]), np.array([0]), 4, return_logp=True
        )
        np.testing.assert_allclose(together.logp[row], alone.logp[0], atol=1e-5)
        assert together.cand_ids[row].tolist() == alone.cand_ids[0].tolist()


def test_dropout_is_off_while_a_backend_decodes_and_on_again_after():
    model = make_model(dropout=0.5).train()
    backend = TorchBackend(model)
    states = [backend.encode(*pad([[5, 6, 7]])) for _ in range(2)]
    torch.testing.assert_close(states[0].memory.values, states[1].memory.values, atol=0, rtol=0)
    assert model.training


def test_initial_weights_are_glorots_gate_by_gate_and_forget_gates_start_open():
    config = ModelConfig(layers=2, hidden=64, embedding=32, attention=48)
    model = Seq2Seq(config, 500)
    for name, weight in model.named_parameters():
        if "bias" in name:
            if name.startswith("output"):
                continue
            expected = torch.zeros(256)
            if "bias_ih" in name:
                expected[64:128] = 1.0  # of i, f, g, o
            assert torch.equal(weight, expected), name
        elif weight.dim() == 2 and not name.startswith(("embedding", "output")):
            rows = 64 if "weight_ih" in name or "weight_hh" in name else len(weight)
            limit = (6 / (rows + weight.shape[1])) ** 0.5  # uniform within it
            for part in weight.split(rows):
                assert 0.95 * limit < part.abs().max() <= limit, name
    limit = (6 / 64) ** 0.5
    assert 0.95 * limit < model.output.weight.abs().max() <= limit
    assert model.embedding.weight[1:].std().item() == pytest.approx(1, rel=0.05)
    assert not model.embedding.weight[0].any()
    tied = Seq2Seq(replace(config, tied_output=True), 500)
    assert tied.embedding.weight[1:].std().item() == pytest.approx(32**-0.5, rel=0.05)
