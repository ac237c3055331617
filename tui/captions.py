"""What is said about a reply in the conversation: above it who speaks, below it what is to be noted."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest

from .values import Exchange, ReplyFacts

STOPPED, FAILED = "■ stopped", "✗ failed"


def caption(reply: ReplyFacts, beside: ReplyFacts | None = None) -> str:
    """Above a reply of a bundle that is not the only one to speak: with its time where one is `beside` it,
    and with its path where the bundle of that one has the same name."""
    made = reply.made
    if beside is None:
        return made.label
    named = replace(made, bundle=made.path or made.bundle) if made.label == beside.made.label else made
    return f"{named.label} · {reply.ms:.0f} ms"


def voice(reply: ReplyFacts) -> tuple[str, str]:
    """Who speaks: another bundle, or the same in another precision, is another voice."""
    return reply.made.bundle, reply.made.precision


def marks(exchange: Exchange, side: int) -> list[str]:
    """Below a reply."""
    reply = exchange.other if side else exchange.reply
    noted = [*_of_reply(reply)] if reply else []
    if exchange.state == "stopped" and not side:
        noted = [STOPPED]
    if exchange.state == "failed" and not side:
        noted = [FAILED]
    if side:
        return [*noted, *_difference(exchange)]
    if exchange.mark == "good":
        noted.append("✓ good")
    if exchange.mark == "bad":
        noted.append("✗ bad")
    if exchange.answer is not None:
        noted.append(f"✎ should have said: {exchange.answer}")
    return noted


def _of_reply(reply: ReplyFacts) -> Iterator[str]:
    if not reply.text:
        yield "∅ an empty reply"
    if not reply.finished:
        yield "… cut at the maximum length"
    if reply.truncated:
        alone = len(reply.made.seen) < 2
        yield (
            "▲ the prompt is longer than the model reads: its beginning was cut"
            if alone
            else "▲ the prompt and what was before it are longer than the model reads: the oldest was cut"
        )
    if reply.chosen:
        yield f"⇅ candidate {reply.chosen + 1}, put in place by you"


def _difference(exchange: Exchange) -> Iterator[str]:
    """How the second reply differs from the first."""
    if not exchange.reply or not exchange.other or exchange.state != "done":
        return
    if exchange.reply.text == exchange.other.text:
        yield "= the same reply"
        return
    first, second = (_tokens(reply) for reply in (exchange.reply, exchange.other))
    pairs = zip_longest(first, second)
    at = next((n for n, (a, b) in enumerate(pairs, start=1) if a != b), None)
    if at is not None:
        yield f"≠ another reply from token {at} on"


def _tokens(reply: ReplyFacts) -> tuple[str, ...]:
    return reply.candidates[reply.chosen].tokens if reply.candidates else ()


def alike(made: ReplyFacts, again: ReplyFacts) -> bool:
    """Whether a replay found what there was. Of a reply that was stopped there is nothing to compare."""
    return not made.candidates or _texts(made) == _texts(again)


def replayed(made: ReplyFacts, again: ReplyFacts) -> str:
    """What a replay found."""
    if not made.candidates:
        return f"Replayed to its end, the reply that was stopped reads: {again.text}"
    if not alike(made, again):
        if again.candidates and made.candidates[0].text == again.candidates[0].text:
            return "Replayed: the same reply, with other candidates behind it"
        return "Replayed: another reply came, so this machine computes otherwise than the one that made it"
    worst = max(
        (abs(a.logp - b.logp) for a, b in zip(made.candidates, again.candidates, strict=True)), default=0.0
    )
    how = f"within {worst:.1g}" if worst else "equal"
    return f"Replayed: the same reply, token by token; log-probabilities {how}"


def _texts(reply: ReplyFacts) -> list[str]:
    return [row.text for row in reply.candidates]
