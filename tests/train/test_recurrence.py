"""Steps with hand-written derivatives have the values and gradients of plain ones."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.nn.utils.rnn import pack_padded_sequence

from edgechat.train import model as model_module
from edgechat.train import recurrence
from edgechat.train.model import ModelConfig, Seq2Seq
from edgechat.train.projection import plain_projection
from edgechat.train.recurrence import lstm_cell, lstm_layer

N, H = 3, 4


def random_doubles(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def plain_cell(
    gates: torch.Tensor, c: torch.Tensor, offset: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    i, f, g, o = (gates if offset is None else gates + offset).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def test_a_cell_is_the_formula_of_nn_lstm_cell():
    torch.manual_seed(0)
    cell = nn.LSTMCell(5, H)
    x, h, c = torch.randn(N, 5), torch.randn(N, H), torch.randn(N, H)
    gates = x @ cell.weight_ih.T + h @ cell.weight_hh.T + cell.bias_ih + cell.bias_hh
    for got, want in zip(lstm_cell(gates, c), cell(x, (h, c)), strict=True):
        torch.testing.assert_close(got, want)


def test_the_gradient_of_a_cell_is_right_to_the_last_digits():
    torch.manual_seed(0)
    inputs = random_doubles(N, 4 * H), random_doubles(N, H)
    assert gradcheck(lstm_cell, inputs)
    assert gradcheck(lstm_cell, (*inputs, random_doubles(N, 4 * H)))
    for output in (0, 1):
        assert gradcheck(lambda gates, c, output=output: lstm_cell(gates, c)[output], inputs)


def test_an_offset_is_added_to_the_gates():
    gates, c, offset = torch.randn(N, 4 * H), torch.randn(N, H), torch.randn(N, 4 * H)
    for got, want in zip(lstm_cell(gates, c, offset), lstm_cell(gates + offset, c), strict=True):
        assert torch.equal(got, want)


def test_a_cell_does_not_change_its_inputs():
    inputs = torch.randn(N, 4 * H), torch.randn(N, H), torch.randn(N, 4 * H)
    before = [one.clone() for one in inputs]
    lstm_cell(*inputs)
    assert all(torch.equal(*pair) for pair in zip(inputs, before, strict=True))


def stand_in_kernel(
    input_gates: torch.Tensor, hidden_gates: torch.Tensor, c: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What PyTorch's kernel for GPUs computes, and what it requires."""
    assert input_gates.dtype == hidden_gates.dtype == c.dtype
    assert input_gates.shape == hidden_gates.shape
    return *plain_cell(input_gates, c, hidden_gates), torch.empty(0)


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cell_for_gpus_is_the_same_with_states_and_their_gradients_in_float32(monkeypatch, dtype, offset):
    """With a stand-in of its kernel, which tests/train/test_cuda.py uses itself."""
    monkeypatch.setattr(recurrence, "_fused_cell", stand_in_kernel)
    torch.manual_seed(0)
    given = [torch.randn(N, 4 * H).to(dtype), torch.randn(N, H), torch.randn(N, 4 * H).to(dtype)]
    results = []
    for cell in (lstm_cell, recurrence._fused_lstm_cell):
        gates, c, added = (one.clone().requires_grad_() for one in given)
        h, following = cell(gates, c, added if offset else None)
        assert h.dtype == following.dtype == torch.float32
        (h.sum() + following.square().sum()).backward()
        gradients = [gates.grad, c.grad, *([added.grad] if offset else [])]
        assert [one.dtype for one in gradients] == [dtype, torch.float32, *([dtype] if offset else [])]
        results.append((h, following, *gradients))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)


def test_a_training_on_a_gpu_may_begin_with_a_validation(monkeypatch):
    """Autograd saves what is added to the gates, and refuses tensors that were made in inference mode."""
    saved = []

    def kernel(gates: torch.Tensor, offset: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
        saved.append(offset)
        return stand_in_kernel(gates, offset, c)

    monkeypatch.setattr(recurrence, "_fused_cell", kernel)
    recurrence._zero.cache_clear()
    gates, c = torch.randn(N, 4 * H), torch.randn(N, H)
    with torch.inference_mode():
        recurrence._fused_lstm_cell(gates, c, None)
    recurrence._fused_lstm_cell(gates, c, None)
    assert not saved[1].is_inference()


@pytest.mark.parametrize("sizes", [[3, 2, 2, 1], [1], [2, 2], [4, 1, 1]])
def test_the_gradient_of_a_layer_is_right_to_the_last_digits(sizes):
    torch.manual_seed(1)
    assert gradcheck(
        lambda gates, w: lstm_layer(gates, w, sizes),
        (random_doubles(sum(sizes), 4 * H), random_doubles(4 * H, H)),
    )


def test_a_layer_is_what_nn_lstm_computes_of_packed_sentences():
    torch.manual_seed(2)
    lengths = torch.tensor([5, 3, 3, 1])
    x = torch.randn(4, 5, 6)
    lstm = nn.LSTM(6, H, batch_first=True)
    packed = pack_padded_sequence(x, lengths, batch_first=True)
    values, (h, c) = lstm(packed)
    gates = packed.data @ lstm.weight_ih_l0.T + lstm.bias_ih_l0 + lstm.bias_hh_l0
    ours = lstm_layer(gates, lstm.weight_hh_l0, packed.batch_sizes.tolist())
    for got, want in zip(ours, (values.data, h[0], c[0]), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_models_losses_and_gradients_are_those_of_plain_modules(layers, monkeypatch):
    torch.manual_seed(3)
    config = ModelConfig(layers=layers, hidden=8, embedding=4, attention=6, dropout=0.0)
    model = Seq2Seq(config, 15).double()
    batch = (
        torch.tensor([[5, 6, 7, 8], [8, 9, 0, 0], [4, 5, 6, 0]]),
        torch.tensor([4, 2, 3]),
        torch.tensor([[9, 10, 2], [11, 2, 0], [2, 0, 0]]),
        torch.tensor([3, 2, 1]),
    )

    def learned() -> list[torch.Tensor]:
        model.zero_grad()
        logits, labels = model(*batch)
        loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]

    ours = learned()
    monkeypatch.setattr(model_module, "projection_through_time", plain_projection)
    monkeypatch.setattr(
        model_module, "weighted_sum_through_time", lambda values: lambda weights: weights @ values
    )
    monkeypatch.setattr(model_module, "lstm_cell", plain_cell)
    monkeypatch.setattr(Seq2Seq, "_encode_with_custom_backward", lambda self, packed: self.encoder(packed))
    for got, want in zip(ours, learned(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_dropout_between_the_layers_of_the_encoder_is_only_active_in_training():
    torch.manual_seed(4)
    model = Seq2Seq(
        ModelConfig(layers=2, hidden=8, embedding=4, attention=6, dropout=0.5, embedding_dropout=0.0), 15
    )
    source = torch.tensor([[5, 6, 7]]), torch.tensor([3])
    values = [model.encode(*source)[0].values for _ in range(2)]
    assert not torch.equal(*values)
    values = [model.eval().encode(*source)[0].values for _ in range(2)]
    assert torch.equal(*values)
