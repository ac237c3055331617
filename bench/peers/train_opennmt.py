"""OpenNMT-py: its recurrent model with input feeding, its loss and optimizer, the steps of its Trainer."""

from importlib.metadata import version
from types import SimpleNamespace

import pyonmttok
import torch
from onmt.model_builder import build_model
from onmt.opts import train_opts
from onmt.trainer import Trainer
from onmt.utils import Statistics
from onmt.utils.loss import LossCompute
from onmt.utils.optimizers import Optimizer
from onmt.utils.parse import ArgumentParser
from serve import TrainingFunctions, padded, serve_training

SPECIAL = ["<blank>", "<s>", "</s>", "<unk>"]  # with the same ids as in edgechat
PADDING, BEGIN = 0, 1


def options_of(size: SimpleNamespace) -> SimpleNamespace:
    """The toolkit's own options, with its defaults for those that are not given."""
    parser = ArgumentParser()
    train_opts(parser)
    given = {
        "data": "{}", "src_vocab": "none", "encoder_type": "rnn", "decoder_type": "rnn", "rnn_type": "LSTM",
        "layers": size.layers, "hidden_size": size.hidden, "word_vec_size": size.embedding,
        "global_attention": "mlp", "dropout": size.dropout, "optim": "adam", "max_grad_norm": size.clip,
        "learning_rate": size.learning_rate, "normalization": "tokens", "world_size": 0,
    }  # fmt: skip
    options = parser.parse_args([part for name, value in given.items() for part in (f"-{name}", str(value))])
    return ArgumentParser.update_model_opts(options) or options


def make(size: SimpleNamespace) -> TrainingFunctions:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options = options_of(size)
    words = [str(i) for i in range(size.vocab_size - len(SPECIAL))]
    vocabulary = pyonmttok.build_vocab_from_tokens(words, special_tokens=SPECIAL)
    assert [vocabulary[token] for token in SPECIAL] == [0, 1, 2, 3]
    assert len(vocabulary) == size.vocab_size
    vocabularies = {"src": vocabulary, "tgt": vocabulary, "data_task": "seq2seq"}
    model = build_model(options, options, vocabularies, None, -1)
    losses = LossCompute.from_opts(options, model, vocabulary)
    optimizer = Optimizer.from_opt(model, options)
    trainer = Trainer(
        model, losses, losses, None, {}, optimizer, norm_method=options.normalization, n_gpu=0, gpu_rank=-1
    )
    statistics = Statistics()

    def batch(sources: list[list[int]], targets: list[list[int]]) -> dict:
        decoder_inputs_and_targets = [[BEGIN, *target] for target in targets]
        return {
            "src": torch.tensor(padded(sources, PADDING))[..., None],
            "srclen": torch.tensor(list(map(len, sources))),
            "tgt": torch.tensor(padded(decoder_inputs_and_targets, PADDING))[..., None],
        }

    def update(batch: dict) -> None:
        # The lines of Trainer.train, for one batch.
        for batches, normalization in trainer._accum_batches([(batch, 0)]):
            trainer._gradient_accumulation(batches, normalization, statistics, statistics)

    @torch.no_grad()
    def loss(batch: dict) -> float:
        model.eval()
        out, attention = model(batch["src"], batch["tgt"], batch["srclen"])
        summed, _ = losses(batch, out, attention)
        model.train()
        return float(summed)

    return TrainingFunctions(batch, update, loss)


serve_training(make, version("OpenNMT-py"))
