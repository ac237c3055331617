"""`ChatModel`, which loads a bundle and replies, and `ChatSession`, a conversation with it.

A prompt's path: `ChatModel` -> `text` (ids) -> `scheduler`/`search` <-> `ort` -> `reply_maker` -> `Reply`.
"""

import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any

from .arguments import check_path, check_whole_number, short_repr, to_list
from .backend import Backend
from .bundle import Bundle, find_bundle, read_bundle, read_bundle_bytes
from .calibration import Calibration
from .closed_set import REPLIES_FILE, ClosedSet, make_closed_set, parse_bundle_replies
from .coroutines import CoroutineThreads
from .device import Device, resolve_device
from .ensemble import EnsembleBackend
from .errors import BundleError, ModelClosedError, UsageError
from .golden import GoldenResult, check_golden
from .manifest import Manifest
from .options import DecodingOptions
from .ort import OrtBackend
from .process_bound import ProcessBound
from .reply import Reply
from .reply_maker import ReplyMaker
from .scheduler import DEFAULT_BATCH_SIZE, decode
from .signature import PublicKey
from .stream import ReplyStream
from .text import TextCodec, check_turns


class ChatSession:
    """A conversation: remembers its turns and shows the model as many of them as it was trained to see.

    Not thread-safe: finish one reply before asking for the next. A reply whose stream or task was cancelled
    is not remembered.
    """

    def __init__(self, model: "ChatModel", turns: Sequence[str] = ()) -> None:
        self._model = model
        self._turns = check_turns(turns)
        if len(self._turns) % 2:
            raise UsageError(
                f"a session has an even number of turns, not {len(self._turns)}: give each prompt with "
                "its reply"
            )

    @property
    def turns(self) -> tuple[str, ...]:
        """All turns so far, oldest first, alternating between user and bot."""
        return tuple(self._turns)

    @property
    def context(self) -> tuple[str, ...]:
        """The past turns that the model will see together with the next prompt."""
        seen = self._model.codec.turns - 1
        return tuple(self._turns[-seen:]) if seen else ()

    def reply(self, prompt: str, options: DecodingOptions | None = None) -> Reply:
        """Reply to `prompt`, given the context, and remember both."""
        return self.stream(prompt, options).reply

    def stream(self, prompt: str, options: DecodingOptions | None = None) -> ReplyStream:
        """Like `reply`, but streamed. The two turns are remembered when the search ends."""
        return self._model.stream_turns([*self.context, prompt], options, partial(self._remember, prompt))

    async def areply(self, prompt: str, options: DecodingOptions | None = None) -> Reply:
        """Like `reply`, for coroutines; see `ChatModel.areply`."""
        model, turns = self._model, [*self.context, prompt]
        reply = await model._coroutine_threads.reply(partial(model.stream_turns, turns, options))
        self._remember(prompt, reply)  # no await follows, so it can no longer be cancelled
        return reply

    def astream(self, prompt: str, options: DecodingOptions | None = None) -> AsyncGenerator[str, None]:
        """Like `stream`, for coroutines; see `ChatModel.astream`. The two turns are remembered when the
        iteration ends, so that the caller has received every piece."""
        model, turns = self._model, [*self.context, prompt]
        return model._coroutine_threads.pieces(
            partial(model.stream_turns, turns, options), partial(self._remember, prompt)
        )

    def _remember(self, prompt: str, reply: Reply) -> None:
        self._turns += prompt, reply.text


