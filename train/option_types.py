"""Types of options that take one of a few words. It imports nothing heavy, so that --help is fast."""

from typing import Literal

AmpMode = Literal["off", "auto", "bf16", "fp16"]
AttentionKind = Literal["bahdanau", "bahdanau-normed", "luong-dot", "luong-general", "scaled"]
DeviceName = Literal["auto", "cpu", "cuda"]
MetricName = Literal["loss", "perplexity", "exact-match", "bleu", "chrf"]
OptimizerName = Literal["adam", "adamw", "sgd"]
ScheduleName = Literal["constant", "cosine", "inverse-sqrt", "plateau", "luong"]
TargetTurns = Literal["all", "second"]
