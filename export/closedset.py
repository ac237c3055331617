"""How a closed set of replies fits the data of the run that it is given to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..runtime.display import counted
from ..runtime.text import TextCodec, normal_form
from ..train.dataset import EncodedPairs


@dataclass(frozen=True)
class ClosedSetFit:
    replies: int  # different ones
    held_out: int  # responses that were held out
    held_out_outside: int  # those of them that are not in the set
    never_learned: int  # replies that are no response of the training data
    alike: int  # replies that differ from another one by blanks or case alone

    def hints(self) -> Iterator[str]:
        """What whoever made the set may not have meant."""
        if self.held_out_outside:
            yield (
                f"hint: {self.held_out_outside:,} of {counted(self.held_out, 'held-out response')} "
                f"{_are(self.held_out_outside)} not in the closed set: this bundle cannot say them"
            )
        if self.never_learned:
            yield (
                f"hint: {self.never_learned:,} of {counted(self.replies, 'reply')} of the closed set "
                f"{_are(self.never_learned)} no response of the training data: are they spelled as there?"
            )
        if self.alike:
            yield (
                f"hint: {counted(self.alike, 'reply')} of the closed set {_are(self.alike)} as another one, "
                "but for blanks or case"
            )


def closed_set_fit(
    replies: Sequence[str], codec: TextCodec, learned: EncodedPairs, held_out: EncodedPairs
) -> ClosedSetFit:
    """Compare the `replies` with the targets of both parts of a run, as they are encoded there."""
    members = {tuple(codec.encode_target(reply)[0]) for reply in replies}
    outside = sum(target not in members for target in _targets(held_out))
    loosely = {" ".join(normal_form(reply).split()).casefold() for reply in replies}
    return ClosedSetFit(
        replies=len(members),
        held_out=len(held_out),
        held_out_outside=outside,
        never_learned=len(members.difference(_targets(learned))),
        alike=len(members) - len(loosely),
    )


def _targets(pairs: EncodedPairs) -> Iterator[tuple[int, ...]]:
    return (tuple(pairs.target(i).tolist()) for i in range(len(pairs)))


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
