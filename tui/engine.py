"""A loaded bundle as the chat screen uses it: the runtime's replies and traces become plain values here,
and nowhere else."""

import contextlib
import dataclasses
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
from edgechat.runtime.bundle import MANIFEST, SIZE_CAPS, find_bundle
from edgechat.runtime.device import Device
from edgechat.runtime.files import sha256
from edgechat.runtime.manifest import Manifest
from edgechat.runtime.options import GOES_WITH, refuse_company
from edgechat.runtime.replies import REPLIES
from edgechat.runtime.text import EOS, SEP, SPECIAL_TOKENS, TextCodec

from .knobs import Changes, same, settle
from .values import (
    END,
    SEPARATOR,
    AttendedToken,
    BeamCandidate,
    BeamRow,
    BundleFacts,
    CandidateRow,
    Insight,
    Made,
    ReplyFacts,
)

#: Bytes that the trace of a search may take while it goes on, by what its parts take in CPython.
MOST_TRACED = 64_000_000
_CANDIDATE, _WEIGHT, _ID = 190, 32, 8
#: Other tokens that are named beside one of a reply.
RIVALS = 3
#: Bundles that are offered.
NEAR = 100


class Model(Protocol):
    """As much of a `ChatModel` as the chat uses."""

    defaults: DecodingOptions
    device: Device
    manifest: Manifest | None
    codec: TextCodec

    def stream_turns(
        self, turns: Sequence[str], options: DecodingOptions | None, done: Callable[[Reply], None]
    ) -> ReplyStream: ...


class Decoding:
    """A reply that is being made. `updates` runs in a worker's thread, `cancel` is for any."""

    def __init__(self, engine: "Engine", turns: Sequence[str], options: DecodingOptions) -> None:
        self._engine, self._turns, self._options = engine, tuple(turns), options
        self._stream = engine.model.stream_turns(turns, options, lambda reply: None)
        self._step_ms: list[float] = []
        self._first_ms: float | None = None

    def updates(self) -> Iterator[tuple[str, str]]:
        """All that is settled and the unsettled tail, after each step."""
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

    def result(self) -> tuple[ReplyFacts, Insight | None]:
        """The reply, and how it came about where that was traced."""
        reply, engine = self._stream.reply, self._engine
        facts = ReplyFacts(
            reply.text,
            tuple(_candidate_row(rank, c) for rank, c in enumerate(reply.candidates, start=1)),
            tokens=len(reply.tokens),
            ms=reply.ms,
            truncated=reply.truncated,
            finished=all(candidate.finished for candidate in reply.candidates[:1]),
            made=engine.made(self._options.to_json(), self._turns),
            step_ms=tuple(self._step_ms),
            first_ms=self._first_ms,
            memory=memory_used(),
            confidence=reply.confidence,
        )
        if not reply.trace:
            return facts, None
        return facts, _insight(engine.model.codec, self._turns, reply, reply.trace)


