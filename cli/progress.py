"""Progress on stderr: a live bar on a terminal, occasional lines elsewhere."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any, cast

from ..runtime.display import plural
from .console import SafeStderr, print_stderr
from .describe import format_perplexity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from ..train.trainer import Trainer


def _make_console() -> "Console":
    from rich.console import Console

    return Console(file=cast(IO[str], SafeStderr()))


def _make_bar(what: str, *figures: str, visible: bool = True) -> "Progress":
    """A live bar on stderr, if that is a terminal: the label, the count, further `figures`, and the time
    left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = _make_console()
    return Progress(
        TextColumn(what),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        *map(TextColumn, figures),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (visible and console.is_terminal),
    )


#: Without a live bar: seconds without output after which a line reports the progress.
_MAX_SILENCE_SECONDS = 30.0


@contextlib.contextmanager
def reading_progress() -> Iterator[Callable[[str, int], None]]:
    """Progress of reading, tokenizing and encoding a corpus. Yields a function of a label and a count."""
    console, last_line = _make_console(), time.monotonic()

    def report(what: str, count: int) -> None:
        nonlocal last_line
        if time.monotonic() - last_line >= _MAX_SILENCE_SECONDS:
            last_line = time.monotonic()
            print_stderr(f"{what:<12}  {count:>9,} so far")

    if not console.is_terminal:
        yield report
        return
    with console.status("reading") as status:
        yield lambda what, count: status.update(f"{what} {count:,}")


@contextlib.contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, if that is a terminal. Yields a function that advances it by a number."""
    with _make_bar("{task.description}") as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


class TrainingProgress:
    """Progress of a training: a live bar or occasional lines, and a line for each validation."""

    def __init__(self, *, visible: bool = True) -> None:
        self._visible = visible
        self._bar = _make_bar(
            "epoch {task.fields[epoch]}",
            "loss {task.fields[loss]:.3f}  ppl {task.fields[ppl]:.3f}  {task.fields[speed]:,.0f} tok/s",
            visible=visible,
        )
        self._task = self._bar.add_task("train", total=None, epoch=1, loss=0.0, ppl=0.0, speed=0.0)
        self._start_time = self._last_line = time.monotonic()  # times of the first step and of the last line
        self._first_step = 0

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show_start(self, trainer: "Trainer", device: str) -> None:
        position = trainer.position
        if trainer.finished and not trainer.validation_due:
            self._print_line("the run is already finished: give more --epochs or --max-steps to continue it")
            return
        if trainer.out_of_patience:
            self._print_line(
                f"the run already stopped early, at step {position.step:,}, and cannot be continued: train "
                "a new run from its weights, with --from-run"
            )
            return
        start = f"from step {position.step:,} " if position.step else ""
        on = device if trainer.precision == "fp32" else f"{device} in {trainer.precision}"
        about = "" if trainer.total_steps_exact else "about "
        what = f"training {start}to {about}step {trainer.total_steps:,} on {on}"
        if trainer.processes > 1:
            what += f", {trainer.processes} processes"
        self._print_line(f"{trainer.parameter_count:,} weights")
        self._print_line(f"{what}; Ctrl-C stops and keeps what was learned")
        self._bar.update(self._task, total=trainer.total_steps, completed=position.step)
        self._first_step, self._start_time = position.step, time.monotonic()

    def on_step(self, progress: Any) -> None:
        self._bar.update(
            self._task,
            completed=progress.step,
            epoch=progress.epoch,
            loss=progress.loss,
            ppl=progress.perplexity,
            speed=progress.tokens_per_second,
        )
        if self._bar.disable and time.monotonic() - self._last_line >= _MAX_SILENCE_SECONDS:
            rate = (progress.step - self._first_step) / (time.monotonic() - self._start_time)
            left = max(0, progress.total_steps - progress.step) / rate / 60
            time_left = f"about {plural(round(left), 'minute')}" if left >= 0.5 else "less than a minute"
            self._print_line(
                f"step {progress.step:>7,}  loss of the last steps {progress.loss:.4f}  "
                f"{rate:.1f} steps per second, {time_left} left"
            )

    def on_validation(self, validation: Any) -> None:
        from ..train.perplexity import perplexity

        line = f"step {validation.step:>7,}"
        if not math.isnan(validation.train_loss):
            line += f"  training loss {validation.train_loss:.4f}"
        if validation.valid_loss is not None:
            line += f"  held-out loss {validation.valid_loss:.4f}"
            line += f"  perplexity {format_perplexity(perplexity(validation.valid_loss))}"
        if validation.metric is not None:
            name, value = validation.metric
            line += f"  {name} {value:.{4 if name == 'exact-match' else 2}f}"
        if validation.skipped:
            line += f"  {plural(validation.skipped, 'step')} skipped: loss or gradient not finite"
        self._print_line(line + ("  best" if validation.best else ""))

    def _print_line(self, line: str) -> None:
        self._last_line = time.monotonic()
        if not self._visible:
            return
        if self._bar.disable:
            print_stderr(line)
        else:
            self._bar.console.print(line, markup=False, highlight=False)
