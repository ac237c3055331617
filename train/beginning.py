"""What a new run is made of."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .config import RunConfig
from .dataset import Prepared
from .pretrained import Pretrained
from .tokenizer import SMALLEST_VOCABULARY

#: Training pairs for each token of more than a byte, below which copying is warned of.
_PAIRS_A_TOKEN = 10


@dataclass(frozen=True)
class Base:
    """The checkpoint of another run that one begins with, read once: that run may be trained meanwhile."""

    folder: Path
    checkpoint: str
    data: str  # what it learned from, by name
    step: int
    weights: bytes


@dataclass(frozen=True)
class Beginning:
    """A configuration, an encoded corpus, and first weights where these are known."""

    config: RunConfig
    prepared: Prepared
    base: Base | None = None
    pretrained: Pretrained | None = None

    @property
    def first_weights(self) -> bytes | None:
        """Those of `base`."""
        return None if self.base is None else self.base.weights

    def remarks(self) -> Iterator[str]:
        """What is to be said of it, besides the report of the corpus."""
        prepared, base, pretrained = self.prepared, self.base, self.pretrained
        merged = prepared.codec.vocab_size - SMALLEST_VOCABULARY  # tokens of more than a byte
        if self.config.model.copy_attention and merged * _PAIRS_A_TOKEN > prepared.report.train_pairs:
            yield (
                f"hint: --copy-attention copies token by token, and with so few pairs most of {merged:,} "
                f"tokens are hardly learned: a --vocab-size nearer to {SMALLEST_VOCABULARY} copies new "
                "values better"
            )
        if base is not None:
            yield f"begins with the {base.checkpoint} weights of {base.folder}, step {base.step:,}"
        if pretrained is not None:
            yield (
                f"pretrained          {pretrained.found:,} of {pretrained.vocab_size:,} tokens have a vector"
            )
