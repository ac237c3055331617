"""A loaded bundle as the chat screen uses it. Only this module turns the runtime's replies and traces into
plain values."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgechat.runtime import (
    Candidate,
    ChatModel,
    DecodingOptions,
    EdgeChatError,
    Reply,
    ReplyStream,
    TracedRow,
    TracedStep,
    UsageError,
)
from edgechat.runtime.archive import is_archive
from edgechat.runtime.atomic_write import sha256
from edgechat.runtime.bundle import MANIFEST_FILE, SIZE_CAPS, find_bundle, read_bundle
from edgechat.runtime.closed_set import REPLIES_FILE
from edgechat.runtime.device import Device
from edgechat.runtime.manifest import Manifest
from edgechat.runtime.options import REQUIRES, check_closed_set_exclusions
from edgechat.runtime.reply_maker import ReplyMaker
from edgechat.runtime.text import EOS, SEP, SPECIAL_TOKENS, TextCodec

from .knobs import Changes, is_same_value, make_compatible
from .values import (
    END,
    MAX_TRACE_BYTES,
    SEPARATOR,
    AttendedToken,
    BeamCandidate,
    BeamRow,
    BundleChoice,
    BundleFacts,
    CandidateRow,
    ReplyFacts,
    ReplyOrigin,
    Trace,
    estimate_trace_bytes,
)

#: Maximum number of alternatives that are kept for each token of a reply.
MAX_ALTERNATIVES = 3
#: Maximum number of bundles that `list_bundles` returns.
MAX_LISTED_BUNDLES = 100


class Model(Protocol):
    """The part of a `LoadedModel` that the chat uses."""

    bundle_size: int | None
    defaults: DecodingOptions
    device: Device
    manifest: Manifest | None
    codec: TextCodec
    maker: ReplyMaker

    def stream_turns(
        self, turns: Sequence[str], options: DecodingOptions | None, done: Callable[[Reply], None]
    ) -> ReplyStream: ...


class LoadedModel(ChatModel):
    """A `ChatModel` with the size of its bundle in bytes."""

    bundle_size: int | None = None


class Decoding:
    """A reply that is being made. `updates` runs in a worker thread; any thread may call `cancel`."""

    def __init__(self, engine: "Engine", turns: Sequence[str], options: DecodingOptions) -> None:
        self._engine, self._turns, self._options = engine, tuple(turns), options
        self._stream = engine.model.stream_turns(turns, options, lambda reply: None)
        self._step_ms: list[float] = []
        self._first_ms: float | None = None

    def updates(self) -> Iterator[tuple[str, str]]:
        """Yield all settled text and the unsettled tail after each step."""
        settled, begun = "", time.perf_counter()
        before = begun
        for piece, tail in self._stream.updates():
            now = time.perf_counter()
            self._step_ms.append((now - before) * 1e3)
            settled += piece
            if settled and self._first_ms is None:
                self._first_ms = (now - begun) * 1e3
            yield settled, tail
            before = time.perf_counter()

    def cancel(self) -> None:
        self._stream.cancel()

    def result(self) -> tuple[ReplyFacts, Trace | None]:
        """The reply, and its trace if it was traced."""
        reply, engine = self._stream.reply, self._engine
        facts = ReplyFacts(
            reply.text,
            tuple(_candidate_row(rank, c) for rank, c in enumerate(reply.candidates, start=1)),
            tokens=len(reply.tokens),
            ms=reply.ms,
            truncated=reply.truncated,
            finished=all(candidate.finished for candidate in reply.candidates[:1]),
            made=engine.make_origin(self._options.to_json(), self._turns),
            step_ms=tuple(self._step_ms),
            first_ms=self._first_ms,
            memory=memory_used(),
            confidence=reply.confidence,
        )
        if not reply.trace:
            return facts, None
        return facts, _make_trace(engine.model.codec, self._turns, reply, reply.trace)


class Engine:
    """A loaded model with what the chat shows of it."""

    def __init__(self, model: Model, name: str, path: str = "") -> None:
        self.model = model
        # A stored conversation may be opened from another current folder, so the path is absolute.
        where = str(_resolve(Path(path))) if path and Path(path).exists() else path
        self.facts = _bundle_facts(model, name, where)

    @property
    def defaults(self) -> dict[str, Any]:
        """The bundle's default options, with as many candidates as the beam has hypotheses."""
        return dataclasses.replace(self.model.defaults, n_best=self.model.defaults.beam).to_json()

    def options(self, changes: Changes) -> dict[str, Any]:
        """The bundle's default options with these changes.

        Raises:
            EdgeChatError: the options are not compatible with each other or with this model.
        """
        return self._options(changes).to_json()

    def with_change(self, changes: Changes, name: str, value: Any) -> Changes:
        """Add a change. Other changes are adjusted to it, and changes to the default value are left out.

        Raises:
            EdgeChatError: the value is invalid or not compatible with the other options.
        """
        defaults = DecodingOptions().to_json()
        compatible = make_compatible({**changes, name: value}, name, defaults, REQUIRES, self._options)
        bundle_defaults = self.defaults
        return {o: v for o, v in compatible.items() if not is_same_value(o, v, bundle_defaults.get(o))}

    def decode(self, turns: Sequence[str], options: dict[str, Any]) -> Decoding:
        """Begin a reply to these turns, oldest first. `options` come from `Engine.options` or a stored reply.

        Raises:
            EdgeChatError: the runtime does not know one of the options.
        """
        known = DecodingOptions.from_json(options)
        return Decoding(self, turns, dataclasses.replace(known, trace=self.can_trace(turns, known.to_json())))

    def can_trace(self, turns: Sequence[str], options: dict[str, Any]) -> bool:
        """Whether the search for a reply to these turns is traced: not if the trace of the longest possible
        reply would be too large."""
        codec = self.model.codec
        rows: int = options.get("beam", 1)
        steps: int = options.get("max_length") or codec.max_target
        source = len(codec.encode_source(turns).ids)
        # Each row has about as many candidates as there are rows, and steps / 2 ids of 8 bytes on average.
        all_rows = rows * steps
        size = estimate_trace_bytes(all_rows * rows, all_rows * source, all_rows * 4 * steps)
        return size <= MAX_TRACE_BYTES

    def last_turns(self, turns: Sequence[str]) -> tuple[str, ...]:
        """The last turns of a conversation, as many as the model reads, the prompt last."""
        max_turns = self.facts.max_turns or 1
        return tuple(turns[-max_turns:])

    def make_origin(self, options: dict[str, Any], turns: Sequence[str]) -> ReplyOrigin:
        """A record of how a reply to these turns is made with these options."""
        facts = self.facts
        untraced = options | {"trace": False}
        return ReplyOrigin(
            facts.name, facts.precision, facts.device, facts.fingerprint, facts.path, untraced, tuple(turns)
        )

    def has_made(self, origin: ReplyOrigin) -> bool:
        """Whether this bundle made a reply, possibly in an earlier export: the reply's bundle has the same
        path or the same contents. A record without a path is compared by name."""
        if not origin.path:
            return origin.bundle == self.facts.name
        same_contents = origin.fingerprint != "" and origin.fingerprint == self.facts.fingerprint
        return same_contents or origin.path == self.facts.path

    def _options(self, changes: Changes) -> DecodingOptions:
        values = {"n_best": changes.get("beam", self.model.defaults.beam), **changes}
        options = dataclasses.replace(self.model.defaults, **values)
        if self.facts.has_closed_set:
            check_closed_set_exclusions(options.non_default & changes.keys())
        self.model.maker.max_length(options)  # refuses a min_length that no reply can have
        return options


