"""Starting and resuming a run: what may be overwritten, what is read, and what a resume may change."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from ..runtime.atomic_write import sha256, would_overwrite
from ..runtime.errors import EdgeChatError, UsageError
from .bpe_dropout import BpeDropout
from .config import CHANGEABLE_ON_RESUME, STEP_DIVISION, RunOptions, TrainingConfig
from .corpus import DEFAULT_CORPUS, Corpus, open_corpus
from .dataset import prepare_corpus
from .lock import RunLock
from .pretrained import file_sha256, read_pretrained_vectors
from .report import ProgressCallback
from .request import TrainingRequest
from .run import Run, create_run, is_only_a_run, is_run, open_run
from .run_inputs import RunInputs
from .tokenizer import load_tokenizer

LineWriter = Callable[[str], None]
#: Shows the progress of reading the corpus while the context is entered.
ProgressContext = Callable[[], AbstractContextManager[ProgressCallback | None]]


def _write_nothing(line: str) -> None:
    """Print nothing."""


def open_or_create(
    out: Path,
    request: TrainingRequest,
    device: str,
    *,
    processes: int = 1,
    resume: bool = False,
    force: bool = False,
    say: LineWriter = _write_nothing,
    reading: ProgressContext = nullcontext,
) -> Run:
    """The run to train: with `resume` the one in `out` if it exists, otherwise a new one, which records
    `device` and `processes`. An existing run is replaced only with `force`, and nothing but a run is ever
    replaced. An empty folder counts as none.

    Raises:
        UsageError: the content of `out` may not be overwritten, or does not match the resume.
        CheckpointError: another process trains in `out`.
        DataError: the corpus cannot be read, or holds nothing to learn.
    """
    run_exists = is_run(out)
    if run_exists:
        # Raises if another process trains in it. `create_run` looks again, after the data has been read.
        RunLock(out).release()
    if resume and (run_exists or would_overwrite(out)):
        return _open_to_resume(out, request)
    if resume and not _has_data(request.options):
        raise UsageError(f"there is no run {out} to resume: give DATA to start one")
    if resume:
        say(f"there is no run {out} to resume: starting a new one")
    if would_overwrite(out):
        _check_replaceable(out, request.options.from_run, force)
    inputs = prepare_run_inputs(request, reading=reading, say=say)
    report = inputs.prepared.report
    valid = replace(report, sources=report.valid_sources)  # for the sha256 of the held-out corpus
    for line in (*report.lines(), *inputs.remarks()):
        say(line)
    corpus = {
        "name": ", ".join(source.name for source in report.sources),
        "sha256": report.sha256,
        "valid_sha256": valid.sha256 if valid.sources else None,
        "sources": [asdict(source) for source in report.sources],
    }
    return create_run(out, inputs, corpus, device=device, processes=processes, replace=force)


def prepare_run_inputs(
    request: TrainingRequest, *, say: LineWriter = _write_nothing, reading: ProgressContext = nullcontext
) -> RunInputs:
    """Read, split, tokenize and encode the corpus, and read initial weights if options name any. A run that
    starts from another one uses its tokenizer.

    Raises:
        UsageError: the requested configuration cannot be trained.
        DataError: the corpus cannot be read, or holds nothing to learn.
    """
    options, run = request.options, _open_base_run(request.options)
    base = None if run is None else run.base_checkpoint(options.checkpoint)
    config = request.config_of_new_run(run)
    if not _has_data(options):
        if base is not None:
            raise UsageError("--from-run needs DATA to learn from, as in edgechat train DATA --from-run RUN")
        if options.valid is not None or options.valid_source is not None:
            raise UsageError("--valid needs DATA to learn from, as in edgechat train DATA --valid FILE")
        if request.file is not None:
            raise UsageError(
                f"{request.file.path} names no data: add data = [...] to its section run, or DATA"
            )
        say(f"no DATA given: training on {DEFAULT_CORPUS}")
    existing_tokenizer = (
        run.tokenizer if run else load_tokenizer(options.tokenizer) if options.tokenizer else None
    )
    with reading() as progress:
        prepared = prepare_corpus(
            _open_training_corpus(options),
            config.data,
            tokenizer=existing_tokenizer,
            valid=_open_held_out_corpus(options),
            progress=progress,
        )
    if existing_tokenizer is not None:
        config = replace(config, data=replace(config.data, vocab_size=prepared.codec.vocab_size))
    # Raises UsageError for a tokenizer that BPE dropout cannot work on.
    BpeDropout.from_config(config.training, prepared.tokenizer, prepared.codec)
    if config.training.early_stop is not None and not len(prepared.valid):
        raise UsageError(
            f"--early-stop {config.training.early_stop} needs held-out pairs: "
            "give --valid, or a larger --valid-fraction"
        )
    path, width = options.pretrained_embeddings, config.model.embedding
    pretrained = None if path is None else read_pretrained_vectors(path, prepared.codec, width)
    return RunInputs(config, prepared, base, pretrained)


def _check_replaceable(out: Path, from_run: Path | None, force: bool) -> None:
    """Raise UsageError unless `out` holds a run and nothing else, and `force` asks to replace it."""
    if from_run is not None and from_run.exists() and from_run.samefile(out):
        raise UsageError(f"--from-run and --out are both {out}: choose another --out for the new run")
    go_on = "--resume continues it, or " if is_run(out) and not force else ""
    if not is_only_a_run(out):
        raise UsageError(
            f"{out} is not a run, or holds other files too, so --force does not replace it: "
            f"{go_on}choose another --out"
        )
    if not force:
        raise UsageError(f"{out} exists: {go_on}--force replaces it, or choose another --out")


def _open_to_resume(out: Path, request: TrainingRequest) -> Run:
    """The run in `out`, with the values that a resume may change.

    Raises UsageError if any other option, or the data, differs from what the run was started with.
    """
    run, options = open_run(out), request.options
    try:
        requested = request.apply_to(run.config, inherit=run.base_info is not None)
    except UsageError as error:
        raise UsageError(
            f"{error} (a resume keeps the settings of its run: leave this setting out)"
        ) from None
    may_differ = {*CHANGEABLE_ON_RESUME}
    if _effective_batch_size(requested.training) == _effective_batch_size(run.config.training):
        may_differ |= {*STEP_DIVISION}
    # A tokenizer that was not trained for the run has overridden the size in a file.
    tokenizer_given = options.tokenizer is not None or run.base_info is not None
    if "vocab_size" not in (request.option_values if tokenizer_given else request.explicit_values):
        may_differ.add("vocab_size")  # a resume trains no tokenizer, and a given one is compared below
    changed = requested.to_json()
    for part, values in run.config.to_json().items():
        for name, value in values.items():
            now = changed[part][name]
            if now != value and name not in may_differ:
                given = request.option_that_set(name)
                if name in STEP_DIVISION:
                    tokens, size = _effective_batch_size(run.config.training)
                    of, option = ("tokens", "--batch-tokens") if tokens else ("pairs", "--batch-size")
                    raise UsageError(
                        f"{given} changes how large a step is, which is {size:,} {of} in this run: resume "
                        f"without it, or give {option} and --accumulate whose product is {size:,}"
                    )
                sets = f"sets no {name}" if now is None else f"sets {name} to {now}"
                started = "without it" if value is None else f"with {value}"
                raise UsageError(
                    f"{given} {sets}, but the run was started {started}: "
                    f"resume without {given}, or start another run"
                )
    for name, same in _inputs_unchanged(run, options).items():
        if not same:
            raise UsageError(
                f"{name} is not the same as at the start of {out}: resume without it, or start another run"
            )
    division = {
        name: changed["training"][name]
        for name in STEP_DIVISION
        if request.explicit_values.keys() & {*STEP_DIVISION}
    }
    values = request.resumable_values | division
    if run.config.with_values(values) == run.config:
        return run
    if run.checkpoints:
        done = run.checkpoints.last_position
        for name, unit, reached in (
            ("max_steps", "step", done.step),
            ("epochs", "epoch", done.epoch + (done.epoch_step > 0)),
        ):
            length = request.resumable_values.get(name, reached)
            if length < reached:
                raise UsageError(
                    f"{request.option_that_set(name)} sets {name} to {length}, but the run has already "
                    f"reached {unit} {reached}: set at least {reached}"
                )
    return run.with_values(**values)


def _effective_batch_size(config: TrainingConfig) -> tuple[bool, int]:
    """Whether the size of a step is counted in tokens rather than pairs, and how many it has."""
    tokens = config.batch_tokens
    return tokens is not None, (tokens or config.batch_size) * config.accumulate


def _inputs_unchanged(run: Run, options: RunOptions) -> dict[str, bool]:
    """For each input that a resume names again, whether the run was started with the same one."""
    try:
        base_run = _open_base_run(options)
        base = None if base_run is None else base_run.base_checkpoint(options.checkpoint)
    except EdgeChatError as error:
        raise type(error)(f"{error} (a resume does not need --from-run: leave it out)") from None
    valid, vectors, tokenizer = (
        _open_held_out_corpus(options),
        options.pretrained_embeddings,
        options.tokenizer,
    )
    same = {}
    if _has_data(options):
        try:
            same["DATA"] = _open_training_corpus(options).read().sha256 == run.corpus_sha256
        except EdgeChatError as error:
            raise type(error)(f"{error} (a resume does not need DATA: leave it out)") from None
    if valid is not None:
        name = "--valid" if options.valid else "--valid-source"
        same[name] = valid.read().sha256 == run.info["corpus"].get("valid_sha256")
    if vectors is not None:
        same["--pretrained-embeddings"] = file_sha256(vectors) == (run.pretrained or {}).get("sha256")
    if tokenizer is not None:
        same["--tokenizer"] = load_tokenizer(tokenizer) == run.tokenizer
    if base is not None:
        same["--from-run"] = sha256(base.weights) == (run.base_info or {}).get("sha256")
    return same


def _has_data(options: RunOptions) -> bool:
    return bool(options.data or options.source or options.target)


def _open_training_corpus(options: RunOptions) -> Corpus:
    return open_corpus(options.data, source=options.source, target=options.target, skip_bad=options.skip_bad)


def _open_held_out_corpus(options: RunOptions) -> Corpus | None:
    data = [options.valid] if options.valid else []
    source, target = options.valid_source, options.valid_target
    if not data and source is None and target is None:
        return None
    option_names = ("--valid-source", "--valid-target")
    return open_corpus(
        data, source=source, target=target, skip_bad=options.skip_bad, option_names=option_names
    )


def _open_base_run(options: RunOptions) -> Run | None:
    return None if options.from_run is None else open_run(options.from_run)
