"""Training speed beside a plain LSTMCell loop in PyTorch, OpenNMT-py and JoeyNMT (where installed).

    .venv/bin/python bench/train.py                  H 512, E 256, L 2, V 8000, batches of 64 and 128

All take the same batches of random pairs and make whole updates (forward, backward, clipping to 5.0, Adam),
in turns, in one process with one thread. Figures are medians of target tokens a second of CPU time; ratios
are to the plain loop. Let nothing else run meanwhile.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from edgechat.runtime.text import GO, PAD
from edgechat.train.attention import MASKED
from edgechat.train.batches import Batch, epoch_order, make_batch
from edgechat.train.config import TrainingConfig
from edgechat.train.dataset import EncodedPairs
from edgechat.train.distributed import ALONE
from edgechat.train.loss import real_tokens
from edgechat.train.model import ModelConfig, Seq2Seq
from edgechat.train.updates import Updater

CONFIG = ModelConfig(layers=2, hidden=512, embedding=256, attention=256, dropout=0.2)
VOCABULARY = 8000

Update = Callable[[Batch], float]


class PlainLoop(nn.Module):
    """The same model as anybody would write it: a packed nn.LSTM, then a loop over nn.LSTMCell with input
    feeding and attention, then the output for all positions and a loss that ignores padding."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.model = model  # lends its layers

    def forward(self, src: Tensor, src_len: Tensor, target: Tensor, target_len: Tensor) -> Tensor:
        m = self.model
        x = m.dropout(m.embedding(src))
        order = m._reading_order(src_len, src.shape[1])[..., None]
        packed = pack_padded_sequence(
            x.gather(1, order.expand_as(x)), src_len, batch_first=True, enforce_sorted=False
        )
        packed_values, (h, c) = m.encoder(packed)
        values, _ = pad_packed_sequence(packed_values, batch_first=True, total_length=src.shape[1])
        values = values.gather(1, order.expand_as(values))
        bias = torch.where(real_tokens(src, src_len), 0.0, MASKED)
        memory = m.attention.key(values), values, bias
        fed = torch.cat([torch.full_like(target[:, :1], GO), target[:, :-1]], dim=1)
        embedded = m.dropout(m.embedding(fed))  # (B, T, E)
        hidden, attn = list(zip(h, c, strict=True)), torch.zeros_like(h[0])
        vectors = []
        for x in embedded.unbind(1):
            y = torch.cat([x, attn], dim=-1)
            for layer, cell in enumerate(m.decoder_cells()):
                hidden[layer] = cell(y, hidden[layer])
                y = m.dropout(hidden[layer][0]) if layer + 1 < len(hidden) else hidden[layer][0]
            context, _ = m.attention(m.attention.query(y), *memory)
            attn = m.attention_vector(torch.cat([y, context], dim=-1))
            vectors.append(attn)
        logits = m.output(m.dropout(torch.stack(vectors, dim=1)))  # (B, T, V)
        real = real_tokens(target, target_len)
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), target.masked_fill(~real, -100).flatten(), ignore_index=-100
        )


def update_of(model: nn.Module, loss_of: Callable[[Batch], Tensor]) -> Update:
    """A whole update as anybody would write it."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def update(batch: Batch) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        return loss.item()

    return update


def plain_update() -> Update:
    loop = PlainLoop(new_model())
    return update_of(loop, lambda batch: loop(*batch))


def opennmt_update() -> Update:
    """OpenNMT-py's input-feeding decoder with its own additive attention, and a linear generator."""
    from onmt.decoders.decoder import InputFeedRNNDecoder
    from onmt.encoders.rnn_encoder import RNNEncoder
    from onmt.models.model import NMTModel
    from onmt.modules.embeddings import Embeddings

    c = CONFIG

    def embeddings() -> nn.Module:
        return Embeddings(c.embedding, VOCABULARY, PAD, dropout=c.dropout)

    encoder = RNNEncoder("LSTM", False, c.layers, c.hidden, c.dropout, embeddings())
    decoder = InputFeedRNNDecoder(
        "LSTM", False, c.layers, c.hidden, attn_type="mlp", dropout=c.dropout, embeddings=embeddings()
    )
    model, generator = NMTModel(encoder, decoder), nn.Linear(c.hidden, VOCABULARY)

    def loss_of(batch: Batch) -> Tensor:
        target = torch.cat([torch.full_like(batch.target[:, :1], GO), batch.target], dim=1)
        out, _ = model(batch.src[..., None], target[..., None], batch.src_len)  # (B, T, H)
        return nn.functional.cross_entropy(
            generator(out).flatten(0, 1), batch.target.flatten(), ignore_index=PAD
        )

    return update_of(nn.ModuleList([model, generator]), loss_of)


