"""The ranges of the numbers of a configuration, for options and files alike.

The upper limits are those of the libraries underneath, or of a bundle: nothing is trained that could not be
exported.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args, get_origin, get_type_hints

from ..runtime.errors import UsageError
from ..runtime.graphcheck import LARGEST_ROW
from ..runtime.options import MAX_LENGTH, MAX_SEED
from .tokenizer import SMALLEST_VOCABULARY
from .toml import of_type

#: A condition in words and as a test. NaN must fail each test.
_Condition = tuple[str, Callable[[float], bool]]
_Range = tuple[_Condition, ...]


def _from(least: float) -> _Condition:
    return f"at least {least}", lambda value: value >= least


def _to(most: float) -> _Condition:
    return f"at most {most}", lambda value: value <= most


def _above(number: float) -> _Condition:
    return f"above {number}", lambda value: value > number


def _below(number: float) -> _Condition:
    return f"below {number}", lambda value: value < number


_FINITE: _Condition = ("a finite number", math.isfinite)
_COUNT: _Range = (_from(1), _to((1 << 31) - 1))
_WIDTH: _Range = (_from(1), _to(1 << 16))
_SHARE: _Range = (_from(0), _below(1))
_PROBABILITY: _Range = (_from(0), _to(1))

_RANGES: dict[str, _Range] = {
    "layers": (_from(1), _to(64)),
    **dict.fromkeys(("hidden", "embedding", "attention"), _WIDTH),
    **dict.fromkeys(("dropout", "embedding_dropout", "attention_dropout", "word_dropout"), _SHARE),
    "turns": (_from(1), _to(MAX_LENGTH)),
    "vocab_size": (_from(SMALLEST_VOCABULARY), _to(LARGEST_ROW)),
    "max_source": (_from(1), _to(MAX_LENGTH)),
    "max_target": (_from(2), _to(MAX_LENGTH)),
    "valid_fraction": _SHARE,
    "seed": (_from(0), _to(MAX_SEED)),
    **dict.fromkeys(("epochs", "max_steps", "batch_size", "batch_tokens", "accumulate"), _COUNT),
    **dict.fromkeys(("decay_start", "decay_every", "plateau_patience"), _COUNT),
    **dict.fromkeys(("save_every", "keep", "patience"), _COUNT),
    "warmup_steps": (_from(0), *_COUNT[1:]),
    "learning_rate": (_above(0), _FINITE),
    "weight_decay": (_from(0), _FINITE),
    "clip": (_above(0),),
    "decay": (_above(0), _below(1)),
    **dict.fromkeys(("momentum", "label_smoothing", "ema"), _SHARE),
    **dict.fromkeys(("scheduled_sampling", "bpe_dropout"), _PROBABILITY),
    "threads": (_from(1), _to(1024)),
    "max_minutes": (_above(0),),
}


def check_values(section: object) -> None:
    """Raise UsageError for the first value of a section that is out of range, or is none of the words that
    its type allows."""
    kinds = get_type_hints(type(section))
    for name, value in vars(section).items():
        if Literal in (get_origin(kinds[name]), *map(get_origin, get_args(kinds[name]))):
            of_type(value, kinds[name], name)
        for words, holds in _RANGES.get(name, ()) if value is not None else ():
            if not holds(value):
                raise UsageError(f"{name} must be {words}, not {value}")