def load_model(
    path: str, *, device: str = "auto", threads: int = 1, require_signature: Path | None = None
) -> LoadedModel:
    """Check and load the bundle at `path`."""
    bundle = read_bundle(find_bundle(path), require_signature=require_signature)
    model = LoadedModel.from_bundle(bundle, device=device, threads=threads)
    assert isinstance(model, LoadedModel)
    model.bundle_size = bundle.size
    return model


def with_seed(options: dict[str, Any]) -> dict[str, Any]:
    """`options` with a new seed if they sample without one, so that the draws can be repeated."""
    return DecodingOptions.from_json(options).with_seed().to_json()


def bundle_name(path: str) -> str:
    """The name of a bundle on screen, in one line."""
    return " ".join(_resolve(Path(path)).name.removesuffix(".edgechat").split()) or path


def resolve_bundle(path: str) -> Path:
    """The absolute path of a bundle, whatever its spelling. `demo` is the bundle in the package."""
    try:
        return _resolve(find_bundle(path))
    except UsageError:
        return _resolve(Path(path))


def _resolve(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path))  # `Path.resolve` does not accept symlinks that form a loop
    except OSError:  # the current folder was deleted
        return path


def is_bundle(path: str) -> bool:
    """Whether there is a bundle at `path`. Its contents are not checked."""
    try:
        place = resolve_bundle(path)
        return (place / MANIFEST_FILE).is_file() if place.is_dir() else is_archive(place)
    except (OSError, ValueError):  # the path is too long or contains a NUL
        return False


def why_no_bundle(path: str) -> str:
    """Why there is no bundle at `path`, "" if there is one."""
    if is_bundle(path):
        return ""
    try:
        find_bundle(path)
    except (UsageError, ValueError) as error:
        return str(error)
    return f"{path} is not a bundle: give the folder or file that `edgechat export` wrote"


def manifest_hash(path: str) -> str:
    """A hash of the manifest of the bundle at `path`, which changes with the bundle. "" if it cannot be read.

    The manifest comes first in a bundle of one file, so that the start of the file is hashed.
    """
    try:
        place = resolve_bundle(path)
        file = place / MANIFEST_FILE if place.is_dir() else place
        if not file.is_file():  # opening a named pipe would block
            return ""
        with file.open("rb") as opened:
            return sha256(opened.read(SIZE_CAPS[MANIFEST_FILE]))
    except (OSError, ValueError):  # the path is too long or contains a NUL
        return ""


