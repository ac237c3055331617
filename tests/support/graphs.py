"""Graphs for tests: valid ones of any size, and a way to damage them."""

from collections.abc import Callable
from functools import cache

import onnx
import torch

from edgechat.export.graphs import build_decoder, build_encoder, graph_spec
from edgechat.export.precision import Float16, Float32, Int8
from edgechat.export.quantize import Levels
from edgechat.runtime.manifest import GraphSpec
from edgechat.train.model import ModelConfig, Seq2Seq

Damage = Callable[[onnx.ModelProto], None]


class _SameLevels(dict[str, Levels]):
    """The same levels for every weight."""

    def __missing__(self, name: str) -> Levels:
        return Levels(90, 91)


@cache
def make_valid_graphs(
    *,
    layers: int = 1,
    hidden: int = 4,
    embedding: int = 3,
    attention: int = 5,
    vocab: int = 12,
    precision: str = "fp32",
    **more: bool,
) -> tuple[GraphSpec, bytes, bytes]:
    """Spec, encoder and decoder of a model with random weights."""
    torch.manual_seed(3)
    config = ModelConfig(layers=layers, hidden=hidden, embedding=embedding, attention=attention, **more)
    model = Seq2Seq(config, vocab).eval()
    kinds = {"fp32": Float32(), "fp16": Float16(), "int8": Int8(_SameLevels())}
    return graph_spec(model), *(build(model, kinds[precision]) for build in (build_encoder, build_decoder))


def damage_graph(raw: bytes, damage: Damage) -> bytes:
    """The graph after `damage` has changed it; it may be invalid."""
    model = onnx.load_from_string(raw)
    damage(model)
    out: bytes = model.SerializeToString()
    return out
