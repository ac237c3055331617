"""`edgechat tui --serve`, as a browser sees it."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

pytest.importorskip("textual_serve")
aiohttp = pytest.importorskip("aiohttp")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


async def test_a_page_is_served_and_what_is_typed_there_gets_a_reply(tmp_path):
    port = free_port()
    server = await asyncio.create_subprocess_exec(
        *serve(port),
        cwd=tmp_path,
        stdout=asyncio.subprocess.DEVNULL,
        env=os.environ | {"XDG_CONFIG_HOME": str(tmp_path)},
    )
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as browser:
            page = await once_there(browser, f"http://localhost:{port}")
            assert "edgechat" in page
            elsewhere = re.findall(r"https?://(?!localhost:)[^\"']+", page)
            assert not elsewhere, "the browser is sent to others"
            assert f"ws://localhost:{port}/ws" in page
            async with browser.ws_connect(f"ws://localhost:{port}/ws?width=100&height=30") as terminal:
                await terminal.send_str(json.dumps(["focus"]))
                await until(terminal, "nothing you write leaves it")
                await terminal.send_str(json.dumps(["stdin", "how are you?\r"]))
                await until(terminal, "tokens/s")
    finally:
        server.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(server.wait(), 30) == 0


def serve(port):
    return [sys.executable, "-m", "edgechat", "tui", "demo", "--private", "--serve", "--port", str(port)]


async def once_there(browser, address):
    while True:
        try:
            async with browser.get(address) as page:
                return await page.text()
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.05)


async def until(terminal, text):
    """Until what the terminal is sent has this text."""
    drawn = b""
    while text.encode() not in drawn:
        message = await terminal.receive()
        assert message.type is aiohttp.WSMsgType.BINARY, message
        drawn += message.data


def test_a_port_that_is_taken_is_one_sentence(tmp_path):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(serve(port), cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"cannot be served at localhost, port {port}" in done.stderr.splitlines()[-1]
