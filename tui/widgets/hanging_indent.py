"""A label with a text beside it in one widget, so that every message is only one widget."""

from dataclasses import replace

from rich.segment import Segment
from textual.content import Content
from textual.css.styles import RulesMap
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, Visual


class HangingIndent(Visual):
    """`label` in front of the first line of `text`. All lines of `text` are indented by `indent` cells."""

    def __init__(self, label: Content, text: Content, indent: int) -> None:
        self.label, self.text, self.indent = label, text, indent

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        return self.indent + self.text.get_optimal_width(rules, self._text_width(container_width))

    def get_minimal_width(self, rules: RulesMap) -> int:
        return self.indent + self.text.get_minimal_width(rules)

    def get_height(self, rules: RulesMap, width: int) -> int:
        return max(1, self.text.get_height(rules, self._text_width(width)))

    def render_strips(
        self, width: int, height: int | None, style: Style, options: RenderOptions
    ) -> list[Strip]:
        # The mouse selects the text without the label.
        label = self.label.render_strips(self.indent, 1, style, replace(options, selection=None))[0]
        label = Strip(
            Segment(text, style.clear_meta_and_links() if style else None) for text, style, _ in label
        ).adjust_cell_length(self.indent, style.rich_style)
        margin = Strip.blank(self.indent, style.rich_style)
        lines = self.text.render_strips(self._text_width(width), height, style, options)
        return [Strip.join([margin if n else label, line]) for n, line in enumerate(lines or [Strip([])])]

    def _text_width(self, width: int) -> int:
        return max(1, width - self.indent)
