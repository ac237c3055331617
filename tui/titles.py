"""Titles of conversations: one short line."""

#: The longest title, including `COPY_SUFFIX`.
MAX_TITLE_CHARACTERS = 60
#: Ends the title of a conversation that continues a copy of another one.
COPY_SUFFIX = " (copy)"


def title_of(text: str, suffix: str = "") -> str:
    """A title made of `text`: one short line, with a suffix that is never cut."""
    line, room = " ".join(text.split()), MAX_TITLE_CHARACTERS - len(suffix)
    return (line if len(line) <= room else line[: room - 1].rstrip() + "…") + suffix


def title_of_copy(title: str) -> str:
    """The title of a copy of the conversation with this title. A copy of a copy says so only once."""
    return title_of(title.removesuffix(COPY_SUFFIX), COPY_SUFFIX)
