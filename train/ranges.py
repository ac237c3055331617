"""The ranges of the numbers of a configuration, for options and files alike.

The upper limits are those of the libraries underneath, or of a bundle: nothing is trained that could not be
exported.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args, get_origin, get_type_hints

from ..runtime.errors import UsageError
from ..runtime.graph_check import MAX_ROW_ELEMENTS
from ..runtime.options import MAX_LENGTH, MAX_SEED
from .tokenizer import MIN_VOCAB_SIZE
from .toml import check_type

#: A condition in words and as a test. NaN must fail each test.
_Condition = tuple[str, Callable[[float], bool]]
_Range = tuple[_Condition, ...]


def _at_least(minimum: float) -> _Condition:
    return f"at least {minimum}", lambda value: value >= minimum


def _at_most(maximum: float) -> _Condition:
    return f"at most {maximum}", lambda value: value <= maximum


def _above(number: float) -> _Condition:
    return f"above {number}", lambda value: value > number


def _below(number: float) -> _Condition:
    return f"below {number}", lambda value: value < number


_FINITE: _Condition = ("a finite number", math.isfinite)
_COUNT: _Range = (_at_least(1), _at_most((1 << 31) - 1))
_WIDTH: _Range = (_at_least(1), _at_most(1 << 16))
_FRACTION: _Range = (_at_least(0), _below(1))
_PROBABILITY: _Range = (_at_least(0), _at_most(1))

_RANGES: dict[str, _Range] = {
    "layers": (_at_least(1), _at_most(64)),
    **dict.fromkeys(("hidden", "embedding", "attention"), _WIDTH),
    **dict.fromkeys(("dropout", "embedding_dropout", "attention_dropout", "word_dropout"), _FRACTION),
    "turns": (_at_least(1), _at_most(MAX_LENGTH)),
    "vocab_size": (_at_least(MIN_VOCAB_SIZE), _at_most(MAX_ROW_ELEMENTS)),
    "max_source": (_at_least(1), _at_most(MAX_LENGTH)),
    "max_target": (_at_least(2), _at_most(MAX_LENGTH)),
    "valid_fraction": _FRACTION,
    "seed": (_at_least(0), _at_most(MAX_SEED)),
    **dict.fromkeys(("epochs", "max_steps", "batch_size", "batch_tokens", "accumulate"), _COUNT),
    **dict.fromkeys(("decay_start", "decay_every", "plateau_patience"), _COUNT),
    **dict.fromkeys(("save_every", "keep", "patience"), _COUNT),
    "warmup_steps": (_at_least(0), *_COUNT[1:]),
    "learning_rate": (_above(0), _FINITE, _at_most(1e30)),  # float32, in which it is multiplied, ends at 3e38
    "weight_decay": (_at_least(0), _FINITE),
    "clip": (_above(0),),
    "decay": (_above(0), _below(1)),
    **dict.fromkeys(("momentum", "adam_beta1", "adam_beta2", "label_smoothing", "ema"), _FRACTION),
    "adam_epsilon": (_above(0), _FINITE),
    **dict.fromkeys(("scheduled_sampling", "bpe_dropout"), _PROBABILITY),
    "threads": (_at_least(1), _at_most(1024)),
    "max_minutes": (_above(0),),
}


def check_values(section: object) -> None:
    """Raise UsageError for the first value of a section that is out of range, or is none of the words that
    its type allows."""
    kinds = get_type_hints(type(section))
    for name, value in vars(section).items():
        if Literal in (get_origin(kinds[name]), *map(get_origin, get_args(kinds[name]))):
            check_type(value, kinds[name], name)
        for words, holds in _RANGES.get(name, ()) if value is not None else ():
            if not holds(value):
                raise UsageError(f"{name} must be {words}, not {value}")
