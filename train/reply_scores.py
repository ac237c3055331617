"""How similar the replies of a model are to the given ones."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from ..runtime.chat import ChatModel
from ..runtime.options import DecodingOptions
from ..runtime.text import to_nfc
from .dialogue import Pair


class ReplyScores(NamedTuple):
    """Similarity of replies to the given ones. The share is from 0 to 1, BLEU and chrF from 0 to 100."""

    exact_match: float  # share of replies that equal the given one, letter for letter
    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str


def score_replies(replies: Sequence[str], responses: Sequence[str], *, tokenize: str = "13a") -> ReplyScores:
    """Compare the replies of a model with the given ones, pair by pair. `tokenize` is sacrebleu's."""
    # The given replies are in the normal form that the model learned. Its own are compared as they are:
    # decoding does not normalize, so a letter in another normal form is a difference.
    references = [to_nfc(response) for response in responses]
    bleu, chrf = BLEU(tokenize=tokenize), CHRF()
    return ReplyScores(
        exact_match=float(np.mean([a == b for a, b in zip(replies, references, strict=True)])),
        bleu=float(bleu.corpus_score(replies, [references]).score),
        bleu_signature=str(bleu.get_signature()),
        chrf=float(chrf.corpus_score(replies, [references]).score),
        chrf_signature=str(chrf.get_signature()),
    )


def score_greedy_replies(model: ChatModel, pairs: Sequence[Pair]) -> dict[str, float]:
    """`exact_match` (0 to 1), `bleu` and `chrf` (0 to 100) of greedy replies, which are quick enough for a
    validation."""
    replies = [
        reply.text for reply in model.reply_turns([pair.turns for pair in pairs], DecodingOptions(beam=1))
    ]
    scores = score_replies(replies, [pair.response for pair in pairs])
    return {"exact_match": scores.exact_match, "bleu": scores.bleu, "chrf": scores.chrf}