class Engine:
    """A model with its name and facts."""

    def __init__(self, model: Model, name: str, path: str = "") -> None:
        self.model = model
        # A conversation outlives the folder that it was held in.
        where = str(Path(path).resolve()) if path and Path(path).exists() else path
        self.facts = _bundle_facts(model, name, where)

    @property
    def defaults(self) -> dict[str, Any]:
        """The bundle's own options. As many candidates are wanted as the beam has."""
        return dataclasses.replace(self.model.defaults, n_best=self.model.defaults.beam).to_json()

    def options(self, changes: Changes) -> dict[str, Any]:
        """The bundle's own options with these changes.

        Raises:
            EdgeChatError: they do not go together, or not with this model.
        """
        return self._options(changes).to_json()

    def turned(self, changes: Changes, name: str, value: Any) -> Changes:
        """`changes` with one more, less what does not go with it; without those that change nothing.

        Raises:
            EdgeChatError: the value is none.
        """
        settled = settle({**changes, name: value}, name, self._plain(), GOES_WITH, self._options)
        defaults = self.defaults
        return {option: v for option, v in settled.items() if not same(option, v, defaults.get(option))}

    def decode(self, turns: Sequence[str], options: dict[str, Any]) -> Decoding:
        """Begin a reply to these turns, oldest first, with options of `options`, or of a reply made before.

        Raises:
            EdgeChatError: options that this runtime does not have.
        """
        known = DecodingOptions.from_json(options)
        return Decoding(self, turns, dataclasses.replace(known, trace=self.traces(turns, known.to_json())))

    def traces(self, turns: Sequence[str], options: dict[str, Any]) -> bool:
        """Whether all steps of the search for a reply to these turns can be kept to look at: not where they
        would be too many, should the reply become as long as it may."""
        codec = self.model.codec
        rows: int = options.get("beam", 1)
        steps: int = options.get("max_length") or codec.max_target
        source = len(codec.encode_source(turns).ids)
        # A row has about as many candidates as there are rows, and what it says so far.
        return rows * steps * (_CANDIDATE * rows + _WEIGHT * source + _ID * steps // 2) <= MOST_TRACED

    def seen(self, turns: Sequence[str]) -> tuple[str, ...]:
        """Those of a conversation's turns that the model is given, the prompt last."""
        most = self.facts.turns or 1
        return tuple(turns[-most:])

    def made(self, options: dict[str, Any], turns: Sequence[str]) -> Made:
        """How a reply to these turns is made with these options."""
        facts = self.facts
        kept = options | {"trace": False}
        return Made(
            facts.name, facts.precision, facts.device, facts.fingerprint, facts.path, kept, tuple(turns)
        )

    def _options(self, changes: Changes) -> DecodingOptions:
        wanted = {"n_best": changes.get("beam", self.model.defaults.beam), **changes}
        options = dataclasses.replace(self.model.defaults, **wanted)
        if self.facts.closed:
            refuse_company("replies", options.given & changes.keys())
        least = options.min_length
        longest = self.facts.longest_reply
        if longest is not None and options.max_length is None and least >= longest:
            raise EdgeChatError(
                f"min_length is {least}, but replies of this model have at most {longest} tokens"
            )
        return options

    def _plain(self) -> dict[str, Any]:
        """What each option is where nobody gave it."""
        return DecodingOptions().to_json()


def load(
    path: str, *, device: str = "auto", threads: int = 1, require_signature: Path | None = None
) -> ChatModel:
    """The model of a bundle, checked."""
    return ChatModel.load(path, device=device, threads=threads, require_signature=require_signature)


def with_seed(options: dict[str, Any]) -> dict[str, Any]:
    """`options` with a seed, where tokens are drawn and none is given, so that the draw can be repeated."""
    return DecodingOptions.from_json(options).with_seed().to_json()


def name_of(path: str) -> str:
    """What a bundle is called on screen, in one line."""
    return " ".join(_resolved(Path(path)).name.removesuffix(".edgechat").split()) or path


def place_of(path: str) -> Path:
    """Where a bundle lies, however it is named; `demo` lies in the package."""
    try:
        return _resolved(find_bundle(path))
    except UsageError:
        return _resolved(Path(path))


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except OSError:  # the current folder is gone
        return path


def is_bundle(path: str) -> bool:
    """Whether what lies at `path` looks like one."""
    try:
        place = place_of(path)
        return (place / MANIFEST).is_file() if place.is_dir() else is_archive(place)
    except (OSError, ValueError):  # one that is too long, or no text
        return False


def stamp_of(path: str) -> str:
    """What is another wherever the bundle at `path` is another: a hash of its manifest, with which a
    bundle of one file begins. "" where it cannot be read."""
    try:
        place = place_of(path)
        file = place / MANIFEST if place.is_dir() else place
        if not file.is_file():  # a pipe would be waited for
            return ""
        with file.open("rb") as opened:
            return sha256(opened.read(SIZE_CAPS[MANIFEST]))
    except (OSError, ValueError):  # one that is too long, or no text
        return ""


def bundles_near(folder: Path) -> list[str]:
    """Bundles in `folder` and up to two below it, by name."""
    found: list[str] = []
    with contextlib.suppress(OSError):  # a folder that may not be searched
        for pattern in ("*", "*/*"):
            found += (str(manifest.parent) for manifest in folder.glob(f"{pattern}/edgechat.json"))
            found += map(str, folder.glob(f"{pattern}.edgechat"))
    return sorted(found)[:NEAR]


def sentence(error: BaseException) -> str:
    """An error as the user reads it; what nobody foresaw says its kind too."""
    if isinstance(error, EdgeChatError):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}"


