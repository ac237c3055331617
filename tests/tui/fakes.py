"""Models for tests of the chat: a scripted one, and a real one with a table of replies."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from edgechat.runtime import Candidate, ChatModel, DecodingOptions, Reply
from edgechat.runtime.backend import Floats, Ints, StepOutput
from edgechat.runtime.closed_set import REPLIES_FILE
from edgechat.runtime.manifest import FileEntry, Manifest, ModelSpec, TextSpec
from edgechat.runtime.reply_maker import ReplyMaker
from edgechat.runtime.text import EOS, SPECIAL_TOKENS, TextCodec


def reply(*texts: str, ms: float = 12.5, truncated: bool = False, finished: bool = True) -> Reply:
    """A reply whose candidates are `texts`; the k-th has score -k/4 and logp -k."""
    candidates = tuple(
        Candidate(text, -k / 4, -float(k), tuple(text.split()), (), (), finished)
        for k, text in enumerate(texts, start=1)
    )
    best = candidates[0]
    return Reply(best.text, best.score, best.tokens, candidates, ms, truncated)


@dataclass
class Script:
    """How one reply goes: its updates, then its end. `gate` is waited for before the end, as is
    `cancel` if it `waits_for_cancel`. One that `ignores_cancel` goes on after a cancellation."""

    updates: Iterable[tuple[str, str]] = ()
    end: Reply | Exception = field(default_factory=lambda: reply("fine"))
    gate: threading.Event | None = None
    waits_for_cancel: bool = False
    ignores_cancel: bool = False


class FakeStream:
    def __init__(self, script: Script) -> None:
        self._script = script
        self.cancelled = threading.Event()
        self.ended = threading.Event()

    def updates(self) -> Iterator[tuple[str, str]]:
        script = self._script
        for update in script.updates:
            if self.cancelled.is_set() and not script.ignores_cancel:
                break
            yield update
        if script.waits_for_cancel:
            self.cancelled.wait(60)
        if script.gate:
            script.gate.wait(60)
        self.ended.set()
        if isinstance(script.end, Exception):
            raise script.end
        yield "", ""

    def cancel(self) -> None:
        self.cancelled.set()

    @property
    def reply(self) -> Reply:
        assert isinstance(self._script.end, Reply)
        return self._script.end


class FakeModel:
    """The part of a `ChatModel` that the chat uses. It plays `scripts` in order, and repeats the last one."""

    def __init__(
        self,
        *scripts: Script,
        beam: int = 3,
        turns: int = 2,
        precision: str = "int8",
        weights: str = "0",
        closed: bool = False,
    ) -> None:
        self.defaults = DecodingOptions(beam=beam)
        self.device = "cpu"
        self.manifest = manifest(turns=turns, precision=precision, weights=weights, closed=closed)
        self.codec = byte_codec(turns=turns)
        self.maker = ReplyMaker(self.codec, self.defaults)
        self.bundle_size = 4_200_000
        self.options: DecodingOptions | None = None
        self.streams: list[FakeStream] = []
        self.received_turns: list[list[str]] = []  # by request
        self._scripts = list(scripts) or [Script()]

    def stream_turns(
        self, turns: Sequence[str], options: DecodingOptions | None, done: Callable[[Reply], None]
    ) -> FakeStream:
        self.options = options
        self.received_turns.append(list(turns))
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        self.streams.append(FakeStream(script))
        return self.streams[-1]


def manifest(
    *, turns: int = 1, precision: str = "int8", weights: str = "0", closed: bool = False
) -> Manifest:
    replies = {REPLIES_FILE: FileEntry("0" * 64, 100)} if closed else {}
    return Manifest(
        ModelSpec(2, 256, 128, 256, 512, 4096, True, "bahdanau", True),
        TextSpec(0, 1, 2, 3, 4, turns, "alternate", 64, 64, "oldest", "NFC"),
        precision=precision,
        opset=18,
        memory=(),
        state=(),
        decoding=DecodingOptions(),
        files={"decoder.onnx": FileEntry(weights * 64, 4_200_000), **replies},
        provenance={},
        proof={},
        quality={},
    )


def byte_codec(*merges: tuple[str, str], turns: int = 1) -> TextCodec:
    """A byte-level tokenizer: each byte is one token, except for these merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = (*SPECIAL_TOKENS, *alphabet, *map("".join, merges))
    vocabulary = {token: id for id, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return TextCodec(tokenizer.to_str().encode(), max_source=64, max_target=64, turns=turns)


@dataclass(frozen=True)
class TableState:
    prefixes: tuple[tuple[int, ...], ...]


class TableBackend:
    """A backend whose replies and their probabilities are a table, for any source. A reply in
    parts is spelled part by part."""

    def __init__(
        self, codec: TextCodec, replies: Mapping[str | tuple[str, ...], float], seconds: float = 0.0
    ) -> None:
        self.vocab_size = codec.vocab_size
        self._replies: dict[tuple[int, ...], float] = {}
        for reply, p in replies.items():
            parts = (reply,) if isinstance(reply, str) else reply
            self._replies[*(id for part in parts for id in codec.encode(part)), EOS] = p
        self._seconds = seconds

    def encode(self, src: Ints, src_len: Ints) -> TableState:
        return TableState(((),) * len(src))

    def step(
        self, state: TableState, tokens: Ints, parents: Ints, candidates: int, *, return_logp: bool = False
    ) -> tuple[StepOutput, TableState]:
        time.sleep(self._seconds)
        # What is fed first is <go>, no part of the reply.
        prefixes = tuple(
            (*state.prefixes[parent], int(token)) for token, parent in zip(tokens, parents, strict=True)
        )
        logp = np.stack([self._next(prefix[1:]) for prefix in prefixes])
        ids = np.argsort(-logp, axis=1, kind="stable")[:, :candidates]
        align: Floats = np.ones((len(tokens), 1), dtype=np.float32)
        return StepOutput(ids, np.take_along_axis(logp, ids, 1), align, None), TableState(prefixes)

    def select(self, state: TableState, sentences: Ints) -> TableState:
        return state

    def _next(self, prefix: tuple[int, ...]) -> Floats:
        p = np.full(self.vocab_size, 1e-9)
        for ids, probability in self._replies.items():
            if ids[: len(prefix)] == prefix and len(ids) > len(prefix):
                p[ids[len(prefix)]] += probability
        return np.log(p / p.sum()).astype(np.float32)


def table_model(replies: dict[str, float], *, beam: int = 3, seconds: float = 0.0) -> ChatModel:
    """A real `ChatModel`; each of its steps takes `seconds`."""
    codec = byte_codec()
    return ChatModel(TableBackend(codec, replies, seconds), codec, DecodingOptions(beam=beam), device="cpu")
