"""The current conversation: its exchanges, the turns that a model is given, and the traces of replies.
Changes are passed to a `ConversationSaver`, if any, which saves them."""

from collections.abc import Iterator, Sequence

from .store_thread import ConversationSaver
from .titles import title_of_copy
from .values import MAX_TRACE_BYTES, Exchange, Trace

#: The replies of an exchange: the current bundle's, and the second bundle's in a comparison.
SIDES = (0, 1)


class Transcript:
    """A conversation: exchanges by number, oldest first. Removing an exchange does not renumber others."""

    def __init__(
        self, exchanges: Sequence[Exchange] = (), title: str = "", saver: ConversationSaver | None = None
    ) -> None:
        self.saver = saver
        self._title = title
        self._exchanges: dict[int, Exchange] = {}
        self._speeds: tuple[dict[int, float], dict[int, float]] = ({}, {})  # by side and number
        for number, exchange in enumerate(exchanges, start=1):
            self._put(number, exchange)
        self._last_number = len(exchanges)
        self._traces: dict[tuple[int, int], Trace] = {}  # by number and side
        self._pending: int | None = None  # the exchange whose reply is being made
        self._replaced: tuple[int, Exchange] | None = None  # until the exchange that replaces it has ended

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
        """The number of the latest exchange."""
        return next(reversed(self._exchanges), None)

    def has(self, number: int | None) -> bool:
        """Whether there is an exchange with this number."""
        return number in self._exchanges

    def speeds(self, side: int) -> tuple[float, ...]:
        """The tokens per second of one side's replies, oldest first. Replies without a speed are left out."""
        return tuple(self._speeds[side].values())

    def _put(self, number: int, exchange: Exchange) -> None:
        self._exchanges[number] = exchange
        for speeds, reply in zip(self._speeds, exchange.replies, strict=True):
            if speed := reply and reply.tokens_per_second:
                speeds[number] = speed
            else:
                speeds.pop(number, None)

    def _remove(self, number: int) -> Exchange:
        for speeds in self._speeds:
            speeds.pop(number, None)
        return self._exchanges.pop(number)

    @property
    def title(self) -> str:
        """The title, or else the first prompt."""
        first = next(iter(self), None)
        return self._title or (first.prompt if first else "conversation")

    def rename(self, title: str) -> None:
        self._title = title
        if self.saver:
            self.saver.rename(title)

    @property
    def ended(self) -> list[Exchange]:
        """The exchanges that have ended, with the one that a pending exchange is to replace."""
        ended = [exchange for number, exchange in self._exchanges.items() if number != self._pending]
        return [*ended, *([self._replaced[1]] if self._replaced else [])]

    def begin_exchange(self, prompt: str, *, instead_of: int | None = None) -> int:
        """Add a pending exchange, which is saved when it ends. Returns its number.

        It may replace the last exchange, `instead_of`, which stays saved until then.
        """
        self._replaced = None
        if instead_of is not None:
            self._replaced = instead_of, self._remove(instead_of)
        self._pending = self._last_number = self._last_number + 1
        self._put(self._pending, Exchange(prompt))
        return self._pending

    def end_exchange(self, number: int, exchange: Exchange, bundle: str) -> None:
        """Replace a pending exchange with its result. `bundle` is the name of the bundle that was asked."""
        self._put(number, exchange)
        replaced, self._replaced, self._pending = self._replaced, None, None
        if replaced:
            self.drop_traces(replaced[0])
        if self.saver:
            self.saver.append(number, exchange, bundle, instead_of=replaced[0] if replaced else None)

    def undo_replacement(self, number: int) -> bool:
        """Remove a pending exchange and restore the one that it was to replace. False if it replaces none."""
        if self._replaced is None:
            return False
        self._remove(number)
        self._put(*self._replaced)
        self._replaced = self._pending = None
        return True

    def update_exchange(self, number: int, exchange: Exchange) -> None:
        """Replace an exchange that has ended."""
        self._put(number, exchange)
        if self.saver:
            self.saver.update(number, exchange)

    def is_replaceable(self, number: int) -> bool:
        """Whether another reply to its prompt replaces an exchange: only the last one, unless it is training
        data, or a new exchange would not be saved because another window deleted the conversation."""
        gone = self.saver is not None and self.saver.is_gone
        return number == self.newest and not self[number].is_training_data and not gone

    def copy_before(self, number: int) -> "Transcript":
        """A copy of the exchanges before `number`. If this conversation is saved, so is the copy, from its
        first new exchange on."""
        numbers = [n for n in self._exchanges if n < number]
        exchanges = [self[n] for n in numbers]
        title = title_of_copy(self.title) if exchanges else ""
        copy = Transcript(exchanges, title, self.saver.for_copy(title, exchanges) if self.saver else None)
        for new, old in enumerate(numbers, start=1):
            for side in SIDES:
                copy.keep_trace(new, self.trace(old, side), side)
        return copy

    def turns(self, prompt: str, before: int | None = None) -> list[str]:
        """The turns of all exchanges, or of those before exchange `before`, oldest first, with `prompt` last.

        An exchange whose reply failed or was stopped has no turns, unless it was corrected.
        """
        turns = []
        for number, exchange in self._exchanges.items():
            if before is not None and number >= before:
                break
            if exchange.bot_turn is not None:
                turns += [exchange.prompt, exchange.bot_turn]
        return [*turns, prompt]

    def trace(self, number: int, side: int = 0) -> Trace | None:
        """The trace of a reply, None if it is not in memory."""
        return self._traces.get((number, side))

    def keep_trace(self, number: int, trace: Trace | None, side: int = 0) -> None:
        """Keep a trace in memory. The oldest traces are dropped if all together are too large; a replay can
        make them again."""
        if trace is not None:
            self._traces.pop((number, side), None)  # a trace that is made again is the newest
            self._traces[number, side] = trace
            size = sum(kept.size for kept in self._traces.values())
            while size > MAX_TRACE_BYTES and len(self._traces) > 1:
                size -= self._traces.pop(next(iter(self._traces))).size

    def drop_traces(self, number: int) -> None:
        """Drop the traces of an exchange from memory."""
        for side in SIDES:
            self._traces.pop((number, side), None)
