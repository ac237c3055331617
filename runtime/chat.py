"""The embedding API: load a bundle, reply, stream, hold a conversation.

The way of a prompt: `ChatModel` -> `text` (ids) -> `scheduler`/`search` <-> `ort` -> `replymaker` -> `Reply`.
"""

import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .arguments import listed, path_text, shown
from .backend import Backend
from .bundle import Bundle, find_bundle, read_bundle, read_packed
from .calibration import Calibration
from .coroutines import Threads
from .device import Device, resolve_device
from .ensemble import EnsembleBackend
from .errors import BundleError, ModelClosedError, UsageError
from .manifest import Manifest
from .oneprocess import OneProcess
from .options import DecodingOptions, whole_number
from .ort import OrtBackend
from .replies import REPLIES, ClosedSet, bundled_replies, closed_set
from .reply import Reply
from .replymaker import ReplyMaker
from .scheduler import BATCH_SIZE, decode
from .stream import ReplyStream
from .text import TextCodec, turns_of

if TYPE_CHECKING:
    from .golden import GoldenResult


class ChatSession:
    """A conversation: it remembers its turns and shows the model those it was trained to see."""

    def __init__(self, model: "ChatModel", turns: Sequence[str] = ()) -> None:
        self._model = model
        self._turns = turns_of(turns)
        if len(self._turns) % 2:
            raise UsageError("the turns of a session end with a reply: give prompts and replies in pairs")

    @property
    def turns(self) -> tuple[str, ...]:
        """All turns so far, oldest first, user and bot alternating."""
        return tuple(self._turns)

    @property
    def context(self) -> tuple[str, ...]:
        """The past turns that the model will see along with the next prompt."""
        seen = self._model.codec.turns - 1
        return tuple(self._turns[-seen:]) if seen else ()

    def reply(self, prompt: str, options: DecodingOptions | None = None) -> Reply:
        """Reply to `prompt` in the light of the context, and remember both."""
        return self.stream(prompt, options).reply

    def stream(self, prompt: str, options: DecodingOptions | None = None) -> ReplyStream:
        """As `reply`, streamed. The turns are remembered at its end; a cancelled one leaves none."""
        return self._model.stream_turns(
            [*self.context, prompt], options, lambda reply: self._turns.extend((prompt, reply.text))
        )

    async def areply(self, prompt: str, options: DecodingOptions | None = None) -> Reply:
        """As `reply`, for coroutines: see `ChatModel.areply`. One that is cancelled is not remembered."""
        model, turns = self._model, [*self.context, prompt]
        reply = await model.coroutine_threads.reply(partial(model.stream_turns, turns, options))
        self._turns += prompt, reply.text  # here, where nothing can be cancelled any more
        return reply

    def astream(self, prompt: str, options: DecodingOptions | None = None) -> AsyncGenerator[str, None]:
        """As `stream`, for coroutines: see `ChatModel.astream`."""
        return self._model.coroutine_threads.pieces(partial(self.stream, prompt, options))