def unopened_choice(path: str) -> BundleChoice:
    """The choice of a bundle that is not open."""
    return BundleChoice(path, bundle_name(path), "", resolve_bundle(path))


def list_bundles(folder: Path) -> list[BundleChoice]:
    """The bundles in `folder` and one folder below it, sorted by path, at most `MAX_LISTED_BUNDLES`."""
    found: list[str] = []
    with contextlib.suppress(OSError, ValueError):  # a folder that cannot be searched
        for pattern in ("*", "*/*"):
            found += (str(manifest.parent) for manifest in folder.glob(f"{pattern}/edgechat.json"))
            found += map(str, folder.glob(f"{pattern}.edgechat"))
    return [unopened_choice(path) for path in sorted(found)[:MAX_LISTED_BUNDLES]]


def error_message(error: BaseException) -> str:
    """An error as a sentence for the user. An unexpected error is given with its type."""
    if isinstance(error, EdgeChatError):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}"


def memory_used() -> int | None:
    """The resident memory of this process in bytes, None if the system does not report it."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _bundle_facts(model: Model, name: str, path: str) -> BundleFacts:
    manifest = model.manifest
    if manifest is None:
        return BundleFacts(name, model.device, path=path, max_turns=model.codec.turns)
    return BundleFacts(
        name,
        model.device,
        precision=manifest.precision,
        layers=manifest.model.layers,
        hidden=manifest.model.hidden,
        vocabulary=manifest.model.vocab_size,
        size=model.bundle_size,
        max_turns=manifest.text.turns,
        path=path,
        fingerprint=sha256(manifest.to_bytes())[:16],
        has_closed_set=REPLIES_FILE in manifest.files,
    )


def _candidate_row(rank: int, candidate: Candidate) -> CandidateRow:
    return CandidateRow(
        rank,
        candidate.score,
        candidate.logp,
        candidate.text,
        candidate.finished,
        candidate.tokens,
        candidate.token_logps,
    )


# --- Traces


def _make_trace(codec: TextCodec, turns: Sequence[str], reply: Reply, steps: Sequence[TracedStep]) -> Trace:
    ids = codec.encode_source(turns).ids
    marks = {SEP: SEPARATOR, EOS: END}
    pieces = [marks.get(id, text) for id, text in zip(ids, codec.pieces(ids), strict=True)]
    rows = [{row.tokens: row for row in step.rows} for step in steps]
    seen = tuple(_split_turns(codec, ids))
    if reply.truncated and len(seen) > 1 and not seen[0]:
        seen = seen[1:]  # only the separator after the oldest turn was left
    names: dict[int, str] = {}

    def name(id: int) -> str:
        if id not in names:
            special = END if id == EOS else SPECIAL_TOKENS[id] if id < len(SPECIAL_TOKENS) else ""
            names[id] = special or codec.token_bytes(id).decode("utf-8", "backslashreplace")
        return names[id]

    return Trace(
        tuple(pieces),
        seen,
        codec.max_source,
        tuple(_attended_tokens(name, rows, candidate) for candidate in reply.candidates),
        tuple(tuple(_beam_row(codec, name, row) for row in step.rows) for step in steps),
        reply.truncated and seen[0] != codec.normalize_turn(turns[-len(seen)]),
    )


def _split_turns(codec: TextCodec, ids: Sequence[int]) -> Iterator[str]:
    """Yield the texts between separators."""
    turn: list[int] = []
    for id in [*ids, SEP]:
        if id == SEP:
            yield codec.decode(turn)
            turn = []
        else:
            turn.append(id)


def _attended_tokens(
    name: Callable[[int], str],
    rows: Sequence[dict[tuple[int, ...], TracedRow]],
    candidate: Candidate,
) -> tuple[AttendedToken, ...]:
    """The traced tokens of a candidate, empty if a step of it is missing in the trace."""
    traced = []
    ids, pieces = (*candidate.ids, EOS), (*candidate.tokens, END)
    for n, id in enumerate(ids[: len(candidate.token_logps)]):  # without the end if the reply was cut
        row = rows[n].get(ids[:n]) if n < len(rows) else None
        if row is None:
            return ()
        alternatives = tuple(
            (name(c.id), c.logp) for c in row.candidates if c.id != id and c.fate != "banned"
        )
        traced.append(AttendedToken(pieces[n], tuple(row.align), alternatives[:MAX_ALTERNATIVES]))
    return tuple(traced)


def _beam_row(codec: TextCodec, name: Callable[[int], str], row: TracedRow) -> BeamRow:
    """A row of the trace, without the special tokens, which no reply can contain."""
    candidates = tuple(
        BeamCandidate(name(c.id), c.logp, c.total, c.fate, c.rule or "")
        for c in row.candidates
        if c.rule != "special"
    )
    return BeamRow(codec.decode(row.tokens), row.logp, candidates)
