"""What lies over the chat: a box with a title, closed with Escape, its keys in a footer of its own."""

from typing import Any, ClassVar, Generic, TypeVar

from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen, Screen
from textual.worker import Worker, get_current_worker

from ..keys import OVER, bindings
from ..plain import plain
from ..widgets.footer import Keys

T = TypeVar("T")

#: The groups of the workers of actions, and of those that fill a list: the keys that come next wait until
#: such a one is done, or asks something in a box.
IN_ORDER, FILLING = "in order", "filling"


async def answer_of(over: "Over[T]", below: Screen[Any]) -> T | None:
    """What is chosen in `over`, laid over `below`: None where it was closed, or where something lies there
    already. To be called in a worker."""
    if below.app.screen is not below:
        return None
    over.asked_by = get_current_worker()
    return await below.app.push_screen_wait(over)


def copy_marked(screen: Screen[Any]) -> None:
    """Copy what the mouse has marked on a screen. In a view it marks nothing that could be copied."""
    text = screen.get_selected_text()
    if not text:
        raise SkipAction
    screen.app.copy_to_clipboard(text)
    screen.notify("What is marked is in the clipboard")


class Topmost(Screen[T]):
    """Closes nothing but itself. Textual takes whatever screen is on top away, the chat too: so would the
    second of two clicks that come at once. A base that brings styles stands before this one."""

    def dismiss(self, result: T | None = None) -> AwaitComplete:
        return super().dismiss(result) if self.is_active else AwaitComplete()


class Over(ModalScreen[T | None], Topmost[T | None], Generic[T]):
    """Gives None where it was closed without a choice."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(OVER)
    BINDING_GROUP_TITLE = "Here"

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = plain(title)
        self.asked_by: Worker[Any] | None = None

    def compose(self) -> ComposeResult:
        with Vertical(id="over") as box:
            box.border_title = self._title.replace("[", r"\[")
            yield from self.compose_box()
        yield Keys(compact=True)

    def compose_box(self) -> ComposeResult:
        """What is in the box."""
        raise NotImplementedError

    def action_copy_text(self) -> None:
        copy_marked(self)

    def action_close(self) -> None:
        self.dismiss(None)
