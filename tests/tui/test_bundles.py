"""The bundles of a window."""

from pathlib import Path

from edgechat.runtime.bundle import find_bundle
from edgechat.tui.bundles import Bundles
from edgechat.tui.engine import bundles_near

from .fakes import FakeModel


def test_a_bundle_nearby_that_is_open_by_another_name_is_offered_once(tmp_path, monkeypatch):
    """As in the repository, where the demo lies in a folder below."""
    demo = find_bundle("demo")
    (tmp_path / "models").symlink_to(demo.parent, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    assert bundles_near(Path()) == [str(Path("models", "demo"))]
    bundles = Bundles(["demo"])
    bundles.loaded("demo", FakeModel())
    assert [choice.path for choice in bundles.choices()] == ["demo"]


async def test_enter_after_a_fast_arrow_takes_the_one_that_the_arrow_lit(chat):
    async with chat(FakeModel(), FakeModel()) as c:
        await c.press("ctrl+b")
        await c.until(lambda: "other1" in c.drawn)
        await c.type_fast("", "down", "enter")
        await c.until(lambda: c.app.screen is c.chat and c.chat.bundles.current == "other1")


async def test_enter_after_fast_typing_takes_the_path_that_was_typed(chat, tmp_path):
    async with chat(FakeModel(), FakeModel()) as c:
        await c.press("f8")
        await c.type_fast(str(tmp_path / "gone"), "enter")
        await c.until(lambda: c.notices)
        assert str(tmp_path / "gone") in c.notices[-1]
