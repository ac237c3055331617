"""One update of the weights: optimizers, accumulation, smoothing, averages and dropout, by hand."""

import contextlib
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from edgechat.cli.pytorch import torch_device
from edgechat.runtime.errors import UsageError
from edgechat.runtime.text import EOS, UNK
from edgechat.train import precision as precision_module
from edgechat.train import updates
from edgechat.train.averaging import MovingAverage, mean_weights
from edgechat.train.batches import Batch
from edgechat.train.config import RunConfig, TrainingConfig
from edgechat.train.distributed import SINGLE_PROCESS
from edgechat.train.loss import summed_losses
from edgechat.train.model import ModelConfig, Seq2Seq
from edgechat.train.optimizer import Optimizer
from edgechat.train.precision import autocast, is_emulated, resolve_precision, uses_float16
from edgechat.train.updates import Updater

SIZES = {"layers": 2, "hidden": 8, "embedding": 6, "attention": 4, "dropout": 0.0}
TARGET = [[5, 6, 7, EOS], [8, EOS, 0, 0], [9, 10, EOS, 0]]


def batch(rows: slice = slice(None)) -> Batch:
    source = torch.tensor([[5, 6, 7], [8, 9, 0], [7, 0, 0]])[rows]
    return Batch(
        source, torch.tensor([3, 2, 1])[rows], torch.tensor(TARGET)[rows], torch.tensor([4, 2, 3])[rows]
    )


def updater(config: TrainingConfig | None = None, **model_options: float) -> Updater:
    torch.manual_seed(0)
    model = Seq2Seq(ModelConfig(**{**SIZES, **model_options}), 12)
    return Updater(model, config or TrainingConfig(), "cpu", SINGLE_PROCESS)


def weights(one: Updater) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in one.model.state_dict().items()}


class OneWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[2.0]]))
        self.vector = nn.Parameter(torch.tensor([2.0]))


def stepped(config: TrainingConfig, gradients: list[float]) -> tuple[float, float]:
    """The two weights after updates with these gradients."""
    model = OneWeight()
    optimizer = Optimizer(model, config)
    for gradient in gradients:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step(config.learning_rate)
    return model.matrix.item(), model.vector.item()


def test_sgd_goes_against_the_gradient_with_momentum_and_decay_of_matrices():
    config = TrainingConfig(optimizer="sgd", learning_rate=0.1, momentum=0.5, weight_decay=0.01)
    # velocity 1 then 0.5 * 1 + 1 = 1.5 for the vector; the matrix's gradients are 1 + 0.01 * w
    first = 2 - 0.1 * 1.02
    second = first - 0.1 * (0.5 * 1.02 + 1 + 0.01 * first)
    assert stepped(config, [1.0, 1.0]) == pytest.approx((second, 2 - 0.1 * 1 - 0.1 * 1.5))


def test_the_first_step_of_adam_has_the_size_of_the_learning_rate_for_any_gradient():
    config = TrainingConfig(optimizer="adam", learning_rate=0.1)
    assert stepped(config, [123.0]) == pytest.approx((1.9, 1.9))


def test_adamw_shrinks_matrices_besides():
    config = TrainingConfig(optimizer="adamw", learning_rate=0.1, weight_decay=0.2)
    assert stepped(config, [123.0]) == pytest.approx((2 * (1 - 0.1 * 0.2) - 0.1, 1.9))


