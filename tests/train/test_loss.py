"""Loss and perplexity by hand."""

import math

import pytest
import torch

from edgechat.train import loss
from edgechat.train.loss import fused_losses, real_token_mask, summed_losses
from edgechat.train.perplexity import perplexity


def nll(logits: torch.Tensor, labels: list[int]) -> float:
    return summed_losses(logits, torch.tensor(labels)).nll.item()


def test_the_loss_is_the_negative_log_probability_of_the_labels():
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]])
    # softmax: [1/4, 3/4] and [4/5, 1/5]
    assert nll(logits, [1, 1]) == pytest.approx(-(math.log(3 / 4) + math.log(1 / 5)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cached", [1, 100, 1 << 18])  # a row, two rows, all of them at a time
def test_loss_and_gradient_are_those_of_pytorch_however_many_rows_are_cached(
    monkeypatch, smoothing, dtype, cached
):
    monkeypatch.setattr(loss, "_LOGITS_PER_CHUNK", cached)
    torch.manual_seed(0)
    logits = (10 * torch.randn(7, 50)).to(dtype)
    labels = torch.tensor([0, 49, 3, 3, 17, 25, 8])
    before = logits.clone()
    found = []
    for of in (
        lambda z: summed_losses(z, labels, smoothing).objective,
        lambda z: fused_losses(z, labels, smoothing).objective,
    ):
        z = logits.clone().requires_grad_()
        value = of(z)
        (value * 0.5).backward()
        assert torch.equal(z.detach(), before)
        found.append((value.item(), z.grad))
    (ours, our_gradient), (theirs, their_gradient) = found
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert our_gradient.dtype == dtype
    torch.testing.assert_close(
        our_gradient, their_gradient, rtol=1e-5 if dtype == torch.float32 else 0.01, atol=1e-6
    )


def test_a_loss_near_0_keeps_its_precision():
    logits = torch.tensor([[1000.0, 1000.0 - 10.0]])
    assert nll(logits, [0]) == pytest.approx(math.log1p(math.exp(-10)), rel=0.01)


def test_a_nan_logit_makes_the_loss_nan():
    for wrong in (math.nan, math.inf):
        assert math.isnan(nll(torch.tensor([[wrong, 1.0]]), [1]))


def test_perplexity_of_a_uniform_guess_is_the_vocabulary():
    assert perplexity(math.log(8000)) == pytest.approx(8000)


@pytest.mark.parametrize(("loss", "expected"), [(0.0, 1.0), (300.0, math.inf), (1e9, math.inf)])
def test_perplexity_is_infinite_from_a_loss_of_300(loss, expected):
    assert perplexity(loss) == expected


def test_real_tokens_are_true_up_to_each_length():
    mask = real_token_mask(torch.zeros(2, 3), torch.tensor([1, 3]))
    assert mask.tolist() == [[True, False, False], [True, True, True]]
