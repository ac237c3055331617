"""A line to write in."""

from typing import ClassVar

from textual.binding import BindingType
from textual.widgets import Input

from ..keys import ASK, bindings


class Field(Input, inherit_bindings=False):
    """Without the keys that would scroll it: Up and Down are those of the list below, where there is one."""

    BINDINGS: ClassVar[list[BindingType]] = list(Input.BINDINGS)


class Answer(Field):
    """What is written is taken with a key of ours, which help names."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(ASK)
    BINDING_GROUP_TITLE = "Here"
