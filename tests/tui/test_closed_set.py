"""A bundle with a closed set of replies."""

import pytest

from edgechat.tui.engine import Engine
from edgechat.tui.widgets import Welcome

from .fakes import FakeModel

WHY = "cannot be used with the closed set of this bundle: a closed set lists every reply that is allowed"

VALUES = [
    ("min_length", "3"),
    ("max_length", "3"),
    ("required", "yes"),
    ("banned", "no"),
    ("prefix", "well"),
    ("no_repeat_ngram", "2"),
    ("no_copy_ngram", "2"),
]


@pytest.mark.parametrize(("name", "value"), VALUES, ids=[name for name, _ in VALUES])
async def test_a_setting_incompatible_with_a_closed_set_is_refused_with_the_reason(chat, name, value):
    async with chat(FakeModel(closed=True), size=(140, 40)) as c:
        assert c.screen.knob_settings.why_invalid(name, value) == f"{name} {WHY}"
        c.screen.knob_settings.set_from_text(name, value)
        assert c.screen.knob_settings.error == f"{name} {WHY}"
        assert c.screen.knob_settings.changes == {}
    async with chat(FakeModel(), size=(140, 40)) as c:
        assert c.screen.knob_settings.why_invalid(name, value) == ""


async def test_presets_incompatible_with_a_closed_set_are_not_offered(chat):
    async with chat(FakeModel(closed=True), size=(140, 40)) as c:
        await c.press("f4")
        seen = []
        for _ in range(4):
            await c.press("right")
            seen.append(c.screen.knob_settings.preset)
        assert seen == ["greedy", "thorough", "brief", "lively"]
        assert not [each for each in c.app.get_system_commands(c.screen) if "talkative" in each.title]


async def test_welcome_and_status_line_mention_a_closed_set(chat):
    async with chat(FakeModel(closed=True)) as c:
        said = " ".join(c.screen.query_one(Welcome).visual.plain.split())
        assert "It has a closed set of replies and says nothing else." in said
        assert "int8 · cpu · closed set · beam 3" in c.drawn
    async with chat(FakeModel()) as c:
        assert "closed set" not in c.drawn


async def test_settings_are_reset_for_a_bundle_that_refuses_them(chat):
    model = FakeModel(closed=True)
    async with chat(FakeModel(), model) as c:
        c.screen.use_preset({"min_length": 3})
        c.screen.switch_to_bundle("other1")
        await c.until(lambda: c.notices)
        assert c.notices == [f"min_length {WHY}"]
        await c.say("hello")
        assert model.options.min_length == 0


def test_incompatible_defaults_of_a_bundle_do_not_break_the_knobs():
    """With such a bundle every reply fails with the reason, but the chat works."""
    model = FakeModel(closed=True)
    model.defaults = type(model.defaults)(min_length=3)
    assert Engine(model, "strange").options({})["min_length"] == 3
