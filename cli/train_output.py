"""What `edgechat train` prints: the corpus, the tried learning rates, the training and its result."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..runtime.display import plural
from .console import print_json, print_stderr, print_stdout
from .interrupt import stop_on_signal
from .progress import TrainingProgress, progress_bar
from .pytorch import set_torch_threads

if TYPE_CHECKING:
    from ..runtime.device import Device
    from ..runtime.text import TextCodec
    from ..train.distributed import World
    from ..train.run import Run
    from ..train.run_inputs import RunInputs
    from ..train.trainer import TrainingResult

#: The lowest loss of a training that learned anything is below the loss of guessing, times this.
_DIVERGED_RATIO = 1.5


def show_plan(inputs: "RunInputs", json: bool) -> None:
    """Print the result of --dry-run."""
    from ..train.batches import plan_epoch
    from ..train.dataset import pick_samples
    from ..train.model import Seq2Seq
    from ..train.schedule import count_planned_steps

    config, prepared = inputs.config, inputs.prepared
    corpus_samples = pick_samples(prepared, 3)
    weights = sum(one.numel() for one in Seq2Seq(config.model, prepared.codec.vocab_size).parameters())
    steps, exact = count_planned_steps(
        config.training, lambda epoch: len(plan_epoch(prepared.train, config.training, epoch))
    )
    if json:
        report = prepared.report.to_json()
        print_json(
            {
                "report": report,
                "weights": weights,
                "steps": steps,
                "steps_exact": exact,
                "config": config.to_json(),
                "vocabulary": _vocabulary(prepared.codec),
                "samples": [asdict(s) for s in corpus_samples],
            }
        )
        return
    for line in prepared.report.lines():
        print_stdout(line)
    print_stdout("")
    print_stdout(f"{weights:,} weights, {'' if exact else 'about '}{plural(steps, 'step')}")
    print_stdout("")
    print_stdout(
        f"vocabulary  {prepared.codec.vocab_size:,} tokens, among them the longest and the last ones learned:"
    )
    print_stdout("            " + " ".join(map(repr, _vocabulary(prepared.codec))))
    for number, sample in enumerate(corpus_samples, 1):
        print_stdout("")
        print_stdout(f"sample {number}")
        print_stdout(f"  source  {' <sep> '.join(sample.source)}")
        print_stdout(f"          {' '.join(map(str, sample.source_ids))}")
        print_stdout(f"          {'|'.join(sample.source_pieces)}")
        print_stdout(f"  target  {sample.target}")
        print_stdout(f"          {' '.join(map(str, sample.target_ids))}")
        print_stdout(f"          {'|'.join(sample.target_pieces)}")
    print_stdout("")
    print_stdout(config.to_toml().rstrip())


def find_learning_rate(inputs: "RunInputs", device: str, json: bool) -> None:
    """Run --find-lr and print its result: some of the tried learning rates, and the suggestion."""
    from ..train import lr_finder
    from ..train.bpe_dropout import BpeDropout
    from ..train.run import make_initial_model

    config, prepared = inputs.config, inputs.prepared
    model = make_initial_model(config, prepared.codec.vocab_size, inputs.initial_weights)
    with progress_bar("trying", lr_finder.STEPS) as progress:
        found = lr_finder.find_learning_rate(
            config,
            model,
            prepared.train,
            device,
            bpe_dropout=BpeDropout.from_config(config.training, prepared.tokenizer, prepared.codec),
            progress=progress,
        )
    if json:
        print_json({"suggestion": found.suggestion, "tried": [asdict(one) for one in found.trials]})
        return
    print_stdout("learning rate     loss")
    for one in found.trials[:: max(1, len(found.trials) // 20)]:
        print_stdout(f"{one.rate:>13.1e}  {one.loss:7.4f}")
    print_stdout(f"suggestion: --learning-rate {found.suggestion:g}")


def _vocabulary(codec: "TextCodec") -> list[str]:
    """The longest tokens and the last ones learned, as examples of the vocabulary."""
    decoded = (codec.decode([id]) for id in range(codec.vocab_size))
    tokens = [token for token in decoded if "\ufffd" not in token]  # without parts of characters
    longest = sorted(tokens, key=len, reverse=True)[:6]
    return [*longest, *(token for token in tokens[-6:] if token not in longest)]


def set_up_environment(run: "Run", device: str, threads: int | None, world: "World") -> None:
    """Set PyTorch's threads, to those that the run began with unless `threads` is given, and warn about every
    difference from the environment of the run's beginning that may change how numbers are rounded, and about
    a precision that is slow on this machine."""
    from ..train.precision import is_emulated, resolve_precision
    from ..train.run import describe_environment

    recorded = run.info["environment"]
    set_torch_threads(threads or recorded["threads"])
    for name, now in describe_environment(device, run.config.training.amp, world.size).items():
        if recorded.get(name) != now and world.is_first:
            what = f"the number of {name}" if name in ("processes", "threads") else name
            print_stderr(
                f"warning: {what} is {now}, but the run began with {recorded.get(name)}: training continues, "
                "but the weights may differ in the last digits from those of an uninterrupted run"
            )
    precision = resolve_precision(run.config.training.amp, device)
    if is_emulated(precision, device) and world.is_first:
        print_stderr(
            f"note: this CPU does not compute in {precision}, so training is slower than with --amp off"
        )


def train_run(run: "Run", device: "Device", max_minutes: float | None, world: "World") -> "TrainingResult":
    from ..train.trainer import Trainer

    display = TrainingProgress(visible=world.is_first)
    trainer = Trainer(
        run,
        device=device,
        world=world,
        on_step=display.on_step,
        on_validation=display.on_validation,
        max_minutes=max_minutes,
    )
    warmup = run.config.training.warmup_steps
    if warmup >= trainer.total_steps and not trainer.finished and world.is_first:
        print_stderr(
            f"note: the warm-up of {warmup:,} steps lasts to the end of the training, step "
            f"{trainer.total_steps:,}: the learning rate only rises"
        )
    # Counting the steps of many epochs takes some seconds, so until here Ctrl-C ends the process at once.
    with stop_on_signal() as should_stop, display:
        display.show_start(trainer, device)
        return trainer.train(should_stop)


def print_training_end(run: "Run", result: "TrainingResult", world: "World", json: bool) -> None:
    """Print how the training ended, and the next command."""
    position = result.position
    about = "" if result.total_steps_exact else "about "
    print_stderr(f"{result.ended} at step {position.step:,} of {about}{result.total_steps:,}")
    if json:
        print_json(
            {
                "run": str(run.folder),
                "ended": result.ended,
                "step": position.step,
                "total_steps": result.total_steps,
                "total_steps_exact": result.total_steps_exact,
                "epoch": result.epochs,
                "best_step": position.best_step,
                "best_loss": position.best_loss,
            }
        )
    guessing = math.log(run.codec.vocab_size)
    if position.best_loss is not None and position.best_loss > _DIVERGED_RATIO * guessing:
        print_stderr(
            f"warning: the lowest loss, {position.best_loss:.4g}, is far above {guessing:.2f}, that of "
            "guessing any token: the training has diverged, so train anew with --force and a lower "
            "--learning-rate"
        )
    if result.ended in ("finished", "stopped early"):
        print_stderr(f"next: edgechat export {run.folder} --out BUNDLE")
    else:
        command = f"edgechat train --resume --out {run.folder}"
        if world.size > 1:
            command = f"the torchrun command with -m {command}"
        print_stderr(f"to continue: {command}")
