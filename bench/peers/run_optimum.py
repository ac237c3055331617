"""A Marian model of about 13 million parameters, exported and run by Optimum, with the beam search of
transformers."""

import tempfile
from collections.abc import Callable
from importlib.metadata import version
from types import SimpleNamespace

import onnxruntime
import torch
from optimum.exporters.onnx.convert import onnx_export_from_model
from optimum.onnxruntime import ORTModelForSeq2SeqLM
from serve import serve
from transformers import MarianConfig, MarianMTModel


def make(size: SimpleNamespace) -> Callable[[], int]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    width = 256
    config = MarianConfig(
        vocab_size=size.vocab_size, d_model=width, encoder_layers=6, decoder_layers=6,
        encoder_attention_heads=8, decoder_attention_heads=8, encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width, max_position_embeddings=64, pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0, forced_eos_token_id=None,
    )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        onnx_export_from_model(MarianMTModel(config).eval(), folder, task="text2text-generation-with-past")
        model = ORTModelForSeq2SeqLM.from_pretrained(folder, session_options=options, use_cache=True)
    src = torch.randint(2, size.vocab_size, (size.batch, size.source))

    def decode() -> int:
        found = model.generate(
            src,
            attention_mask=torch.ones_like(src),
            num_beams=size.beam,
            min_new_tokens=size.steps,
            max_new_tokens=size.steps,
        )
        return int(found.shape[1]) - 1  # the start token

    return decode


serve(make, version("optimum"))
