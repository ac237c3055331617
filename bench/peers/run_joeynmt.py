"""JoeyNMT: its recurrent model with input feeding, its beam search."""

from collections.abc import Callable
from importlib.metadata import version
from types import SimpleNamespace

import torch
from joeynmt.batch import Batch
from joeynmt.model import build_model
from joeynmt.search import search
from joeynmt.vocabulary import Vocabulary
from joeynmt_special import SPECIAL
from serve import serve


def make(size: SimpleNamespace) -> Callable[[], int]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vocabulary = Vocabulary([str(i) for i in range(size.vocab_size - 4)], SPECIAL)
    side = {
        "type": "recurrent",
        "rnn_type": "lstm",
        "embeddings": {"embedding_dim": size.embedding},
        "num_layers": size.layers,
    }
    # Version 2.3.0 cannot run a unidirectional encoder; two directions of half the size are equally large.
    encoder = {**side, "hidden_size": size.hidden // 2, "bidirectional": True}
    decoder = {**side, "hidden_size": size.hidden, "attention": "luong", "init_hidden": "bridge"}
    config = {"encoder": encoder, "decoder": decoder}
    model = build_model(config, vocabulary, vocabulary).eval()
    src = torch.randint(4, size.vocab_size, (size.batch, size.source))
    batch = Batch(
        src, torch.full((size.batch,), size.source), None, None, None, torch.arange(size.batch),
        torch.device("cpu"), SPECIAL.pad_id, SPECIAL.eos_id, is_train=False,
    )  # fmt: skip

    def decode() -> int:
        output, _, _ = search(
            model, batch, size.steps, size.beam, beam_alpha=1.0, min_output_length=size.steps
        )
        return int(output.shape[1])

    return decode


serve(make, version("joeynmt"))
