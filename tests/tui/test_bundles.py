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
