"""Documentation: its Python code runs, and its links have targets."""

import importlib.util
import re
from pathlib import Path

import pytest

from edgechat.runtime import ChatModel

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "bench/README.md",
    *sorted(ROOT.glob("docs/*.md")),
]
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: A file of the repository in backquotes; `*` stands for any name.
SOURCE_FILE = re.compile(
    r"`((?:bench|cli|docs|examples|export|models|runtime|tests|train|tui)/[\w/.*-]+\.(?:py|toml|md|jsonl))`"
)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["README.md", "docs/embedding.md"])
def test_the_python_code_of_a_page_runs(page, capsys):
    blocks = PYTHON.findall((ROOT / page).read_text(encoding="utf-8"))
    assert blocks
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(block.replace('"bundles/demo"', '"demo"'), names)
        assert "print(" not in block or capsys.readouterr().out.strip(), block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_has_a_target(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            name, _, anchor = target.partition("#")
            other = (page.parent / name) if name else page
            assert other.exists(), target
            assert not anchor or anchor in anchors(other), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_source_file_that_a_page_names_exists(page):
    for name in SOURCE_FILE.findall(page.read_text(encoding="utf-8")):
        assert list(ROOT.glob(name)), name


def test_the_example_app_carries_out_only_what_it_understood(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("lights", ROOT / "examples/lights.py")
    lights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lights)
    data = (ROOT / "examples/lights.jsonl").read_text(encoding="utf-8")
    assert all(command in data for command in lights.COMMAND_OPTIONS.replies)
    with ChatModel.load("demo") as stranger:  # a model that was not trained on lights
        assert lights.parse_command(stranger, "turn on the kitchen light") is None
        monkeypatch.setattr(lights, "MIN_PROBABILITY", 0.0)
        state, room = lights.parse_command(stranger, "turn on the kitchen light")
    assert state in ("ON", "OFF", "DIM")
    assert room in lights.ROOMS
