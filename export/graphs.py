"""The encoder and the per-step decoder as ONNX graphs, written operation by operation.

They are built from the weights, not traced, so that B, S, K and C stay free, and a graph contains exactly the
operations written here. Legend: B batch, S source length, K rows per sentence, N = B*K rows of this step,
M rows of the previous step, H hidden, E embedding, A attention size, L layers, V vocabulary,
C candidates per row. Weights keep their names from PyTorch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from ..runtime.backend import Floats
from ..runtime.manifest import GraphSpec, StateTensor
from ..train.attention import PADDING_BIAS
from ..train.lstm_stack import LayerConnection, LSTMWeights
from ..train.model import Seq2Seq
from ..train.tied_output import TiedOutput
from .attention import attend, make_keys, merge_batch_and_rows
from .copying import mixture_logp
from .graph_builder import FLOAT, INT64, GraphBuilder, to_float32_array
from .precision import Float32, Precision


def graph_spec(model: Seq2Seq) -> GraphSpec:
    """What the runtime needs to know about the graphs to run them."""
    L, H = model.config.layers, model.config.hidden
    state = [
        StateTensor("h", "next_h", (L, "M", H), "encoder"),
        StateTensor("c", "next_c", (L, "M", H), "encoder"),
    ]
    if model.config.input_feeding:
        state.append(StateTensor("attn", "next_attn", ("M", H), "zeros"))
    return GraphSpec(model.vocab_size, ("keys", "values", "bias"), tuple(state))


def build_encoder(model: Seq2Seq, precision: Precision | None = None) -> bytes:
    """src i64 [B,S], src_len i64 [B] -> keys [B,S,A], values [B,S,H], bias [B,S], h, c [L,B,H].

    Everything with an S axis is in text order: to read backwards, the LSTM operation has a direction, which
    respects the true length of each sentence. `precision` None means fp32.
    """
    config, p = model.config, precision or Float32()
    L, H, A = config.layers, config.hidden, model.attention.size
    g = GraphBuilder("edgechat_encoder")
    src = g.input("src", INT64, ["B", "S"])
    src_len = g.input("src_len", INT64, ["B"])
    lengths = g.op("Cast", src_len, to=6)  # int32, as LSTM requires

    x = p.lookup(g, src, "embedding.weight", to_float32_array(model.embedding.weight))  # [B,S,E]
    x = g.op("Transpose", x, perm=[1, 0, 2])  # [S,B,E]
    hs, cs = [], []
    direction = "reverse" if config.reverse_source else "forward"
    if config.bidirectional:
        direction = "bidirectional"
    between = model.encoder_connection()
    for layer, cells in enumerate(model.encoder_weights()):
        w, r, lstm_bias = _onnx_lstm_weights(cells)
        name = f"encoder.{layer}"
        below = x
        values, h, c = g.ops(
            "LSTM",
            _layer_input(g, between, f"{name}.norm", layer, below),
            p.float32_weight(g, f"{name}.W", w),
            p.float32_weight(g, f"{name}.R", r),
            g.weight(f"{name}.B", lstm_bias),
            lengths,
            count=3,
            hidden_size=H // len(cells),
            direction=direction,
        )
        x = (
            _join_directions(g, values, H)
            if config.bidirectional
            else g.op("Squeeze", values, g.constant([1]))
        )
        x = _layer_output(g, between, layer, x, below)  # [S,B,H]
        hs.append(h)  # [1,B,H], or [2,B,H/2]
        cs.append(c)
    values = g.op("Transpose", x, perm=[1, 0, 2])  # [B,S,H]
    keys = make_keys(g, p, model.attention, values)
    S = g.op("Squeeze", g.op("Shape", src, start=1, end=2))
    positions = g.op("Range", g.constant(0), S, g.constant(1))  # [S]
    real = g.op("Less", positions, g.op("Unsqueeze", src_len, g.constant([1])))  # [B,S]
    bias = g.op("Where", real, g.constant(0.0), g.constant(PADDING_BIAS))

    g.output("keys", keys, FLOAT, ["B", "S", A])
    g.output("values", values, FLOAT, ["B", "S", H])
    g.output("bias", bias, FLOAT, ["B", "S"])
    for name, states in (("h", hs), ("c", cs)):
        last = [_join_final_states(g, state, H) for state in states] if config.bidirectional else states
        g.output(name, g.op("Concat", *last, axis=0), FLOAT, [L, "B", H])
    return g.build()


def build_decoder(model: Seq2Seq, precision: Precision | None = None) -> bytes:
    """One step of N rows, with the C likeliest next tokens of each row.

    tokens i64 [N], parent i64 [N], h, c [L,M,H], attn [M,H], keys [B,S,A], values [B,S,H], bias [B,S],
    top_k i64 [1] -> cand_ids i64 [N,C], cand_logp [N,C], next_h, next_c [L,N,H], next_attn [N,H],
    align [N,S], logp [N,V]. Without input feeding, attn and next_attn are absent. With copy attention there
    is another input, src i64 [B,S].

    Row n continues row parent[n] of the previous step, and belongs to sentence n // K, where K = N / B.
    Within the graph rows are [1,N,.], like the layers of a state.
    """
    config, p = model.config, precision or Float32()
    L, H, A, V = config.layers, config.hidden, model.attention.size, model.vocab_size
    g = GraphBuilder("edgechat_decoder")
    tokens = g.input("tokens", INT64, ["N"])
    parent = g.input("parent", INT64, ["N"])
    h_in = g.input("h", FLOAT, [L, "M", H])
    c_in = g.input("c", FLOAT, [L, "M", H])
    attn_in = g.input("attn", FLOAT, ["M", H]) if config.input_feeding else None
    keys = g.input("keys", FLOAT, ["B", "S", A])
    values = g.input("values", FLOAT, ["B", "S", H])
    bias = g.input("bias", FLOAT, ["B", "S"])
    top_k = g.input("top_k", INT64, [1])
    src = g.input("src", INT64, ["B", "S"]) if config.copy_attention else None

    axis_0 = g.constant([0])
    h_before = _split_layers(g, g.op("Gather", h_in, parent, axis=1), L)  # L times [1,N,H]
    c_before = _split_layers(g, g.op("Gather", c_in, parent, axis=1), L)
    attn_before = attn_in and g.op("Gather", attn_in, g.op("Unsqueeze", parent, axis_0), axis=0)  # [1,N,H]
    row_tokens = g.op("Unsqueeze", tokens, axis_0)  # [1,N]
    embedded = p.lookup(g, row_tokens, "embedding.weight", to_float32_array(model.embedding.weight))

    x = g.op("Concat", embedded, attn_before, axis=2) if attn_before else embedded  # [1,N,E+F]
    hs, cs = [], []
    between = model.decoder_connection()
    for layer, cell in enumerate(model.decoder_weights()):
        weight, lstm_bias = _fused_cell_weights(cell)
        below, x = x, _layer_input(g, between, f"cells.{layer}.norm", layer, x)
        joined = g.op("Concat", x, h_before[layer], axis=2)  # [1,N,E+F+H] or [1,N,2H]
        name = f"cells.{layer}"
        gates = p.linear(g, joined, f"{name}.weight", weight, g.weight(f"{name}.bias", lstm_bias))  # [1,N,4H]
        ifo, candidate = g.ops("Split", gates, g.constant([3 * H, H]), count=2, axis=2)
        i, f, o = g.ops("Split", g.op("Sigmoid", ifo), g.constant([H, H, H]), count=3, axis=2)
        kept = g.op("Mul", f, c_before[layer])
        c = g.op("Add", kept, g.op("Mul", i, g.op("Tanh", candidate)))
        h = g.op("Mul", o, g.op("Tanh", c))
        x = _layer_output(g, between, layer, h, below)
        hs.append(h)
        cs.append(c)

    context, align, S = attend(g, p, model, x, keys, values, bias)
    align_rows = merge_batch_and_rows(g, align, S)  # [N,S]
    joined = g.op("Concat", x, context, axis=2)  # [1,N,2H]
    attn = p.linear(g, joined, "attention_vector.weight", to_float32_array(model.attention_vector.weight).T)
    attn = g.op("Squeeze", attn, axis_0)  # [N,H]
    logits = _output_logits(g, p, model, attn)  # [N,V]
    if src is None:
        logp = g.op("LogSoftmax", logits, axis=-1)
    else:
        fed = g.op("Squeeze", embedded, axis_0)  # [N,E]
        logp = mixture_logp(g, model.copying, logits, attn, fed, align, src, S)
    cand_logp, cand_ids = g.ops("TopK", logp, top_k, count=2, axis=-1)  # ties: the lower id first

    g.output("cand_ids", cand_ids, INT64, ["N", "C"])
    g.output("cand_logp", cand_logp, FLOAT, ["N", "C"])
    g.output("next_h", g.op("Concat", *hs, axis=0), FLOAT, [L, "N", H])
    g.output("next_c", g.op("Concat", *cs, axis=0), FLOAT, [L, "N", H])
    if config.input_feeding:
        g.output("next_attn", attn, FLOAT, ["N", H])
    g.output("align", align_rows, FLOAT, ["N", "S"])
    g.output("logp", logp, FLOAT, ["N", V])
    return g.build()


def _split_layers(g: GraphBuilder, stacked: str, count: int) -> list[str]:
    """The `count` layers [1,N,H] of a stacked state [L,N,H]."""
    if count == 1:
        return [stacked]
    return g.ops("Split", stacked, g.constant([1] * count), count=count, axis=0)


def _output_logits(g: GraphBuilder, p: Precision, model: Seq2Seq, attn: str) -> str:
    """Logits [N,V] of the attention vectors [N,H]."""
    bias = g.weight("output.bias", to_float32_array(model.output.bias))
    if not isinstance(model.output, TiedOutput):
        return p.linear(g, attn, "output.weight", to_float32_array(model.output.weight).T, bias)
    if model.output.projection is not None:
        projection = to_float32_array(model.output.projection.weight).T
        attn = p.linear(g, attn, "output.projection.weight", projection)  # [N,E]
    return p.tied_linear(g, attn, "embedding.weight", to_float32_array(model.embedding.weight), bias)


def _layer_input(g: GraphBuilder, between: LayerConnection, name: str, layer: int, below: str) -> str:
    """The input of a layer, from the output `below` of the layer below it."""
    norm = between.norms[layer - 1] if layer else None
    if not isinstance(norm, nn.LayerNorm):
        return below
    scale, offset = (
        g.weight(f"{name}.{part}", to_float32_array(getattr(norm, part))) for part in ("weight", "bias")
    )
    return g.op("LayerNormalization", below, scale, offset, axis=-1, epsilon=norm.eps)


def _layer_output(g: GraphBuilder, between: LayerConnection, layer: int, output: str, below: str) -> str:
    """The output of a layer, from the `output` of its LSTM and the output `below` of the layer below it."""
    return g.op("Add", output, below) if layer and between.residual else output


def _join_directions(g: GraphBuilder, values: str, H: int) -> str:
    """[S,2,B,H/2] -> [S,B,H]."""
    return g.op("Reshape", g.op("Transpose", values, perm=[0, 2, 1, 3]), g.constant([0, 0, H]))


def _join_final_states(g: GraphBuilder, state: str, H: int) -> str:
    """[2,B,H/2] -> [1,B,H]."""
    return g.op("Reshape", g.op("Transpose", state, perm=[1, 0, 2]), g.constant([1, -1, H]))


def _onnx_lstm_weights(cells: Sequence[LSTMWeights]) -> tuple[Floats, Floats, Floats]:
    """W [D,4H,I], R [D,4H,H] and B [D,8H] of an encoder layer with D directions of size H, in the layout of
    the LSTM operation."""
    w, r, b_ih, b_hh = (
        np.stack([_to_onnx_gate_order(to_float32_array(tensor)) for tensor in both])
        for both in zip(*cells, strict=True)
    )
    return w, r, np.concatenate([b_ih, b_hh], axis=1)


def _to_onnx_gate_order(array: Floats) -> Floats:
    """Reorder gates from PyTorch's i, f, g, o along the first axis to the i, o, f, c of ONNX (c is g)."""
    i, f, g, o = np.split(array, 4)
    return np.concatenate([i, o, f, g])


def _fused_cell_weights(cell: LSTMWeights) -> tuple[Floats, Floats]:
    """One weight for concat(input, h), and the sum of both biases. Gates are ordered i, f, o, g, so that the
    three with a sigmoid are adjacent."""
    weight = torch.cat([cell.weight_ih, cell.weight_hh], dim=1)
    lstm_bias = cell.bias_ih + cell.bias_hh
    rows = [np.concatenate(_split_ifog(to_float32_array(tensor))) for tensor in (weight, lstm_bias)]
    return rows[0].T, rows[1]


def _split_ifog(array: Floats) -> list[Floats]:
    i, f, g, o = np.split(array, 4)
    return [i, f, o, g]
