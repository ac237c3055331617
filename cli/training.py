"""What `edgechat train` prints: the corpus, the tried learning rates, the training and its result."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from .console import put, put_json, say
from .interrupt import stop_request
from .progress import TrainingProgress, counting
from .pytorch import set_torch_threads

if TYPE_CHECKING:
    from ..runtime.device import Device
    from ..runtime.text import TextCodec
    from ..train.beginning import Beginning
    from ..train.dataset import Prepared
    from ..train.distributed import World
    from ..train.run import Run
    from ..train.trainer import Result


def show_corpus(prepared: "Prepared", json: bool) -> None:
    """Print the result of --dry-run."""
    from ..train.dataset import samples

    shown = samples(prepared, 3)
    if json:
        report = prepared.report.to_json()
        put_json(
            {
                "report": report,
                "vocabulary": _vocabulary(prepared.codec),
                "samples": [asdict(s) for s in shown],
            }
        )
        return
    for line in prepared.report.lines():
        put(line)
    put("")
    put(
        f"vocabulary  {prepared.codec.vocab_size:,} tokens, among them the longest and the last ones learned:"
    )
    put("            " + " ".join(map(repr, _vocabulary(prepared.codec))))
    for number, sample in enumerate(shown, 1):
        put("")
        put(f"sample {number}")
        put(f"  source  {' <sep> '.join(sample.source)}")
        put(f"          {' '.join(map(str, sample.source_ids))}")
        put(f"          {'|'.join(sample.source_pieces)}")
        put(f"  target  {sample.target}")
        put(f"          {' '.join(map(str, sample.target_ids))}")
        put(f"          {'|'.join(sample.target_pieces)}")


def find_learning_rate(beginning: "Beginning", device: str, json: bool) -> None:
    """Run --find-lr and print its result: some of the tried learning rates, and the suggestion."""
    from ..train import finder
    from ..train.bpe_dropout import BpeDropout
    from ..train.run import first_model

    config, prepared = beginning.config, beginning.prepared
    model = first_model(config, prepared.codec.vocab_size, beginning.first_weights)
    with counting("trying", finder.STEPS) as progress:
        found = finder.find_learning_rate(
            config,
            model,
            prepared.train,
            device,
            bpe_dropout=BpeDropout.wanted(config.training, prepared.tokenizer, prepared.codec),
            progress=progress,
        )
    if json:
        put_json({"suggestion": found.suggestion, "tried": [asdict(one) for one in found.tried]})
        return
    put("learning rate     loss")
    for one in found.tried[:: max(1, len(found.tried) // 20)]:
        put(f"{one.rate:>13.1e}  {one.loss:7.4f}")
    put(f"suggestion: --learning-rate {found.suggestion:g}")


def _vocabulary(codec: "TextCodec") -> list[str]:
    """The longest tokens and the last ones learned, as examples of the vocabulary."""
    tokens = [codec.decode([id]) for id in range(codec.vocab_size)]
    longest = sorted(tokens, key=len, reverse=True)[:6]
    return [*longest, *(token for token in tokens[-6:] if token not in longest)]


def set_up_environment(run: "Run", device: str, threads: int | None, world: "World") -> None:
    """Set PyTorch's threads, to those that the run began with unless `threads` is given, and warn about every
    difference from the environment of the run's beginning that may change how numbers are rounded."""
    from ..train.run import environment

    begun = {"precision": "fp32", "processes": 1, **run.info.get("environment", {})}
    set_torch_threads(threads or begun.get("threads"))
    for name, now in environment(device, run.config.training.amp, world.size).items():
        if begun.get(name) != now and world.writes:
            say(
                f"warning: {name} is {now}, but the run began with {begun.get(name)}: training continues, "
                "but the weights may differ in the last digits from those of an uninterrupted run"
            )


def train_run(run: "Run", device: "Device", max_minutes: float | None, world: "World") -> "Result":
    from ..train.trainer import Trainer

    display = TrainingProgress(shown=world.writes)
    trainer = Trainer(
        run,
        device=device,
        world=world,
        on_step=display.step,
        on_validation=display.validated,
        max_minutes=max_minutes,
    )
    # Counting the steps of many epochs takes some seconds, so until here Ctrl-C ends the process at once.
    with stop_request() as should_stop, display:
        display.begin(trainer, device)
        return trainer.train(should_stop)


def say_end(run: "Run", result: "Result", json: bool) -> None:
    """Print how the training ended, and the next command."""
    position = result.position
    about = "" if result.total_steps_exact else "about "
    say(f"{result.ended} at step {position.step:,} of {about}{result.total_steps:,}")
    if json:
        put_json(
            {
                "run": str(run.folder),
                "ended": result.ended,
                "step": position.step,
                "total_steps": result.total_steps,
                "total_steps_exact": result.total_steps_exact,
                "epoch": position.epoch,
                "best_step": position.best_step,
                "best_loss": position.best_loss,
            }
        )
    if result.ended in ("finished", "stopped early"):
        say(f"next: edgechat export {run.folder} --out BUNDLE")
    else:
        say(f"to continue: edgechat train --resume --out {run.folder}")
