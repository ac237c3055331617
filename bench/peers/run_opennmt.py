"""OpenNMT-py: its recurrent model with input feeding, its beam search."""

from collections.abc import Callable
from importlib.metadata import version
from types import SimpleNamespace

import pyonmttok
import torch
from onmt.decoders.decoder import InputFeedRNNDecoder
from onmt.encoders.rnn_encoder import RNNEncoder
from onmt.models.model import NMTModel
from onmt.modules import Embeddings
from onmt.translate.beam_search import GNMTGlobalScorer
from onmt.translate.translator import Translator
from serve import serve


def make(size: SimpleNamespace) -> Callable[[], int]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    special = ["<unk>", "<blank>", "<s>", "</s>"]
    words = [str(i) for i in range(size.vocab_size - len(special))]
    vocabulary = pyonmttok.build_vocab_from_tokens(words, special_tokens=special)
    padding = vocabulary["<blank>"]

    def embeddings() -> Embeddings:
        return Embeddings(size.embedding, len(vocabulary), padding)

    model = NMTModel(
        RNNEncoder("LSTM", False, size.layers, size.hidden, embeddings=embeddings()),
        InputFeedRNNDecoder("LSTM", False, size.layers, size.hidden, embeddings=embeddings()),
    )
    model.generator = torch.nn.Linear(size.hidden, len(vocabulary))
    vocabularies = {"src": vocabulary, "tgt": vocabulary, "decoder_start_token": "<s>"}
    translator = Translator(
        model.eval(),
        vocabularies,
        min_length=size.steps,
        max_length=size.steps,
        max_length_ratio=0,
        beam_size=size.beam,
        global_scorer=GNMTGlobalScorer(0.6, 0.0, "wu", "none"),
        report_score=False,
    )
    src = torch.randint(4, len(vocabulary), (size.batch, size.source, 1))
    batch = {
        "src": src,
        "srclen": torch.full((size.batch,), size.source),
        "cid": ["bench"] * size.batch,
        "cid_line_number": list(range(size.batch)),
        "ind_in_bucket": list(range(size.batch)),
    }

    def decode() -> int:
        found = translator.translate_batch(batch, attn_debug=False)
        return len(found["predictions"][0][0])

    return decode


serve(make, version("OpenNMT-py"))
