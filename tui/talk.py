"""The conversation that is being held: what was said, what of it the model is given, and how replies came
about. It is kept as it goes on, where somebody keeps it."""

from collections.abc import Iterator, Sequence

from .keeper import Kept
from .store import title_of
from .values import Exchange, Insight

#: Bytes of the ways of replies that are remembered, to be looked at.
REMEMBERED = 50_000_000
#: Ends the title of a conversation that goes another way than the one that it is a copy of.
ANOTHER_WAY = ", another way"
#: Of an exchange: the bundle that one talks to, and the one that it is compared with.
SIDES = (0, 1)


class Talk:
    """Exchanges, oldest first. Each has a number of its own, which it keeps when others go."""

    def __init__(self, exchanges: Sequence[Exchange] = (), title: str = "", kept: Kept | None = None) -> None:
        self.kept = kept
        self._title = title
        self._exchanges = dict(enumerate(exchanges, start=1))
        self._last = len(exchanges)
        self._insights: dict[tuple[int, int], Insight] = {}  # by number and side
        self._replaced: tuple[int, Exchange] | None = None  # until what takes its place has ended

    def __len__(self) -> int:
        return len(self._exchanges)

    def __iter__(self) -> Iterator[Exchange]:
        return iter(self._exchanges.values())

    def __getitem__(self, number: int) -> Exchange:
        return self._exchanges[number]

    @property
    def numbers(self) -> list[int]:
        return list(self._exchanges)

    @property
    def newest(self) -> int | None:
        """The number of the last one."""
        return next(reversed(self._exchanges), None)

    def has(self, number: int | None) -> bool:
        """Whether there is one of this number."""
        return number in self._exchanges

    @property
    def title(self) -> str:
        """As it was given, or else the first prompt."""
        first = next(iter(self), None)
        return self._title or (first.prompt if first else "conversation")

    def rename(self, title: str) -> None:
        self._title = title
        if self.kept:
            self.kept.rename(title)

    def begin(self, prompt: str, *, instead_of: int | None = None) -> int:
        """The number of a new exchange, which is not kept before it ends. Where it takes the place of the
        last one, that stays kept until then."""
        self._replaced = None
        if instead_of is not None:
            self._replaced = instead_of, self._exchanges.pop(instead_of)
        self._last += 1
        self._exchanges[self._last] = Exchange(prompt)
        return self._last

    def end(self, number: int, exchange: Exchange, bundle: str) -> None:
        """What became of an exchange that was begun with the bundle of this name."""
        self._exchanges[number] = exchange
        replaced, self._replaced = self._replaced, None
        if replaced:
            self._forget(replaced[0])
        if self.kept:
            self.kept.append(number, exchange, bundle, instead_of=replaced[0] if replaced else None)

    def take_back(self, number: int) -> bool:
        """As if an exchange had never begun, where it was to take the place of another, which is back."""
        if self._replaced is None:
            return False
        del self._exchanges[number]
        old, exchange = self._replaced
        self._exchanges[old] = exchange
        self._replaced = None
        return True

    def change(self, number: int, exchange: Exchange) -> None:
        """Put another in the place of one that has ended."""
        self._exchanges[number] = exchange
        if self.kept:
            self.kept.update(number, exchange)

    def gives_way(self, number: int) -> bool:
        """Whether an exchange goes when there is another reply to its prompt: the last one does, unless a
        model shall learn from it, or what takes its place would not be kept here."""
        gone = self.kept is not None and self.kept.gone
        return number == self.newest and not self[number].teaches and not gone

    def until(self, number: int) -> "Talk":
        """A copy of what was said before exchange `number`, to go on from there in another way. It is kept
        where this one is, from the first exchange on that is new."""
        numbers = [n for n in self._exchanges if n < number]
        exchanges = [self[n] for n in numbers]
        title = title_of(self.title.removesuffix(ANOTHER_WAY)) + ANOTHER_WAY if exchanges else ""
        copy = Talk(exchanges, title, self.kept.another(title, exchanges) if self.kept else None)
        for new, old in enumerate(numbers, start=1):
            for side in SIDES:
                copy.remember(new, self.insight(old, side), side)
        return copy

    def turns(self, prompt: str, before: int | None = None) -> list[str]:
        """All turns, oldest first, and `prompt` last: what was said before exchange `before`, or at all.
        A prompt whose reply failed or was stopped is none."""
        turns = []
        for number, exchange in self._exchanges.items():
            if before is not None and number >= before:
                break
            if exchange.said is not None:
                turns += [exchange.prompt, exchange.said]
        return [*turns, prompt]

    def insight(self, number: int, side: int = 0) -> Insight | None:
        """How a reply came about, where that is remembered."""
        return self._insights.get((number, side))

    def remember(self, number: int, insight: Insight | None, side: int = 0) -> None:
        """Of many the oldest are forgotten: a trace is large, and a replay finds it again."""
        if insight is not None:
            self._insights[number, side] = insight
            size = sum(kept.size for kept in self._insights.values())
            while size > REMEMBERED and len(self._insights) > 1:
                size -= self._insights.pop(next(iter(self._insights))).size

    def _forget(self, number: int) -> None:
        for side in SIDES:
            self._insights.pop((number, side), None)
