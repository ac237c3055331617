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

from ..captions import bundle_and_precision, compared_caption, reply_notes
from ..keys import CONVERSATION_ACTIONS, bindings
from ..safe_text import plural, safe_content
from ..values import Exchange, ReplyFacts
from .chat_messages import ChatMessage, ErrorMessage, ReplyMessage, ReplyPair, UserMessage

#: Exchanges in the window, and how many of them are replaced when the window moves.
WINDOW_SIZE, PAGE_SIZE = 100, 50


class NumberedExchanges(Protocol):
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
    BINDINGS: ClassVar[list[BindingType]] = bindings(CONVERSATION_ACTIONS)

    def __init__(self, welcome: Widget) -> None:
        self._welcome = welcome
        self._earlier_line, self._later_line = Static(classes="beyond"), Static(classes="beyond")
        super().__init__(welcome, self._earlier_line, self._later_line)
        self._exchanges: NumberedExchanges | None = None
        self._replies: dict[int, list[ReplyMessage]] = {}  # the window, by exchange
        self._pending: int | None = None  # the exchange whose reply is being made; it stays in the window
        self._pending_moves = 0  # moves of the window that are not laid out yet

    def on_mount(self) -> None:
        self.anchor()

    def show(self, exchanges: NumberedExchanges) -> None:
        """Show this conversation, as it is now and as it continues."""
        self._pending = None
        self._replies = {}
        self.query_children("ChatMessage, ReplyPair").remove()
        self._exchanges = exchanges
        self._show_window(exchanges.numbers[-WINDOW_SIZE:])
        self._welcome.display = not self._replies
        if self._replies:
            self.anchor()
        else:
            self.scroll_home(animate=False)

    def begin_exchange(self, number: int, prompt: str, captions: Sequence[str]) -> None:
        """Add a prompt and one pending reply for each of `captions`."""
        messages = self._make_empty_messages(number, prompt, captions)
        self.show_latest()
        self._pending = number
        self._mount_messages(*messages)

    def advance(self, number: int, side: int, settled: str, tail: str) -> None:
        """Show the text of a pending reply."""
        self._replies[number][side].advance(settled, tail)

    def finish(self, number: int, exchange: Exchange) -> None:
        """Show the final replies of an exchange, now or after a change to it."""
        self._end_pending(number)
        self.show_replies(number, exchange)

    def show_replies(self, number: int, exchange: Exchange) -> None:
        """Show the replies that an exchange has. In a comparison, the second one may still be missing."""
        replies = self._replies.get(number, ())
        compared = len(replies) > 1
        for side, (message, reply) in enumerate(zip(replies, exchange.replies, strict=False)):
            if side and reply is None:
                continue
            text = reply.text if reply else ""
            above = compared_caption(reply, exchange.replies[1 - side]) if reply and compared else None
            message.finish(text, reply_notes(exchange, side), above)

    def break_off(self, number: int, first: int, note: str) -> str:
        """End the pending replies from index `first` on. Returns the text of the exchange's first reply."""
        self._end_pending(number)
        for message in self._replies[number][first:]:
            message.break_off(note)
        return self._replies[number][0].text

    def show_error(self, error: str) -> None:
        """Add an error message. It is removed when the window moves away from the latest exchange."""
        self.show_latest()
        self._mount_messages(ErrorMessage(error))

    def select(self, number: int | None, side: int) -> None:
        """Highlight the prompt and one reply of an exchange, and scroll to them. None highlights nothing."""
        numbers = self._numbers
        if number in numbers and number not in self._replies:
            at = numbers.index(number)
            self._show_window(
                numbers[max(0, at - PAGE_SIZE) : at + PAGE_SIZE], partial(self.select, number, side)
            )
        for message in self.query(ChatMessage):
            selected = number is not None and message.number == number
            if isinstance(message, ReplyMessage):
                selected = selected and message.side == side
            message.set_class(selected, "-selected")
        if self._pending_moves:
            self._when_laid_out((), partial(self._show_selected, side))
        else:
            self._show_selected(side)

    def _show_selected(self, side: int) -> None:
        """Scroll to the selected prompt with as much of its reply as fits, or to a selected second reply."""
        selected = list(self.query(ChatMessage).filter(".-selected"))
        for message in selected if side else reversed(selected):
            self.scroll_to_widget(message, animate=False, immediate=True)

    def remove_exchange(self, number: int) -> None:
        """Remove the messages of an exchange."""
        self._unmount({number})

    # --- The window

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Move the window when the user scrolls to its edge."""
        super().watch_scroll_y(old_value, new_value)
        if self._pending_moves or (self._anchored and not self._anchor_released):
            return  # the view follows the newest message; the user did not scroll
        if new_value <= 0 < old_value:
            self.call_after_refresh(self._move_window, -PAGE_SIZE)
        elif old_value < new_value and new_value >= self.max_scroll_y:
            self.call_after_refresh(self._move_window, PAGE_SIZE)

    def action_page_up(self) -> None:
        if self.scroll_y <= 0:  # at the top, scrolling does not change scroll_y
            self._move_window(-PAGE_SIZE)
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
        first = max(0, first + by) if by < 0 else min(first + by, max(0, len(numbers) - WINDOW_SIZE))

        def stay() -> None:
            if message.is_attached:
                self.scroll_relative(y=message.region.y - at, animate=False, immediate=True)

        self._show_window(numbers[first : first + WINDOW_SIZE], stay)

    def show_latest(self) -> None:
        """Move the window to the latest exchanges."""
        if self._exchanges:
            self._show_window(self._numbers[-WINDOW_SIZE:])

    def scroll_to_latest(self) -> None:
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
        before = [widget for number in new if number < first for widget in self._make_messages(number)]
        after = [widget for number in new if number > first for widget in self._make_messages(number)]
        mounted = (
            self.mount_all(before, after=self._earlier_line),
            self.mount_all(after, before=self._later_line),
        )
        self._update_outside_counts()
        self._when_laid_out((gone, *mounted), then)

    def _when_laid_out(self, moved: Iterable[Awaitable[None]], then: Callable[[], object]) -> None:
        self._pending_moves += 1
        self.call_later(self._await_moves, moved, then)

    async def _await_moves(self, done: Iterable[Awaitable[None]], then: Callable[[], object]) -> None:
        for each in done:
            await each
        self.call_after_refresh(self._end_move, then)

    def _end_move(self, then: Callable[[], object]) -> None:
        then()
        self._pending_moves -= 1

    def _unmount(self, numbers: Collection[int]) -> AwaitRemove:
        for number in numbers:
            self._replies.pop(number, None)
        messages = [message for message in self.query(ChatMessage) if message.number in numbers]
        pairs = {m.parent if isinstance(m.parent, ReplyPair) else m for m in messages}
        return self.remove_children(pairs)

    def _update_outside_counts(self) -> None:
        """Show how many exchanges there are before and after the window."""
        numbers = self._numbers
        before = numbers.index(min(self._replies)) if self._replies else 0
        after = len(numbers) - 1 - numbers.index(max(self._replies)) if self._replies else 0
        if after:
            self.query_children(ErrorMessage).remove()
            self.anchor(False)
        for line, count, which in (
            (self._earlier_line, before, "earlier"),
            (self._later_line, after, "later"),
        ):
            line.display = bool(count)
            line.update(safe_content(f"··· {plural(count, f'{which} exchange')}: scroll to see them", "dim"))

    @property
    def _numbers(self) -> list[int]:
        return self._exchanges.numbers if self._exchanges else []

    def _make_messages(self, number: int) -> list[Widget]:
        """New messages for an exchange that has ended."""
        assert self._exchanges is not None
        exchange, numbers = self._exchanges[number], self._exchanges.numbers
        replies = [reply for reply in exchange.replies if reply] or [ReplyFacts("")]
        at = numbers.index(number)
        earlier = self._exchanges[numbers[at - 1]].reply or ReplyFacts("") if at else None
        changes = earlier is not None and bundle_and_precision(replies[0]) != bundle_and_precision(earlier)
        captions = [reply.made.label if changes else "" for reply in replies]
        widgets = self._make_empty_messages(number, exchange.prompt, captions)
        self.finish(number, exchange)
        return widgets

    def _end_pending(self, number: int) -> None:
        if number == self._pending:
            self._pending = None

    def _make_empty_messages(self, number: int, prompt: str, captions: Sequence[str]) -> list[Widget]:
        replies = self._replies[number] = [
            ReplyMessage(number, side, caption) for side, caption in enumerate(captions)
        ]
        return [UserMessage(prompt, number), *([ReplyPair(*replies)] if len(replies) > 1 else replies)]

    def _mount_messages(self, *messages: Widget) -> None:
        self._welcome.display = False
        self.mount_all(messages, before=self._later_line)
        self.anchor()
