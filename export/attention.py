"""Each kind of attention as ONNX operations; `train/attention.py` computes the same in PyTorch.

Keys and values are not repeated for the K rows of a sentence; instead, queries [N,A] are reshaped to [B,K,A].
"""

from collections.abc import Callable

from ..train.attention import Attention, BahdanauAttention
from ..train.model import Seq2Seq
from ..train.option_types import AttentionKind
from .graph_builder import GraphBuilder, to_float32_array
from .precision import Precision

#: graph, attention, queries [1,N,A], keys [B,S,A], B [1] -> [B,K,S]
_ScoreBuilder = Callable[[GraphBuilder, Attention, str, str, str], str]


def make_keys(g: GraphBuilder, p: Precision, attention: Attention, values: str) -> str:
    """Attention keys [B,S,A] of values [B,S,D]."""
    if attention.key is None:
        return g.op("Identity", values)
    key = p.float32_weight(g, "attention.key.weight", to_float32_array(attention.key.weight))
    keys = g.op("MatMul", values, g.op("Transpose", key, perm=[1, 0]))
    if attention.key.bias is None:
        return keys
    return g.op("Add", keys, g.weight("attention.key.bias", to_float32_array(attention.key.bias)))


def attend(
    g: GraphBuilder, p: Precision, model: Seq2Seq, query: str, keys: str, values: str, bias: str
) -> tuple[str, str, str]:
    """Context [1,N,D], alignment [B,K,S] and S [1], for the decoder's output `query` [1,N,H]."""
    attention, D = model.attention, model.config.hidden
    B = g.op("Shape", keys, start=0, end=1)  # [1]
    S = g.op("Shape", keys, start=1, end=2)
    if attention.query is not None:
        query = p.linear(g, query, "attention.query.weight", to_float32_array(attention.query.weight).T)
    scores = _SCORE_BUILDERS[model.config.attention_kind](g, attention, query, keys, B)
    masked = g.op("Add", scores, g.op("Unsqueeze", bias, g.constant([1])))
    align = g.op("Softmax", masked, axis=-1)  # [B,K,S]
    context = g.op("MatMul", align, values)  # [B,K,D]
    return g.op("Reshape", context, g.constant([1, -1, D])), align, S


def merge_batch_and_rows(g: GraphBuilder, x: str, S: str) -> str:
    """[B,K,S] -> [N,S]."""
    return g.op("Reshape", x, g.op("Concat", g.constant([-1]), S, axis=0))


def _additive_scores(g: GraphBuilder, attention: Attention, queries: str, keys: str, B: str) -> str:
    """v^T tanh(q + k): [B,K,1,A] + [B,1,S,A] broadcasts."""
    assert isinstance(attention, BahdanauAttention)
    shape = g.op("Concat", B, g.constant([-1, 1, attention.size]), axis=0)
    grouped = g.op("Reshape", queries, shape)  # [B,K,1,A]
    mixed = g.op("Tanh", g.op("Add", grouped, g.op("Unsqueeze", keys, g.constant([1]))))  # [B,K,S,A]
    # As a MatMul, ONNX Runtime would compute this product with a vector five times more slowly.
    weighted = g.op("Mul", mixed, g.weight("attention.v", to_float32_array(attention.score_vector())))
    return g.op("ReduceSum", weighted, g.constant([-1]), keepdims=0)


def _dot_scores(g: GraphBuilder, attention: Attention, queries: str, keys: str, B: str) -> str:
    """q^T k; ONNX Runtime fuses the transposition and the product into one operation."""
    shape = g.op("Concat", B, g.constant([-1, attention.size]), axis=0)
    grouped = g.op("Reshape", queries, shape)  # [B,K,A]
    return g.op("MatMul", grouped, g.op("Transpose", keys, perm=[0, 2, 1]))


def _scaled_dot_scores(g: GraphBuilder, attention: Attention, queries: str, keys: str, B: str) -> str:
    return g.op("Mul", _dot_scores(g, attention, queries, keys, B), g.constant(float(attention.size**-0.5)))


_SCORE_BUILDERS: dict[AttentionKind, _ScoreBuilder] = {
    "bahdanau": _additive_scores,
    "bahdanau-normed": _additive_scores,
    "luong-dot": _dot_scores,
    "luong-general": _dot_scores,
    "scaled": _scaled_dot_scores,
}
