"""The ONNX Runtime backend: an encoder graph, and a decoder graph that is run once per step.

docs/architecture.md lists the inputs and outputs of the graphs. The manifest says which of them are the
encoder's memory and which are recurrent state, so models with other state need no change here.
"""

import atexit
import ctypes
import os
import time
import weakref
from threading import get_ident
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort

from .backend import Floats, Ints, StepOutput
from .device import Device, providers
from .errors import BundleError, DeviceError, EdgeChatError, ModelClosedError, is_out_of_memory
from .graph_check import check_graphs
from .manifest import GraphSpec, StateTensor

#: Modules of the exceptions that ONNX Runtime raises. Its own exceptions have no common base class but
#: Exception, and pybind11 turns others into built-in ones. Exceptions from elsewhere come from a signal
#: handler of the app and are not caught.
_ORT_ERROR_MODULES = ("onnxruntime.capi.onnxruntime_pybind11_state", "builtins")
#: How long an ending process waits for calls in progress.
_EXIT_TIMEOUT_SECONDS = 10.0
#: All backends whose sessions have not been freed.
_LIVE_BACKENDS: "weakref.WeakSet[OrtBackend]" = weakref.WeakSet()


class OrtState(NamedTuple):
    memory: dict[str, Floats | Ints]  # keys, values, bias: [B, S, ..]; with copy attention src: i64 [B, S]
    recurrent: dict[str, Floats]  # h, c: [L, M, H]; attn: [M, H]


class OrtBackend:
    """Runs the two graphs of a bundle. Thread-safe: sessions are, and no other state is kept.

    Raises:
        BundleError: `check_graphs` or ONNX Runtime refuses a graph.
        DeviceError: a session does not run on `device`, or there is not enough memory.
    """

    def __init__(
        self, spec: GraphSpec, encoder: bytes, decoder: bytes, *, device: Device, threads: int
    ) -> None:
        check_graphs(spec, encoder, decoder)
        options = session_options(threads)
        self.vocab_size: int = spec.vocab_size
        self._memory = spec.memory
        self._state = spec.state
        _LIVE_BACKENDS.add(self)
        with _CALLS:
            self._encoder = _session("encoder.onnx", encoder, options, device)
            self._decoder = _session("decoder.onnx", decoder, options, device)
        self._reads_src = any(port.name == "src" for port in self._decoder.get_inputs())  # copy attention
        self._encoder_outputs = [*self._memory, *(t.input for t in self._state if t.first == "encoder")]
        self._recurrent_inputs = [tensor.input for tensor in self._state]
        self._decoder_outputs = ["cand_ids", "cand_logp", "align", *(t.output for t in self._state)]

    def encode(self, src: Ints, src_len: Ints) -> OrtState:
        encoded = _run("encoder.onnx", self._encoder, self._encoder_outputs, {"src": src, "src_len": src_len})
        out = dict(zip(self._encoder_outputs, encoded, strict=True))
        recurrent = {
            tensor.input: out[tensor.input]
            if tensor.first == "encoder"
            else np.zeros(_shape(tensor, len(src)), dtype=np.float32)
            for tensor in self._state
        }
        memory = {name: out[name] for name in self._memory}
        return OrtState(memory | {"src": src} if self._reads_src else memory, recurrent)

    def step(
        self, state: OrtState, tokens: Ints, parents: Ints, candidates: int, *, return_logp: bool = False
    ) -> tuple[StepOutput, OrtState]:
        feeds = self.feeds(state, tokens, parents, candidates)
        outputs = [*self._decoder_outputs, "logp"] if return_logp else self._decoder_outputs
        cand_ids, cand_logp, align, *following = _run("decoder.onnx", self._decoder, outputs, feeds)
        logp = following.pop() if return_logp else None
        recurrent = dict(zip(self._recurrent_inputs, following, strict=True))
        return StepOutput(cand_ids, cand_logp, align, logp), OrtState(state.memory, recurrent)

    def feeds(self, state: OrtState, tokens: Ints, parents: Ints, candidates: int) -> dict[str, Any]:
        """All inputs of a run of the decoder graph."""
        return {
            "tokens": tokens,
            "parent": parents,
            "top_k": np.array([candidates], dtype=np.int64),
            **state.recurrent,
            **state.memory,
        }

    def select(self, state: OrtState, sentences: Ints) -> OrtState:
        return OrtState({name: value[sentences] for name, value in state.memory.items()}, state.recurrent)


