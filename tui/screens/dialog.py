"""Dialogs over the chat: a box with a title and its own footer, closed with Escape."""

from typing import Any, ClassVar, Generic, TypeVar

from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen, Screen
from textual.widgets import Static
from textual.worker import Worker, get_current_worker

from ..keys import DIALOG_ACTIONS, bindings
from ..safe_text import safe_content, safe_text
from ..widgets.footer import FittingFooter

T = TypeVar("T")

#: Worker groups: actions, and searches that fill a list. Later keys wait until such a worker is done or shows
#: a dialog (`tui/key_queue.py`).
ACTION_GROUP, SEARCH_GROUP = "actions", "searches"


async def show_dialog(dialog: "Dialog[T]", below: Screen[Any]) -> T | None:
    """Show a dialog over the screen `below` and wait for its result, None if it is closed without one, or if
    another screen is open over `below` already. Call it in a worker."""
    if below.app.screen is not below:
        return None
    dialog.opened_by = get_current_worker()
    return await below.app.push_screen_wait(dialog)


def copy_selected_text(screen: Screen[Any]) -> None:
    """Copy the text that the mouse selected on a screen, if any."""
    text = screen.get_selected_text()
    if not text:
        raise SkipAction
    screen.app.copy_to_clipboard(text)
    screen.notify("The selected text is copied")


class SafeDismissScreen(Screen[T]):
    """A screen that only closes itself. Textual's `dismiss` closes the screen on top, even the chat, for
    example at the second of two fast clicks. List a base class with styles before this one."""

    def dismiss(self, result: T | None = None) -> AwaitComplete:
        return super().dismiss(result) if self.is_active else AwaitComplete()


class Dialog(ModalScreen[T | None], SafeDismissScreen[T | None], Generic[T]):
    """A dialog. Its result is None if it is closed without an answer."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(DIALOG_ACTIONS)
    BINDING_GROUP_TITLE = "Here"

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = safe_text(title)
        self.opened_by: Worker[Any] | None = None

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog") as box:
            box.border_title = self._title.replace("[", r"\[")
            yield from self.compose_box()
        yield FittingFooter()

    def compose_box(self) -> ComposeResult:
        """The contents of the box."""
        raise NotImplementedError

    def show_error(self, why: str) -> None:
        """Show in `#wrong` why the answer is refused, and keep the dialog open."""
        self.query_one("#wrong", Static).update(safe_content(why))
        self.add_class("-wrong")

    def clear_error(self) -> None:
        """Remove the error of `show_error`, since the answer was changed."""
        self.remove_class("-wrong")

    def action_copy_text(self) -> None:
        copy_selected_text(self)

    def may_close(self) -> bool:
        """Whether the user may close the dialog without an answer. A dialog that refuses shows why."""
        return True

    def action_close(self) -> None:
        if self.may_close():
            self.dismiss(None)
