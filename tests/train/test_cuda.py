"""Training on a GPU is that on the CPU but for rounding."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_runs import torchrun
from model_options import OPTIONS, model_with
from short_runs import EVERYTHING, STEPS, copy_run, train_to

from edgechat.cli.pytorch import torch_device
from edgechat.runtime.device import Device
from edgechat.runtime.errors import EdgeChatError
from edgechat.runtime.text import EOS
from edgechat.train import recurrence, trainer
from edgechat.train.batches import Batch, collate
from edgechat.train.config import TrainingConfig
from edgechat.train.distributed import SINGLE_PROCESS
from edgechat.train.loss import summed_losses
from edgechat.train.metrics import read_metrics
from edgechat.train.model import Seq2Seq
from edgechat.train.precision import Precision, autocast
from edgechat.train.recurrence import lstm_cell
from edgechat.train.trainer import Trainer
from edgechat.train.updates import Updater, evaluate_loss

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device")

VOCABULARY = 30
BATCH = collate(
    [[5, 6, 7, 8, 9], [10, 11], [12, 12, 13], [5]],
    [[14, 15, EOS], [6, 7, 8, 9, EOS], [EOS], [12, 13, 16, EOS]],
)


@pytest.fixture(autouse=True)
def float32_as_edgechat_train_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    assert torch_device("cuda") == "cuda"


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "plot_metrics", lambda *_: None)


def loss_and_gradients(
    option: str, device: Device, precision: Precision
) -> tuple[float, dict[str, torch.Tensor]]:
    model: Seq2Seq = model_with(option, VOCABULARY).train().to(device)
    with autocast(precision, device):
        objective = summed_losses(*model(*BATCH.to(device))).objective
    objective.backward()
    gradients = {name: one.grad.cpu() for name, one in model.named_parameters() if one.grad is not None}
    return objective.item(), gradients


def train(run: Any, device: Device) -> list[dict[str, Any]]:
    Trainer(run, device=device).train()
    return read_metrics(run.folder)


def assert_same_metrics(got: list[dict[str, Any]], want: list[dict[str, Any]], tolerance: float) -> None:
    assert [row.keys() for row in got] == [row.keys() for row in want]
    for a, b in zip(got, want, strict=True):
        assert (a["step"], a["skipped"]) == (b["step"], b["skipped"])
        for name in ("train_loss", "valid_loss", "gradient_norm"):
            assert a[name] == pytest.approx(b[name], rel=tolerance), (a["step"], name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("offset", [False, True])
def test_a_cell_is_that_of_the_cpu_with_states_in_float32(dtype, offset):
    torch.manual_seed(0)
    given = torch.randn(3, 16).to(dtype), torch.randn(3, 4), torch.randn(3, 16).to(dtype)
    results = []
    for device in ("cpu", "cuda"):
        inputs = [x.detach().to(device).requires_grad_() for x in given]
        with torch.autocast(device, torch.bfloat16, enabled=dtype != torch.float32):
            h, following = lstm_cell(*inputs[: 2 + offset])
        assert h.dtype == following.dtype == torch.float32
        (h.sum() + following.square().sum()).backward()
        results.append([x.cpu() for x in (h, following, *(one.grad for one in inputs[: 2 + offset]))])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("option", OPTIONS)
def test_losses_and_gradients_of_every_model_option_are_those_of_the_cpu(option):
    loss, gradients = loss_and_gradients(option, "cuda", "fp32")
    expected_loss, expected = loss_and_gradients(option, "cpu", "fp32")
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_model_option_learns_in_16_bits(option, precision):
    loss, gradients = loss_and_gradients(option, "cuda", precision)
    expected_loss, expected = loss_and_gradients(option, "cpu", "fp32")
    assert loss == pytest.approx(expected_loss, rel=0.02)
    norms = [
        math.sqrt(sum(float(one.double().square().sum()) for one in each.values()))
        for each in (gradients, expected)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=0.1)


def test_a_training_may_begin_with_a_validation():
    recurrence._zero.cache_clear()
    model = model_with("norm", VOCABULARY).to("cuda")
    evaluate_loss(model, [BATCH], "")
    summed_losses(*model.train()(*BATCH.to("cuda"))).objective.backward()
    assert all(one.grad.isfinite().all() for one in model.parameters())


def test_padding_and_batch_mates_do_not_change_a_loss():
    model = model_with("copy", VOCABULARY).to("cuda")
    alone = []
    for row in range(len(BATCH.src)):
        source, target = BATCH.src_len[row], BATCH.target_len[row]
        one = Batch(
            BATCH.src[row : row + 1, :source], BATCH.src_len[row : row + 1],
            BATCH.target[row : row + 1, :target], BATCH.target_len[row : row + 1],
        )  # fmt: skip
        alone.append(summed_losses(*model(*one.to("cuda"))).nll.item())
    together = summed_losses(*model(*BATCH.to("cuda"))).nll.item()
    assert together == pytest.approx(sum(alone), rel=1e-5)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"optimizer": "sgd", "momentum": 0.9, "accumulate": 2, "schedule": "cosine"},
        {"optimizer": "adamw", "weight_decay": 0.1, "ema": 0.9, "label_smoothing": 0.1, "batch_tokens": 64},
        {"early_stop": "bleu", "patience": 9, "keep": 3},
    ],
    ids=str,
)
def test_a_run_learns_what_it_learns_on_the_cpu(untrained: Path, tmp_path: Path, values):
    metrics = [train(copy_run(untrained, tmp_path / device, values), device) for device in ("cuda", "cpu")]
    assert_same_metrics(*metrics, tolerance=2e-3)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_a_run_in_16_bits_learns_nearly_what_it_learns_in_float32(untrained: Path, tmp_path: Path, amp):
    got = train(copy_run(untrained, tmp_path / "half", {"amp": amp}), "cuda")
    want = train(copy_run(untrained, tmp_path / "full", {}), "cuda")
    assert [row["skipped"] for row in got] == [0, 0, 0]
    assert got[-1]["valid_loss"] == pytest.approx(want[-1]["valid_loss"], rel=0.05)


@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_an_interrupted_run_with_every_option_ends_as_an_uninterrupted_one(
    untrained: Path, tmp_path: Path, amp
):
    """Its random numbers and its scale of the loss go on where they were."""
    values = {**EVERYTHING, "amp": amp}
    want = train(copy_run(untrained, tmp_path / "whole", values), "cuda")
    broken = copy_run(untrained, tmp_path / "broken", values)
    for step, kill in ((2, True), (5, False), (8, True)):
        train_to(broken, step, kill=kill, device="cuda")
    assert_same_metrics(train(broken, "cuda"), want, tolerance=5e-3)


@pytest.mark.parametrize(("first", "second"), [("cpu", "cuda"), ("cuda", "cpu")])
@pytest.mark.parametrize("values", [{}, {"optimizer": "sgd", "momentum": 0.9}, {"amp": "bf16", "ema": 0.9}])
def test_a_run_goes_on_on_the_other_device(untrained: Path, tmp_path: Path, values, first, second):
    want = train(copy_run(untrained, tmp_path / "whole", values), "cpu")
    moved = copy_run(untrained, tmp_path / "moved", values)
    train_to(moved, 5, kill=False, device=first)
    got = train(moved, second)
    assert got[-1]["step"] == STEPS
    assert_same_metrics(got, want, tolerance=0.02 if "amp" in values else 2e-3)


def test_a_gpu_without_memory_is_reported_with_the_batch_and_the_options():
    updater = Updater(model_with("normed", VOCABULARY), TrainingConfig(), "cuda", SINGLE_PROCESS)
    pairs = 50_000
    large = collate([[5, 6]] * pairs, [[7, EOS]] * pairs)
    torch.cuda.empty_cache()
    reserved = torch.cuda.memory_reserved() / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(reserved)
    try:
        with pytest.raises(
            EdgeChatError, match=r"^out of memory at step 1 on a batch of 50000 pairs, .*--ba"
        ):
            updater.update([(large, 1.0)], 2 * pairs, step=1, rate=0.01)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_the_commands_train_resume_measure_and_export(tmp_path: Path, corpus_file: Path, edgechat):
    run = tmp_path / "run"
    sizes = ["--hidden", "32", "--embedding", "16", "--attention", "16", "--vocab-size", "300"]
    options = ["--device", "cuda", "--max-steps", "4", "--save-every", "2", "--amp", "auto"]
    done = edgechat("train", corpus_file, "--out", run, *sizes, *options)
    assert done.returncode == 0, done.stderr
    assert " on cuda" in done.stderr
    for arguments in (
        ["train", "--out", run, "--resume", "--device", "cuda"],
        ["eval", run, "--device", "cuda"],
        ["train", corpus_file, "--find-lr", *sizes, "--device", "cuda"],
        ["export", run, "--out", tmp_path / "bundle"],
    ):
        done = edgechat(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_with_a_gpu_each_learn_what_one_learns(
    tmp_path: Path, corpus_file: Path, edgechat, processes
):
    if torch.cuda.device_count() < processes:
        pytest.skip(f"needs {processes} GPUs, one for each process")
    options = [
        "--hidden", "32", "--embedding", "16", "--attention", "16", "--vocab-size", "300", "--dropout", "0",
        "--device", "cuda", "--max-steps", "4", "--save-every", "2", "--batch-size", "8",
    ]  # fmt: skip
    one, many = tmp_path / "one", tmp_path / "many"
    done = edgechat("train", corpus_file, "--out", one, *options)
    assert done.returncode == 0, done.stderr
    done = torchrun("-m", "edgechat", "train", corpus_file, "--out", many, *options, processes=processes)
    assert done.returncode == 0, done.stderr
    assert_same_metrics(read_metrics(many), read_metrics(one), tolerance=2e-3)
