"""The ingredients of a new run: its configuration, its encoded corpus and, if known, its initial weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..runtime.display import plural
from .config import RunConfig
from .dataset import PreparedCorpus
from .pretrained import PretrainedVectors
from .tokenizer import MIN_VOCAB_SIZE

#: Training pairs per multi-byte token below which a hint on copy attention is printed.
_MIN_PAIRS_PER_TOKEN = 10


@dataclass(frozen=True)
class BaseCheckpoint:
    """The checkpoint of another run that a new one starts from. It is read once, since that run may be in
    training."""

    folder: Path
    checkpoint: str
    data_name: str  # names of the data that it learned from
    step: int
    weights: bytes


@dataclass(frozen=True)
class RunInputs:
    """A configuration, an encoded corpus, and initial weights if they are known."""

    config: RunConfig
    prepared: PreparedCorpus
    base: BaseCheckpoint | None = None
    pretrained: PretrainedVectors | None = None

    @property
    def initial_weights(self) -> bytes | None:
        """The weights of `base`, if there is one."""
        return None if self.base is None else self.base.weights

    def remarks(self) -> Iterator[str]:
        """Lines to print after the report of the corpus."""
        prepared, base, pretrained = self.prepared, self.base, self.pretrained
        merged = prepared.codec.vocab_size - MIN_VOCAB_SIZE  # tokens of more than one byte
        pairs = prepared.report.train_pairs
        if self.config.model.copy_attention and merged * _MIN_PAIRS_PER_TOKEN > pairs:
            yield (
                f"hint: --copy-attention copies token by token, and {plural(pairs, 'training pair')} can "
                f"hardly teach most of {merged:,} tokens: a --vocab-size closer to {MIN_VOCAB_SIZE} "
                "copies new values better"
            )
        if base is not None:
            yield f"begins with the {base.checkpoint} weights of {base.folder}, step {base.step:,}"
        if pretrained is not None:
            yield f"{pretrained.found:,} of {pretrained.vocab_size:,} tokens have a pretrained vector"
