"""Other toolkits, each in its own process and environment. serve.py is their side of the protocol."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
#: The module whose import shows that an environment has the peer, by name.
PEER_MODULES = {
    "opennmt": "onmt",
    "joeynmt": "joeynmt",
    "optimum": "optimum.onnxruntime",
    "marian": "_pymarian",
}


@dataclass(frozen=True)
class DecodingSettings:
    """The sizes of the model and the task. Peers use those that apply to them."""

    layers: int
    hidden: int
    embedding: int
    vocab_size: int
    steps: int
    source: int
    beam: int


@dataclass(frozen=True)
class TrainingSettings:
    """The settings of every peer that trains."""

    layers: int
    hidden: int
    direction: int  # hidden size per direction, for peers whose encoder is always bidirectional
    embedding: int
    vocab_size: int
    dropout: float
    learning_rate: float
    clip: float


class _PeerProcess:
    """A peer in its own environment, which answers each line with a line of JSON."""

    def __init__(self, name: str, python: Path) -> None:
        self.name, self.version = name, ""
        self._python = python
        self._process: subprocess.Popen[str] | None = None

    def _launch(self, script: str, sizes: dict) -> None:
        self._process = subprocess.Popen(
            [self._python, HERE / script, json.dumps(sizes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.version = self._read_answer()["version"]

    def _ask(self, line: str) -> dict:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._read_answer()

    def _read_answer(self) -> dict:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            command = " ".join(map(str, self._process.args))  # type: ignore[arg-type]
            raise SystemExit(f"{self.name} exited; to see why, run it alone: echo go | {command}")
        return json.loads(line)

    def stop(self) -> None:
        """End the process, if it was started."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()


class DecodingPeer(_PeerProcess):
    """A peer that decodes. `times` are the CPU milliseconds of its calls without the first, a warm-up."""

    times: list[float]

    def start(self, settings: DecodingSettings, batch: int) -> Callable[[], None]:
        """Start the process; return a function that lets it decode once."""
        self._launch(f"run_{self.name}.py", {**asdict(settings), "batch": batch})
        warm_up_times: list[float] = []
        self.times = []

        def call() -> None:
            answer = self._ask("go")
            if answer["steps"] != settings.steps:
                raise SystemExit(f"{self.name} took {answer['steps']} steps, not {settings.steps}")
            (self.times if warm_up_times else warm_up_times).append(answer["ms"])

        return call


class TrainingPeer(_PeerProcess):
    """A peer that trains. With `half_size`, each direction of its bidirectional encoder has half the hidden
    size."""

    def __init__(self, name: str, python: Path, *, half_size: bool = False) -> None:
        super().__init__(name, python)
        self.half_size = half_size

    def start(self, sizes: TrainingSettings) -> None:
        self._launch(f"train_{self.name}.py", asdict(sizes))

    def update(self, sources: list[list[int]], targets: list[list[int]]) -> float:
        """Make an update from these pairs; return its seconds of CPU time. Targets end with the
        end-of-sentence."""
        return self._batch(sources, targets, learn=True)["ms"] / 1e3

    def loss(self, sources: list[list[int]], targets: list[list[int]]) -> float:
        """The summed loss (natural log) of these pairs without dropout."""
        return self._batch(sources, targets, learn=False)["loss"]

    def _batch(self, sources: list[list[int]], targets: list[list[int]], learn: bool) -> dict:
        return self._ask(json.dumps({"sources": sources, "targets": targets, "learn": learn}))


def find_decoding_peers(folder: Path) -> tuple[list[DecodingPeer], list[str]]:
    """The peers that decode and have an environment in `folder`, and why others are skipped."""
    environments, missing = _find_environments(folder, list(PEER_MODULES))
    return [DecodingPeer(name, python) for name, python in environments.items()], missing


def find_training_peers(folder: Path) -> tuple[list[TrainingPeer], list[str]]:
    """Like `find_decoding_peers`, for peers that train. JoeyNMT is listed in two sizes, halved and not."""
    environments, missing = _find_environments(folder, ["opennmt", "joeynmt"])
    found = [TrainingPeer(name, python) for name, python in environments.items()]
    if "joeynmt" in environments:
        found.append(TrainingPeer("joeynmt", environments["joeynmt"], half_size=True))
    return found, missing


def _find_environments(folder: Path, names: list[str]) -> tuple[dict[str, Path], list[str]]:
    """The interpreter of each usable environment, and what is wrong with the others."""
    found, missing = {}, []
    for name in names:
        module = PEER_MODULES[name]
        python = folder / name / "bin" / "python"
        if not python.exists():
            missing.append(f"{name}: there is no {python} (bench/README.md explains how to create it)")
        elif subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode:
            missing.append(f"{name}: {python} cannot import {module}")
        else:
            found[name] = python
    return found, missing
