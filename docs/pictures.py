"""Take the screenshots of the terminal chat in images/, with the shipped demo. Needs chromium or Chrome.

    .venv/bin/python docs/pictures.py

Check the pictures before you commit them.
"""

import asyncio
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from textual.pilot import Pilot

from edgechat.tui import ChatApp
from edgechat.tui.engine import load_model
from edgechat.tui.screens import ChatScreen
from edgechat.tui.store import Store
from edgechat.tui.store_thread import StoreThread

IMAGES = Path(__file__).parent / "images"
SIZE = (120, 29)
WIDTH = 1200  # pixels
PROMPTS = ("good morning", "how are you?", "what do you do for fun?")


@asynccontextmanager
async def talked() -> AsyncIterator[tuple[ChatApp, ChatScreen, Pilot[None]]]:
    """Open a chat and get a reply to each of the prompts."""
    store_thread = StoreThread(partial(Store, ":memory:"))
    app = ChatApp(load_model, ["demo"], store_thread=store_thread)
    async with app.run_test(size=SIZE) as pilot:
        screen = app.screen
        assert isinstance(screen, ChatScreen)
        await _ready(screen)
        for prompt in PROMPTS:
            screen.prompt.insert(prompt)
            await pilot.press("enter")
            await _ready(screen)
        yield app, screen, pilot
    store_thread.close()


async def _ready(screen: ChatScreen) -> None:
    while not screen.prompt.ready:
        await asyncio.sleep(0.01)


async def take() -> dict[str, str]:
    """Take each picture, as SVG."""
    taken = {}
    async with talked() as (app, screen, pilot):
        for view, keys in (("candidates", ["down"]), ("attention", ["down"]), ("beam", ["right"] * 3)):
            screen.show_view(view)
            screen.inspector.shown.focus()
            await pilot.press(*keys)
            await pilot.pause()
            taken[view] = app.export_screenshot(title="edgechat")
    return taken


def draw(svg: str, file: Path) -> None:
    """Render an SVG as a PNG file."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("the pictures are rendered with chromium or google-chrome: install one of them")
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "picture.svg")
        page.write_text(svg, encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        size = f"--window-size={WIDTH},{round(WIDTH * height / width)}"
        subprocess.run(
            [*command, size, f"--user-data-dir={folder}", f"--screenshot={file}", page.as_uri()],
            check=True,
            capture_output=True,
            timeout=120,
        )


def main() -> None:
    for name, svg in asyncio.run(take()).items():
        draw(svg, IMAGES / f"{name}.png")
        print(IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
