"""The evaluation of a model on unseen pairs: perplexity of the given replies, and the quality of its own."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..runtime.chat import ChatModel
from ..runtime.errors import DataError
from ..runtime.options import DecodingOptions
from ..runtime.scheduler import DEFAULT_BATCH_SIZE
from ..runtime.teacher_forcing import score_targets
from ..runtime.text import to_nfc
from .confidence import ConfidenceReport, measure_confidence
from .dialogue import Pair
from .perplexity import perplexity_of
from .reply_scores import score_replies


@dataclass(frozen=True)
class EvaluatedReply:
    """A reply that was evaluated."""

    turns: list[str]  # what the model replied to: the context, oldest first, then the prompt
    reference: str  # the given reply
    reply: str  # the model's own
    score: float  # as in `Reply`
    confidence: float | None  # as in `Reply`


@dataclass(frozen=True)
class Evaluation:
    """Figures over all pairs. Shares are from 0 to 1, BLEU and chrF from 0 to 100."""

    pairs: int
    perplexity: float  # of the given replies, over their tokens including end-of-sentence
    exact_match: float  # share of replies that equal the given one, letter for letter
    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str
    distinct_1: float  # distinct words / words of all replies (Li et al. 2016, arXiv:1510.03055)
    distinct_2: float  # the same for pairs of words
    mean_length: float  # words per reply
    eos_rate: float  # share of replies that end with end-of-sentence
    most_common_reply: str
    most_common_share: float
    truncated_prompts: int
    truncated_targets: int  # given replies of which only the beginning counts in the perplexity
    confidence: ConfidenceReport | None  # None if the model is not calibrated for these decoding options
    seconds: float
    replies: list[EvaluatedReply]  # one for each pair, in order

    def to_json(self) -> dict[str, Any]:
        """The figures, without the replies."""
        return {name: value for name, value in asdict(self).items() if name != "replies"}


def evaluate(
    model: ChatModel,
    pairs: Sequence[Pair],
    options: DecodingOptions | None = None,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    tokenize: str = "13a",
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score and decode all pairs. `progress` is called with the number of pairs done, twice for each.

    `tokenize` is sacrebleu's: "13a" for plain text, "none" for text that is tokenized already.

    Raises:
        DataError: there are no pairs.
    """
    if not pairs:
        raise DataError("there are no pairs to evaluate on")
    start = time.perf_counter()
    sources = [model.codec.encode_source(pair.turns) for pair in pairs]
    targets = [model.codec.encode_target(pair.response) for pair in pairs]
    logps = score_targets(
        model.backend,
        [s.ids for s in sources],
        [ids for ids, _ in targets],
        batch_size=batch_size,
        progress=progress,
    )
    replies = model.reply_turns(
        [pair.turns for pair in pairs], options, batch_size=batch_size, progress=progress
    )
    texts = [reply.text for reply in replies]
    common, count = Counter(texts).most_common(1)[0]
    words = [text.split() for text in texts]
    return Evaluation(
        pairs=len(pairs),
        perplexity=perplexity_of(logps),
        **score_replies(texts, [pair.response for pair in pairs], tokenize=tokenize)._asdict(),
        distinct_1=distinct_n(words, 1),
        distinct_2=distinct_n(words, 2),
        mean_length=float(np.mean([len(w) for w in words])),
        eos_rate=float(np.mean([reply.candidates[0].finished for reply in replies])),
        most_common_reply=common,
        most_common_share=count / len(texts),
        truncated_prompts=sum(source.truncated for source in sources),
        truncated_targets=sum(truncated for _, truncated in targets),
        confidence=measure_confidence(
            [reply.confidence for reply in replies],
            [text == to_nfc(response) for text, (_, response) in zip(texts, pairs, strict=True)],
        ),
        seconds=time.perf_counter() - start,
        replies=[
            EvaluatedReply(pair.turns, pair.response, reply.text, reply.score, reply.confidence)
            for pair, reply in zip(pairs, replies, strict=True)
        ],
    )


def distinct_n(replies: Sequence[Sequence[str]], n: int) -> float:
    """The number of distinct n-grams of all replies, divided by that of all n-grams; 0 without any."""
    grams = [tuple(reply[i : i + n]) for reply in replies for i in range(len(reply) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
