"""The command in a pseudo-terminal: the bytes that reach the terminal."""

import base64
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import time

import pytest

from edgechat.runtime.bundle import find_bundle
from edgechat.tui.store import Store
from edgechat.tui.values import Exchange, ReplyFacts

pty, fcntl, termios = map(pytest.importorskip, ("pty", "fcntl", "termios"))


class Terminal:
    """A command in a pseudo-terminal. `written` is its output."""

    def __init__(self, *command: str, size: tuple[int, int] = (100, 30), **environ: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgechat", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # it is told when the terminal is closed
            env=env | {"TERM": "xterm-256color", "COLORTERM": "truecolor"} | environ,
        )
        os.close(slave)
        self.written = b""

    def press(self, keys: str | bytes) -> None:
        os.write(self._master, keys.encode() if isinstance(keys, str) else keys)

    def until(self, text: str, seconds: float = 60) -> None:
        """Wait until the terminal is sent this text, after everything that was read before."""
        begin, deadline = len(self.written), time.monotonic() + seconds
        while text.encode() not in self.written[begin:]:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.written[-2000:]!r}"
            self._read()

    def end(self, keys: str = "") -> int:
        """Press keys that end the command. Returns the exit code."""
        self.press(keys)
        deadline = time.monotonic() + 60
        while self._process.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            self._read()
        self._read()
        return self._process.returncode

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def rest(self) -> None:
        """Read for a while, until earlier output is drawn. The blinking cursor never stops writing."""
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            self._read()

    def stopped(self) -> None:
        """Wait until the command is in the background."""
        os.waitpid(self._process.pid, os.WUNTRACED)

    def wait(self) -> int:
        """Wait for the exit code without reading the output."""
        return self._process.wait(60)

    def hang_up(self) -> int:
        """Close the terminal, as a user closes its window. Returns the exit code."""
        os.close(self._master)
        self._master = None
        self.signal(signal.SIGHUP)  # once more, as from a shell
        return self._process.wait(60)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._master is not None:
            os.close(self._master)

    def _read(self) -> None:
        if select.select([self._master], [], [], 0.05)[0]:
            try:
                self.written += os.read(self._master, 1 << 16)
            except OSError:  # it has ended
                return


