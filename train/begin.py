"""How a run begins, or goes on: what may be overwritten, what is read, and what a resume may change."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..runtime.errors import EdgeChatError, UsageError
from ..runtime.files import occupied, sha256
from .bpe_dropout import BpeDropout
from .config import RunConfig, RunOptions, TrainingConfig
from .corpus import DEFAULT_CORPUS, Corpus, open_corpus
from .dataset import Prepared
from .dataset import prepare as prepare_corpus
from .lock import RunLock
from .pretrained import Pretrained, file_sha256, read_pretrained
from .report import Progress
from .run import Run, create_run, is_only_a_run, is_run, open_run
from .tokenizer import SMALLEST_VOCABULARY, load_tokenizer
from .trainer import check_early_stop
from .wanted import Wanted

#: Training pairs for each token of more than a byte, below which copying is warned of.
_PAIRS_A_TOKEN = 10
#: How a step is divided into batches.
_DIVISION = ("batch_size", "batch_tokens", "accumulate")

Say = Callable[[str], None]
#: Shows, while it is entered, how far the corpus is read.
Reading = Callable[[], AbstractContextManager[Progress | None]]


def _silent(line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Beginning:
    """All that a new run is made of. `base` is the run whose weights it begins with, if one."""

    config: RunConfig
    prepared: Prepared
    base: Run | None
    checkpoint: str
    """Of `base`."""

    @property
    def first_weights(self) -> bytes | None:
        """Those of `base`."""
        return None if self.base is None else self.base.weights(self.checkpoint)


def open_or_create(
    out: Path,
    wanted: Wanted,
    device: str,
    *,
    processes: int = 1,
    resume: bool = False,
    force: bool = False,
    say: Say = _silent,
    reading: Reading = nullcontext,
) -> Run:
    """The run to train: with `resume` the one in `out`, if there is one, else a new one. `device` and
    `processes` are those that it begins on. Only with `force` is a run replaced, and nothing but a run; an
    empty folder is as good as none.

    Raises:
        UsageError: what is in `out` may not be overwritten, or is not what a resume asks for.
        CheckpointError: another process trains in `out`.
        DataError: the corpus cannot be read, or holds nothing to learn.
    """
    begun = is_run(out)
    if begun:
        RunLock(out).release()  # nobody trains in it, so that it may be changed or replaced
    if resume and (begun or occupied(out)):
        return _resumed(out, wanted)
    if resume and not _names_data(wanted.options):
        raise UsageError(f"there is no run {out} to resume: give DATA to start one")
    if resume:
        say(f"there is no run {out} to resume: this begins it")
    if occupied(out):
        _check_replaced(out, wanted.options.from_run, force)
    beginning = prepare(wanted, say=say, reading=reading)
    config, prepared, base = beginning.config, beginning.prepared, beginning.base
    BpeDropout.wanted(config.training, prepared.tokenizer, prepared.codec)  # refuses what is no plain BPE
    check_early_stop(config.training, len(prepared.valid))
    for line in prepared.report.lines():
        say(line)
    merged = prepared.codec.vocab_size - SMALLEST_VOCABULARY  # tokens of more than a byte
    if config.model.copy_attention and merged * _PAIRS_A_TOKEN > prepared.report.train_pairs:
        say(
            f"hint: --copy-attention copies token by token, and with so few pairs most of {merged:,} tokens "
            f"are hardly learned: a --vocab-size nearer to {SMALLEST_VOCABULARY} copies new values better"
        )
    if base is not None:
        step = base.step(beginning.checkpoint)
        say(f"begins with the {beginning.checkpoint} weights of {base.folder}, step {step:,}")
    report, of_valid = prepared.report, wanted.options.valid is not None
    corpus = {
        "name": ", ".join(source.name for source in report.sources),
        "sha256": report.sha256,
        # As if the held-out data were a corpus of its own.
        "valid_sha256": replace(report, sources=report.valid_sources).sha256 if of_valid else None,
        "sources": [asdict(source) for source in report.sources],
    }
    return create_run(
        out,
        config,
        prepared,
        corpus,
        device=device,
        processes=processes,
        pretrained=_read_pretrained(wanted.options.pretrained_embeddings, beginning, say),
        base=base,
        checkpoint=beginning.checkpoint,
        replace=force,
    )


def prepare(wanted: Wanted, *, say: Say = _silent, reading: Reading = nullcontext) -> Beginning:
    """Read, split, tokenize and encode the corpus. The tokenizer is that of the run to begin with, if one."""
    options = wanted.options
    checkpoint = options.checkpoint or "best"
    base = _base(options)
    config = wanted.fresh(base)
    if not _names_data(options):
        if base is not None:
            raise UsageError(
                "--from-run learns more from DATA: name it, as in edgechat train DATA --from-run RUN"
            )
        say(f"no DATA was named: this learns {DEFAULT_CORPUS}")
    ready = base.tokenizer if base else load_tokenizer(options.tokenizer) if options.tokenizer else None
    with reading() as progress:
        prepared = prepare_corpus(
            _corpus(options), config.data, tokenizer=ready, valid=_held_out(options), progress=progress
        )
    return Beginning(config, prepared, base, checkpoint)


def _check_replaced(out: Path, from_run: Path | None, force: bool) -> None:
    """Refuse to replace what is in `out`, unless that is a run and nothing else, and it is asked for."""
    if from_run is not None and from_run.exists() and from_run.samefile(out):
        raise UsageError(f"--from-run and --out are both {out}: name another --out, the run stays as it is")
    go_on = "--resume continues it, or " if is_run(out) and not force else ""
    if not is_only_a_run(out):
        raise UsageError(
            f"{out} is not a run, or holds other files too, so --force does not replace it: "
            f"{go_on}choose another --out"
        )
    if not force:
        raise UsageError(f"{out} exists: {go_on}--force replaces it, or choose another --out")


def _resumed(out: Path, wanted: Wanted) -> Run:
    """The run in `out`, if the options and the data given are those it was begun with. Only how long it
    goes on may change, and into how many batches its steps are divided."""
    run, options = open_run(out), wanted.options
    asked = wanted.on(run.config, goes_on=run.begun_from is not None)
    divided = _DIVISION if _step_size(asked.training) == _step_size(run.config.training) else ()
    changed = asked.to_json()
    for part, values in run.config.to_json().items():
        for name, value in values.items():
            if changed[part][name] != value and name not in ("epochs", "max_steps", *divided):
                given = wanted.source(name)
                raise UsageError(
                    f"{given} gives {name} {changed[part][name]}, but the run was begun with {value}: "
                    f"resume without {given}, or start another run"
                )
    for name, same in _same_as_begun(run, options).items():
        if not same:
            raise UsageError(
                f"{name} is not what {out} was begun with: resume without it, or start another run"
            )
    named = {*({} if wanted.file is None else wanted.file.values), *wanted.values}  # not by a preset
    division = {name: changed["training"][name] for name in _DIVISION if named & {*_DIVISION}}
    values = wanted.length | division
    config = run.config.changed(values)
    if config == run.config:
        return run
    if run.checkpoints:
        done = run.checkpoints.position
        for name, reached, where in (
            ("max_steps", done.step, "at step"),
            ("epochs", done.epoch + (done.epoch_step > 0), "in epoch"),
        ):
            length = wanted.length[name]
            if length is not None and length < reached:
                raise UsageError(
                    f"{wanted.source(name)} gives {name} {length}, but the run is {where} {reached} already"
                )
    return run.with_length(**values)


def _step_size(config: TrainingConfig) -> tuple[bool, int]:
    """Whether it is in tokens, or in pairs, and how many a step has."""
    tokens = config.batch_tokens
    return tokens is not None, (tokens or config.batch_size) * config.accumulate


def _same_as_begun(run: Run, options: RunOptions) -> dict[str, bool]:
    """Of each file that a resume names again, whether the run was begun with it."""
    try:
        base = _base(options)
    except EdgeChatError as error:
        raise type(error)(f"{error} (a resume does not need --from-run: leave it out)") from None
    valid, vectors, tokenizer = _held_out(options), options.pretrained_embeddings, options.tokenizer
    same = {}
    if _names_data(options):
        try:
            same["DATA"] = _corpus(options).read().sha256 == run.corpus_sha256
        except EdgeChatError as error:
            raise type(error)(f"{error} (a resume does not need DATA: leave it out)") from None
    if valid is not None:
        same["--valid"] = valid.read().sha256 == run.info["corpus"].get("valid_sha256")
    if vectors is not None:
        same["--pretrained-embeddings"] = file_sha256(vectors) == (run.pretrained or {}).get("sha256")
    if tokenizer is not None:
        same["--tokenizer"] = load_tokenizer(tokenizer) == run.tokenizer
    if base is not None:
        weights = base.weights(options.checkpoint or "best")
        same["--from-run"] = sha256(weights) == (run.begun_from or {}).get("sha256")
    return same


def _names_data(options: RunOptions) -> bool:
    return bool(options.data or options.source or options.target)


def _corpus(options: RunOptions) -> Corpus:
    return open_corpus(options.data, source=options.source, target=options.target, skip_bad=options.skip_bad)


def _held_out(options: RunOptions) -> Corpus | None:
    return open_corpus([options.valid], skip_bad=options.skip_bad) if options.valid else None


def _base(options: RunOptions) -> Run | None:
    """The run to begin with, whose checkpoint is there."""
    if options.from_run is None:
        return None
    base = open_run(options.from_run)
    base.step(options.checkpoint or "best")  # refuses what is none
    return base


def _read_pretrained(path: Path | None, beginning: Beginning, say: Say) -> Pretrained | None:
    """The vectors of a file; how many of the tokens have one is said."""
    if path is None:
        return None
    found = read_pretrained(path, beginning.prepared.codec, beginning.config.model.embedding)
    say(f"pretrained          {found.found:,} of {found.vocab_size:,} tokens have a vector")
    return found
