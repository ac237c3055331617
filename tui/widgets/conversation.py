"""The conversation: messages below each other, following the newest until the user scrolls away.

Each change lays out all messages that there are anew. So of a long conversation there are those of a window
of turns only, which moves with what is looked at and where the user scrolls.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import ClassVar, Protocol

from textual.await_remove import AwaitRemove
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from ..captions import caption, marks, voice
from ..keys import CONVERSATION, bindings
from ..plain import content, counted
from ..values import Exchange, ReplyFacts
from .message import ChatMessage, ErrorMessage, ReplyMessage, ReplyPair, UserMessage

#: Turns of the window, and how many of them go when as many others come.
WINDOW, PAGE = 100, 50


class Said(Protocol):
    """What was said so far, as it is now: the numbers of the exchanges, oldest first, and each of them."""

    @property
    def numbers(self) -> list[int]: ...

    def __getitem__(self, number: int) -> Exchange: ...


class Conversation(VerticalScroll, can_focus=True):
    """The log of a chat. While it is empty it shows a widget in its place: a welcome."""

    HELP = """
    ### Conversation

    **you** is what you said, **bot** the model's replies. Up and Down, or a click, pick the turn that the
    inspector shows, and that Copy, Good, Bad and Correct are about.

    Dim text and `▌`: the model has not settled on these words yet.

    `■ stopped`: you stopped this reply. The model does not remember it.
    """

    BINDING_GROUP_TITLE = "Conversation"
    BINDINGS: ClassVar[list[BindingType]] = bindings(CONVERSATION)

    def __init__(self, welcome: Widget) -> None:
        self._welcome = welcome
        self._before, self._after = Static(classes="beyond"), Static(classes="beyond")
        super().__init__(welcome, self._before, self._after)
        self._said: Said | None = None
        self._replies: dict[int, list[ReplyMessage]] = {}  # of the window
        self._coming: int | None = None  # the exchange whose reply is not there yet; it stays in the window
        self._moves = 0  # of the window that are not laid out yet

    def on_mount(self) -> None:
        self.anchor()

    def show(self, said: Said) -> None:
        """Show what was said, from now on, in place of all that was there."""
        self._said = self._coming = None
        self._replies = {}
        self.query_children("ChatMessage, ReplyPair").remove()
        self._said = said
        self._have(said.numbers[-WINDOW:])
        self._welcome.display = not self._replies
        if self._replies:
            self.anchor()
        else:
            self.scroll_home(animate=False)

    def begin(self, number: int, prompt: str, captions: Sequence[str]) -> None:
        """Add what the user said, and a reply that is still to come for each of `captions`."""
        messages = self._new(number, prompt, captions)
        self._have_latest()
        self._coming = number
        self._add(*messages)

    def advance(self, number: int, side: int, settled: str, tail: str) -> None:
        """Show how far a reply is."""
        self._replies[number][side].advance(settled, tail)

    def finish(self, number: int, exchange: Exchange) -> None:
        """Show the replies of an exchange that is over, as they are now."""
        self._over(number)
        self.settle(number, exchange)

    def settle(self, number: int, exchange: Exchange) -> None:
        """Show those replies of an exchange that are there; the second's may be to come, or never come."""
        replies = self._replies.get(number, ())
        for side, (message, reply) in enumerate(zip(replies, exchange.sides, strict=False)):
            if side and reply is None:
                continue
            text = reply.text if reply else ""
            beside = exchange.sides[1 - side]
            above = caption(reply, beside) if reply and beside else None
            message.finish(text, marks(exchange, side), above)

    def break_off(self, number: int, first: int, mark: str) -> str:
        """Nothing more will come for the replies from the `first` on. What the first of all says so far."""
        self._over(number)
        for message in self._replies[number][first:]:
            message.break_off(mark)
        return self._replies[number][0].text

    def report(self, error: str) -> None:
        """Add an error, which is there as long as the latest turn is."""
        self._have_latest()
        self._add(ErrorMessage(error))

    def pick(self, number: int | None, side: int) -> None:
        """Mark the prompt and the reply that are looked at, and have them in view."""
        numbers = self._said.numbers if self._said else []
        if number in numbers and number not in self._replies:
            at = numbers.index(number)
            self._have(numbers[max(0, at - PAGE) : at + PAGE], partial(self.pick, number, side))
        for message in self.query(ChatMessage):
            picked = number is not None and message.number == number
            if isinstance(message, ReplyMessage):
                picked = picked and message.side == side
            message.set_class(picked, "-picked")
        if self._moves:
            self._when_laid_out((), partial(self._show_picked, side))
        else:
            self._show_picked(side)

    def _show_picked(self, side: int) -> None:
        """Have the prompt in view, and what fits of the reply; of a second reply, that rather."""
        picked = list(self.query(ChatMessage).filter(".-picked"))
        for message in picked if side else reversed(picked):
            self.scroll_to_widget(message, animate=False, immediate=True)

    def drop(self, number: int) -> None:
        """Take the messages of an exchange away."""
        self._take_away({number})

    # --- The window

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Who scrolls to where the window ends has it move on."""
        super().watch_scroll_y(old_value, new_value)
        if self._moves or (self._anchored and not self._anchor_released):
            return  # nobody scrolls: the newest is followed
        if new_value <= 0 < old_value:
            self.call_after_refresh(self._move_on, -PAGE)
        elif old_value < new_value and new_value >= self.max_scroll_y:
            self.call_after_refresh(self._move_on, PAGE)

    def action_page_up(self) -> None:
        if self.scroll_y <= 0:  # there is nothing to scroll
            self._move_on(-PAGE)
        super().action_page_up()

    def _move_on(self, by: int) -> None:
        """So many turns on, with what is in view staying where it is."""
        numbers = self._said.numbers if self._said else []
        if not self._replies:
            return
        first, last = numbers.index(min(self._replies)), numbers.index(max(self._replies))
        if (first if by < 0 else len(numbers) - 1 - last) == 0:
            return
        kept = min(self._replies) if by < 0 else max(self._replies)
        message = self._replies[kept][0]
        at = message.region.y
        first = max(0, first + by) if by < 0 else min(first + by, max(0, len(numbers) - WINDOW))

        def stay() -> None:
            if message.is_attached:
                self.scroll_relative(y=message.region.y - at, animate=False, immediate=True)

        self._have(numbers[first : first + WINDOW], stay)

    def _have_latest(self) -> None:
        if self._said:
            self._have(self._said.numbers[-WINDOW:])

    def _have(self, numbers: Sequence[int], then: Callable[[], None] = lambda: None) -> None:
        """Have these exchanges in the window, and no others unless one is coming. When they are laid out,
        `then` is called."""
        gone = self._take_away(() if self._coming else self._replies.keys() - set(numbers))
        first = min(self._replies, default=0)
        new = [number for number in numbers if number not in self._replies]
        before = [widget for number in new if number < first for widget in self._of(number)]
        after = [widget for number in new if number > first for widget in self._of(number)]
        come = self.mount_all(before, after=self._before), self.mount_all(after, before=self._after)
        self._tell()
        self._when_laid_out((gone, *come), then)

    def _when_laid_out(self, moved: Iterable[Awaitable[None]], then: Callable[[], object]) -> None:
        self._moves += 1
        self.call_later(self._settle, moved, then)

    async def _settle(self, done: Iterable[Awaitable[None]], then: Callable[[], object]) -> None:
        for each in done:
            await each
        self.call_after_refresh(self._moved, then)

    def _moved(self, then: Callable[[], object]) -> None:
        then()
        self._moves -= 1

    def _take_away(self, numbers: Collection[int]) -> AwaitRemove:
        for number in numbers:
            self._replies.pop(number, None)
        messages = [message for message in self.query(ChatMessage) if message.number in numbers]
        pairs = {m.parent if isinstance(m.parent, ReplyPair) else m for m in messages}
        return self.remove_children(pairs)

    def _tell(self) -> None:
        """How much there is beyond the window."""
        numbers = self._said.numbers if self._said else []
        before = numbers.index(min(self._replies)) if self._replies else 0
        after = len(numbers) - 1 - numbers.index(max(self._replies)) if self._replies else 0
        if after:
            self.query_children(ErrorMessage).remove()
            self.anchor(False)
        for line, turns, where in ((self._before, before, "before"), (self._after, after, "after")):
            line.display = bool(turns)
            line.update(content(f"··· {counted(turns, 'turn')} {where}: scroll on to see them", "dim"))

    def _of(self, number: int) -> list[Widget]:
        """The messages of an exchange."""
        assert self._said is not None
        exchange, numbers = self._said[number], self._said.numbers
        replies = [reply for reply in exchange.sides if reply] or [ReplyFacts("")]
        at = numbers.index(number)
        earlier = self._said[numbers[at - 1]].reply or ReplyFacts("") if at else None
        changes = earlier is not None and voice(replies[0]) != voice(earlier)
        captions = [caption(reply) if changes else "" for reply in replies]
        widgets = self._new(number, exchange.prompt, captions)
        self.finish(number, exchange)
        return widgets

    def _over(self, number: int) -> None:
        """All of its reply is there."""
        if number == self._coming:
            self._coming = None

    def _new(self, number: int, prompt: str, captions: Sequence[str]) -> list[Widget]:
        replies = self._replies[number] = [
            ReplyMessage(number, side, caption) for side, caption in enumerate(captions)
        ]
        return [UserMessage(prompt, number), *([ReplyPair(*replies)] if len(replies) > 1 else replies)]

    def _add(self, *messages: Widget) -> None:
        self._welcome.display = False
        self.mount_all(messages, before=self._after)
        self.anchor()
