"""Copy attention: the mixture by hand, and numbers at the limits of a float."""

import math

import pytest
import torch

from edgechat.train.copying import CopyAttention, first_occurrence_mask

SRC = torch.tensor([[3, 1, 3, 0]])  # the last is padding


def copying(*, gate: float) -> CopyAttention:
    """Copy attention whose gate is sigmoid(`gate`) for any input."""
    module = CopyAttention(2, 2)
    with torch.no_grad():
        module.gate.weight.zero_()
        module.gate.bias.fill_(gate)
    return module


def mixed(module: CopyAttention, logits: torch.Tensor, align: torch.Tensor) -> torch.Tensor:
    some = torch.zeros(1, 2)
    return module(logits, some, some, align, SRC, first_occurrence_mask(SRC))


def test_the_first_of_equal_tokens_is_marked():
    assert first_occurrence_mask(torch.tensor([[7, 8, 7, 7], [1, 1, 2, 1]])).tolist() == [
        [True, True, False, False],
        [True, False, True, False],
    ]


def test_the_mixture_by_hand():
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.0]]).clamp_min(1e-30).log()
    align = torch.tensor([[0.5, 0.2, 0.3, 0.0]])
    found = mixed(copying(gate=math.log(3)), logits, align).exp()  # g = 3 / 4
    # Token 3 stands twice, aligned to with 0.5 + 0.3; padding is aligned to with nothing.
    expected = [0.75 * 0.1, 0.75 * 0.2 + 0.25 * 0.2, 0.75 * 0.3, 0.75 * 0.4 + 0.25 * 0.8, 0.0]
    assert found[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_gate_sees_the_attention_vector_and_what_was_fed():
    module = copying(gate=0.0)
    with torch.no_grad():
        module.gate.weight.copy_(torch.tensor([[1.0, 0.0, 0.0, -2.0]]))
    attn, x = torch.tensor([[3.0, 9.0]]), torch.tensor([[9.0, 0.5]])  # 3 - 2 * 0.5 = 2
    align = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    found = module(torch.zeros(1, 5), attn, x, align, SRC, first_occurrence_mask(SRC)).exp()
    g = 1 / (1 + math.exp(-2))
    assert found[0, 4].item() == pytest.approx(g / 5)
    assert found[0, 1].item() == pytest.approx(g / 5 + 1 - g)


@pytest.mark.parametrize("gate", [-200.0, 0.0, 200.0])
@pytest.mark.parametrize("size", [0.0, 300.0])
@pytest.mark.parametrize("label", range(5))
def test_every_loss_and_gradient_is_finite(gate, size, label):
    module = copying(gate=gate)
    logits = torch.tensor([[0.0, -1.0, 1.0, -1.0, 0.5]]).mul(size).requires_grad_()
    align = torch.tensor([[1.0, 0.0, 0.0, 0.0]], requires_grad=True)  # nothing at all at token 1
    logp = mixed(module, logits, align)
    assert torch.isfinite(logp).all()
    (-logp[0, label]).backward()
    for gradient in (logits.grad, align.grad, module.gate.bias.grad):
        assert torch.isfinite(gradient).all()


def test_the_gradient_of_a_repeated_token_is_counted_once():
    module = copying(gate=0.3).double()
    align = torch.tensor([[0.4, 0.1, 0.45, 0.05]], dtype=torch.float64, requires_grad=True)
    logits = torch.randn(1, 5, dtype=torch.float64, requires_grad=True)
    some = torch.zeros(1, 2, dtype=torch.float64)

    def probability(logits: torch.Tensor, align: torch.Tensor) -> torch.Tensor:
        return module(logits, some, some, align, SRC, first_occurrence_mask(SRC))[0, :4]

    assert torch.autograd.gradcheck(probability, (logits, align))