class ChatModel(ProcessBound):
    """A model that replies to prompts. Thread-safe: calls share no state.

    Create one with `load`, `load_bytes` or `load_ensemble`. `defaults` are the bundle's own options, `device`
    is where it runs ("cpu" or "cuda"), `codec` turns ids into text and back, and `manifest` says what the
    bundle is (None for an ensemble).
    """

    def __init__(
        self,
        backend: Backend[Any],
        codec: TextCodec,
        defaults: DecodingOptions,
        *,
        device: Device,
        manifest: Manifest | None = None,
        closed_set: ClosedSet | None = None,
        calibration: Calibration | None = None,
        golden: bytes | None = None,
    ) -> None:
        super().__init__()
        self.maker: ReplyMaker = ReplyMaker(codec, defaults, closed_set=closed_set, calibration=calibration)
        self.codec: TextCodec = codec
        self.defaults: DecodingOptions = defaults
        self.device: Device = device
        self.manifest: Manifest | None = manifest
        self._backend: Backend[Any] | None = backend
        self._threads: CoroutineThreads | None = None
        self._golden: bytes | None = golden

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str],
        *,
        device: str = "auto",
        threads: int = 1,
        require_signature: PublicKey | None = None,
    ) -> "ChatModel":
        """Check a bundle, which is a folder or one file, and create its ONNX Runtime sessions.

        Args:
            bundle: the path of a folder or of an .edgechat file; "demo" is the bundle in the package.
            device: "cpu", "cuda", or "auto" for CUDA where it can be used. int8 runs on the CPU only.
            threads: ONNX Runtime's intra-op threads. One is fastest for small models; more threads than cores
                slow each other down.
            require_signature: refuse the bundle unless this Ed25519 public key signed it. Give the path of
                a PEM file, or the PEM text as bytes. Needs the package cryptography.

        Raises:
            UsageError: there is no such bundle, or another argument is wrong.
            BundleError: the bundle is damaged, incomplete, of an unknown format, or not signed as required.
            DeviceError: `device="cuda"` cannot be used, or there is not enough memory.
            EdgeChatError: a signature is required, but the package cryptography is not installed.
        """
        return cls.from_bundle(_read_bundle(bundle, require_signature), device=device, threads=threads)

    @classmethod
    def load_bytes(
        cls,
        raw: bytes,
        *,
        device: str = "auto",
        threads: int = 1,
        require_signature: PublicKey | None = None,
    ) -> "ChatModel":
        """Like `load`, from the content of an .edgechat file, wherever that is stored."""
        checked = read_bundle_bytes(raw, require_signature=require_signature)
        return cls.from_bundle(checked, device=device, threads=threads)

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, device: str = "auto", threads: int = 1) -> "ChatModel":
        """Create a model from a bundle that `read_bundle` has read and checked."""
        chosen = resolve_device(device, [bundle.manifest.precision])
        threads = check_whole_number("threads", threads, 1, 1024)
        try:
            return cls._from_checked_bundle(bundle, chosen, threads)
        except BundleError as error:
            where = "" if bundle.path is None else f"{bundle.path}: "
            raise BundleError(f"{where}{error}") from error.__cause__

    @classmethod
    def _from_checked_bundle(cls, bundle: Bundle, device: Device, threads: int) -> "ChatModel":
        manifest, files = bundle.manifest, bundle.files
        text = manifest.text
        codec = TextCodec(
            files["tokenizer.json"],
            max_source=text.max_source,
            max_target=text.max_target,
            turns=text.turns,
            lowercase=text.lowercase,
            vocab_size=manifest.model.vocab_size,
        )
        closed_set: ClosedSet | None = None
        if REPLIES_FILE in files:
            try:
                closed_set = make_closed_set(parse_bundle_replies(files[REPLIES_FILE]), codec)
            except UsageError as error:
                raise BundleError(f"{REPLIES_FILE}: {error}") from None
        fitted = manifest.calibration
        calibration = None if fitted is None else Calibration.from_json(fitted)
        backend = OrtBackend(
            manifest.graphs, files["encoder.onnx"], files["decoder.onnx"], device=device, threads=threads
        )
        model = cls(
            backend,
            codec,
            manifest.decoding,
            device=device,
            manifest=manifest,
            closed_set=closed_set,
            calibration=calibration,
            golden=files["golden.json"],
        )
        try:
            model.maker.check_options(model.defaults)
        except UsageError as error:  # else each call would raise it, as if its caller had given the option
            raise BundleError(f"the decoding options in edgechat.json allow no reply: {error}") from None
        return model

    @classmethod
    def load_ensemble(
        cls,
        bundles: Sequence[str | os.PathLike[str]],
        *,
        device: str = "auto",
        threads: int = 1,
        require_signature: PublicKey | None = None,
    ) -> "ChatModel":
        """Load several bundles that reply as one model: their probabilities are averaged at each step.

        All must have been trained with the same tokenizer. The default options are those of the first bundle.
        Replies have no confidence, since each bundle was calibrated alone. All run on one device; with
        "auto", that is the CPU if one of them is int8. With a list of one bundle it does the same as `load`.

        Raises:
            UsageError: the bundles differ in their tokenizer, the number of turns they see, whether they
                read prompts in lower case, or their closed set of replies; or the default options of the
                first allow no reply as short as those of the others.
        """
        bundles = to_list(bundles, "load_ensemble takes a list of bundles", ": give [bundle], or call load")
        if not bundles:
            raise UsageError("an ensemble needs at least one bundle")
        checked = [_read_bundle(bundle, require_signature) for bundle in bundles]
        chosen = resolve_device(device, {each.manifest.precision for each in checked})
        first, *others = (cls.from_bundle(each, device=chosen, threads=threads) for each in checked)
        if not others:
            return first
        for name, other in zip(bundles[1:], others, strict=True):
            _check_ensemble(bundles[0], first, name, other)
        models = [first, *others]
        codec = first.codec.with_limits(
            max_source=min(model.codec.max_source for model in models),
            max_target=min(model.codec.max_target for model in models),
        )
        backend = EnsembleBackend([model.backend for model in models])
        ensemble = cls(backend, codec, first.defaults, device=chosen, closed_set=first.maker.closed_set)
        try:
            ensemble.maker.check_options(ensemble.defaults)
        except UsageError as error:  # else each call would raise it, as if its caller had given the option
            raise UsageError(
                f"the default options of {os.fspath(bundles[0])} allow no reply of this ensemble: {error}"
            ) from None
        return ensemble

    def __repr__(self) -> str:
        what = f", {self.manifest.precision}" if self.manifest else ""
        return f"<ChatModel of {self.codec.vocab_size} tokens{what}, on {self.device}>"

    def reply(self, prompt: str, options: DecodingOptions | None = None) -> Reply:
        """Return the best reply to one prompt, outside any conversation.

        `options` replace all of the bundle's own, `defaults`, not only those that differ.

        Raises:
            UsageError: the prompt is not text, or the model cannot reply with these options.
            ModelClosedError: the model was closed, or loaded before this process was forked.
            BundleError: the model gave values that are not numbers.
            DeviceError: there is not enough memory.
        """
        return self.stream(prompt, options).reply

    async def areply(self, prompt: str, options: DecodingOptions | None = None) -> Reply:
        """Like `reply`, in a thread. Cancelling the task stops the search before its next step."""
        return await self._coroutine_threads.reply(partial(self.stream, prompt, options))

    def astream(self, prompt: str, options: DecodingOptions | None = None) -> AsyncGenerator[str, None]:
        """Like `stream`, for `async for`: each piece is searched for in a thread, when it is asked for.

        Cancelling the task, or closing the generator, stops the search before its next step.
        """
        return self._coroutine_threads.pieces(partial(self.stream, prompt, options))

    def stream(self, prompt: str, options: DecodingOptions | None = None) -> ReplyStream:
        """Return a reply that arrives piece by piece.

        This call checks the options and encodes the prompt; the model runs only as the stream is iterated.
        """
        return self.stream_turns([prompt], options)

    def stream_turns(
        self,
        turns: Sequence[str],
        options: DecodingOptions | None = None,
        on_done: Callable[[Reply], None] = lambda reply: None,
    ) -> ReplyStream:
        """Stream the reply to the turns of a conversation, oldest first.

        `on_done` is called with the reply when the search ends, but not when it is cancelled.
        """
        self._check_open()
        return ReplyStream(lambda: self.backend, self.maker, turns, self._options(options), on_done)

    def reply_batch(
        self,
        prompts: Sequence[str],
        options: DecodingOptions | None = None,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Reply]:
        """Reply to many prompts: the same replies as one by one, in the order of the prompts, in about half
        the time.

        Args:
            batch_size: how many prompts, of similar length, are searched together.
            progress: called after each batch with the number of replies that it finished.
            cancelled: called before each step. When it returns True the search stops: replies in progress
                are cut off there, like that of a cancelled stream, and replies not yet begun are empty.
        """
        prompts = to_list(prompts, "reply_batch takes a list of prompts", ": give [prompt], or call reply")
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
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Callable[[int], None] | None = None,
    ) -> list[Reply]:
        """Like `reply_batch`, in a thread, which also calls `progress`. Cancelling the task stops the search
        before its next step."""
        return await self._coroutine_threads.replies(
            lambda cancelled: self.reply_batch(
                prompts, options, batch_size=batch_size, progress=progress, cancelled=cancelled
            )
        )

    def reply_turns(
        self,
        conversations: Sequence[Sequence[str]],
        options: DecodingOptions | None = None,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Reply]:
        """Like `reply_batch`, but each reply is to the turns of a conversation, oldest first."""
        start, backend, maker = time.perf_counter(), self.backend, self.maker
        options = self._options(options)
        conversations = to_list(conversations, "reply_turns takes a list of conversations")
        sources = [self.codec.encode_source(turns) for turns in conversations]
        searches = decode(
            backend,
            [source.ids for source in sources],
            options,
            max_length=maker.max_length(options),
            text_rules=maker.text_rules(options),
            batch_size=batch_size,
            progress=progress,
            cancelled=cancelled,
        )
        return [maker.reply(search, start, source) for search, source in zip(searches, sources, strict=True)]

    def _options(self, options: DecodingOptions | None) -> DecodingOptions:
        if options is None:
            options = self.defaults
        if not isinstance(options, DecodingOptions):
            raise UsageError(f"options must be a DecodingOptions, not {short_repr(options)}")
        return options

    def session(self, turns: Sequence[str] = ()) -> ChatSession:
        """Start a conversation, or continue one: `turns` are its past turns, as `ChatSession.turns` gives
        them."""
        return ChatSession(self, turns)

    def verify(self) -> GoldenResult:
        """Repeat the bundle's golden vectors on this machine. `passed` says whether it computes what the
        machine did that made the bundle.

        Raises:
            UsageError: the model is an ensemble.
            BundleError: the golden vectors cannot be used.
        """
        golden, backend = self._golden, self.backend
        if golden is None:
            raise UsageError("verify works with one bundle, not with an ensemble: load each bundle alone")
        return check_golden(backend, golden)

    def close(self) -> None:
        """Release the sessions and everything cached. Replies in progress are still finished; the last of
        them frees the sessions."""
        self._backend = self._threads = self._golden = None
        self.maker.clear_cache()

    def __enter__(self) -> "ChatModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        """Raise ModelClosedError if the model can no longer be used."""
        if self._backend is None:
            raise ModelClosedError("the model was closed")
        self.check_process()

    @property
    def backend(self) -> Backend[Any]:
        backend = self._backend  # read once: another thread may close the model in the meantime
        self._check_open()
        assert backend is not None
        return backend

    @property
    def _coroutine_threads(self) -> CoroutineThreads:
        """The threads that search for the replies of coroutines; created on first use."""
        self._check_open()
        threads = self._threads
        if threads is None:
            threads = self._threads = CoroutineThreads()
        return threads


def _read_bundle(bundle: Any, require_signature: PublicKey | None) -> Bundle:
    """Find, read and check a bundle that a caller named."""
    return read_bundle(find_bundle(check_path("bundle", bundle)), require_signature=require_signature)


def _check_ensemble(name: Any, model: ChatModel, other_name: Any, other: ChatModel) -> None:
    """Refuse an ensemble whose models would read a prompt, or spell a reply, differently."""
    names = f"{os.fspath(name)} and {os.fspath(other_name)}"
    hashes = {m.manifest.files["tokenizer.json"].sha256 for m in (model, other) if m.manifest}
    if len(hashes) > 1:
        raise UsageError(f"{names} have different tokenizers: the models of an ensemble must share one")
    if model.codec.turns != other.codec.turns:
        raise UsageError(
            f"{names} see {model.codec.turns} and {other.codec.turns} turns of a conversation: "
            "the models of an ensemble must see the same number"
        )
    if model.codec.lowercase != other.codec.lowercase:
        raise UsageError(
            f"only one of {names} reads prompts in lower case: the models of an ensemble must agree"
        )
    if model.maker.closed_set != other.maker.closed_set:
        raise UsageError(
            f"{names} have different closed sets of replies: the models of an ensemble must share one, or "
            "have none"
        )
