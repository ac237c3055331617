"""Whether text has the contrast that WCAG 2 requires."""

import pytest
from textual.color import Color
from textual.constants import DIM_FACTOR

from edgechat.tui.themes import THEMES

from .fakes import FakeModel

LEAST = 4.5


def luminance(color):
    def linear(value):
        value /= 255
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    return 0.2126 * linear(color.r) + 0.7152 * linear(color.g) + 0.0722 * linear(color.b)


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_computed_as_in_wcag():
    assert contrast(Color.parse("#000"), Color.parse("#fff")) == pytest.approx(21)
    assert contrast(Color.parse("#777"), Color.parse("#fff")) == pytest.approx(4.48, abs=0.01)


def of_text(c, text):
    """The lowest contrast of the letters of a text on the screen. A dim color is blended with the
    background."""
    for strip in c.strips:
        at = strip.text.find(text)
        if at >= 0:
            found = []
            for segment in strip.crop(at, at + len(text)):
                style = segment.style
                front, ground = (Color.from_rich_color(each) for each in (style.color, style.bgcolor))
                if style.dim:
                    front = ground.blend(front, DIM_FACTOR)
                if segment.text.strip():
                    found.append(contrast(front, ground))
            return min(found)
    raise AssertionError(f"{text!r} is not on the screen:\n{c.drawn}")


@pytest.mark.parametrize("theme", [theme.name for theme in THEMES])
async def test_dim_text_has_enough_contrast(chat, tmp_path, theme):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        c.app.theme = theme
        await c.pilot.pause()
        assert of_text(c, "ay something") >= LEAST  # the cursor is on the first letter
        await c.say("hello")
        await c.press("ctrl+l")
        await c.until(lambda: "1 exchange" in c.drawn)
        assert of_text(c, "earch") >= LEAST
        assert of_text(c, "1 exchange") >= LEAST  # in the lit row
        await c.press("escape", "ctrl+b")
        await c.until(lambda: "int8 · cpu" in c.drawn)
        assert of_text(c, "int8 · cpu") >= LEAST
