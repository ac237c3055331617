"""The conversation that is being held: what was said, and what of it the model is given."""

from collections.abc import Iterator, Sequence

from .values import Exchange


class Talk:
    """Exchanges, oldest first. Each has a number of its own, which it keeps when others go."""

    def __init__(self, exchanges: Sequence[Exchange] = (), title: str = "") -> None:
        self.title = title
        self._exchanges = dict(enumerate(exchanges, start=1))
        self._last = len(exchanges)

    def __len__(self) -> int:
        return len(self._exchanges)

    def __iter__(self) -> Iterator[Exchange]:
        return iter(self._exchanges.values())

    def __getitem__(self, number: int) -> Exchange:
        return self._exchanges[number]

    @property
    def numbers(self) -> list[int]:
        return list(self._exchanges)

    def add(self, exchange: Exchange) -> int:
        """Its number."""
        self._last += 1
        self._exchanges[self._last] = exchange
        return self._last

    def put(self, number: int, exchange: Exchange) -> None:
        """What became of an exchange."""
        self._exchanges[number] = exchange

    def remove(self, number: int) -> None:
        del self._exchanges[number]

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
