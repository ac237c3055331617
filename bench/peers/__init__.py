"""Other toolkits, each in a process and an environment of its own: see serve.py for what they say."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
#: Name, and the import that tells whether an environment has it.
PEERS = {"opennmt": "onmt", "joeynmt": "joeynmt", "optimum": "optimum.onnxruntime", "marian": "_pymarian"}


@dataclass(frozen=True)
class Shape:
    """What every peer decodes, as far as it has such sizes."""

    layers: int
    hidden: int
    embedding: int
    vocab_size: int
    steps: int
    source: int
    beam: int


class Peer:
    """A peer that runs; `times` are the CPU milliseconds of its calls but the first, which warms up."""

    def __init__(self, name: str, python: Path) -> None:
        self.name, self.version = name, ""
        self.times: list[float] = []
        self._python = python

    def start(self, shape: Shape, batch: int) -> Callable[[], None]:
        """Start it, and give what has it decode once."""
        self._process = subprocess.Popen(
            [self._python, HERE / f"run_{self.name}.py", json.dumps({**asdict(shape), "batch": batch})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.version = self._answer()["version"]
        called: list[float] = []
        self.times = []

        def call() -> None:
            assert self._process.stdin is not None
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
            answer = self._answer()
            if answer["steps"] != shape.steps:
                raise SystemExit(f"{self.name} took {answer['steps']} steps, not {shape.steps}")
            (self.times if called else called).append(answer["ms"])

        return call

    def _answer(self) -> dict:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            command = " ".join(map(str, self._process.args))  # type: ignore[arg-type]
            raise SystemExit(f"{self.name} ended: run it alone to see why: echo go | {command}")
        return json.loads(line)

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def find_peers(folder: Path) -> tuple[list[Peer], list[str]]:
    """The peers that `folder` has an environment for, and why others are skipped."""
    found, missing = [], []
    for name, module in PEERS.items():
        python = folder / name / "bin" / "python"
        if not python.exists():
            missing.append(f"{name}: there is no {python} (bench/README.md says how to make it)")
        elif subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode:
            missing.append(f"{name}: {python} cannot import {module}")
        else:
            found.append(Peer(name, python))
    return found, missing