@pytest.mark.parametrize(
    ("options", "reference"),
    [
        ({"optimizer": "adam"}, partial(torch.optim.Adam, fused=True)),
        ({"optimizer": "adamw", "weight_decay": 0.1}, partial(torch.optim.AdamW, fused=True)),
        (
            {"optimizer": "adam", "adam_beta1": 0.7, "adam_beta2": 0.9, "adam_epsilon": 0.01},
            partial(torch.optim.Adam, betas=(0.7, 0.9), eps=0.01, fused=True),
        ),
        ({"optimizer": "sgd", "weight_decay": 0.1, "momentum": 0.9}, partial(torch.optim.SGD, momentum=0.9)),
        ({"optimizer": "sgd"}, torch.optim.SGD),
    ],
)
def test_steps_are_to_the_bit_those_of_pytorchs_class(options, reference):
    """Also for a weight that has no gradient at first."""
    config = TrainingConfig(**options)
    model, other = (Seq2Seq(ModelConfig(**SIZES), 12) for _ in range(2))
    other.load_state_dict(model.state_dict())
    own = Optimizer(model, config)
    groups = [
        {"params": [p for p in other.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in other.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    theirs = reference(groups, lr=0.01)
    for step in range(4):
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        if step == 0:
            model.embedding.weight.grad = other.embedding.weight.grad = None
        own.step(0.01)
        theirs.step()
        for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b), name
            states = theirs.state.get(b, {})
            for key, value in states.items():
                if value is not None:
                    assert torch.equal(own.state_tensors()[f"{name}.{key}"], value)


def test_label_smoothing_shares_the_target_and_reports_the_plain_loss():
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]])
    # softmax: [1/4, 3/4] and [4/5, 1/5]; labels 1 and 1
    plain = -(math.log(3 / 4) + math.log(1 / 5))
    even = -(math.log(1 / 4) + math.log(3 / 4) + math.log(4 / 5) + math.log(1 / 5)) / 2
    smoothed = summed_losses(logits, torch.tensor([1, 1]), 0.1)
    assert smoothed.nll.item() == pytest.approx(plain)
    assert smoothed.objective.item() == pytest.approx(0.9 * plain + 0.1 * even)
    torch_own = nn.functional.cross_entropy(
        logits, torch.tensor([1, 1]), label_smoothing=0.1, reduction="sum"
    )
    assert smoothed.objective.item() == pytest.approx(torch_own.item())
    assert summed_losses(logits, torch.tensor([1, 1])).objective.item() == pytest.approx(plain)


