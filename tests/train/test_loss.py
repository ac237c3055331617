"""Loss and perplexity by hand."""

import math

import pytest
import torch

from edgechat.train.loss import perplexity, real_tokens, token_loss


def test_the_loss_is_the_mean_negative_log_probability_of_the_labels():
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]])
    # softmax: [1/4, 3/4] and [4/5, 1/5]
    assert token_loss(logits, torch.tensor([1, 1])).item() == pytest.approx(
        -(math.log(3 / 4) + math.log(1 / 5)) / 2
    )


def test_perplexity_of_a_uniform_guess_is_the_vocabulary():
    assert perplexity(math.log(8000)) == pytest.approx(8000)


@pytest.mark.parametrize(("loss", "expected"), [(0.0, 1.0), (300.0, math.inf), (1e9, math.inf)])
def test_perplexity_is_infinite_from_a_loss_of_300(loss, expected):
    assert perplexity(loss) == expected


def test_real_tokens_are_true_up_to_each_length():
    mask = real_tokens(torch.zeros(2, 3), torch.tensor([1, 3]))
    assert mask.tolist() == [[True, False, False], [True, True, True]]
