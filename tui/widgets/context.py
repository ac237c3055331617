"""The "seen" view: the turns that the model read."""

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from ..keys import VERTICAL_VIEW_ACTIONS, bindings
from ..safe_text import plural, safe_content
from ..values import BundleFacts, ReplyFacts, Trace
from .chat_messages import SPEAKER_CELLS
from .hanging_indent import HangingIndent
from .hints import NO_REPLY


class Context(VerticalScroll, can_focus=True):
    """The turns that the model read for a reply, exactly as the model read them."""

    HELP = """
    ### Seen

    The turns that the model read for this reply: the prompt and as many turns before it as the model was
    trained to read. A turn is one message, yours or the bot's; an exchange has two. The model does not know
    anything said earlier. A token is a word or part of a word.
    """
    BINDING_GROUP_TITLE = "Seen"
    BINDINGS: ClassVar[list[BindingType]] = bindings(VERTICAL_VIEW_ACTIONS)

    def action_move(self, by: int) -> None:
        self.scroll_relative(y=by, animate=False)

    def show(self, reply: ReplyFacts | None, trace: Trace | None, facts: BundleFacts | None) -> None:
        """Show what the model read for a reply."""
        self.query(Static).remove()
        if reply is None or not reply.made.seen:
            self.mount(Static(safe_content(NO_REPLY, "dim")))
            return
        turns = trace.seen if trace else reply.made.seen
        cut = trace.cut if trace else reply.truncated
        rows = [
            Static(HangingIndent(Content.styled(who, "bold"), safe_content(text), SPEAKER_CELLS))
            for who, text in _with_speakers(turns)
        ]
        self.mount(Static(safe_content(_summary(len(turns), cut, trace), "dim")), *rows)
        notes = []
        if reply.truncated:
            notes.append(_truncation(reply, trace))
        if facts and facts.max_turns is not None:
            notes.append(
                "This model reads one prompt at a time and nothing said before it."
                if facts.max_turns <= 1
                else f"This model reads the last {facts.max_turns} turns of a conversation, "
                "nothing before them."
            )
        self.mount(Static(safe_content("\n".join(notes), "dim")))


def _summary(turns: int, cut: bool, trace: Trace | None) -> str:
    before = "turn" if turns == 2 else f"{turns - 1} turns"
    if turns == 1 and cut:
        text = "The end of the prompt" if trace else "The prompt alone, its beginning cut"
    elif turns == 1:
        text = "The prompt alone"
    else:
        text = f"The prompt and the {before} before it" + (", the oldest cut" if cut else "")
    if trace is None:
        return f"{text}:"
    return f"{text}, {len(trace.source)} of at most {trace.max_source} tokens:"


def _truncation(reply: ReplyFacts, trace: Trace | None) -> str:
    text = "▲ The text was longer than the model reads, so its beginning was cut"
    if trace is None:
        return f"{text}. It is shown in full here; replay the reply to see what the model read."
    gone = len(reply.made.seen) - len(trace.seen)
    return f"{text}, including {plural(gone, 'whole turn')}." if gone else f"{text}."


def _with_speakers(turns: Sequence[str]) -> list[tuple[str, str]]:
    """Each turn with its speaker. The last turn is the user's."""
    return [("you" if (len(turns) - n) % 2 else "bot", text) for n, text in enumerate(turns)]