def test_accumulated_batches_make_the_update_of_one_large_batch():
    # Adam's first step follows the sign of a gradient, which is arbitrary near zero.
    sgd = TrainingConfig(optimizer="sgd")
    whole, parts = updater(sgd), updater(sgd)
    one = whole.update([(batch(), 1.0)], 9, step=1, rate=0.1)
    shards = [(batch(slice(0, 1)), 1.0), (batch(slice(1, 3)), 1.0)]
    two = parts.update(shards, 9, step=1, rate=0.1)
    assert one.loss == pytest.approx(two.loss, rel=1e-6)
    for (name, a), b in zip(weights(whole).items(), weights(parts).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


def test_a_share_without_weight_changes_nothing():
    plain, padded = updater(), updater()
    plain.update([(batch(), 1.0)], 9, step=1, rate=0.1)
    padded.update([(batch(), 1.0), (batch(slice(0, 1)), 0.0)], 9, step=1, rate=0.1)
    for a, b in zip(weights(plain).values(), weights(padded).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_an_update_is_a_function_of_seed_and_step_alone():
    def after(step: int, seed: int, disturb: bool) -> torch.Tensor:
        one = updater(TrainingConfig(seed=seed), dropout=0.5)
        if disturb:
            torch.rand(7)
        one.update([(batch(), 1.0)], 9, step=step, rate=0.1)
        return one.model.output.weight.detach().clone()

    first = after(5, 1, False)
    assert torch.equal(first, after(5, 1, True))
    assert not torch.equal(first, after(6, 1, False))
    assert not torch.equal(first, after(5, 2, False))


def test_a_moving_average_forgets_its_initial_weights_soon_and_the_rest_slowly():
    model = OneWeight()
    average = MovingAverage(model, 0.9)
    with torch.no_grad():
        model.matrix.fill_(4.0)
    average.update(model, 1)  # d = 2 / 11
    expected = 2 * 2 / 11 + 4 * 9 / 11
    assert average.weights["matrix"].item() == pytest.approx(expected)
    average.update(model, 1000)  # d = 0.9
    expected = 0.9 * expected + 0.1 * 4
    assert average.weights["matrix"].item() == pytest.approx(expected)
    with average.swapped_into(model):
        assert model.matrix.item() == pytest.approx(expected)
    assert model.matrix.item() == 4.0


def test_an_update_moves_the_average_too():
    one = updater(TrainingConfig(ema=0.5))
    start = weights(one)["output.bias"]
    one.update([(batch(), 1.0)], 9, step=4, rate=0.1)
    d = 5 / 14  # min(0.5, 5 / 14)
    expected = d * start + (1 - d) * weights(one)["output.bias"]
    torch.testing.assert_close(one.average.weights["output.bias"], expected)


def test_each_weight_is_averaged():
    some = [
        {"a": torch.tensor([1.0, 2.0])},
        {"a": torch.tensor([3.0, 8.0])},
        {"a": torch.tensor([5.0, -1.0])},
    ]
    assert mean_weights(some)["a"].tolist() == [3.0, 3.0]
    assert mean_weights(some)["a"].dtype == torch.float32


@pytest.mark.parametrize("of_embedding", [None, 0.0])
def test_embeddings_have_a_dropout_of_their_own_or_that_of_the_rest(of_embedding):
    model = updater(dropout=0.5, embedding_dropout=of_embedding).model
    embedded = model._embed(torch.full((50, 20), 7))
    share = (embedded == 0).float().mean().item()
    assert share == 0 if of_embedding == 0.0 else 0.4 < share < 0.6


def test_words_are_dropped_as_unknown_only_in_training_and_special_tokens_never():
    model = updater(word_dropout=0.3).model
    unknown = model.embedding.weight[UNK]
    embedded = model._embed(torch.tensor([[7] * 1000, [4] * 1000]))
    dropped = (embedded == unknown).all(dim=-1).float().mean(dim=1)
    assert 0.25 < dropped[0] < 0.35
    assert dropped[1] == 0
    assert not (model.eval()._embed(torch.full((1000,), 7)) == unknown).all(dim=-1).any()


def test_attention_dropout_drops_weights_of_the_alignment_only_in_training():
    torch.manual_seed(0)
    attention = updater(attention_dropout=0.5).model.attention
    q, keys, values = torch.zeros(1, 4), torch.zeros(1, 1000, 4), torch.ones(1, 1000, 8)
    bias = torch.zeros(1, 1000)
    context, align = attention(q, keys, values, bias)
    assert align.sum().item() == pytest.approx(1)
    assert 0.8 < context[0, 0].item() < 1.2
    assert context[0, 0].item() != pytest.approx(1, abs=1e-3)
    assert attention.eval()(q, keys, values, bias)[0][0, 0].item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"residual": True, "layer_norm": True}, {"input_feeding": False}])
def test_dropout_between_layers_and_before_the_output_is_in_the_loss_of_an_update(options):
    """In turn, with every other dropout off: a loss without it is that of evaluation."""
    for kept in ("between", "output"):
        one = updater(dropout=0.5, embedding_dropout=0.0, **options)
        if kept == "between":
            one.model.dropout.p = 0.0
        else:
            for module in one.model.modules():
                if module is not one.model.dropout and isinstance(module, nn.Dropout):
                    module.p = 0.0
            if isinstance(one.model.encoder, nn.LSTM):
                one.model.encoder.dropout = 0.0
        expected, tokens = updates.evaluate_loss(one.model, [batch()], "")
        losses = {one.update([(batch(), 1.0)], 9, step=step, rate=0.0).loss for step in (1, 2)}
        assert len(losses) == 2, kept
        assert expected / tokens not in losses


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_weight_is_updated_also_a_single_number(optimizer):
    one = updater(TrainingConfig(optimizer=optimizer), attention_kind="bahdanau-normed")
    start = weights(one)
    assert start["attention.g"].ndim == 0
    one.update([(batch(), 1.0)], 9, step=1, rate=0.1)
    assert not [name for name, weight in weights(one).items() if torch.equal(weight, start[name])]


