"""Every option of the model, alone and combined, for tests of several packages."""

import torch

from edgechat.train.model import ModelConfig, Seq2Seq

#: The differences from the default, by the name that the id of a test shows.
OPTIONS = {
    "normed": {"attention_kind": "bahdanau-normed"},
    "dot": {"attention_kind": "luong-dot"},
    "general": {"attention_kind": "luong-general"},
    "scaled": {"attention_kind": "scaled"},
    "unfed": {"input_feeding": False},
    "bidirectional": {"bidirectional": True},
    "residual": {"layers": 3, "residual": True},
    "norm": {"layers": 3, "layer_norm": True},
    "tied": {"tied_output": True},
    "tied-square": {"tied_output": True, "embedding": 16},
    "copy": {"copy_attention": True},
    "copy-unfed": {"copy_attention": True, "input_feeding": False},
    "deep": {"layers": 4, "residual": True, "layer_norm": True, "bidirectional": True},
    "deep-unfed": {"layers": 3, "residual": True, "layer_norm": True, "input_feeding": False},
    "all": {
        "layers": 2,
        "attention_kind": "scaled",
        "input_feeding": False,
        "bidirectional": True,
        "residual": True,
        "layer_norm": True,
        "tied_output": True,
        "copy_attention": True,
    },
}


def model_with(option: str, vocab_size: int, *, sharpen: float = 1.5, dropout: float = 0.0) -> Seq2Seq:
    """An untrained model. `sharpen` scales its initial weights, so that differences show more."""
    torch.set_num_threads(1)  # more are no faster at these sizes
    torch.manual_seed(5)
    sizes = {"layers": 2, "hidden": 16, "embedding": 6, "attention": 10, "dropout": dropout}
    model = Seq2Seq(ModelConfig(**(sizes | OPTIONS[option])), vocab_size).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(sharpen)
    return model
