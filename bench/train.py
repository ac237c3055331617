"""Training speed compared with a plain LSTMCell loop in PyTorch, OpenNMT-py and JoeyNMT (if they are
installed); with --updates, also the held-out perplexity of each after the same number of updates.

    .venv/bin/python bench/train.py                  H 512, E 256, L 2, V 8000, batches of 64 and 128
    .venv/bin/python bench/train.py --data FILE --updates 500 --batches 64
    .venv/bin/python bench/train.py --device cuda    on a GPU, without the toolkits

All implementations take turns with the same batches and make whole updates: forward, backward, clipping to
5.0, Adam, with one thread. The toolkits run in their own processes and take the steps of their own trainers.
Figures are target tokens per second of CPU time, summed over all batches, as in an epoch: short and long
batches differ by a factor of two; on a GPU they are per second of time. Ratios are relative to the plain
loop. Run nothing else at the same time.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from peers import TrainingPeer, TrainingSettings, find_training_peers
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from edgechat.cli.pytorch import torch_device
from edgechat.runtime.device import Device
from edgechat.runtime.errors import DeviceError
from edgechat.runtime.text import EOS, GO
from edgechat.train.attention import PADDING_BIAS
from edgechat.train.backend import evaluation_mode
from edgechat.train.batches import Batch, collate, plan_epoch
from edgechat.train.config import TrainingConfig
from edgechat.train.corpus import open_corpus
from edgechat.train.dataset import DataConfig, EncodedPairs, prepare_corpus
from edgechat.train.distributed import SINGLE_PROCESS
from edgechat.train.loss import real_token_mask
from edgechat.train.model import ModelConfig, Seq2Seq
from edgechat.train.precision import is_emulated
from edgechat.train.updates import Updater

LEARNING_RATE, CLIP, DROPOUT = 1e-3, 5.0, 0.2
VOCABULARY = 8000
MAX_VALID_PAIRS = 500  # maximum number of held-out pairs
TOOLKIT_NAMES = {"opennmt": "OpenNMT-py", "joeynmt": "JoeyNMT"}

#: Sources and targets of a batch, as ids; each target ends with the end-of-sentence.
Pairs = tuple[list[list[int]], list[list[int]]]


@dataclass(frozen=True)
class Implementation:
    """An implementation of training. `update` returns the seconds of CPU time that it took, or of time on a
    GPU, `loss` the summed loss (natural log) without dropout."""

    name: str
    update: Callable[[Pairs], float]
    loss: Callable[[Pairs], float]


class PlainLoop(nn.Module):
    """The same model in straightforward PyTorch: a packed nn.LSTM, then a loop over nn.LSTMCell with input
    feeding and attention, then the output for all positions and a loss that ignores padding."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.model = model  # whose layers are used

    def forward(self, src: Tensor, src_len: Tensor, target: Tensor, target_len: Tensor) -> Tensor:
        m = self.model
        x = m.dropout(m.embedding(src))
        order = m._reading_order(src_len, src.shape[1])[..., None]
        packed = pack_padded_sequence(
            x.gather(1, order.expand_as(x)), src_len.cpu(), batch_first=True, enforce_sorted=False
        )
        packed_values, (h, c) = m.encoder(packed)
        values, _ = pad_packed_sequence(packed_values, batch_first=True, total_length=src.shape[1])
        values = values.gather(1, order.expand_as(values))
        bias = torch.where(real_token_mask(src, src_len), 0.0, PADDING_BIAS)
        memory = m.attention.key(values), values, bias
        fed = torch.cat([torch.full_like(target[:, :1], GO), target[:, :-1]], dim=1)
        embedded = m.dropout(m.embedding(fed))  # (B, T, E)
        hidden, attn = list(zip(h, c, strict=True)), torch.zeros_like(h[0])
        vectors = []
        for x in embedded.unbind(1):
            y = torch.cat([x, attn], dim=-1)
            for layer, cell in enumerate(m.cells):
                hidden[layer] = cell(y, hidden[layer])
                y = m.dropout(hidden[layer][0]) if layer + 1 < len(hidden) else hidden[layer][0]
            context, _ = m.attention(m.attention.query(y), *memory)
            attn = m.attention_vector(torch.cat([y, context], dim=-1))
            vectors.append(attn)
        logits = m.output(m.dropout(torch.stack(vectors, dim=1)))  # (B, T, V)
        real = real_token_mask(target, target_len)
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), target.masked_fill(~real, -100).flatten(), ignore_index=-100
        )


def make_local(
    name: str,
    update: Callable[[Batch], None],
    model: nn.Module,
    summed_loss: Callable[[Batch], Tensor],
    device: Device,
) -> Implementation:
    """An implementation that trains in this process. Its updates end with a number of the last operation, so
    a GPU has completed them."""
    clock = time.process_time if device == "cpu" else time.perf_counter

    def timed(pairs: Pairs) -> float:
        batch = collate(*pairs)
        start = clock()
        update(batch)
        return clock() - start

    @torch.no_grad()
    def loss(pairs: Pairs) -> float:
        with evaluation_mode(model):
            return summed_loss(collate(*pairs).to(device)).item()

    return Implementation(name, timed, loss)