def test_a_held_out_loss_is_without_dropout_and_the_training_goes_on_with_it():
    one = updater(dropout=0.5, word_dropout=0.5)
    [(loss, tokens)] = {updates.evaluate_loss(one.model, [batch()], "") for _ in range(3)}
    logits, labels = one.model.eval()(*batch())
    assert (loss, tokens) == (pytest.approx(summed_losses(logits, labels).nll.item()), 9)
    assert one.model.encoder.dropout == 0.5  # between layers, where PyTorch's own LSTM computes them
    one.model.train()
    updates.evaluate_loss(one.model, [batch()], "")
    assert one.model.training


def test_label_smoothing_is_part_of_the_gradient_but_not_of_the_reported_loss():
    plain, smoothed = (updater(TrainingConfig(label_smoothing=rate)) for rate in (0.0, 0.3))
    losses = [one.update([(batch(), 1.0)], 9, step=1, rate=0.0).loss for one in (plain, smoothed)]
    assert losses[0] == pytest.approx(losses[1])
    # The gradient of the output's bias, summed over tokens: p - onehot, and p - 0.7 onehot - 0.3 / V.
    gradients = [one.model.output.bias.grad * 9 for one in (plain, smoothed)]
    counts = torch.bincount(torch.tensor(TARGET).flatten(), minlength=12).float()
    counts[0] = 0  # padding
    torch.testing.assert_close(gradients[1] - gradients[0], 0.3 * counts - 0.3 * 9 / 12)


def test_every_process_has_random_numbers_of_its_own():
    drawn = []
    for process in (0, 1):
        updates.seed_step(1, 2, process)
        drawn.append(torch.rand(4).tolist())
    assert drawn[0] != drawn[1]


def test_scheduled_sampling_draws_without_dropout():
    one, modes = updater(dropout=0.9), []
    one.model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    one.update([(batch(), 1.0)], 9, step=1, rate=0.01, sampling=0.5)
    assert modes == [False, True]


def test_a_loss_that_is_not_finite_is_skipped_even_if_its_gradient_is(monkeypatch):
    one, start = updater(), weights(updater())
    real = updates.summed_losses
    monkeypatch.setattr(
        updates, "summed_losses", lambda *given: real(*given)._replace(nll=torch.tensor(math.inf))
    )
    outcome = one.update([(batch(), 1.0)], 9, step=1, rate=0.1)
    assert (outcome.applied, outcome.loss) == (False, math.inf)
    assert math.isfinite(outcome.norm)
    assert all(torch.equal(start[name], weight) for name, weight in weights(one).items())


def test_scheduled_sampling_feeds_the_models_own_tokens_at_that_share():
    one = updater()
    with torch.no_grad():
        one.model.output.weight.zero_()
        one.model.output.bias.copy_(torch.tensor([0.0] * 11 + [100.0]))  # it always predicts 11
    assert one._sample_fed_tokens(batch(), 1.0).tolist() == [
        [11, 11, 11, 11],
        [11, 11, 0, 0],
        [11, 11, 11, 0],
    ]
    assert one._sample_fed_tokens(batch(), 0.0).tolist() == TARGET
    many = Batch(*(tensor.repeat(200, *[1] * (tensor.ndim - 1)) for tensor in batch()))
    share = (one._sample_fed_tokens(many, 0.3) == 11).sum().item() / (9 * 200)
    assert 0.25 < share < 0.35


