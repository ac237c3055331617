"""A projection through time has the values and gradients of a plain one."""

import pytest
import torch

from edgechat.train.projection import plain_projection, projection_through_time, weighted_sum_through_time


def recurrent(kind, weight: torch.Tensor, x: torch.Tensor, steps: int) -> torch.Tensor:
    """A loop with two weights side by side, and a bias."""
    project = kind([weight[:, :2], weight[:, 2:]], weight[0])
    for _ in range(steps):
        x = torch.tanh(project(x[:, :2], x[:, 2:]))
    return x.square().sum()


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_gradients_equal_those_of_plain_maps(steps):
    torch.manual_seed(0)
    weight = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(recurrent(plain_projection, weight, x, steps), (weight, x))
    for got, want in zip(
        torch.autograd.grad(recurrent(projection_through_time, weight, x, steps), (weight, x)),
        expected,
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_the_gradient_of_one_step_is_the_product_written_out():
    weight = torch.tensor([[2.0, 3.0]], requires_grad=True)
    x = torch.tensor([[5.0, 7.0], [11.0, 13.0]])
    y = projection_through_time([weight], None)(x)
    assert y.flatten().tolist() == [2 * 5 + 3 * 7, 2 * 11 + 3 * 13]
    y.backward(torch.tensor([[1.0], [10.0]]))
    assert weight.grad.tolist() == [[1 * 5 + 10 * 11, 1 * 7 + 10 * 13]]


@pytest.mark.parametrize("steps", [1, 5])
def test_reading_at_many_steps_has_the_gradients_of_plain_products(steps):
    torch.manual_seed(0)
    values = torch.randn(3, 4, 4, dtype=torch.float64, requires_grad=True)  # S = D
    weights = torch.randn(3, 1, 4, dtype=torch.float64, requires_grad=True)

    def loss(read) -> torch.Tensor:
        x = weights
        for _ in range(steps):
            x = torch.tanh(read(x))
        return x.square().sum()

    expected = torch.autograd.grad(loss(lambda x: x @ values), (values, weights))
    for got, want in zip(
        torch.autograd.grad(loss(weighted_sum_through_time(values)), (values, weights)), expected, strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_without_gradients_nothing_is_recorded():
    weight = torch.ones(2, 2, requires_grad=True)
    with torch.inference_mode():
        assert projection_through_time([weight], None)(torch.ones(1, 2)).tolist() == [[2.0, 2.0]]
