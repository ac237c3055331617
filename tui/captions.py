"""The caption above a reply, which names the bundle, and the notes below it."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest

from .values import Exchange, ReplyFacts

STOPPED, FAILED = "■ stopped", "✗ failed"


def compared_caption(reply: ReplyFacts, other: ReplyFacts | None) -> str:
    """The caption of a reply in a comparison: its bundle and time. If the `other` reply, which may be
    missing, is from a bundle of the same name, the caption shows the path."""
    made = reply.made
    if other and made.label == other.made.label:
        made = replace(made, bundle=made.path or made.bundle)
    return f"{made.label} · {reply.ms:.0f} ms"


def bundle_and_precision(reply: ReplyFacts) -> tuple[str, str]:
    """Who made a reply: the bundle's name and precision."""
    return reply.made.bundle, reply.made.precision


def reply_notes(exchange: Exchange, side: int) -> list[str]:
    """The lines below a reply."""
    reply = exchange.other if side else exchange.reply
    notes = [*_condition_notes(reply)] if reply else []
    if exchange.state == "stopped" and not side:
        notes = [STOPPED]
    if exchange.state == "failed" and not side:
        notes = [FAILED]
    if side:
        return [*notes, *_difference_note(exchange)]
    if exchange.mark == "good":
        notes.append("✓ good")
    if exchange.mark == "bad":
        notes.append("✗ bad")
    if exchange.answer is not None:
        notes.append(f"✎ should have said: {exchange.answer}")
    return notes


def _condition_notes(reply: ReplyFacts) -> Iterator[str]:
    if not reply.text:
        yield "∅ an empty reply"
    if not reply.finished:
        yield "… cut at the maximum length"
    if reply.truncated:
        alone = len(reply.made.seen) < 2
        yield (
            "▲ the prompt is longer than the model reads, so its beginning was cut"
            if alone
            else "▲ the prompt and its context are longer than the model reads, so the oldest text was cut"
        )
    if reply.chosen:
        yield f"⇅ candidate {reply.chosen + 1}, chosen by you"


def _difference_note(exchange: Exchange) -> Iterator[str]:
    """How the second reply of a comparison differs from the first."""
    if not exchange.reply or not exchange.other or exchange.state != "done":
        return
    if exchange.reply.text == exchange.other.text:
        yield "= the same reply"
        return
    first, second = (_chosen_tokens(reply) for reply in (exchange.reply, exchange.other))
    pairs = zip_longest(first, second)
    at = next((n for n, (a, b) in enumerate(pairs, start=1) if a != b), None)
    if at is not None:
        yield f"≠ differs from token {at} on"


def _chosen_tokens(reply: ReplyFacts) -> tuple[str, ...]:
    return reply.candidates[reply.chosen].tokens if reply.candidates else ()


def has_same_candidates(made: ReplyFacts, again: ReplyFacts) -> bool:
    """Whether a replay has the same candidates. A stopped reply has none to compare."""
    return not made.candidates or _candidate_texts(made) == _candidate_texts(again)


def describe_replay(made: ReplyFacts, again: ReplyFacts) -> str:
    """The result of a replay, as a sentence."""
    if not made.candidates:
        return f"Replayed: without the stop, the reply is: {again.text}"
    if not has_same_candidates(made, again):
        if again.candidates and made.candidates[0].text == again.candidates[0].text:
            return "Replayed: the same reply, but the other candidates differ"
        return "Replayed: the reply differs, so this machine computes differently from the one that made it"
    worst = max(
        (abs(a.logp - b.logp) for a, b in zip(made.candidates, again.candidates, strict=True)), default=0.0
    )
    how = f"equal within {worst:.1g}" if worst else "equal"
    return f"Replayed: the same reply, token by token; log-probabilities {how}"


def _candidate_texts(reply: ReplyFacts) -> list[str]:
    return [row.text for row in reply.candidates]
