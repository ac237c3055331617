"""Every option of the model in PyTorch: its formula, the same alone and in a batch, step by step, and
learning."""

import numpy as np
import pytest
import torch
from model_options import OPTIONS, model_with
from tests_corpus import PAIRS

from edgechat.runtime.backend import pad
from edgechat.runtime.errors import UsageError
from edgechat.runtime.text import EOS, GO
from edgechat.train.attention import NormedBahdanauAttention, ScaledAttention, make_attention
from edgechat.train.loss import summed_losses
from edgechat.train.lstm_stack import LayerConnection
from edgechat.train.model import ModelConfig, Seq2Seq

V = 20
SOURCES = [[5, 6, 7, 8], [9], [10, 11, 12]]


def tensors(ids: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    array, lengths = pad(ids)
    return torch.from_numpy(array), torch.from_numpy(lengths)


# --- attention ------------------------------------------------------------------------------------

KEYS = torch.tensor([[[0.5, 1.0], [-1.0, 2.0]]])
NO_BIAS = torch.zeros(1, 2)


def test_dot_attention_by_hand():
    attention = make_attention("luong-dot", 2, 7, dropout=0.0)
    q = torch.tensor([[2.0, 1.0]])
    context, align = attention(q, attention.keys(KEYS), KEYS, NO_BIAS)
    # Scores 2 * 0.5 + 1 * 1 = 2 and 2 * -1 + 1 * 2 = 0.
    a = np.exp(2) / (np.exp(2) + 1)
    assert align[0].tolist() == pytest.approx([a, 1 - a])
    assert context[0].tolist() == pytest.approx([0.5 * a - (1 - a), a + 2 * (1 - a)])


def test_general_attention_by_hand():
    attention = make_attention("luong-general", 2, 7, dropout=0.0)
    with torch.no_grad():
        attention.key.weight.copy_(torch.tensor([[0.0, 1.0], [3.0, 0.0]]))
    _, align = attention(torch.tensor([[2.0, 1.0]]), attention.keys(KEYS), KEYS, NO_BIAS)
    # Keys (1, 1.5) and (2, -3); scores 2 + 1.5 = 3.5 and 4 - 3 = 1.
    assert align[0, 0].item() == pytest.approx(1 / (1 + np.exp(1 - 3.5)))


def test_scaled_attention_by_hand():
    attention = ScaledAttention(2, 4)
    with torch.no_grad():
        attention.query.weight.fill_(0.5)
        attention.key.weight.fill_(1.0)
    q = attention.query(torch.tensor([[2.0, 4.0]]))
    _, align = attention(q, attention.keys(KEYS), KEYS, NO_BIAS)
    # Queries (3, 3, 3, 3), keys 1.5 and 1.0 four times: scores 18 / sqrt(4) and 12 / sqrt(4).
    assert align[0, 0].item() == pytest.approx(1 / (1 + np.exp(6 - 9)))


def test_normed_attention_by_hand():
    attention = NormedBahdanauAttention(2, 2)
    with torch.no_grad():
        attention.query.weight.copy_(torch.eye(2))
        attention.key.weight.copy_(torch.eye(2))
        attention.key.bias.copy_(torch.tensor([0.25, 0.0]))
        attention.v.copy_(torch.tensor([3.0, 4.0]))  # of length 5
        attention.g.fill_(10.0)
    q = attention.query(torch.tensor([[0.5, 0.5]]))
    _, align = attention(q, attention.keys(KEYS), KEYS, NO_BIAS)
    # v becomes (6, 8); the keys (0.75, 1) and (-0.75, 2).
    scores = [6 * np.tanh(1.25) + 8 * np.tanh(1.5), 6 * np.tanh(-0.25) + 8 * np.tanh(2.5)]
    assert align[0, 0].item() == pytest.approx(1 / (1 + np.exp(scores[1] - scores[0])))


def test_the_length_of_v_does_not_matter_to_normed_attention():
    attention = NormedBahdanauAttention(3, 4)
    before = attention.score_vector().clone()
    with torch.no_grad():
        attention.v.mul_(7)
    torch.testing.assert_close(attention.score_vector(), before)
    assert before.norm().item() == pytest.approx(0.5)  # 1 / sqrt(A)


# --- between layers -------------------------------------------------------------------------------


def test_residual_connections_and_layer_norm_by_hand():
    between = LayerConnection(2, 2, residual=True, layer_norm=True, dropout=0.0)
    below = torch.tensor([1.0, 3.0])
    # Mean 2, variance 1.
    assert between.layer_input(1, below).tolist() == pytest.approx([-1.0, 1.0], abs=1e-4)
    assert between.layer_output(torch.tensor([10.0, 20.0]), below).tolist() == [11.0, 23.0]


def test_a_deep_stack_is_its_layers_one_after_another():
    model = model_with("deep-unfed", V)
    x = torch.randn(5, 3, 6)
    y, (h, c) = model.decoder(x)
    expected = x
    for layer, lstm in enumerate(model.decoder.lstms()):
        below = expected
        fed = torch.nn.functional.layer_norm(below, (16,), *norm_of(model, layer)) if layer else below
        out, (last_h, last_c) = lstm(fed)
        expected = out + below if layer else out
        torch.testing.assert_close(h[layer], last_h[0])
        torch.testing.assert_close(c[layer], last_c[0])
    torch.testing.assert_close(y, expected)


def norm_of(model: Seq2Seq, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    norm = model.decoder.between.norms[layer - 1]
    return norm.weight, norm.bias


def test_a_bidirectional_encoder_sees_both_sides_of_a_word():
    for option, both in (("bidirectional", True), ("normed", False)):
        model = model_with(option, V)
        memory, state = model.encode(*tensors([[5, 6, 7]]))
        assert memory.values.shape == (1, 3, 16)
        assert state.h.shape == (2, 1, 16)
        changed = [model.encode(*tensors([other]))[0].values[0, 1] for other in ([9, 6, 7], [5, 6, 9])]
        moved = [not torch.allclose(memory.values[0, 1], values) for values in changed]
        assert moved == [both, True]  # the default reads backwards: a word sees only those after it


# --- every option ---------------------------------------------------------------------------------


@pytest.mark.parametrize("option", OPTIONS)
def test_batch_mates_and_padding_change_nothing(option):
    model = model_with(option, V)
    src, src_len = tensors(SOURCES)
    memory, state = model.encode(torch.nn.functional.pad(src, (0, 3)), src_len)
    together, _, _ = model.step(torch.tensor([GO] * 3), state, memory)
    for i, source in enumerate(SOURCES):
        alone, alone_state = model.encode(*tensors([source]))
        torch.testing.assert_close(memory.values[i, : len(source)], alone.values[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(memory.keys[i, : len(source)], alone.keys[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(state.h[:, i], alone_state.h[:, 0], atol=1e-5, rtol=0)
        logits, _, _ = model.step(torch.tensor([GO]), alone_state, alone)
        torch.testing.assert_close(together[i], logits[0], atol=5e-5, rtol=0)


@pytest.mark.parametrize("option", OPTIONS)
def test_teacher_forcing_computes_what_single_steps_compute(option):
    model = model_with(option, V)
    src, src_len = tensors([[5, 6, 7], [8]])
    logits, labels = model(src, src_len, torch.tensor([[9, 10, EOS], [11, EOS, 0]]), torch.tensor([3, 2]))
    assert labels.tolist() == [9, 10, EOS, 11, EOS]
    memory, state = model.encode(src, src_len)
    stepped = []
    for fed in torch.tensor([[GO, 9, 10], [GO, 11, EOS]]).T:
        out, state, _ = model.step(fed, state, memory)
        stepped.append(out)
    expected = torch.stack(stepped, dim=1)[torch.tensor([[True] * 3, [True, True, False]])]
    torch.testing.assert_close(logits, expected, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("option", OPTIONS)
def test_gradients_reach_every_weight_and_are_those_of_small_changes(option):
    model = model_with(option, V, sharpen=1.0).double().train()
    batch = (*tensors([[5, 6, 5, 8], [9], [10, 10, 12]]), *tensors([[5, 10, EOS], [EOS], [10, EOS]]))
    mean_loss(model, batch).backward()
    random = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name  # noqa: PT018
        direction = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
        losses = []
        with torch.no_grad():
            for sign in (1, -2, 1):  # there, to the other side, and back
                parameter.add_(direction, alpha=sign * 1e-5)
                losses.append(double_loss(model, batch))
        slope = (losses[0] - losses[1]) / 2e-5
        expected = (parameter.grad * direction).sum().item()
        assert slope == pytest.approx(expected, rel=1e-3, abs=1e-6), name


def mean_loss(model: Seq2Seq, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    logits, labels = model(*batch)
    return summed_losses(logits, labels).objective / len(labels)


def double_loss(model: Seq2Seq, batch: tuple[torch.Tensor, ...]) -> float:
    logits, labels = model(*batch)
    return torch.nn.functional.cross_entropy(logits, labels).item()  # the other is in single precision


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_learns_the_small_corpus(option):
    words = sorted({word for pair in PAIRS for text in pair for word in text.split()})
    ids = {word: 5 + i for i, word in enumerate(words)}
    sources, targets = (
        [[ids[w] for w in text.split()] for text in side] for side in zip(*PAIRS, strict=True)
    )
    batch = (*tensors(sources), *tensors([[*target, EOS] for target in targets]))
    model = model_with(option, 5 + len(ids), sharpen=1.0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = mean_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"hidden": 15, "bidirectional": True}, "bidirectional halves hidden, which must be even, not 15"),
        ({"layers": 1, "residual": True}, "residual works between layers: set layers to 2 or more"),
        ({"layers": 1, "layer_norm": True}, "layer_norm works between layers"),
    ],
)
def test_options_that_do_not_go_together_are_refused(wrong, said):
    with pytest.raises(UsageError, match=said):
        ModelConfig(**wrong)
