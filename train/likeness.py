"""How similar the replies of a model are to the given ones."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from ..runtime.chat import ChatModel
from ..runtime.options import DecodingOptions
from ..runtime.text import normal_form
from .dialogue import Pair


class Likeness(NamedTuple):
    """Similarity of replies to the given ones. The share is from 0 to 1, BLEU and chrF from 0 to 100."""

    exact_match: float  # share of replies that equal the given one, letter for letter
    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str


def likeness(replies: Sequence[str], given: Sequence[str], *, tokenize: str = "13a") -> Likeness:
    """Compare the replies of a model with the given ones, pair by pair. `tokenize` is sacrebleu's."""
    # The given replies are in the normal form that the model learned. Its own are compared as they are:
    # decoding does not normalize, so a letter in another normal form is a difference.
    references = [normal_form(response) for response in given]
    bleu, chrf = BLEU(tokenize=tokenize), CHRF()
    return Likeness(
        exact_match=float(np.mean([a == b for a, b in zip(replies, references, strict=True)])),
        bleu=float(bleu.corpus_score(replies, [references]).score),
        bleu_signature=str(bleu.get_signature()),
        chrf=float(chrf.corpus_score(replies, [references]).score),
        chrf_signature=str(chrf.get_signature()),
    )


def decoded_scores(model: ChatModel, pairs: Sequence[Pair]) -> dict[str, float]:
    """`exact_match` (0 to 1), `bleu` and `chrf` (0 to 100) of greedy replies, which are quick enough for a
    validation."""
    replies = [
        reply.text for reply in model.reply_turns([pair.turns for pair in pairs], DecodingOptions(beam=1))
    ]
    like = likeness(replies, [pair.response for pair in pairs])
    return {"exact_match": like.exact_match, "bleu": like.bleu, "chrf": like.chrf}
