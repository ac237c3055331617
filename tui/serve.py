"""The chat in a browser, with textual-serve: the page, and the checks of who may open it."""

import asyncio
import os
import socket
from importlib.resources import files
from typing import Any, ClassVar
from urllib.parse import urlsplit

import textual_serve.server
from aiohttp import web
from textual_serve.app_service import AppService

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_END_TIMEOUT_SECONDS = 10.0  # to wait for the chats to end


def is_loopback(host: str) -> bool:
    """Whether a server at `host` can only be reached from this machine."""
    return host in _LOOPBACK


def serve(command: str, host: str, port: int) -> None:
    """Serve `command`, with one process for each open page, until Ctrl-C or SIGTERM.

    Raises:
        OSError: the server cannot listen at `host` and `port`.
    """
    _check_port_free(host, port)
    # textual-serve has no parameter for the class.
    textual_serve.server.AppService = _ChatProcess  # type: ignore[attr-defined]
    # The page of textual-serve loads a font from Google, so the chat has its own page.
    page = files("edgechat.tui") / "page"
    _Server(command, host=host, port=port, title="edgechat", templates_path=str(page)).serve()


def _check_port_free(host: str, port: int) -> None:
    """Raise OSError if the port is taken, before the server announces its address."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind(address)


class _ChatProcess(AppService):
    """A chat process that closes its page when it ends. The page of textual-serve waits forever if the
    process dies."""

    running: ClassVar[set["_ChatProcess"]] = set()

    def _build_environment(self, width: int = 80, height: int = 24) -> dict[str, str]:
        """Use the frame rate of the chat (`tui/__init__.py`), as in a terminal."""
        clock = {"TEXTUAL_FPS": os.environ["TEXTUAL_FPS"]}
        return super()._build_environment(width, height) | clock

    async def run(self) -> None:
        self.running.add(self)
        try:
            await super().run()
            await self._wait_for_exit()
        finally:
            self.running.discard(self)
            await self.remote_close()

    async def end(self) -> None:
        await self.send_meta({"type": "quit"})
        await self._wait_for_exit()

    async def _wait_for_exit(self) -> None:
        if self._process is not None:
            await self._process.wait()


class _Server(textual_serve.server.Server):
    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._refuse_other_sites)
        return app

    async def on_shutdown(self, app: web.Application) -> None:
        """End all chats. SIGTERM only reaches the server, which would wait for every page to be closed."""
        if ending := [asyncio.create_task(chat.end()) for chat in _ChatProcess.running]:
            await asyncio.wait(ending, timeout=_END_TIMEOUT_SECONDS)

    @web.middleware
    async def _refuse_other_sites(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Refuse requests by pages of other sites. A browser lets any page open a WebSocket here, but sends
        its site in `Origin`. With DNS rebinding, the foreign name is in `Host`."""
        host_header = request.headers.get("Host", "")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != host_header:
            raise web.HTTPForbidden(text=f"a page of {origin} is not allowed to use edgechat")
        if is_loopback(self.host) and urlsplit(f"//{host_header}").hostname not in _LOOPBACK:
            raise web.HTTPForbidden(text=f"edgechat is only served at {self.public_url}")
        response: web.StreamResponse = await handler(request)
        return response
