"""What the model was given to read: of a conversation it sees only the end."""

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from ..keys import UP_AND_DOWN, bindings
from ..plain import content
from ..values import BundleFacts, Insight, ReplyFacts
from .hanging import Hanging
from .hints import NOTHING
from .message import WHO


class Context(VerticalScroll, can_focus=True):
    """The turns that the model read for a reply, exactly as it read them."""

    HELP = """
    ### Seen

    What the model read when it made this reply: the prompt, and as many turns before it as it was trained
    to see. What was said earlier it does not know. A token is a word or a part of one.
    """
    BINDING_GROUP_TITLE = "Seen"
    BINDINGS: ClassVar[list[BindingType]] = bindings(UP_AND_DOWN)

    def action_move(self, by: int) -> None:
        self.scroll_relative(y=by, animate=False)

    def show(self, reply: ReplyFacts | None, insight: Insight | None, facts: BundleFacts | None) -> None:
        """For this reply."""
        self.query(Static).remove()
        if reply is None or not reply.made.seen:
            self.mount(Static(content(NOTHING, "dim")))
            return
        turns = insight.seen if insight else reply.made.seen
        rows = [
            Static(Hanging(Content.styled(who, "bold"), content(text), WHO)) for who, text in _roles(turns)
        ]
        self.mount(Static(content(_how_much(reply, insight), "dim")), *rows)
        notes = []
        if reply.truncated:
            notes.append("▲ It is longer than the model reads: the beginning was cut.")
        if facts and facts.turns is not None:
            notes.append(
                "It sees one prompt at a time, and nothing of what was said before."
                if facts.turns <= 1
                else f"It sees the last {facts.turns} turns of a conversation, nothing of what was before."
            )
        self.mount(Static(content("\n".join(notes), "dim")))


def _how_much(reply: ReplyFacts, insight: Insight | None) -> str:
    turns = len(reply.made.seen)
    before = "turn" if turns == 2 else f"{turns - 1} turns"
    said = "The prompt alone" if turns == 1 else f"The prompt and the {before} before it"
    if insight is None:
        return f"{said}:"
    return f"{said}, {len(insight.source)} of at most {insight.longest} tokens:"


def _roles(turns: Sequence[str]) -> list[tuple[str, str]]:
    """Who said each of a conversation's turns, the last being the user's."""
    return [("you" if (len(turns) - n) % 2 else "bot", text) for n, text in enumerate(turns)]
