"""The chat in a browser, by textual-serve: our page, and who may ask for it."""

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
_PATIENCE = 10.0  # seconds that chats have to end


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server there."""
    return host in _LOOPBACK


def serve(command: str, host: str, port: int) -> None:
    """Serve what `command` runs, a process for each page that is opened, until Ctrl-C or SIGTERM.

    Raises:
        OSError: nothing can listen there.
    """
    _check_free(host, port)
    textual_serve.server.AppService = _ChatProcess  # type: ignore[attr-defined]  # it takes no other
    # A page of our own: that of textual-serve has the browser ask Google for a font.
    page = files("edgechat.tui") / "page"
    _Server(command, host=host, port=port, title="edgechat", templates_path=str(page)).serve()


def _check_free(host: str, port: int) -> None:
    """Fail before the server says that it serves."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind(address)


class _ChatProcess(AppService):
    """One whose page is told, however the process ends: textual-serve's own waits for ever where it died."""

    running: ClassVar[set["_ChatProcess"]] = set()

    def _build_environment(self, width: int = 80, height: int = 24) -> dict[str, str]:
        """The clock of drawing is the chat's (`tui/__init__.py`), as in a terminal."""
        clock = {"TEXTUAL_FPS": os.environ["TEXTUAL_FPS"]}
        return super()._build_environment(width, height) | clock

    async def run(self) -> None:
        self.running.add(self)
        try:
            await super().run()
            await self._ended()
        finally:
            self.running.discard(self)
            await self.remote_close()

    async def end(self) -> None:
        await self.send_meta({"type": "quit"})
        await self._ended()

    async def _ended(self) -> None:
        if self._process is not None:
            await self._process.wait()


class _Server(textual_serve.server.Server):
    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._refuse_strangers)
        return app

    async def on_shutdown(self, app: web.Application) -> None:
        """Ctrl-C ends the chats too, SIGTERM the server alone: it would wait for each page to be closed."""
        if ending := [asyncio.create_task(chat.end()) for chat in _ChatProcess.running]:
            await asyncio.wait(ending, timeout=_PATIENCE)

    @web.middleware
    async def _refuse_strangers(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """A browser lets a page of any site open a WebSocket here, and says in Origin which one it is. A name
        that a stranger has made mean this machine (DNS rebinding) shows in Host."""
        asked = request.headers.get("Host", "")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != asked:
            raise web.HTTPForbidden(text=f"a page of {origin} may not talk to edgechat")
        if is_loopback(self.host) and urlsplit(f"//{asked}").hostname not in _LOOPBACK:
            raise web.HTTPForbidden(text=f"edgechat is served at {self.public_url} only")
        response: web.StreamResponse = await handler(request)
        return response