def test_scheduled_sampling_in_16_bits_draws_in_a_block_of_its_own_and_every_weight_is_learned(monkeypatch):
    """Autocast caches the 16-bit copy of a weight made without gradients to the end of its block."""
    one, seen = updater(TrainingConfig(amp="bf16")), list[str]()
    block = updates.autocast

    @contextlib.contextmanager
    def told(*given):
        with block(*given):
            seen.append("enter")
            yield
        seen.append("exit")

    def forward(_, given):
        assert torch.is_autocast_enabled("cpu")
        seen.append("learn" if torch.is_grad_enabled() else "draw")

    monkeypatch.setattr(updates, "autocast", told)
    one.model.register_forward_pre_hook(forward)
    assert one.update([(batch(), 1.0)], 9, step=1, rate=0.01, sampling=0.5).applied
    assert seen == ["enter", "draw", "exit", "enter", "learn", "exit"]
    assert all(parameter.grad.abs().sum() > 0 for parameter in one.model.parameters())


def test_scheduled_sampling_of_a_model_that_gives_nan_is_a_skipped_step():
    one = updater()
    with torch.no_grad():
        one.model.output.bias.fill_(math.nan)
    outcome = one.update([(batch(), 1.0)], 9, step=1, rate=0.1, sampling=1.0)
    assert (outcome.applied, math.isnan(outcome.loss)) == (False, True)


def test_the_decoder_is_fed_go_and_then_the_previous_tokens_but_the_last():
    model = updater().model.eval()
    given = torch.tensor([[5, 6, 7, 11], [8, 4, 0, 0], [9, 10, 4, 0]])
    logits, labels = model(*batch())
    same, _ = model(*batch(), given)  # differs only in tokens that are not fed
    assert torch.equal(logits, same)
    given[0, 0] = 9
    other, same_labels = model(*batch(), given)
    assert torch.equal(labels, same_labels)
    assert torch.equal(logits[0], other[0])
    assert not torch.equal(logits[1], other[1])


def test_bfloat16_gives_nearly_the_update_of_float32_and_keeps_the_weights_in_it():
    exact, rounded = updater(TrainingConfig(amp="off")), updater(TrainingConfig(amp="bf16"))
    losses = [one.update([(batch(), 1.0)], 9, step=1, rate=0.01).loss for one in (exact, rounded)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert all(parameter.dtype == torch.float32 for parameter in rounded.model.parameters())
    gradients = [torch.cat([p.grad.flatten() for p in one.model.parameters()]) for one in (exact, rounded)]
    assert nn.functional.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bidirectional": True, "attention_kind": "luong-general"},
        {"attention_kind": "scaled"},
        {"residual": True, "layer_norm": True, "copy_attention": True, "attention_kind": "bahdanau-normed"},
    ],
    ids=str,
)
def test_states_are_float32_even_if_the_encoder_gives_16_bits_as_cudnn_does(dtype, options):
    model = updater(**options).model
    encode = model._encode_packed

    def as_cudnn(packed: PackedSequence) -> tuple[PackedSequence, torch.Tensor, torch.Tensor]:
        values, h, c = encode(packed)
        return values._replace(data=values.data.to(dtype)), h.to(dtype), c.to(dtype)

    model._encode_packed = as_cudnn  # type: ignore[method-assign]
    given = batch()
    with torch.autocast("cpu", dtype):
        logits, labels = model(*given)
        losses = summed_losses(logits, labels)
    losses.objective.backward()
    assert losses.objective.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    with torch.no_grad(), torch.autocast("cpu", dtype):
        memory, state = model.encode(given.src, given.src_len)
        for _ in range(2):
            _, following, align = model.step(torch.tensor([5, 6, 7]), state, memory)
            assert memory.bias.dtype == state.h.dtype == state.c.dtype == torch.float32
            assert align.dtype == torch.float32
            assert align[1, 2:].tolist() == [0.0]
            assert align[2, 1:].tolist() == [0.0, 0.0]
            state = following


