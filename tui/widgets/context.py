"""What the model was given to read: of a conversation it sees only the end."""

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from ..keys import UP_AND_DOWN, bindings
from ..plain import content, counted
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
        cut = insight.cut if insight else reply.truncated
        rows = [
            Static(Hanging(Content.styled(who, "bold"), content(text), WHO)) for who, text in _roles(turns)
        ]
        self.mount(Static(content(_how_much(len(turns), cut, insight), "dim")), *rows)
        notes = []
        if reply.truncated:
            notes.append(_what_was_cut(reply, insight))
        if facts and facts.turns is not None:
            notes.append(
                "It sees one prompt at a time, and nothing of what was said before."
                if facts.turns <= 1
                else f"It sees the last {facts.turns} turns of a conversation, nothing of what was before."
            )
        self.mount(Static(content("\n".join(notes), "dim")))


def _how_much(turns: int, cut: bool, insight: Insight | None) -> str:
    before = "turn" if turns == 2 else f"{turns - 1} turns"
    if turns == 1 and cut:
        said = "The end of the prompt" if insight else "The prompt alone, its beginning cut"
    elif turns == 1:
        said = "The prompt alone"
    else:
        said = f"The prompt and the {before} before it" + (", the oldest cut" if cut else "")
    if insight is None:
        return f"{said}:"
    return f"{said}, {len(insight.source)} of at most {insight.longest} tokens:"


def _what_was_cut(reply: ReplyFacts, insight: Insight | None) -> str:
    said = "▲ There was more than the model reads: the oldest was cut"
    if insight is None:
        return f"{said}. It stands here whole; a replay shows what was left of it."
    gone = len(reply.made.seen) - len(insight.seen)
    return f"{said}, {counted(gone, 'turn')} of it altogether." if gone else f"{said}."


def _roles(turns: Sequence[str]) -> list[tuple[str, str]]:
    """Who said each of a conversation's turns, the last being the user's."""
    return [("you" if (len(turns) - n) % 2 else "bot", text) for n, text in enumerate(turns)]
