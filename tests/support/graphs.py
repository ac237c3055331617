"""Graphs for tests: honest ones of any size, and a way to spoil them."""

from collections.abc import Callable
from functools import cache

import onnx
import torch

from edgechat.export.graphs import build_decoder, build_encoder, graph_spec
from edgechat.runtime.manifest import GraphSpec
from edgechat.train.model import ModelConfig, Seq2Seq

Spoil = Callable[[onnx.ModelProto], None]


@cache
def honest(
    *, layers: int = 1, hidden: int = 4, embedding: int = 3, attention: int = 5, vocab: int = 12, **more: bool
) -> tuple[GraphSpec, bytes, bytes]:
    """Spec, encoder and decoder of a model with random weights."""
    torch.manual_seed(3)
    config = ModelConfig(layers=layers, hidden=hidden, embedding=embedding, attention=attention, **more)
    model = Seq2Seq(config, vocab).eval()
    return graph_spec(model), build_encoder(model), build_decoder(model)


def spoiled(raw: bytes, spoil: Spoil) -> bytes:
    """The graph after `spoil` has changed it, whether or not it is one any more."""
    model = onnx.load_from_string(raw)
    spoil(model)
    out: bytes = model.SerializeToString()
    return out
