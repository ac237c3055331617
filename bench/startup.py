"""CPU time and peak memory of a fresh process that prints one reply.

    .venv/bin/python bench/startup.py BUNDLE --check --json startup.json

For comparison, in turns: Python alone, onnxruntime alone, and a Typer app that does nothing. Figures are
medians. Run nothing else at the same time.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

from edgechat.runtime.measure import ProcessCost, measure_process

EMPTY_APP_CODE = "import typer; app = typer.Typer(); app.command()(lambda: None); app()"
LIBRARY_CODE = """
import sys
from edgechat.runtime import ChatModel
print(ChatModel.load(sys.argv[1], device="cpu").reply("hi"))
"""
MAX_CPU_SECONDS, MAX_MEMORY_BYTES, MAX_EXTRA_SECONDS = 0.35, 100e6, 0.10


def commands(bundle: str) -> dict[str, list[str]]:
    python = [sys.executable, "-c"]
    return {
        "python -c pass": [*python, "pass"],
        "import onnxruntime": [*python, "import onnxruntime"],
        "an empty Typer app": [*python, EMPTY_APP_CODE],
        "ChatModel, one reply": [*python, LIBRARY_CODE, bundle],
        "edgechat reply": [sys.executable, "-m", "edgechat", "reply", bundle, "hi", "--device", "cpu"],
    }


def measure(bundle: str, repeat: int) -> dict[str, ProcessCost]:
    """Median cost of each command. The commands take turns, after one round that warms up the disk cache."""
    costs: dict[str, list[ProcessCost]] = {name: [] for name in commands(bundle)}
    for turn in range(repeat + 1):
        for name, command in commands(bundle).items():
            cost = measure_process(command)
            if cost is None:
                raise SystemExit("this system does not report the cost of a process")
            if turn:
                costs[name].append(cost)
    return {
        name: ProcessCost(
            statistics.median(c.wall for c in taken),
            statistics.median(c.cpu for c in taken),
            int(statistics.median(c.peak for c in taken)),
        )
        for name, taken in costs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", nargs="?", default="demo")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    arguments = parser.parse_args()
    costs = measure(arguments.bundle, arguments.repeat)
    print(f"{'':<22} {'CPU s':>6} {'wall s':>7} {'peak MB':>8}")
    for name, cost in costs.items():
        print(f"{name:<22} {cost.cpu:>6.3f} {cost.wall:>7.3f} {cost.peak / 1e6:>8.1f}")
    library, command = costs["ChatModel, one reply"], costs["edgechat reply"]
    # The start of Python itself is part of both the library's process and the app's, and must count once.
    typer = costs["an empty Typer app"].cpu - costs["python -c pass"].cpu
    extra = command.cpu - library.cpu - typer
    targets = (
        (
            library.cpu <= MAX_CPU_SECONDS,
            f"ChatModel, one reply: {library.cpu:.3f} s CPU, at most {MAX_CPU_SECONDS}",
        ),
        (
            library.peak <= MAX_MEMORY_BYTES,
            f"ChatModel, one reply: {library.peak / 1e6:.1f} MB, at most {MAX_MEMORY_BYTES / 1e6:.0f}",
        ),
        (
            extra <= MAX_EXTRA_SECONDS,
            f"edgechat reply above that and an empty Typer app: {extra:.3f} s, at most {MAX_EXTRA_SECONDS}",
        ),
    )
    for met, what in targets:
        print(f"{'pass' if met else 'MISSED':<6}  {what}")
    if arguments.json:
        values = {name: asdict(cost) for name, cost in costs.items()}
        arguments.json.write_text(json.dumps(values | {"above_typer": extra}, indent=2) + "\n")
    if arguments.check and not all(met for met, _ in targets):
        sys.exit(1)


if __name__ == "__main__":
    main()
