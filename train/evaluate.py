"""How good a model is on pairs it has not seen: perplexity of the given replies, and what its own replies
are like beside them."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from ..runtime.chat import ChatModel
from ..runtime.errors import DataError
from ..runtime.options import DecodingOptions
from ..runtime.scheduler import BATCH_SIZE
from ..runtime.scoring import score_targets
from ..runtime.text import normal_form
from .loss import perplexity_of

Pair = tuple[Sequence[str], str]  # the turns of the context, oldest first, and the reply


class Likeness(NamedTuple):
    """How like the given replies a model's own are: a share from 0 to 1, BLEU and chrF from 0 to 100."""

    exact_match: float  # share of replies that are the given one, to the letter
    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str


@dataclass(frozen=True)
class Evaluation:
    """Figures over all pairs. Shares are from 0 to 1, BLEU and chrF from 0 to 100."""

    pairs: int
    perplexity: float  # of the given replies, over their tokens with the end-of-sentence
    exact_match: float  # share of replies that are the given one, to the letter
    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str
    distinct_1: float  # distinct words over all words of the replies (Li et al. 2016, arXiv:1510.03055)
    distinct_2: float  # the same of pairs of words
    mean_length: float  # words a reply
    eos_rate: float  # share of replies that end by themselves
    most_common_reply: str
    most_common_share: float
    truncated_prompts: int
    truncated_targets: int  # given replies whose perplexity is only that of their beginning
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    model: ChatModel,
    pairs: Sequence[Pair],
    options: DecodingOptions | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    tokenize: str = "13a",
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score and decode all pairs. `progress` is called with the number of pairs done, twice for each.

    `tokenize` is sacrebleu's: "13a" for plain text, "none" for text that is tokenised already.

    Raises:
        DataError: there are no pairs.
    """
    if not pairs:
        raise DataError("there are no pairs to evaluate on")
    start = time.perf_counter()
    sources = [model.codec.encode_source(turns) for turns, _ in pairs]
    targets = [model.codec.encode_target(response) for _, response in pairs]
    logps = score_targets(
        model.backend,
        [s.ids for s in sources],
        [ids for ids, _ in targets],
        batch_size=batch_size,
        progress=progress,
    )
    replies = model.reply_turns(
        [turns for turns, _ in pairs], options, batch_size=batch_size, progress=progress
    )
    texts = [reply.text for reply in replies]
    common, count = Counter(texts).most_common(1)[0]
    words = [text.split() for text in texts]
    return Evaluation(
        pairs=len(pairs),
        perplexity=perplexity_of(logps),
        **likeness(texts, [response for _, response in pairs], tokenize=tokenize)._asdict(),
        distinct_1=distinct(words, 1),
        distinct_2=distinct(words, 2),
        mean_length=float(np.mean([len(w) for w in words])),
        eos_rate=float(np.mean([reply.candidates[0].finished for reply in replies])),
        most_common_reply=common,
        most_common_share=count / len(texts),
        truncated_prompts=sum(source.truncated for source in sources),
        truncated_targets=sum(truncated for _, truncated in targets),
        seconds=time.perf_counter() - start,
    )


def likeness(replies: Sequence[str], given: Sequence[str], *, tokenize: str = "13a") -> Likeness:
    """Of a model's replies to those that are given, pair by pair."""
    # As the model learned them. Its replies are compared as they are: decoding does not normalize, so
    # one that spells a letter in another normal form is another one.
    references = [normal_form(response) for response in given]
    bleu, chrf = BLEU(tokenize=tokenize), CHRF()
    return Likeness(
        exact_match=float(np.mean([a == b for a, b in zip(replies, references, strict=True)])),
        bleu=float(bleu.corpus_score(replies, [references]).score),
        bleu_signature=str(bleu.get_signature()),
        chrf=float(chrf.corpus_score(replies, [references]).score),
        chrf_signature=str(chrf.get_signature()),
    )


def distinct(replies: Sequence[Sequence[str]], n: int) -> float:
    """Distinct n-grams of all replies over their number; 0 where there are none."""
    grams = [tuple(reply[i : i + n]) for reply in replies for i in range(len(reply) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def decoded_scores(model: ChatModel, pairs: Sequence[Pair]) -> dict[str, float]:
    """`exact_match` (0 to 1), `bleu` and `chrf` (0 to 100) of greedy replies: quick, for validation."""
    replies = [
        reply.text for reply in model.reply_turns([turns for turns, _ in pairs], DecodingOptions(beam=1))
    ]
    like = likeness(replies, [response for _, response in pairs])
    return {"exact_match": like.exact_match, "bleu": like.bleu, "chrf": like.chrf}
