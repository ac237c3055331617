"""A projection through time has the values and the gradients of a plain one."""

import pytest
import torch
from torch.nn.functional import linear

from edgechat.train.model import ModelConfig, Seq2Seq
from edgechat.train.projection import plain, through_time


def recurrent(kind, weight: torch.Tensor, x: torch.Tensor, steps: int) -> torch.Tensor:
    project = kind(weight)
    for _ in range(steps):
        x = torch.tanh(project(x))
    return x.square().sum()


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_gradients_equal_those_of_plain_maps(steps):
    torch.manual_seed(0)
    weight = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(recurrent(plain, weight, x, steps), (weight, x))
    for got, want in zip(
        torch.autograd.grad(recurrent(through_time, weight, x, steps), (weight, x)), expected, strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_the_gradient_of_one_step_is_the_product_written_out():
    weight = torch.tensor([[2.0, 3.0]], requires_grad=True)
    x = torch.tensor([[5.0, 7.0], [11.0, 13.0]])
    y = through_time(weight)(x)
    assert y.flatten().tolist() == [2 * 5 + 3 * 7, 2 * 11 + 3 * 13]
    y.backward(torch.tensor([[1.0], [10.0]]))
    assert weight.grad.tolist() == [[1 * 5 + 10 * 11, 1 * 7 + 10 * 13]]


def test_without_gradients_nothing_is_noted():
    weight = torch.ones(2, 2, requires_grad=True)
    with torch.inference_mode():
        assert through_time(weight)(torch.ones(1, 2)).tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize("layers", [1, 3])
def test_the_models_gradients_are_those_of_autograd_alone(layers, monkeypatch):
    from edgechat.train import model as model_module

    torch.manual_seed(3)
    config = ModelConfig(layers=layers, hidden=8, embedding=4, attention=6, dropout=0.0)
    model = Seq2Seq(config, 15)
    batch = (
        torch.tensor([[5, 6, 7], [8, 9, 0]]),
        torch.tensor([3, 2]),
        torch.tensor([[9, 10, 2], [11, 2, 0]]),
        torch.tensor([3, 2]),
    )

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        logits, labels = model(*batch)
        torch.nn.functional.cross_entropy(logits, labels).backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    ours = gradients()
    monkeypatch.setattr(model_module, "through_time", lambda weight: lambda x: linear(x, weight))
    for got, want in zip(ours, gradients(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)
