"""`edgechat tui --serve`, as a browser sees it."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("textual_serve")
aiohttp = pytest.importorskip("aiohttp")


ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


async def test_a_served_chat_replies_and_ends_at_sigterm(tmp_path):
    port = free_port()
    server = await asyncio.create_subprocess_exec(
        *serve(port),
        cwd=tmp_path,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
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
                server.send_signal(signal.SIGTERM)
                async with asyncio.timeout(30):  # the server would wait 60 seconds for a page to be closed
                    async for _ in terminal:
                        pass
                    assert await server.wait() == 0
                    assert await server.stderr.read() == b""  # the chat ended before the server did
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()


async def test_foreign_pages_are_refused_and_a_chat_that_dies_closes_its_page(tmp_path):
    port = free_port()
    bundle = tmp_path / "bundle"
    shutil.copytree(ROOT / "models" / "demo", bundle)
    command = [str(bundle) if argument == "demo" else argument for argument in serve(port)]
    server = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    here = f"http://localhost:{port}"
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as browser:
            await once_there(browser, here)
            strangers = [
                {"Origin": "http://evil.example"},
                {"Origin": "null"},
                {"Origin": f"http://localhost:{port + 1}"},
                {"Origin": f"http://evil.example:{port}", "Host": f"evil.example:{port}"},
                {"Host": "evil.example"},
            ]
            for headers in strangers:
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await browser.ws_connect(f"{here}/ws?width=80&height=24", headers=headers)
                assert refused.value.status == 403
                async with browser.get(here, headers=headers) as page:
                    assert page.status == 403
            for headers in ({"Origin": here}, {"Host": f"127.0.0.1:{port}"}):
                async with browser.ws_connect(f"{here}/ws?width=80&height=24", headers=headers) as terminal:
                    await terminal.send_str(json.dumps(["focus"]))
                    await until(terminal, "nothing you write leaves it")
            shutil.rmtree(bundle)  # the next chat ends before it begins
            async with browser.ws_connect(
                f"{here}/ws?width=80&height=24", headers={"Origin": here}
            ) as terminal:
                assert (await terminal.receive()).type is aiohttp.WSMsgType.CLOSE
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
    """Wait until the terminal is sent this text."""
    drawn = b""
    while text.encode() not in drawn:
        message = await terminal.receive()
        assert message.type is aiohttp.WSMsgType.BINARY, message
        drawn += message.data


def test_a_port_in_use_is_reported_in_one_sentence(tmp_path):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(serve(port), cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"cannot be served at localhost, port {port}" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--inline"], "--inline cannot be used with --serve"),
        (
            ["--host", "no-such-host.invalid"],
            "--host is no-such-host.invalid, which is not an address of this machine",
        ),
    ],
)
def test_invalid_serve_options_are_refused(tmp_path, options, said):
    command = [*serve(free_port()), *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]


def test_a_served_chat_has_the_frame_rate_of_a_terminal(monkeypatch):
    from edgechat.tui.serve import _ChatProcess

    monkeypatch.setenv("TEXTUAL_FPS", "77")
    chat = _ChatProcess(
        "true",
        write_bytes=print,
        write_str=print,
        close=print,
        download_manager=None,
        debug=False,
    )
    environment = chat._build_environment(100, 30)
    assert environment["TEXTUAL_FPS"] == "77"
    assert environment["COLUMNS"] == "100"
