"""The words that options of a training take. This module imports nothing heavy, so that --help is fast."""

from typing import Literal

Amp = Literal["off", "auto", "bf16", "fp16"]
AttentionKind = Literal["bahdanau", "bahdanau-normed", "luong-dot", "luong-general", "scaled"]
DeviceName = Literal["auto", "cpu", "cuda"]
Metric = Literal["loss", "perplexity", "exact-match", "bleu", "chrf"]
Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "cosine", "inverse-sqrt", "plateau", "luong"]
Targets = Literal["all", "second"]