def test_float16_skips_until_its_scale_fits_and_an_overflowing_norm_does_not_count_as_that(monkeypatch):
    one = updater(TrainingConfig(amp="fp16"))
    start = weights(one)
    one.scaler.load_state_dict({**one.scaler.state_dict(), "scale": 2.0**100})
    outcome = one.update([(batch(), 1.0)], 9, step=1, rate=0.01)
    assert (outcome.applied, outcome.rescaled, one.scaler.get_scale()) == (False, True, 2.0**99)
    assert all(torch.equal(start[name], weight) for name, weight in weights(one).items())
    one.scaler.load_state_dict({**one.scaler.state_dict(), "scale": 2.0**10, "growth_interval": 1})
    outcome = one.update([(batch(), 1.0)], 9, step=2, rate=0.01)
    assert (outcome.applied, outcome.rescaled, one.scaler.get_scale()) == (True, False, 2.0**11)
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(math.inf))
    outcome = one.update([(batch(), 1.0)], 9, step=3, rate=0.01)
    assert (outcome.applied, outcome.rescaled) == (False, False)


def test_amp_is_off_by_default(monkeypatch):
    assert resolve_precision("off", "cpu") == "fp32"
    assert resolve_precision("fp16", "cpu") == "fp16"
    for has, meant in (({"avx512_bf16": True}, "bf16"), ({"avx512_bf16": False, "avx2": True}, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has, raising=False)
        assert resolve_precision("auto", "cpu") == meant


def test_a_batch_of_tokens_has_room_for_the_longest_pair():
    with pytest.raises(UsageError, match="batch_tokens must be at least 50, the longest source or target"):
        RunConfig().with_values({"batch_tokens": 49})
    assert RunConfig().with_values({"batch_tokens": 50}).training.batch_tokens == 50


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("learning", [False, True])
def test_an_lstm_of_pytorch_computes_in_16_bits_on_any_cpu(precision, learning):
    torch.manual_seed(0)
    lstm, x = nn.LSTM(4, 4, bidirectional=True), torch.randn(3, 2, 4)
    expected = lstm(x)[0]
    with torch.set_grad_enabled(learning), autocast(precision, "cpu"):
        values = lstm(x)[0]
    torch.testing.assert_close(values.float(), expected, rtol=0, atol=0.02)
    assert torch.backends.mkldnn.enabled
    if learning:
        values.float().sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in lstm.parameters())


def test_onednn_is_only_off_if_it_has_no_kernels_for_the_precision(monkeypatch):
    for has, meant in ((True, True), (False, False)):
        monkeypatch.setattr(precision_module, "_has_onednn_kernels", lambda _, has=has: has)
        with autocast("bf16", "cpu"):
            assert torch.is_autocast_enabled("cpu")
            assert torch.backends.mkldnn.enabled is meant
        with autocast("fp32", "cpu"):
            assert not torch.is_autocast_enabled("cpu")
            assert torch.backends.mkldnn.enabled


def test_16_bits_are_emulated_on_a_cpu_without_their_arithmetic(monkeypatch):
    monkeypatch.setattr(precision_module, "_has_onednn_kernels", lambda _: False)
    for has, meant in (({"avx512_bf16": True}, False), ({"avx2": True}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has, raising=False)
        assert is_emulated("bf16", "cpu") is meant
    assert is_emulated("fp16", "cpu")
    assert not is_emulated("fp16", "cuda")
    assert not is_emulated("fp32", "cpu")


def test_the_loss_is_scaled_wherever_gradients_pass_through_float16():
    """cuDNN's LSTMs compute in float16 also in a bf16 autocast."""
    assert [uses_float16(precision, "cpu") for precision in ("fp32", "bf16", "fp16")] == [False, False, True]
    assert [uses_float16(precision, "cuda") for precision in ("fp32", "bf16", "fp16")] == [False, True, True]


def test_float32_on_cuda_is_not_tf32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert torch_device("auto") == "cuda"
    assert not torch.backends.cudnn.allow_tf32
