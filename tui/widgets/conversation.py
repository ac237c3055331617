"""The conversation: a list of messages that follows the newest one until the user scrolls away.

Every change lays out all mounted messages again. A long conversation therefore mounts only a window of its
exchanges, which moves with the selection and with scrolling.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import ClassVar, Protocol

from textual.await_remove import AwaitRemove
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from ..captions import compared_caption, marks, speaker
from ..keys import CONVERSATION, bindings
from ..plain import content, counted
from ..values import Exchange, ReplyFacts
from .message import ChatMessage, ErrorMessage, ReplyMessage, ReplyPair, UserMessage

#: Exchanges in the window, and how many of them are replaced when the window moves.
WINDOW, PAGE = 100, 50


class Exchanges(Protocol):
    """The exchanges of a conversation by number, oldest first."""

    @property
    def numbers(self) -> list[int]: ...

    def __getitem__(self, number: int) -> Exchange: ...


class Conversation(VerticalScroll, can_focus=True):
    """The messages of a conversation. While there are none, a welcome widget is shown instead."""

    HELP = """
    ### Conversation

    **you** marks your prompts, **bot** the model's replies. A prompt with its reply is an exchange. Up, Down
    or a click selects an exchange: the inspector shows it, and Copy, Good, Bad and Correct apply to it.

    Dim text and `▌`: these words may still change.

    `■ stopped`: you stopped this reply. The model does not remember it.
    """

    BINDING_GROUP_TITLE = "Conversation"
    BINDINGS: ClassVar[list[BindingType]] = bindings(CONVERSATION)

    def __init__(self, welcome: Widget) -> None:
        self._welcome = welcome
        self._before, self._after = Static(classes="beyond"), Static(classes="beyond")
        super().__init__(welcome, self._before, self._after)
        self._exchanges: Exchanges | None = None
        self._replies: dict[int, list[ReplyMessage]] = {}  # the window, by exchange
        self._pending: int | None = None  # the exchange whose reply is being made; it stays in the window
        self._moves = 0  # moves of the window that are not laid out yet

    def on_mount(self) -> None:
        self.anchor()

    @property
    def window(self) -> list[int]:
        """The numbers of the exchanges that are mounted."""
        return list(self._replies)

    @property
    def settled(self) -> bool:
        """Whether every move of the window has been laid out."""
        return not self._moves

    def show(self, exchanges: Exchanges) -> None:
        """Show this conversation, as it is now and as it continues."""
        self._pending = None
        self._replies = {}
        self.query_children("ChatMessage, ReplyPair").remove()
        self._exchanges = exchanges
        self._show_window(exchanges.numbers[-WINDOW:])
        self._welcome.display = not self._replies
        if self._replies:
            self.anchor()
        else:
            self.scroll_home(animate=False)

    def begin(self, number: int, prompt: str, captions: Sequence[str]) -> None:
        """Add a prompt and one pending reply for each of `captions`."""
        messages = self._new(number, prompt, captions)
        self.show_latest()
        self._pending = number
        self._add(*messages)

    def advance(self, number: int, side: int, settled: str, tail: str) -> None:
        """Show the text of a pending reply."""
        self._replies[number][side].advance(settled, tail)

    def finish(self, number: int, exchange: Exchange) -> None:
        """Show the final replies of an exchange, now or after a change to it."""
        self._end_pending(number)
        self.settle(number, exchange)

    def settle(self, number: int, exchange: Exchange) -> None:
        """Show the replies that an exchange has. In a comparison, the second one may still be missing."""
        replies = self._replies.get(number, ())
        compared = len(replies) > 1
        for side, (message, reply) in enumerate(zip(replies, exchange.sides, strict=False)):
            if side and reply is None:
                continue
            text = reply.text if reply else ""
            above = compared_caption(reply, exchange.sides[1 - side]) if reply and compared else None
            message.finish(text, marks(exchange, side), above)

    def break_off(self, number: int, first: int, mark: str) -> str:
        """End the pending replies from index `first` on. Returns the text of the exchange's first reply."""
        self._end_pending(number)
        for message in self._replies[number][first:]:
            message.break_off(mark)
        return self._replies[number][0].text

    def report(self, error: str) -> None:
        """Add an error message. It is removed when the window moves away from the latest exchange."""
        self.show_latest()
        self._add(ErrorMessage(error))

    def select(self, number: int | None, side: int) -> None:
        """Highlight the prompt and one reply of an exchange, and scroll to them. None highlights nothing."""
        numbers = self._numbers
        if number in numbers and number not in self._replies:
            at = numbers.index(number)
            self._show_window(numbers[max(0, at - PAGE) : at + PAGE], partial(self.select, number, side))
        for message in self.query(ChatMessage):
            selected = number is not None and message.number == number
            if isinstance(message, ReplyMessage):
                selected = selected and message.side == side
            message.set_class(selected, "-selected")
        if self._moves:
            self._when_laid_out((), partial(self._show_selected, side))
        else:
            self._show_selected(side)

    def _show_selected(self, side: int) -> None:
        """Scroll to the selected prompt with as much of its reply as fits, or to a selected second reply."""
        selected = list(self.query(ChatMessage).filter(".-selected"))
        for message in selected if side else reversed(selected):
            self.scroll_to_widget(message, animate=False, immediate=True)

    def drop(self, number: int) -> None:
        """Remove the messages of an exchange."""
        self._unmount({number})

    # --- The window

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Move the window when the user scrolls to its edge."""
        super().watch_scroll_y(old_value, new_value)
        if self._moves or (self._anchored and not self._anchor_released):
            return  # the view follows the newest message; the user did not scroll
        if new_value <= 0 < old_value:
            self.call_after_refresh(self._move_window, -PAGE)
        elif old_value < new_value and new_value >= self.max_scroll_y:
            self.call_after_refresh(self._move_window, PAGE)

    def action_page_up(self) -> None:
        if self.scroll_y <= 0:  # at the top, scrolling does not change scroll_y
            self._move_window(-PAGE)
        super().action_page_up()

    def _move_window(self, by: int) -> None:
        """Move the window by some exchanges without moving the text in view."""
        numbers = self._numbers
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

        self._show_window(numbers[first : first + WINDOW], stay)

    def show_latest(self) -> None:
        """Move the window to the latest exchanges."""
        if self._exchanges:
            self._show_window(self._numbers[-WINDOW:])

    def follow(self) -> None:
        """Scroll to the latest exchange, and follow it."""
        if self._replies:
            self.show_latest()
            self.anchor()

    def _show_window(self, numbers: Sequence[int], then: Callable[[], None] = lambda: None) -> None:
        """Mount these exchanges and unmount all others, unless a reply is pending. `then` is called when they
        are laid out."""
        gone = self._unmount(() if self._pending else self._replies.keys() - set(numbers))
        first = min(self._replies, default=0)
        new = [number for number in numbers if number not in self._replies]
        before = [widget for number in new if number < first for widget in self._messages(number)]
        after = [widget for number in new if number > first for widget in self._messages(number)]
        mounted = self.mount_all(before, after=self._before), self.mount_all(after, before=self._after)
        self._count_beyond()
        self._when_laid_out((gone, *mounted), then)

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

    def _unmount(self, numbers: Collection[int]) -> AwaitRemove:
        for number in numbers:
            self._replies.pop(number, None)
        messages = [message for message in self.query(ChatMessage) if message.number in numbers]
        pairs = {m.parent if isinstance(m.parent, ReplyPair) else m for m in messages}
        return self.remove_children(pairs)

    def _count_beyond(self) -> None:
        """Show how many exchanges there are before and after the window."""
        numbers = self._numbers
        before = numbers.index(min(self._replies)) if self._replies else 0
        after = len(numbers) - 1 - numbers.index(max(self._replies)) if self._replies else 0
        if after:
            self.query_children(ErrorMessage).remove()
            self.anchor(False)
        for line, count, which in ((self._before, before, "earlier"), (self._after, after, "later")):
            line.display = bool(count)
            line.update(content(f"··· {counted(count, f'{which} exchange')}: scroll to see them", "dim"))

    @property
    def _numbers(self) -> list[int]:
        return self._exchanges.numbers if self._exchanges else []

    def _messages(self, number: int) -> list[Widget]:
        """New messages for an exchange that has ended."""
        assert self._exchanges is not None
        exchange, numbers = self._exchanges[number], self._exchanges.numbers
        replies = [reply for reply in exchange.sides if reply] or [ReplyFacts("")]
        at = numbers.index(number)
        earlier = self._exchanges[numbers[at - 1]].reply or ReplyFacts("") if at else None
        changes = earlier is not None and speaker(replies[0]) != speaker(earlier)
        captions = [reply.made.label if changes else "" for reply in replies]
        widgets = self._new(number, exchange.prompt, captions)
        self.finish(number, exchange)
        return widgets

    def _end_pending(self, number: int) -> None:
        if number == self._pending:
            self._pending = None

    def _new(self, number: int, prompt: str, captions: Sequence[str]) -> list[Widget]:
        replies = self._replies[number] = [
            ReplyMessage(number, side, caption) for side, caption in enumerate(captions)
        ]
        return [UserMessage(prompt, number), *([ReplyPair(*replies)] if len(replies) > 1 else replies)]

    def _add(self, *messages: Widget) -> None:
        self._welcome.display = False
        self.mount_all(messages, before=self._after)
        self.anchor()