@pytest.fixture
def terminal(tmp_path):
    opened = []
    folders = {name: str(tmp_path / name.lower()) for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME")}

    def open_one(*command: str, **options) -> Terminal:
        opened.append(Terminal(*command, **folders, **options))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


#: Sets the title, clears, blinks red; by C0 and by C1 controls.
HOSTILE = "\x1b]0;PWNED\x07\x1b[31;5;7mred\x9b2J\x90q"
SHOWN = "␛]0;PWNED␇␛[31;5;7mred"


def test_no_control_sequence_of_a_name_or_conversation_reaches_the_terminal(terminal, tmp_path):
    bundle = tmp_path / HOSTILE
    shutil.copytree(find_bundle("demo"), bundle)
    store = Store(tmp_path / "xdg_data_home" / "edgechat" / "chats.db")
    said = Exchange(HOSTILE, reply=ReplyFacts(HOSTILE), mark="bad", answer=HOSTILE)
    store.create(HOSTILE, HOSTILE, [said])
    store.close()
    one = terminal("tui", str(bundle))
    one.until(SHOWN)  # in the welcome
    one.press("\x0c")  # Ctrl-L
    one.until("1 exchange")
    one.press("\r")
    one.until("should have said")
    one.press("\x19")  # Ctrl-Y
    one.until("\x1b]52;")
    one.press("hello\r")
    one.until("tokens/s")
    one.press("\x02")  # Ctrl-B
    one.until("choose a bundle")
    assert one.end("\x11") == 0  # Ctrl-Q
    assert one.written.count(SHOWN.encode()) > 5
    assert set(re.findall(rb"\x1b\](\d*)", one.written)) == {b"52", b"22"}  # clipboard, pointer
    for raw in ("\x1b[31;5;7m", "\x9b", "\x90"):
        assert raw.encode() not in one.written
    # Without the controls, the clipboard's too.
    (clipboard,) = re.findall(rb"\x1b\]52;c;([^\x07]*)\x07", one.written)
    assert base64.b64decode(clipboard).decode().startswith(SHOWN)
    assert given_back(one, *TAKEN)


def test_keys_that_are_typed_before_the_chat_is_drawn_are_not_lost(terminal, tmp_path):
    one = terminal("tui", "demo")
    one.press("hello there")
    one.until("beam")  # the bundle is loaded: until then, Enter says that it is not
    one.press("\r")
    one.until("tokens/s")
    assert one.end("\x11") == 0
    store = Store(tmp_path / "xdg_data_home" / "edgechat" / "chats.db")
    assert store.latest_prompts() == ["hello there"]
    store.close()


#: The alternate screen, the mouse, the cursor: how they are taken, and how given back.
TAKEN = (("?1049h", "?1049l"), ("?1000h", "?1000l"), ("?25l", "?25h"))


def given_back(one, *taken):
    last = [[one.written.rindex(f"\x1b[{code}".encode()) for code in pair] for pair in taken]
    return all(took < gave for took, gave in last)


def with_a_deleted_conversation(terminal, *options):
    one = terminal("tui", "demo", *options)
    one.until("nothing you write leaves it")
    one.press("my secret needle\r")
    one.until("tokens/s")
    one.press("\x0c")  # Ctrl-L
    one.until("1 exchange")
    one.press("\x04")  # Ctrl-D
    one.until("Undo restores it")
    return one


def files(folder):
    return b"".join(file.read_bytes() for file in (folder / "xdg_data_home" / "edgechat").iterdir())


@pytest.mark.parametrize(("options", "taken"), [((), TAKEN), (("--inline",), TAKEN[1:])], ids=["", "inline"])
def test_sigterm_quits_like_the_key(terminal, tmp_path, options, taken):
    one = with_a_deleted_conversation(terminal, *options)
    assert b"needle" in files(tmp_path)
    one.signal(signal.SIGTERM)
    assert one.end() == 0
    assert given_back(one, *taken)
    assert b"needle" not in files(tmp_path)


@pytest.mark.parametrize("options", [(), ("--inline",)], ids=["", "inline"])
def test_closing_the_terminal_quits_like_the_key(terminal, tmp_path, options):
    one = with_a_deleted_conversation(terminal, *options)
    assert one.hang_up() == 0
    assert b"needle" not in files(tmp_path)


def test_inline_without_colors_the_terminal_keeps_its_screen(terminal, tmp_path):
    one = terminal("tui", "demo", "--inline", "--private", NO_COLOR="1")
    one.until("nothing you write leaves it")
    one.press("hello\r")
    one.until("tokens/s")
    for key, shown in (("\x1bOR", "logp"), ("\x1bOP", "help:"), ("\x1bOP", "reply"), ("\x10", "Search for")):
        one.press(key)  # F3, help, close it, the palette
        one.until(shown)
    assert one.end("\x11") == 0
    assert b"\x1b[?1049h" not in one.written
    looks = {look for looks in re.findall(rb"\x1b\[([\d;]*)m", one.written) for look in looks.split(b";")}
    assert looks <= {b"", b"0", b"1", b"2", b"3", b"4", b"7", b"9", b"39", b"49"}  # bold, dim and the like
    assert b"1" in looks
    assert list(tmp_path.rglob("*.db")) == []  # --private
    assert "demo · not saved".encode() in one.written


def test_without_utf8_the_chat_does_not_start(terminal):
    one = terminal("tui", "demo", "--private", PYTHONIOENCODING="latin-1")
    assert one.end() == 2
    said = b"edgechat: the chat needs UTF-8, but the encoding of stderr is iso8859-1: set PYTHONUTF8=1"
    assert one.written.replace(b"\r\n", b"").startswith(said)
    assert b"\x1b" not in one.written


def test_on_a_dumb_terminal_the_chat_in_lines_is_suggested(terminal):
    one = terminal("tui", "demo", "--private", TERM="dumb")
    assert one.end() == 2
    said = b"edgechat: the chat cannot draw its screen on this terminal (TERM=dumb): use edgechat chat"
    assert b" ".join(one.written.split()) == said
    assert b"\x1b" not in one.written


def test_everything_is_drawn_again_after_a_suspension(terminal):
    one = terminal("tui", "demo", "--private")
    one.until("nothing you write leaves it")
    for _ in range(2):
        one.rest()  # Textual may hang where the signal comes while it draws
        one.signal(signal.SIGTSTP)
        one.until("?1049l")
        one.stopped()
        one.signal(signal.SIGCONT)
        one.until("Say something")
        assert b"nothing you write leaves it" in one.written[one.written.rindex(b"?1049h") :]
    assert one.end("\x11") == 0
    assert given_back(one, *TAKEN)


def test_sigterm_ends_the_chat_even_if_the_terminal_accepts_no_output(terminal, tmp_path):
    one = terminal("tui", "demo", size=(200, 60))
    one.until("nothing you write leaves it")
    one.press("hello\r")
    one.until("tokens/s")
    for _ in range(40):  # nobody reads what comes of it
        one.press("\x1bOP")  # F1
        time.sleep(0.05)
    one.signal(signal.SIGTERM)
    assert one.wait() == 0
    store = Store(tmp_path / "xdg_data_home" / "edgechat" / "chats.db")
    assert [found.exchanges for found in store.find()] == [1]
    store.close()


def test_inline_in_a_small_terminal_there_is_room_for_a_reply(terminal):
    one = terminal("tui", "demo", "--inline", "--private", size=(40, 10))
    one.until("Say something")
    one.press("hello\r")
    one.until("bot")
    assert one.end("\x11") == 0


@pytest.mark.parametrize("options", [(), ("--inline",)], ids=["", "inline"])
def test_invalid_utf8_and_pastes_with_escapes_end_up_in_the_prompt(terminal, options):
    one = terminal("tui", "demo", "--private", *options)
    one.until("Say something")
    one.press(b"caf\xe9 \x1b[200~\x1b[31mred\x11\x1b[0m\ntwo\x1b[201~ end")
    one.until("two end")
    assert one.end("\x11") == 0
    assert "caf\ufffd ␛[31mred␑␛[0m".encode() in one.written


@pytest.mark.parametrize(
    "keys",
    ["hello\r\x11after\r\x0c\x04", "hello\x11after\r\x0cx\x04\x1bOP\x1bOQ", "\x0cgone\x1b\x11and more"],
)
def test_keys_sent_together_with_quit_are_ignored(terminal, keys):
    one = terminal("tui", "demo", "--private")
    one.until("beam 5")
    assert one.end(keys) == 0
    assert b"Traceback" not in one.written
    assert b"No nodes" not in one.written
