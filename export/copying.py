"""Copy attention as ONNX operations; `train/copying.py` computes the same in PyTorch."""

from ..train.copying import CopyAttention
from .attention import merge_batch_and_rows
from .graph_builder import GraphBuilder, to_float32_array


def mixture_logp(
    g: GraphBuilder,
    copying: CopyAttention,
    logits: str,
    attn: str,
    embedded: str,
    align: str,
    src: str,
    S: str,
) -> str:
    """Natural-log probabilities [N,V] of the mixture of generating and copying.

    Inputs: logits [N,V], attention vectors [N,H], embeddings of the fed tokens [N,E], alignment [B,K,S] and
    src [B,S]. All operations but the two scatters work on the S source tokens only, whatever V is.
    """
    gate_logit = _gate_logit(g, copying, attn, embedded)  # [N,1]
    logp = g.op("Add", g.op("LogSoftmax", logits, axis=-1), _log_sigmoid(g, gate_logit))  # [N,V]
    broadcast = g.op("Expand", g.op("Unsqueeze", src, g.constant([1])), g.op("Shape", align))
    ids = merge_batch_and_rows(g, broadcast, S)  # [N,S]
    zeros = g.op("ConstantOfShape", g.op("Shape", logits))  # [N,V]
    copied_by_id = g.op(
        "ScatterElements", zeros, ids, merge_batch_and_rows(g, align, S), axis=1, reduction="add"
    )
    copied = g.op("GatherElements", copied_by_id, ids, axis=1)  # [N,S]: the sum over equal source tokens
    generated_logp = g.op("GatherElements", logp, ids, axis=1)  # [N,S]
    is_copied = g.op("Greater", copied, g.constant(0.0))
    copied_logp = g.op("Log", g.op("Where", is_copied, copied, g.constant(1.0)))
    # In logarithms, since the error of ONNX Runtime's sigmoid is absolute, 1e-7, and not relative.
    copied_logp = g.op("Add", copied_logp, _log_sigmoid(g, g.op("Neg", gate_logit)))
    mixed_logp = g.op("Where", is_copied, _log_add_exp(g, generated_logp, copied_logp), generated_logp)
    return g.op("ScatterElements", logp, ids, mixed_logp, axis=1)  # equal tokens write equal values


def _gate_logit(g: GraphBuilder, copying: CopyAttention, attn: str, embedded: str) -> str:
    """The gate before its sigmoid, [N,1]."""
    weighted = g.op(
        "Mul",
        g.op("Concat", attn, embedded, axis=1),
        g.weight("copying.gate.weight", to_float32_array(copying.gate.weight)),
    )
    total = g.op("ReduceSum", weighted, g.constant([-1]), keepdims=1)
    return g.op("Add", total, g.weight("copying.gate.bias", to_float32_array(copying.gate.bias)))


def _log_sigmoid(g: GraphBuilder, x: str) -> str:
    """min(x, 0) - log(1 + exp(-|x|)), which is finite for every finite x."""
    return g.op("Sub", g.op("Min", x, g.constant(0.0)), _log_one_plus_exp(g, g.op("Abs", x)))


def _log_add_exp(g: GraphBuilder, a: str, b: str) -> str:
    """log(exp(a) + exp(b)) = max(a, b) + log(1 + exp(-|a - b|))."""
    distance = g.op("Abs", g.op("Sub", a, b))
    return g.op("Add", g.op("Max", a, b), _log_one_plus_exp(g, distance))


def _log_one_plus_exp(g: GraphBuilder, x: str) -> str:
    """log(1 + exp(-x)) of x >= 0."""
    return g.op("Log", g.op("Add", g.op("Exp", g.op("Neg", x)), g.constant(1.0)))