def memory_used() -> int | None:
    """Bytes of memory that this process holds, None where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _bundle_facts(model: Model, name: str, path: str) -> BundleFacts:
    manifest = model.manifest
    if manifest is None:
        return BundleFacts(name, model.device, path=path, turns=model.codec.turns)
    return BundleFacts(
        name,
        model.device,
        precision=manifest.precision,
        layers=manifest.model.layers,
        hidden=manifest.model.hidden,
        vocabulary=manifest.model.vocab_size,
        size=sum(entry.size for entry in manifest.files.values()),
        turns=manifest.text.turns,
        path=path,
        fingerprint=sha256(manifest.to_bytes())[:16],
        longest_reply=manifest.text.max_target,
        closed=REPLIES in manifest.files,
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


def _insight(codec: TextCodec, turns: Sequence[str], reply: Reply, trace: Sequence[TracedStep]) -> Insight:
    ids = codec.encode_source(turns).ids
    marks = {SEP: SEPARATOR, EOS: END}
    pieces = [marks.get(id, text) for id, text in zip(ids, codec.pieces(ids), strict=True)]
    rows = [{row.tokens: row for row in step.rows} for step in trace]
    seen = tuple(_split(codec, ids))
    if reply.truncated and len(seen) > 1 and not seen[0]:
        seen = seen[1:]  # only the separator after it was left
    names: dict[int, str] = {}

    def name(id: int) -> str:
        if id not in names:
            special = END if id == EOS else SPECIAL_TOKENS[id] if id < len(SPECIAL_TOKENS) else ""
            names[id] = special or codec.token_bytes(id).decode("utf-8", "backslashreplace")
        return names[id]

    return Insight(
        tuple(pieces),
        seen,
        codec.max_source,
        tuple(_follow(name, rows, candidate) for candidate in reply.candidates),
        tuple(tuple(_beam_row(codec, name, row) for row in step.rows) for step in trace),
        reply.truncated and seen[0] != codec.as_read(turns[-len(seen)]),
    )


def _split(codec: TextCodec, ids: Sequence[int]) -> Iterator[str]:
    """The texts between the separators."""
    turn: list[int] = []
    for id in [*ids, SEP]:
        if id == SEP:
            yield codec.decode(turn)
            turn = []
        else:
            turn.append(id)


def _follow(
    name: Callable[[int], str],
    rows: Sequence[dict[tuple[int, ...], TracedRow]],
    candidate: Candidate,
) -> tuple[AttendedToken, ...]:
    """The way of a candidate through the search; nothing where its steps are not all there."""
    way = []
    ids, pieces = (*candidate.ids, EOS), (*candidate.tokens, END)
    for n, id in enumerate(ids[: len(candidate.token_logps)]):  # no end where it was cut
        row = rows[n].get(ids[:n]) if n < len(rows) else None
        if row is None:
            return ()
        rivals = tuple((name(c.id), c.logp) for c in row.candidates if c.id != id and c.fate != "banned")
        way.append(AttendedToken(pieces[n], tuple(row.align), rivals[:RIVALS]))
    return tuple(way)


def _beam_row(codec: TextCodec, name: Callable[[int], str], row: TracedRow) -> BeamRow:
    """The ids that are no words, and so may never come, are left out."""
    candidates = tuple(
        BeamCandidate(name(c.id), c.logp, c.total, c.fate, c.rule or "")
        for c in row.candidates
        if c.rule != "special"
    )
    return BeamRow(codec.decode(row.tokens), row.logp, candidates)
