"""How a closed set of replies fits the data of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..runtime.display import plural
from ..runtime.text import TextCodec, to_nfc
from ..train.dataset import EncodedPairs


@dataclass(frozen=True)
class ClosedSetFit:
    """Counts, for the manifest and for hints."""

    replies: int  # distinct replies of the closed set
    held_out: int  # held-out responses
    held_out_outside: int  # held-out responses that are not in the closed set
    never_learned: int  # replies that are not a response in the training data
    alike: int  # replies that differ from another one only in white space or case

    def hints(self) -> Iterator[str]:
        """Sentences about what is probably a mistake in the closed set."""
        if self.held_out_outside:
            yield (
                f"hint: {self.held_out_outside:,} of {plural(self.held_out, 'held-out response')} "
                f"{_is_or_are(self.held_out_outside)} not in the closed set: the bundle cannot give them"
            )
        if self.never_learned:
            yield (
                f"hint: {self.never_learned:,} of {plural(self.replies, 'reply')} of the closed set "
                f"{_is_or_are(self.never_learned)} not a response in the training data: check the spelling"
            )
        if self.alike:
            yield (
                f"hint: {plural(self.alike, 'reply')} of the closed set {_differs_or_differ(self.alike)} "
                "from another only in white space or case"
            )


def measure_closed_set_fit(
    replies: Sequence[str], codec: TextCodec, train_pairs: EncodedPairs, valid_pairs: EncodedPairs
) -> ClosedSetFit:
    """Compare the closed set `replies` with the training and held-out targets of a run, as token ids."""
    members = {tuple(codec.encode_target(reply)[0]) for reply in replies}
    outside = sum(target not in members for target in _targets(valid_pairs))
    folded = {" ".join(to_nfc(reply).split()).casefold() for reply in replies}
    return ClosedSetFit(
        replies=len(members),
        held_out=len(valid_pairs),
        held_out_outside=outside,
        never_learned=len(members.difference(_targets(train_pairs))),
        alike=len(members) - len(folded),
    )


def _targets(pairs: EncodedPairs) -> Iterator[tuple[int, ...]]:
    return (tuple(pairs.target(i).tolist()) for i in range(len(pairs)))


def _is_or_are(number: int) -> str:
    return "is" if number == 1 else "are"


def _differs_or_differ(number: int) -> str:
    return "differs" if number == 1 else "differ"