def joeynmt_update() -> Update:
    """JoeyNMT's recurrent encoder, which is bidirectional, H / 2 a direction, and its decoder."""
    from joeynmt.decoders import RecurrentDecoder
    from joeynmt.embeddings import Embeddings
    from joeynmt.encoders import RecurrentEncoder
    from joeynmt.loss import XentLoss

    c, drop = CONFIG, {"dropout": CONFIG.dropout, "emb_dropout": CONFIG.dropout}
    encoder = RecurrentEncoder("lstm", c.hidden // 2, c.embedding, c.layers, bidirectional=True, **drop)
    decoder = RecurrentDecoder(
        "lstm", c.embedding, c.hidden, encoder, "bahdanau", c.layers, VOCABULARY,
        init_hidden="last", input_feeding=True, **drop,
    )  # fmt: skip
    source, target = (
        Embeddings(embedding_dim=c.embedding, vocab_size=VOCABULARY, padding_idx=PAD) for _ in range(2)
    )
    criterion = XentLoss(pad_index=PAD)

    def loss_of(batch: Batch) -> Tensor:
        order = batch.src_len.argsort(descending=True)  # its encoder wants the longest first
        src, src_len, labels, target_len = (tensor[order] for tensor in batch)
        fed = torch.cat([torch.full_like(labels[:, :1], GO), labels[:, :-1]], dim=1)
        mask = (src != PAD)[:, None]
        memory, hidden = encoder(source(src), src_len, mask)[:2]
        out = decoder(target(fed), memory, hidden, mask, fed.shape[1])[0]  # (B, T, V)
        return criterion(out.log_softmax(dim=-1), trg=labels) / target_len.sum()

    return update_of(nn.ModuleList([encoder, decoder, source, target]), loss_of)


def our_update(amp: str) -> Update:
    updater = Updater(new_model(), TrainingConfig(amp=amp), "cpu", ALONE)  # type: ignore[arg-type]
    steps = iter(range(1, 1 << 30))

    def update(batch: Batch) -> float:
        tokens = int(batch.target_len.sum())
        return updater.update([(batch, 1.0)], tokens, step=next(steps), rate=1e-3).loss

    return update


def new_model() -> Seq2Seq:
    torch.manual_seed(0)
    return Seq2Seq(CONFIG, VOCABULARY)


def random_pairs(count: int) -> EncodedPairs:
    """Pairs with the lengths of open chat: 3 to 40 tokens a side, most of them short."""
    random = np.random.default_rng(0)

    def side() -> tuple[np.ndarray, np.ndarray]:
        lengths = np.clip(random.gamma(2.5, 4.5, size=count).astype(np.int64), 3, 40)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return random.integers(5, VOCABULARY, size=int(offsets[-1])).astype(np.uint16), offsets

    return EncodedPairs(*side(), *side())


def others() -> dict[str, Update]:
    """Those that are installed."""
    known = {"OpenNMT-py": ("onmt", opennmt_update), "JoeyNMT": ("joeynmt", joeynmt_update)}
    found = {name: make for name, (package, make) in known.items() if importlib.util.find_spec(package)}
    return {name: make() for name, make in found.items()}


def measure(updates: dict[str, Update], batches: Iterator[Batch], rounds: int) -> dict[str, float]:
    """Median target tokens a second of CPU time, after one round that warms up."""
    speeds: dict[str, list[float]] = {name: [] for name in updates}
    for number in range(rounds + 1):
        batch = next(batches)
        for name, update in updates.items():
            start = time.process_time()
            update(batch)
            if number:
                speeds[name].append(int(batch.target_len.sum()) / (time.process_time() - start))
    return {name: statistics.median(values) for name, values in speeds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not others():
        print("OpenNMT-py and JoeyNMT are compared where they are installed; see bench/README.md")
    print(f"{'':<14} {'batch':>5} {'tokens/s':>9} {'ratio':>6}   target tokens a second of CPU time")
    for size in arguments.batches:
        pairs = random_pairs(size * 200)
        order = epoch_order(pairs, size, seed=0, epoch=0)
        batches = (make_batch(pairs, indices) for indices in order)
        updates = {"plain loop": plain_update(), **others()}
        updates |= {"edgechat fp32": our_update("off"), "edgechat bf16": our_update("bf16")}
        speeds = measure(updates, batches, arguments.rounds)
        for name, speed in speeds.items():
            print(f"{name:<14} {size:>5} {speed:>9.0f} {speed / speeds['plain loop']:>5.2f}x")


if __name__ == "__main__":
    main()
