"""Every action by its name."""

from textual import on
from textual.command import Command, CommandPalette
from textual.widgets import OptionList

from .over import Topmost


class Palette(CommandPalette, Topmost[None]):
    """Textual's. A row that is picked twice at once is done once."""

    @on(OptionList.OptionSelected)
    def run_row(self, event: OptionList.OptionSelected) -> None:
        """In place of Textual's own, which empties the list, where a second click would look for its row."""
        event.stop()
        event.prevent_default()
        if self.is_active and isinstance(event.option, Command):
            self.app.post_message(CommandPalette.Closed(option_selected=True))
            self.app.delay_update()
            self.dismiss()
            self.app.call_later(event.option.hit.command)
