"""The time from a key to its echo in the terminal chat, while a model of the size `classic` decodes.

    .venv/bin/python bench/echo.py --check --json echo.json

`edgechat tui` runs in a pseudo-terminal of 140 columns and 40 rows, with an int8 bundle with random weights
whose replies have 400 tokens. Keys arrive at the pace of a fast typist. For each key, the time until the chat
draws its character is measured: first while the chat is idle, then while replies are decoded and drawn. Run
nothing else at the same time.
"""

import argparse
import itertools
import json
import os
import pty
import random
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from dataclasses import asdict, dataclass, replace
from fcntl import ioctl
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from edgechat.export.bundle_graphs import build_graphs
from edgechat.export.graphs import graph_spec
from edgechat.runtime import DecodingOptions
from edgechat.runtime.bundle import find_bundle, read_bundle, write_bundle
from edgechat.runtime.text import SPECIAL_TOKENS
from edgechat.train.config import load_preset
from edgechat.train.model import Seq2Seq

MAX_ECHO_MS = 50.0  # maximum milliseconds from key to echo, for the median and the 95th percentile
REPLY_TOKENS = 400  # length of a reply
COLUMNS, ROWS = 140, 40
PAUSE_SECONDS = (0.05, 0.15)  # seconds between two keys
DRAW_TIMEOUT_SECONDS = 60.0  # seconds to wait for something to be drawn
#: The first of the characters typed. Each is typed once, and none occurs elsewhere on the screen.
FIRST_CHARACTER = 0x4E00
KEYS_PER_REPLY = 10


@dataclass(frozen=True)
class Echo:
    """Milliseconds from key to echo."""

    keys: int
    median: float
    p95: float
    p99: float
    worst: float

    @classmethod
    def from_times(cls, times: list[float]) -> "Echo":
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        return cls(len(times), statistics.median(times), cuts[94], cuts[98], max(times))


class Chat:
    """`edgechat tui` in a pseudo-terminal."""

    def __init__(self, bundle: Path, threads: int) -> None:
        self._master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        command = [sys.executable, "-m", "edgechat", "tui", bundle, "--private", "--device", "cpu"]
        self._process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"},
        )
        os.close(slave)
        self._output = b""

    def press(self, keys: str) -> int:
        """Type these keys. Return the position in the output after which anything was drawn in response."""
        os.write(self._master, keys.encode())
        return len(self._output)

    def wait_for(self, text: str, since: int = 0) -> None:
        """Wait until `text` is drawn after the position `since`."""
        end = time.perf_counter() + DRAW_TIMEOUT_SECONDS
        while not self.has_drawn(text, since):
            if time.perf_counter() > end:
                raise SystemExit(f"the chat does not draw {text!r}; it drew {self._output[-1000:]!r}")
            self._read(DRAW_TIMEOUT_SECONDS)

    def has_drawn(self, text: str, since: int) -> bool:
        return text.encode() in self._output[since:]

    def measure_echo_ms(self, key: str) -> float:
        """Type a key; return the milliseconds until it is drawn."""
        begun = time.perf_counter()
        self.wait_for(key, self.press(key))
        return (time.perf_counter() - begun) * 1e3

    def read_for(self, seconds: float) -> None:
        """Read the output for some seconds: if nobody reads it, the chat has to wait."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self._read(left)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _read(self, seconds: float) -> None:
        if select.select([self._master], [], [], seconds)[0]:
            self._output += os.read(self._master, 1 << 16)


def make_bundle(size: str, folder: Path) -> Path:
    """Write a bundle with random weights, whose tokens are words that are not typed."""
    torch.manual_seed(0)
    config = load_preset(size)
    model = Seq2Seq(config.model, config.data.vocab_size).eval()
    sources = [[5 + (31 * n + k) % 1000 for k in range(12)] for n in range(32)]
    built = build_graphs(model, "int8", (sources, sources))
    shipped, spec = read_bundle(find_bundle("demo")).manifest, graph_spec(model)
    manifest = replace(
        shipped,
        model=replace(
            shipped.model,
            layers=config.model.layers,
            hidden=config.model.hidden,
            embedding=config.model.embedding,
            attention=model.attention.size,
            memory=config.model.hidden,
            vocab_size=model.vocab_size,
            reverse_source=config.model.reverse_source,
        ),
        text=replace(shipped.text, max_target=REPLY_TOKENS),
        memory=spec.memory,
        state=spec.state,
        decoding=DecodingOptions(beam=5, min_length=REPLY_TOKENS - 1),
        calibration=None,
    )
    contents = {
        "tokenizer.json": _tokenizer(model.vocab_size),
        "encoder.onnx": built.encoder,
        "decoder.onnx": built.decoder,
        "golden.json": b"{}",
        "MODEL_CARD.md": b"random weights\n",
    }
    write_bundle(folder / size, manifest, contents, replace_existing=False)
    return folder / size


def _tokenizer(vocab_size: int) -> bytes:
    names = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words = [f"Ġword{n}" for n in range(vocab_size - len(names))]
    vocabulary = {name: id for id, name in enumerate([*names, *words])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer.to_str().encode()


def measure(chat: Chat, keys: int) -> dict[str, Echo]:
    """Measure while the chat is idle, and while replies are decoded. What is typed during a reply is the next
    prompt."""
    typed = map(chr, range(FIRST_CHARACTER, FIRST_CHARACTER + 20_000))
    pace = random.Random(0)
    chat.wait_for("beam 5")  # the bundle is loaded
    idle, busy = [], []
    for key in itertools.islice(typed, keys):
        chat.read_for(pace.uniform(*PAUSE_SECONDS))
        idle.append(chat.measure_echo_ms(key))
    while len(busy) < keys:
        sent = chat.press("\r")
        chat.wait_for("replying", sent)
        for key in itertools.islice(typed, KEYS_PER_REPLY):
            chat.read_for(pace.uniform(*PAUSE_SECONDS))
            ms = chat.measure_echo_ms(key)
            if not chat.has_drawn("tokens/s", sent):  # the reply is still being decoded
                busy.append(ms)
        chat.wait_for("tokens/s", sent)
    return {
        "with nothing else to do": Echo.from_times(idle),
        "while a reply is decoded": Echo.from_times(busy),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="classic", help="a preset")
    parser.add_argument("--threads", type=int, default=1, help="threads of the chat's decoding")
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if the target is missed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chat = Chat(make_bundle(arguments.size, Path(folder)), arguments.threads)
        try:
            echoes = measure(chat, arguments.keys)
        finally:
            chat.close()
    print(f"{'ms from key to echo':<26} {'keys':>5} {'median':>7} {'p95':>7} {'p99':>7} {'worst':>7}")
    for name, echo in echoes.items():
        times = (echo.median, echo.p95, echo.p99, echo.worst)
        print(f"{name:<26} {echo.keys:>5}" + "".join(f" {ms:>7.1f}" for ms in times))
    busy = echoes["while a reply is decoded"]
    met = max(busy.median, busy.p95) < MAX_ECHO_MS
    print(f"{'pass' if met else 'MISSED'}  median and p95 while a reply is decoded, below {MAX_ECHO_MS:g} ms")
    if arguments.json:
        values = {name: asdict(echo) for name, echo in echoes.items()}
        settings = {"size": arguments.size, "threads": arguments.threads, "tokens": REPLY_TOKENS}
        arguments.json.write_text(json.dumps(settings | values | {"met": met}, indent=2) + "\n")
    if arguments.check and not met:
        sys.exit(1)


if __name__ == "__main__":
    main()
