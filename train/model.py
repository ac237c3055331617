"""The model: an LSTM encoder, and an LSTM decoder with attention.

Legend: B batch, S source length, T target length, K rows per sentence, N = B*K rows, H hidden,
E embedding, A size of a key, D size of a memory value (here H), F size of the attention vector that is fed
back (H with input feeding, else 0), L layers, V vocabulary.
Names and shapes are those of the ONNX graphs (docs/architecture.md).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ..runtime.errors import UsageError
from ..runtime.graph_check import MAX_ROW_ELEMENTS
from ..runtime.manifest import MAX_DIMENSION
from ..runtime.text import GO, PAD, SPECIAL_TOKENS, UNK
from .attention import PADDING_BIAS, WeightedSum, make_attention
from .copying import CopyAttention, first_occurrence_mask
from .loss import real_token_mask
from .lstm_stack import LayerConnection, LSTMStack, LSTMWeights, lstm_weights
from .option_types import AttentionKind
from .precision import at_least_float32
from .projection import (
    Projection,
    ProjectionFactory,
    compute_dtype,
    plain_projection,
    projection_through_time,
    weighted_sum_through_time,
)
from .ranges import check_values
from .recurrence import lstm_cell, lstm_layer
from .tied_output import TiedOutput


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and options of the model."""

    layers: int = 2
    hidden: int = 512
    embedding: int = 256
    attention: int = 256
    dropout: float = 0.2
    """Between layers, on the output, and on embeddings unless `embedding_dropout` is set."""
    embedding_dropout: float | None = None
    attention_dropout: float = 0.0
    """On the alignment (Vaswani et al. 2017)."""
    word_dropout: float = 0.0
    """Share of source and fed target tokens that become unknown (Bowman et al. 2016)."""
    reverse_source: bool = True
    """Read the source backwards. It has no effect on a bidirectional encoder."""
    attention_kind: AttentionKind = "bahdanau"
    """The keys of Luong's two kinds have the hidden size, whatever `attention` is."""
    input_feeding: bool = True
    """Feed the decoder its previous attention vector too (Luong et al. 2015)."""
    bidirectional: bool = False
    """Read the source in both directions, with layers of half the size each (Schuster & Paliwal 1997)."""
    residual: bool = False
    """Add the output of each layer to that of the next one (Wu et al. 2016)."""
    layer_norm: bool = False
    """Normalize the input of each layer but the first (Ba et al. 2016)."""
    tied_output: bool = False
    """Use the embedding as the output's weight (Press & Wolf 2017)."""
    copy_attention: bool = False
    """Let replies copy tokens of their prompt (See et al. 2017)."""

    def __post_init__(self) -> None:
        check_values(self)
        if self.bidirectional and self.hidden % 2:
            raise UsageError(f"bidirectional halves hidden, which must be even, not {self.hidden}")
        for name in ("residual", "layer_norm"):
            if getattr(self, name) and self.layers < 2:
                raise UsageError(f"{name} works between layers: set layers to 2 or more, not 1")

        # h and c of each layer, and the attention vector that is fed back.
        state = (2 * self.layers + self.input_feeding) * self.hidden
        if self.layers * self.hidden > MAX_DIMENSION or state > MAX_ROW_ELEMENTS:
            raise UsageError(
                f"layers {self.layers} with hidden {self.hidden} make a state of {state:,} numbers, and a "
                f"bundle has room for {MAX_ROW_ELEMENTS:,}: lower one of them"
            )

    def architecture_values(self) -> dict[str, Any]:
        """The values that decide which weights there are and what they mean: all but the dropout rates."""
        return {name: value for name, value in vars(self).items() if not name.endswith("dropout")}


class Memory(NamedTuple):
    """What the decoder attends to: one entry per source token, in text order."""

    keys: Tensor  # [B, S, A]
    values: Tensor  # [B, S, D]
    bias: Tensor  # [B, S] 0, or PADDING_BIAS on padding
    src: Tensor  # i64 [B, S]


class DecoderState(NamedTuple):
    """The recurrent state of N rows."""

    h: Tensor  # [L, N, H]
    c: Tensor  # [L, N, H]
    attn: Tensor  # [N, F] the previous attention vector