def session_options(threads: int) -> ort.SessionOptions:
    """The options of every session that computes replies. `threads` is the number of intra-op threads, on
    which rounding may depend."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised, so they need not be logged
    return options


class _CallsInProgress:
    """The calls into ONNX Runtime that are in progress.

    A daemon thread that returns from such a call while the interpreter shuts down is terminated within C++
    code, which aborts the process. So when the process ends, no new call may begin, and calls in progress are
    waited for.
    """

    def __init__(self) -> None:
        # No lock is needed: a call writes `threads` and then reads `_ending_thread`,
        # `wait_for_all` does it in the other order.
        self.threads: set[int] = set()
        self._ending_thread = 0  # the thread that ends the process, whose exit callbacks may still call

    def __enter__(self) -> None:
        self.threads.add(get_ident())
        if self._ending_thread and self._ending_thread != get_ident():
            self.threads.discard(get_ident())
            raise ModelClosedError("the process is ending: join the threads that use a model before it ends")

    def __exit__(self, *_: object) -> None:
        self.threads.discard(get_ident())

    def wait_for_all(self) -> None:
        self._ending_thread = get_ident()
        self.threads.discard(get_ident())  # left behind if Ctrl-C interrupted a call
        deadline = time.monotonic() + _EXIT_TIMEOUT_SECONDS
        while self.threads and time.monotonic() < deadline:
            time.sleep(0.001)


_CALLS = _CallsInProgress()
atexit.register(_CALLS.wait_for_all)


def _keep_sessions_in_child() -> None:
    """Runs in a forked child: keeps the parent's sessions from ever being freed, which would crash, or wait
    for threads that the child does not have."""
    _CALLS.threads.clear()  # these threads do not exist in the child either
    for backend in _LIVE_BACKENDS:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(backend))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_sessions_in_child)


def _shape(tensor: StateTensor, rows: int) -> list[int]:
    return [rows if size == "M" else size for size in tensor.shape]


def _is_from_ort(error: Exception) -> bool:
    """Whether ONNX Runtime raised this error, and not a signal handler of the app, which may raise any
    OSError, such as TimeoutError."""
    return type(error).__module__ in _ORT_ERROR_MODULES and not isinstance(error, OSError)


def _session(name: str, graph: bytes, options: ort.SessionOptions, device: Device) -> ort.InferenceSession:
    try:  # the fallback is disabled: it would try again on the CPU and print that on stdout
        session = ort.InferenceSession(graph, options, providers=providers(device), enable_fallback=0)
    except Exception as error:
        if not _is_from_ort(error):
            raise
        raise _to_edgechat_error(
            error, name, "cannot be run by ONNX Runtime", "close other programs or models"
        ) from error
    if session.get_providers()[0] != providers(device)[0][0]:
        raise DeviceError(
            f"{name} should run on {device}, but ONNX Runtime fell back to {session.get_providers()[0]}"
        )
    return session


def _run(name: str, session: ort.InferenceSession, outputs: list[str], feeds: dict[str, Any]) -> list[Any]:
    """The values of these outputs of the graph in the file `name`."""
    with _CALLS:
        try:
            values: list[Any] = session.run(outputs, feeds)
        except Exception as error:
            if not _is_from_ort(error):
                raise
            hint = "use a smaller batch or beam"
            raise _to_edgechat_error(error, name, "does not fit its manifest", hint) from error
    return values


def _to_edgechat_error(error: Exception, name: str, problem: str, hint: str) -> EdgeChatError:
    """The error to raise for one of ONNX Runtime: out of memory, else a fault of the bundle."""
    if is_out_of_memory(error):
        return DeviceError(f"{name} needs more memory than is available: {hint}")
    return BundleError(f"{name} {problem}: {' '.join(str(error).split())}")