def make_plain_loop(config: ModelConfig, vocab_size: int, device: Device) -> Implementation:
    """The plain loop with a whole update in straightforward PyTorch."""
    loop = PlainLoop(new_model(config, vocab_size)).to(device)
    optimizer = torch.optim.Adam(loop.parameters(), lr=LEARNING_RATE)

    def update(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = loop(*batch.to(device))
        loss.backward()
        nn.utils.clip_grad_norm_(loop.parameters(), CLIP)
        optimizer.step()
        next(loop.parameters())[0, 0].item()

    return make_local("plain loop", update, loop, lambda batch: loop(*batch) * batch.target_len.sum(), device)


def make_edgechat(
    config: ModelConfig, vocab_size: int, amp: str, device: Device, kind: str = ""
) -> Implementation:
    """The update of `edgechat train`. `kind` is added to the name in the table."""
    options = TrainingConfig(amp=amp, clip=CLIP)  # type: ignore[arg-type]
    updater = Updater(new_model(config, vocab_size), options, device, SINGLE_PROCESS)
    steps = iter(range(1, 1 << 30))

    def update(batch: Batch) -> None:
        updater.update([(batch, 1.0)], int(batch.target_len.sum()), step=next(steps), rate=LEARNING_RATE)
        next(updater.model.parameters())[0, 0].item()

    def summed_loss(batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(*updater.model(*batch), reduction="sum")

    return make_local(f"edgechat {updater.precision}{kind}", update, updater.model, summed_loss, device)


def new_model(config: ModelConfig, vocab_size: int) -> Seq2Seq:
    torch.manual_seed(0)
    return Seq2Seq(config, vocab_size)


def make_implementations(
    config: ModelConfig, vocab_size: int, peers: list[TrainingPeer], device: Device
) -> Iterator[Implementation]:
    """All implementations, each with its own initial weights. Starts the processes of `peers`."""
    yield make_plain_loop(config, vocab_size, device)
    for peer in peers:
        # JoeyNMT's hidden size is that of each direction, of which its encoder always has two.
        direction = config.hidden // 2 if peer.half_size else config.hidden
        peer.start(
            TrainingSettings(
                config.layers, config.hidden, direction, config.embedding, vocab_size, config.dropout,
                LEARNING_RATE, CLIP,
            )
        )  # fmt: skip
        yield make_peer(peer)
    yield make_edgechat(config, vocab_size, "off", device)
    if not is_emulated("bf16", device):
        yield make_edgechat(config, vocab_size, "bf16", device)
    # For comparison with JoeyNMT, whose encoder is always bidirectional.
    yield make_edgechat(replace(config, bidirectional=True), vocab_size, "off", device, " two-way")


def make_peer(peer: TrainingPeer) -> Implementation:
    """An implementation that trains in its own process."""
    return Implementation(
        TOOLKIT_NAMES[peer.name] + (" half" if peer.half_size else ""),
        lambda pairs: peer.update(*pairs),
        lambda pairs: peer.loss(*pairs),
    )


def random_pairs(count: int) -> EncodedPairs:
    """Random pairs with the lengths of open chat: 3 to 40 tokens per side, most of them short."""
    random = np.random.default_rng(0)

    def side() -> tuple[np.ndarray, np.ndarray]:
        lengths = np.clip(random.gamma(2.5, 4.5, size=count).astype(np.int64), 3, 40)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return random.integers(5, VOCABULARY, size=int(offsets[-1])).astype(np.uint16), offsets

    (src_ids, src_offsets), (tgt_ids, tgt_offsets) = side(), side()
    tgt_ids[tgt_offsets[1:] - 1] = EOS
    return EncodedPairs(src_ids, src_offsets, tgt_ids, tgt_offsets)


def generate_batches(pairs: EncodedPairs, size: int) -> Iterator[Pairs]:
    """Batches of similar length, epoch after epoch."""
    epoch = 0
    while True:
        for (indices,) in plan_epoch(pairs, TrainingConfig(batch_size=size), epoch):
            yield select_pairs(pairs, indices)
        epoch += 1


def select_pairs(pairs: EncodedPairs, indices: np.ndarray) -> Pairs:
    return [pairs.source(i).tolist() for i in indices], [pairs.target(i).tolist() for i in indices]


def count_target_tokens(pairs: Pairs) -> int:
    return sum(map(len, pairs[1]))


@dataclass(frozen=True)
class Row:
    name: str
    batch: int
    speed: float  # target tokens a second of CPU time, or of time on a GPU
    ratio: float  # to the plain loop
    perplexity: float | None

    def __str__(self) -> str:
        perplexity = "" if self.perplexity is None else f" {self.perplexity:>10.3f}"
        return f"{self.name:<21} {self.batch:>5} {self.speed:>9.0f} {self.ratio:>5.2f}x{perplexity}"


def measure(
    implementations: list[Implementation], batches: Iterator[Pairs], updates: int
) -> dict[str, float]:
    """Target tokens per second, by implementation. The first update is a warm-up and does not count."""
    seconds = dict.fromkeys((implementation.name for implementation in implementations), 0.0)
    tokens = 0
    for number in range(updates):
        pairs = next(batches)
        for implementation in implementations:
            took = implementation.update(pairs)
            if number or updates == 1:
                seconds[implementation.name] += took
        if number or updates == 1:
            tokens += count_target_tokens(pairs)
    return {name: tokens / total for name, total in seconds.items()}


def perplexity(implementation: Implementation, valid: EncodedPairs) -> float:
    order = np.unique(np.linspace(0, len(valid) - 1, num=min(MAX_VALID_PAIRS, len(valid)), dtype=np.int64))
    batches = [select_pairs(valid, order[i : i + 50]) for i in range(0, len(order), 50)]
    return math.exp(sum(map(implementation.loss, batches)) / sum(map(count_target_tokens, batches)))


def compare(
    config: ModelConfig, vocab_size: int, size: int, peers: list[TrainingPeer], pairs: EncodedPairs,
    updates: int, valid: EncodedPairs | None, device: Device,
) -> Iterator[Row]:  # fmt: skip
    try:
        implementations = list(make_implementations(config, vocab_size, peers, device))
        speeds = measure(implementations, generate_batches(pairs, size), updates)
        for implementation in implementations:
            speed = speeds[implementation.name]
            measured = perplexity(implementation, valid) if valid is not None else None
            yield Row(implementation.name, size, speed, speed / speeds["plain loop"], measured)
    finally:
        for peer in peers:
            peer.stop()


def targets(rows: list[Row]) -> Iterator[tuple[str, float, float]]:
    """The performance targets of the project whose figures were all measured: (what, measured, minimum)."""
    found = {(row.name, row.batch): row.speed for row in rows}
    bf16, fp32, plain = "edgechat bf16", "edgechat fp32", "plain loop"
    bounds = [(bf16, plain, 64, 1.5), (bf16, plain, 128, 1.8)]
    for batch in (64, 128):
        bounds += [(bf16, "OpenNMT-py", batch, 1.6), (bf16, "JoeyNMT", batch, 3.0)]
        bounds += [(fp32, "OpenNMT-py", batch, 1.0), (fp32, "JoeyNMT", batch, 1.0)]
    for ours, theirs, batch, minimum in bounds:
        if {(ours, batch), (theirs, batch)} <= found.keys():
            yield f"{ours} beside {theirs}, batch {batch}", found[ours, batch] / found[theirs, batch], minimum


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--rounds", type=int, default=15, help="number of timed updates")
    parser.add_argument("--data", nargs="+", metavar="FILE", help="train on these files, not on random ids")
    parser.add_argument(
        "--updates", type=int, metavar="N", help="with --data: number of updates before the perplexity"
    )
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--embedding", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument(
        "--peers", type=Path, default=Path("build/peers"), help="folder that contains NAME/bin/python"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed (on the CPU)")
    arguments = parser.parse_args()
    if (arguments.data is None) != (arguments.updates is None):
        parser.error("--data and --updates go together")
    torch.set_num_threads(1)
    try:
        device = torch_device(arguments.device)
    except DeviceError as error:
        parser.error(str(error))
    peers, missing = find_training_peers(arguments.peers) if device == "cpu" else ([], [])
    if is_emulated("bf16", device):
        missing.append("edgechat bf16: this CPU does not compute in bf16")
    for line in missing:
        print(f"skipped {line}")
    sizes = {"layers": arguments.layers, "hidden": arguments.hidden, "embedding": arguments.embedding}
    # With few updates dropout matters more than the implementation, so --data trains without it.
    config = ModelConfig(**sizes, attention=256, dropout=0.0 if arguments.data else DROPOUT)
    valid, vocab_size, updates = None, VOCABULARY, arguments.rounds + 1
    if arguments.data:
        prepared = prepare_corpus(open_corpus(arguments.data), DataConfig(vocab_size=VOCABULARY))
        valid, vocab_size, updates = prepared.valid, prepared.codec.vocab_size, arguments.updates
        print(f"{len(prepared.train):,} pairs, vocabulary {vocab_size:,}, {updates:,} updates, no dropout")
    last = " perplexity" if arguments.data else ""
    clock = "a second of CPU time" if device == "cpu" else f"a second on {torch.cuda.get_device_name()}"
    print(f"{'':<21} {'batch':>5} {'tokens/s':>9} {'ratio':>6}{last}   target tokens {clock}")
    rows = []
    for size in arguments.batches:
        pairs = prepared.train if arguments.data else random_pairs(size * 200)
        for row in compare(config, vocab_size, size, peers, pairs, updates, valid, device):
            print(row, flush=True)
            rows.append(row)
    if arguments.data or device == "cuda":
        return
    versions = {TOOLKIT_NAMES[peer.name]: peer.version for peer in peers}
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    missed = False
    for what, measured, minimum in targets(rows):
        missed |= measured < minimum
        verdict = "pass" if measured >= minimum else "MISSED"
        print(f"{verdict:<6}  {what:<45} {measured:>6.2f}x  at least {minimum:g}x")
    if arguments.check and missed:
        sys.exit(1)


if __name__ == "__main__":
    main()