class Seq2Seq(nn.Module):
    """Encoder, decoder and output over one shared embedding."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        L, H, E, A = config.layers, config.hidden, config.embedding, config.attention
        self.config, self.vocab_size = config, vocab_size
        self.embedding = nn.Embedding(vocab_size, E, padding_idx=PAD)
        self.encoder = self._make_encoder()
        if config.input_feeding:
            self.between = self._make_layer_connection()
            self.cells = nn.ModuleList(nn.LSTMCell(E + H if layer == 0 else H, H) for layer in range(L))
        else:
            self.decoder = LSTMStack(E, H, L, self._make_layer_connection())
        self.attention = make_attention(config.attention_kind, H, A, dropout=config.attention_dropout)
        self.attention_vector = nn.Linear(H + H, H, bias=False)  # of concat(cell output, context)
        self.output = TiedOutput(H, E, vocab_size) if config.tied_output else nn.Linear(H, vocab_size)
        if config.copy_attention:
            self.copying = CopyAttention(H, E)
        self.dropout = nn.Dropout(config.dropout)
        of_embedding = config.dropout if config.embedding_dropout is None else config.embedding_dropout
        self.embedding_dropout = nn.Dropout(of_embedding)
        self._initialize()

    def _make_encoder(self) -> nn.Module:
        c = self.config
        if c.residual or c.layer_norm:
            between = self._make_layer_connection()
            return LSTMStack(c.embedding, c.hidden, c.layers, between, bidirectional=c.bidirectional)
        return nn.LSTM(
            c.embedding,
            c.hidden // 2 if c.bidirectional else c.hidden,
            c.layers,
            batch_first=True,
            dropout=c.dropout if c.layers > 1 else 0.0,
            bidirectional=c.bidirectional,
        )

    def _make_layer_connection(self) -> LayerConnection:
        c = self.config
        return LayerConnection(
            c.layers, c.hidden, residual=c.residual, layer_norm=c.layer_norm, dropout=c.dropout
        )

    def _initialize(self) -> None:
        """Initialize the embedding with variance 1, the output as in He et al. (2015), and all other matrices
        as in Glorot & Bengio (2010), one gate at a time. Each is wider than is common in such models, and
        each was measured to save updates (docs/training.md). A tied embedding is scaled down, so that logits
        begin near 0, and the projection in front of it keeps PyTorch's initialization."""
        std = self.config.embedding**-0.5 if self.config.tied_output else 1.0
        nn.init.normal_(self.embedding.weight, std=std)
        if isinstance(self.output, nn.Linear):
            nn.init.kaiming_uniform_(self.output.weight, nonlinearity="relu")
        with torch.no_grad():
            self.embedding.weight[PAD].zero_()
            for name, parameter in self.named_parameters():
                # Gates are in the order i, f, g, o. The forget gate starts open (Jozefowicz et al. 2015). The
                # two biases are added, so setting one of them is enough.
                if "bias_ih" in name:
                    H = len(parameter) // 4
                    parameter.zero_()
                    parameter[H : 2 * H] = 1.0
                elif "bias_hh" in name:
                    parameter.zero_()
                elif "weight_ih" in name or "weight_hh" in name:
                    for gate in parameter.chunk(4):
                        nn.init.xavier_uniform_(gate)
                elif parameter.dim() == 2 and not name.startswith(("embedding.", "output.")):
                    nn.init.xavier_uniform_(parameter)

    def encode(self, src: Tensor, src_len: Tensor) -> tuple[Memory, DecoderState]:
        """The memory of src [B, S], padded at the end, of true lengths src_len [B]; initial state of B
        rows."""
        real = real_token_mask(src, src_len)  # (B, S)
        x = self._embed(src)  # (B, S, E)
        order = self._reading_order(src_len, src.shape[1])  # (B, S)
        x = x.gather(1, order[..., None].expand_as(x))  # (B, S, E)
        packed = pack_padded_sequence(x, src_len.cpu(), batch_first=True, enforce_sorted=False)
        packed_values, h, c = self._encode_packed(packed)  # h, c (L, B, H)
        values, _ = pad_packed_sequence(packed_values, batch_first=True, total_length=src.shape[1])
        values = values.gather(1, order[..., None].expand_as(values))  # (B, S, H), in text order again
        # Under autocast cuDNN's LSTM gives float16, in which PADDING_BIAS overflows, and the states of the
        # decoder would have its type too.
        h, c = at_least_float32(h), at_least_float32(c)
        bias = h.new_zeros(src.shape).masked_fill(~real, PADDING_BIAS)  # (B, S)
        memory = Memory(self.attention.keys(values), values, bias, src)
        fed = self.config.hidden if self.config.input_feeding else 0  # F
        return memory, DecoderState(h, c, h.new_zeros((len(src), fed)))

    def _encode_packed(self, packed: PackedSequence) -> tuple[PackedSequence, Tensor, Tensor]:
        """The values [n, H] of n packed embeddings [n, E], and the last h and c [L, B, H]."""
        config = self.config
        if isinstance(self.encoder, LSTMStack):
            data, (h, c) = self.encoder(packed.data, packed)
            values = packed._replace(data=data)
        # Faster than PyTorch's LSTM when training on a CPU; on a GPU cuDNN's is faster.
        elif torch.is_grad_enabled() and packed.data.device.type == "cpu" and not config.bidirectional:
            values, (h, c) = self._encode_with_custom_backward(packed)
        else:
            values, (h, c) = self.encoder(packed)
        if config.bidirectional:  # (2 * L, B, H / 2), with both directions of a layer together
            h, c = (torch.cat([last[0::2], last[1::2]], dim=-1) for last in (h, c))
        return values, h, c

    def _encode_with_custom_backward(
        self, packed: PackedSequence
    ) -> tuple[PackedSequence, tuple[Tensor, Tensor]]:
        """The same as `self.encoder`, with hand-written derivatives."""
        x, sizes = packed.data, packed.batch_sizes.tolist()  # x (n, E), n the real tokens
        last_h, last_c = [], []
        for layer in range(self.config.layers):
            w_ih, w_hh, b_ih, b_hh = (
                getattr(self.encoder, f"{name}_l{layer}")
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            gates = nn.functional.linear(self.dropout(x) if layer else x, w_ih, b_ih + b_hh)  # (n, 4H)
            x, h, c = lstm_layer(gates, w_hh.to(compute_dtype(w_hh)), sizes)
            last_h.append(h)
            last_c.append(c)
        h, c = (torch.stack(last)[:, packed.unsorted_indices] for last in (last_h, last_c))  # (L, B, H)
        return packed._replace(data=x), (h, c)

    def _reading_order(self, src_len: Tensor, S: int) -> Tensor:
        """The position [B, S] that is read at each step; padding stays at the end. It is its own inverse.

        Worked example, S = 4, src_len = [4, 2]: [[3, 2, 1, 0], [1, 0, 2, 3]].
        """
        forward = torch.arange(S, device=src_len.device).expand(len(src_len), S)  # (B, S)
        if self.config.bidirectional or not self.config.reverse_source:
            return forward
        backward = src_len[:, None] - 1 - forward  # (B, S)
        return torch.where(backward >= 0, backward, forward)

    def step(
        self, tokens: Tensor, state: DecoderState, memory: Memory
    ) -> tuple[Tensor, DecoderState, Tensor]:
        """One decoder step for tokens [N]: logits [N, V], the next state, alignment [N, S]."""
        x = self._embed(tokens)  # (N, E)
        gates = self._embedding_gates(x)  # (N, 4H)
        layers = list(zip(state.h, state.c, strict=True))
        layers, attn, align = self._advance(
            gates, layers, state.attn, memory, self._make_projections(plain_projection)
        )
        h, c = (torch.stack(tensors) for tensors in zip(*layers, strict=True))  # (L, N, H) each
        following = DecoderState(h, c, attn[:, : state.attn.shape[-1]])
        logits = self._logits(attn)
        if self.config.copy_attention:
            rows = torch.arange(len(tokens), device=tokens.device)
            sentences = rows // (len(tokens) // len(memory.src))  # (N,)
            logits = self._mix_with_copying(logits, attn, x, align, memory.src, sentences)
        return logits, following, align

    def forward(
        self,
        src: Tensor,
        src_len: Tensor,
        target: Tensor,
        target_len: Tensor,
        previous: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Teacher forcing: logits [n, V] and labels [n] of the n real tokens of target [B, T].

        Targets end with end-of-sentence. The decoder is fed go, then each token but the last of `previous`
        [B, T], which by default is the target (scheduled sampling gives another one).
        """
        memory, state = self.encode(src, src_len)
        go = torch.full_like(target[:, :1], GO)
        fed = torch.cat([go, (target if previous is None else previous)[:, :-1]], dim=1)  # (B, T)
        x = self._embed(fed.T)  # (T, B, E)
        decode = (
            self._decode_with_input_feeding
            if self.config.input_feeding
            else self._decode_without_input_feeding
        )
        vectors, align = decode(x, state, memory)  # (B, T, H), (B, T, S)
        real = real_token_mask(target, target_len)  # (B, T)
        attn = vectors[real]  # (n, H)
        logits = self._logits(attn)
        if self.config.copy_attention:
            x = x.transpose(0, 1)[real]  # (n, E)
            logits = self._mix_with_copying(logits, attn, x, align[real], src, real.nonzero()[:, 0])
        return logits, target[real]

    def _decode_with_input_feeding(
        self, x: Tensor, state: DecoderState, memory: Memory
    ) -> tuple[Tensor, Tensor]:
        """Attention vectors [B, T, H] and alignment [B, T, S] of the embeddings x [T, B, E]; each vector is
        fed to the next step."""
        # Everything that does not depend on the state is computed once for all steps, outside the loop.
        all_gates = self._embedding_gates(x)  # (T, B, 4H)
        projections = self._make_projections(projection_through_time)._replace(
            weighted_sum=weighted_sum_through_time(memory.values)
        )
        layers, attn = list(zip(state.h, state.c, strict=True)), state.attn
        vectors, aligns = [], []
        for gates in all_gates.unbind():
            layers, attn, align = self._advance(gates, layers, attn, memory, projections)
            vectors.append(attn)  # (B, H)
            aligns.append(align)  # (B, S)
        return torch.stack(vectors, dim=1), torch.stack(aligns, dim=1)

    def _decode_without_input_feeding(
        self, x: Tensor, state: DecoderState, memory: Memory
    ) -> tuple[Tensor, Tensor]:
        """The same without input feeding: each layer reads the whole target in one call."""
        top, _ = self.decoder(x, initial=(state.h, state.c))  # (T, B, H)
        B = x.shape[1]
        rows = top.transpose(0, 1).flatten(0, 1)  # (B * T, H): row n belongs to sentence n // T
        attn, align = self._attend(rows, memory, self._make_projections(plain_projection))
        return attn.view(B, -1, attn.shape[-1]), align.view(B, -1, align.shape[-1])

    def _logits(self, attn: Tensor) -> Tensor:
        """Logits [n, V] of attention vectors [n, H]."""
        shared = [self.embedding.weight] if self.config.tied_output else []
        logits: Tensor = self.output(self.dropout(attn), *shared)
        return logits

    def _mix_with_copying(
        self, logits: Tensor, attn: Tensor, x: Tensor, align: Tensor, src: Tensor, sentences: Tensor
    ) -> Tensor:
        """Natural-log probabilities [n, V] of the mixture with copying; they are valid logits too. Row i
        belongs to sentence `sentences[i]` of src [B, S], with alignment [n, S] and fed embedding x [n, E]."""
        first = first_occurrence_mask(src)[sentences]  # (n, S)
        mixed: Tensor = self.copying(logits, attn, x, align, src[sentences], first)
        return mixed

    def _embed(self, tokens: Tensor) -> Tensor:
        """Embeddings [.., E] of tokens [..], with word and embedding dropout in training."""
        if self.training and self.config.word_dropout:
            dropped = torch.rand(tokens.shape, device=tokens.device) < self.config.word_dropout
            tokens = tokens.masked_fill(dropped & (tokens >= len(SPECIAL_TOKENS)), UNK)
        embedded: Tensor = self.embedding_dropout(self.embedding(tokens))
        return embedded

    def decoder_weights(self) -> list[LSTMWeights]:
        """The weights of the decoder's layers, first to last."""
        if self.config.input_feeding:
            return [lstm_weights(cell) for cell in self.cells]
        return [lstm_weights(layer, "_l0") for layer in self.decoder.layers]

    def decoder_connection(self) -> LayerConnection:
        """Residual connection, layer norm and dropout between the decoder's layers."""
        return self.between if self.config.input_feeding else self.decoder.between

    def encoder_connection(self) -> LayerConnection:
        """Residual connection, layer norm and dropout between the encoder's layers."""
        return self.encoder.between if isinstance(self.encoder, LSTMStack) else self._make_layer_connection()

    def encoder_weights(self) -> list[list[LSTMWeights]]:
        """The weights of the encoder's layers, each forwards and, if it is bidirectional, backwards."""
        suffixes = ("", "_reverse") if self.config.bidirectional else ("",)
        if isinstance(self.encoder, LSTMStack):
            return [
                [lstm_weights(layer, "_l0" + suffix) for suffix in suffixes] for layer in self.encoder.layers
            ]
        numbers = range(self.config.layers)
        return [
            [lstm_weights(self.encoder, f"_l{layer}{suffix}") for suffix in suffixes] for layer in numbers
        ]

    def _embedding_gates(self, x: Tensor) -> Tensor:
        """The part of the first layer's gates that comes from the embedding x [.., E]: [.., 4H]."""
        cell = self.decoder_weights()[0]
        weight = cell.weight_ih[:, : self.config.embedding]
        return nn.functional.linear(x, weight, cell.bias_ih + cell.bias_hh)

    def _make_projections(self, make_projection: ProjectionFactory) -> "_Projections":
        """The linear maps of the decoder, each made from its weights by `make_projection`."""
        first, *others = self.decoder_weights()
        query = self.attention.query
        # Only the attention vector goes through the map of the first layer: `_embedding_gates` has computed
        # the part of its embedding and biases.
        fed = first.weight_ih[:, self.config.embedding :]
        return _Projections(
            gates=[
                make_projection([fed, first.weight_hh], None),
                *(
                    make_projection([cell.weight_ih, cell.weight_hh], cell.bias_ih + cell.bias_hh)
                    for cell in others
                ),
            ],
            query=_identity if query is None else make_projection([query.weight], None),
            attention_vector=make_projection([self.attention_vector.weight], None),
        )

    def _advance(
        self,
        gates: Tensor,
        layers: list[tuple[Tensor, Tensor]],
        attn: Tensor,
        memory: Memory,
        projections: "_Projections",
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
        """The layers' next (h, c), the next attention vector [N, H], and the alignment [N, S].

        `gates` [N, 4H] is the embedding's part of the first layer's gates; `attn` [N, F] is fed to it too.
        """
        between = self.decoder_connection()
        following: list[tuple[Tensor, Tensor]] = []
        y = attn
        for layer, (h, c) in enumerate(layers):
            x = between.layer_input(layer, y) if layer else y
            h, c = lstm_cell(projections.gates[layer](x, h), c, None if layer else gates)
            following.append((h, c))
            y = between.layer_output(h, y) if layer else h
        attn, align = self._attend(y, memory, projections)
        return following, attn, align

    def _attend(self, top: Tensor, memory: Memory, projections: "_Projections") -> tuple[Tensor, Tensor]:
        """Attention vectors [N, H] and alignment [N, S] of the decoder's outputs [N, H]."""
        query = projections.query(top)
        context, align = self.attention(
            query, memory.keys, memory.values, memory.bias, projections.weighted_sum
        )  # (N, D), (N, S)
        return projections.attention_vector(torch.cat([top, context], dim=-1)), align


def _identity(x: Tensor) -> Tensor:
    """The identity, in place of a projection."""
    return x


class _Projections(NamedTuple):
    """The linear maps of a decoder step. Lists have one entry per layer."""

    gates: list[Projection]  # input [N, F or H] and state [N, H] of the layer -> [N, 4H]
    query: Projection  # [N, H] -> [N, A]
    attention_vector: Projection  # [N, 2H] -> [N, H]
    weighted_sum: WeightedSum | None = None  # over the memory's values, if they are read at many steps
