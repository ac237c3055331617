"""JoeyNMT: its recurrent model with input feeding, its loss, and the steps of its TrainManager."""

import tempfile
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import torch
from joeynmt.batch import Batch
from joeynmt.config import parse_train_args
from joeynmt.model import build_model
from joeynmt.training import TrainManager
from joeynmt.vocabulary import Vocabulary
from joeynmt_special import SPECIAL
from serve import TrainingFunctions, padded, serve_training

#: JoeyNMT's ids of edgechat's ids 0 to 3: padding, start, end, unknown. All other ids are the same.
JOEYNMT_IDS = [SPECIAL.pad_id, SPECIAL.bos_id, SPECIAL.eos_id, SPECIAL.unk_id]
CPU = torch.device("cpu")


def to_joeynmt_ids(rows: list[list[int]]) -> list[list[int]]:
    return [[JOEYNMT_IDS[id] if id < len(JOEYNMT_IDS) else id for id in row] for row in rows]


def make(size: SimpleNamespace) -> TrainingFunctions:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    side = {
        "type": "recurrent",
        "rnn_type": "lstm",
        "embeddings": {"embedding_dim": size.embedding, "dropout": size.dropout},
        "num_layers": size.layers,
        "dropout": size.dropout,
    }
    # Version 2.3.0 cannot run a unidirectional encoder.
    encoder = {**side, "hidden_size": size.direction, "bidirectional": True}
    first = "last" if 2 * size.direction == size.hidden else "bridge"
    decoder = {**side, "hidden_size": size.hidden, "attention": "bahdanau", "init_hidden": first}
    words = Vocabulary([str(i) for i in range(size.vocab_size - len(JOEYNMT_IDS))], SPECIAL)
    model = build_model({"encoder": encoder, "decoder": decoder}, words, words)
    model.loss_function = ("crossentropy", 0.0)
    options = parse_train_args(
        {
            "optimizer": "adam",
            "learning_rate": size.learning_rate,
            "clip_grad_norm": size.clip,
            "normalization": "tokens",
            "scheduling": "exponential",  # applied after each epoch; none ends, so the rate is constant
            "batch_size": 1,  # of its data loader, which is not used
        }
    )
    manager = TrainManager(
        rank=0, model=model, model_dir=Path(tempfile.mkdtemp()), device=CPU,
        autocast={"device_type": "cpu", "enabled": False}, train_args=options,
    )  # fmt: skip
    model.zero_grad()

    def batch(sources: list[list[int]], targets: list[list[int]]) -> Batch:
        decoder_inputs_and_targets = [[SPECIAL.bos_id, *target] for target in to_joeynmt_ids(targets)]
        src, trg = (
            torch.tensor(padded(rows, SPECIAL.pad_id))
            for rows in (to_joeynmt_ids(sources), decoder_inputs_and_targets)
        )
        return Batch(
            src, torch.tensor(list(map(len, sources))), None, trg, None, torch.arange(len(sources)), CPU,
            SPECIAL.pad_id, SPECIAL.eos_id, is_train=True,
        )  # fmt: skip

    def update(batch: Batch) -> None:
        # The lines of TrainManager.train_and_validate, for one batch per step.
        manager._train_step(batch)
        manager.clip_grad_fun(parameters=model.parameters())
        manager.optimizer.step()
        model.zero_grad()

    @torch.no_grad()
    def loss(batch: Batch) -> float:
        model.eval()
        batch.sort_by_src_length()
        return float(model(return_type="loss", **vars(batch))[0])

    return TrainingFunctions(batch, update, loss)


serve_training(make, version("joeynmt"))