class ChatModel(OneProcess):
    """A model that replies. Thread-safe; the arrays of a call live only as long as the call."""

    def __init__(
        self,
        backend: Backend[Any],
        codec: TextCodec,
        defaults: DecodingOptions,
        *,
        device: Device,
        manifest: Manifest | None = None,
        closed: ClosedSet | None = None,
        calibration: Calibration | None = None,
        golden: bytes | None = None,
    ) -> None:
        super().__init__()
        self.maker: ReplyMaker = ReplyMaker(codec, defaults, closed=closed, calibration=calibration)
        self.codec: TextCodec = codec
        self.defaults: DecodingOptions = defaults
        self.device: Device = device
        self.manifest: Manifest | None = manifest
        self._backend: Backend[Any] | None = backend
        self._threads: Threads | None = None
        self._golden: bytes | None = golden

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str],
        *,
        device: str = "auto",
        threads: int = 1,
        require_signature: str | os.PathLike[str] | None = None,
    ) -> "ChatModel":
        """Check a bundle, a folder or one file, and make its sessions. "demo" is the one in the package.

        `threads` are ONNX Runtime's intra-op threads; one is the fastest for small models, and more than
        there are cores only hinder each other.
        `require_signature` is the path of a public key (PEM) by which the bundle must be signed; it needs
        the package cryptography.

        Raises:
            UsageError: no such bundle or key, or a wrong `device` or `threads`.
            BundleError: the bundle is damaged, incomplete, unknown, or not signed as is required.
            DeviceError: `device="cuda"` cannot be used, or there is too little memory.
        """
        checked = read_bundle(find_bundle(path_text("bundle", bundle)), require_signature=require_signature)
        return cls.from_bundle(checked, device=device, threads=threads)

    @classmethod
    def load_bytes(
        cls,
        raw: bytes,
        *,
        device: str = "auto",
        threads: int = 1,
        require_signature: str | os.PathLike[str] | None = None,
    ) -> "ChatModel":
        """As `load`, of the bytes of an .edgechat file, wherever they come from."""
        checked = read_packed(raw, require_signature=require_signature)
        return cls.from_bundle(checked, device=device, threads=threads)

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, device: str = "auto", threads: int = 1) -> "ChatModel":
        """A model of a bundle that was already read and checked."""
        chosen, threads = resolve_device(device), whole_number("threads", threads, 1, 1024)
        try:
            return cls._of(bundle, chosen, threads)
        except BundleError as error:
            where = "" if bundle.path is None else f"{bundle.path}: "
            raise BundleError(f"{where}{error}") from error.__cause__

    @classmethod
    def _of(cls, bundle: Bundle, device: Device, threads: int) -> "ChatModel":
        manifest, files = bundle.manifest, bundle.files
        backend = OrtBackend(
            manifest.graphs, files["encoder.onnx"], files["decoder.onnx"], device=device, threads=threads
        )
        text = manifest.text
        codec = TextCodec(
            files["tokenizer.json"],
            max_source=text.max_source,
            max_target=text.max_target,
            turns=text.turns,
            lowercase=text.lowercase,
        )
        if codec.vocab_size != backend.vocab_size:
            raise BundleError(
                f"tokenizer.json has {codec.vocab_size} tokens, but the model has {backend.vocab_size}"
            )
        closed: ClosedSet | None = None
        if REPLIES in files:
            try:
                closed = closed_set(bundled_replies(files[REPLIES]), codec)
            except UsageError as error:
                raise BundleError(f"{REPLIES}: {error}") from None
        fitted = manifest.calibration
        calibration = None if fitted is None else Calibration.from_json(fitted)
        model = cls(
            backend,
            codec,
            manifest.decoding,
            device=device,
            manifest=manifest,
            closed=closed,
            calibration=calibration,
            golden=files["golden.json"],
        )
        try:
            model.maker.texts(model.defaults)
        except UsageError as error:  # which would be told of every prompt, as if the caller had asked for it
            raise BundleError(f"edgechat.json asks for what no reply can be: {error}") from None
        return model

    @classmethod
    def load_ensemble(
        cls,
        bundles: Sequence[str | os.PathLike[str]],
        *,
        device: str = "auto",
        threads: int = 1,
        require_signature: str | os.PathLike[str] | None = None,
    ) -> "ChatModel":
        """As `load`, of several bundles that reply as one: their probabilities are averaged at each step.

        All must have been trained with one tokenizer; the first one's default options hold, and there is no
        confidence, which was calibrated for each alone. One bundle is as `load` gives it.

        Raises:
            UsageError: the bundles differ in their tokenizer, in the turns they see, in the case they read
                them in or in their closed set.
        """
        bundles = listed(bundles, "load_ensemble takes a list of bundles", ": give [bundle], or call load")
        if not bundles:
            raise UsageError("an ensemble needs at least one bundle")
        first, *others = (
            cls.load(bundle, device=device, threads=threads, require_signature=require_signature)
            for bundle in bundles
        )
        if not others:
            return first
        for name, other in zip(bundles[1:], others, strict=True):
            _check_together(bundles[0], first, name, other)
        models = [first, *others]
        codec = first.codec.limited(
            max_source=min(model.codec.max_source for model in models),
            max_target=min(model.codec.max_target for model in models),
        )
        backend = EnsembleBackend([model.backend for model in models])
        return cls(backend, codec, first.defaults, device=first.device, closed=first.maker.closed)

    def __repr__(self) -> str:
        what = f", {self.manifest.precision}" if self.manifest else ""
        return f"<ChatModel of {self.codec.vocab_size} tokens{what}, on {self.device}>"

    def reply(self, prompt: str, options: DecodingOptions | None = None) -> Reply:
        """The best reply to one prompt, outside any conversation."""
        return self.stream(prompt, options).reply

    async def areply(self, prompt: str, options: DecodingOptions | None = None) -> Reply:
        """As `reply`, in a thread; cancelling the task stops the search before its next step."""
        return await self.coroutine_threads.reply(partial(self.stream, prompt, options))

    def astream(self, prompt: str, options: DecodingOptions | None = None) -> AsyncGenerator[str, None]:
        """As `stream`, for `async for`: each piece is searched in a thread once it is asked for. Cancelling
        the task, or closing the generator, stops the search before its next step."""
        return self.coroutine_threads.pieces(partial(self.stream, prompt, options))

    def stream(self, prompt: str, options: DecodingOptions | None = None) -> ReplyStream:
        """A reply that arrives piece by piece. The call encodes the prompt and makes the rules of texts, and
        refuses what is wrong; the model computes nothing before the stream is iterated."""
        return self.stream_turns([prompt], options)

    def stream_turns(
        self,
        turns: Sequence[str],
        options: DecodingOptions | None = None,
        done: Callable[[Reply], None] = lambda reply: None,
    ) -> ReplyStream:
        """Stream the reply to a conversation's turns, oldest first; `done` is called with the reply."""
        self.check_open()
        return ReplyStream(lambda: self.backend, self.maker, turns, self._options(options), done)

    def reply_batch(
        self,
        prompts: Sequence[str],
        options: DecodingOptions | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Reply]:
        """Replies to many prompts, in their order: the same as one by one, in about half the time.

        `batch_size` prompts of similar length are searched together; `progress` is called with how many
        replies each batch finished. `cancelled` is asked before each step: once it is true, the replies are
        as those of a cancelled stream, and of batches that had not begun empty.
        """
        prompts = listed(prompts, "reply_batch takes a list of prompts", ": give [prompt], or call reply")
        return self.reply_turns(
            [[prompt] for prompt in prompts],
            options,
            batch_size=batch_size,
            progress=progress,
            cancelled=cancelled,
        )

    async def areply_batch(
        self,
        prompts: Sequence[str],
        options: DecodingOptions | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        progress: Callable[[int], None] | None = None,
    ) -> list[Reply]:
        """As `reply_batch`, in a thread, which calls `progress` too; cancelling the task stops the searches
        before their next step."""
        return await self.coroutine_threads.replies(
            lambda cancelled: self.reply_batch(
                prompts, options, batch_size=batch_size, progress=progress, cancelled=cancelled
            )
        )

    def reply_turns(
        self,
        conversations: Sequence[Sequence[str]],
        options: DecodingOptions | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Reply]:
        """As `reply_batch`, each to the turns of a conversation, oldest first."""
        start, backend, maker = time.perf_counter(), self.backend, self.maker
        options = self._options(options)
        conversations = listed(conversations, "reply_turns takes a list of conversations")
        sources = [self.codec.encode_source(turns) for turns in conversations]
        searches = decode(
            backend,
            [source.ids for source in sources],
            options,
            max_length=maker.max_length(options),
            texts=maker.texts(options),
            batch_size=batch_size,
            progress=progress,
            cancelled=cancelled,
        )
        return [maker.reply(search, start, source) for search, source in zip(searches, sources, strict=True)]

    def _options(self, options: DecodingOptions | None) -> DecodingOptions:
        if options is None:
            options = self.defaults
        if not isinstance(options, DecodingOptions):
            raise UsageError(f"options are a DecodingOptions, not {shown(options)}")
        return options

    def session(self, turns: Sequence[str] = ()) -> ChatSession:
        """A conversation: a new one, or one in which these `turns` were said before, oldest first, user and
        bot alternating, as `ChatSession.turns` has them."""
        return ChatSession(self, turns)

    def verify(self) -> "GoldenResult":
        """Repeat the golden vectors of the model's bundle on this machine: `passed` says whether it computes
        what the one did that made the bundle.

        Raises:
            UsageError: the model was not loaded of one bundle.
            BundleError: its golden vectors cannot be used.
        """
        from .golden import check_golden  # few need it at their start

        golden, backend = self._golden, self.backend
        if golden is None:
            raise UsageError("verify needs a model of one bundle: load it alone")
        return check_golden(backend, golden)

    def close(self) -> None:
        """Let go of the sessions and of what is kept; replies that are being searched still end, and free the
        sessions with the last."""
        self._backend = self._threads = self._golden = None
        self.maker.forget()

    def __enter__(self) -> "ChatModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_open(self) -> None:
        """Raises ModelClosedError where the model cannot be used any more."""
        if self._backend is None:
            raise ModelClosedError("the model was closed")
        self.check_process()

    @property
    def backend(self) -> Backend[Any]:
        backend = self._backend  # looked at once: another thread may close the model meanwhile
        self.check_open()
        assert backend is not None
        return backend

    @property
    def coroutine_threads(self) -> Threads:
        """The threads in which coroutines have their replies searched, made when first asked for."""
        self.check_open()
        threads = self._threads
        if threads is None:
            threads = self._threads = Threads()
        return threads


def _check_together(name: Any, model: ChatModel, other_name: Any, other: ChatModel) -> None:
    """Refuse an ensemble of models that do not mean the same by the same ids."""
    names = f"{os.fspath(name)} and {os.fspath(other_name)}"
    hashes = {m.manifest.files["tokenizer.json"].sha256 for m in (model, other) if m.manifest}
    if len(hashes) > 1:
        raise UsageError(f"{names} have different tokenizers: an ensemble is of models trained with one")
    if model.codec.turns != other.codec.turns:
        raise UsageError(
            f"{names} see {model.codec.turns} and {other.codec.turns} turns: an ensemble sees one"
        )
    if model.codec.lowercase != other.codec.lowercase:
        raise UsageError(f"only one of {names} reads prompts in lower case: an ensemble reads them one way")
    if model.maker.closed != other.maker.closed:
        raise UsageError(f"{names} have different closed sets of replies: an ensemble has one, or none")
