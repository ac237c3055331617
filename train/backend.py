"""The PyTorch backend of the runtime's search: it decodes in validations, and exports are compared with
it."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from ..runtime.backend import Ints, StepOutput
from .model import DecoderState, Memory, Seq2Seq


class TorchState(NamedTuple):
    memory: Memory
    decoder: DecoderState


class TorchBackend:
    """Runs a `Seq2Seq` in evaluation mode. The model's own mode is restored after each call."""

    def __init__(self, model: Seq2Seq) -> None:
        self._model = model
        self._device = model.embedding.weight.device
        self.vocab_size = model.vocab_size

    @torch.inference_mode()
    def encode(self, src: Ints, src_len: Ints) -> TorchState:
        with evaluation_mode(self._model):
            memory, state = self._model.encode(self._tensor(src), self._tensor(src_len))
        return TorchState(memory, state)

    @torch.inference_mode()
    def step(
        self, state: TorchState, tokens: Ints, parents: Ints, candidates: int, *, return_logp: bool = False
    ) -> tuple[StepOutput, TorchState]:
        """As `Backend.step`. Which of several equally likely tokens are the last candidates is unspecified,
        as with `topk`: a search that depends on it is a near tie (`BeamSearch.min_gap`)."""
        rows = self._tensor(parents)
        h, c, attn = state.decoder
        continued = DecoderState(h[:, rows], c[:, rows], attn[rows])
        with evaluation_mode(self._model):
            logits, following, align = self._model.step(self._tensor(tokens), continued, state.memory)
        logp = logits.log_softmax(dim=-1)  # (N, V)
        top, ids = (t.cpu().numpy() for t in logp.topk(candidates, dim=-1))  # (N, C)
        order = np.lexsort((ids, -top))  # of equal ones the lower id first; topk leaves their order open
        out = StepOutput(
            np.take_along_axis(ids, order, axis=-1),
            np.take_along_axis(top, order, axis=-1),
            align.cpu().numpy(),
            logp.cpu().numpy() if return_logp else None,
        )
        return out, TorchState(state.memory, following)

    @torch.inference_mode()
    def select(self, state: TorchState, sentences: Ints) -> TorchState:
        chosen = self._tensor(sentences)
        return TorchState(Memory(*(tensor[chosen] for tensor in state.memory)), state.decoder)

    def _tensor(self, array: Ints) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)


@contextlib.contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode inside the block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
