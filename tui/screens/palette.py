"""The command palette."""

from textual import on
from textual.command import Command, CommandPalette
from textual.widgets import OptionList

from .dialog import SafeDismissScreen


class Palette(CommandPalette, SafeDismissScreen[None]):
    """Textual's command palette, except that a row picked twice at once runs once."""

    @on(OptionList.OptionSelected)
    def run_row(self, event: OptionList.OptionSelected) -> None:
        """Run a command. Textual's own handler empties the list first, in which a second click would then
        look for its row."""
        event.stop()
        event.prevent_default()
        if self.is_active and isinstance(event.option, Command):
            self.app.post_message(CommandPalette.Closed(option_selected=True))
            self.app.delay_update()
            self.dismiss()
            self.app.call_later(event.option.hit.command)
