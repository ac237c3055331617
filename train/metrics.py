"""`metrics.jsonl`, one row a validation, and the same rows as curves in `metrics.png`."""

import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..runtime.files import write_atomic
from ..runtime.jsonobject import finite
from .perplexity import perplexity


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of a run; a last line that a kill cut, or one that is damaged, is none."""
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [row for row in map(_row, lines) if row is not None]


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    numbers = all(value is None or isinstance(value, int | float) for value in row.values())
    return row if numbers else None


def _line(row: dict[str, Any]) -> str:
    return json.dumps(finite(row), allow_nan=False) + "\n"


def append_metrics(run: Path, row: dict[str, Any]) -> None:
    """Add a row, durably."""
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(_line(row))
        file.flush()
        os.fsync(file.fileno())


def cut_metrics(run: Path, step: int) -> None:
    """Drop the rows after `step`: a resumed run writes them again."""
    kept = [row for row in read_metrics(run) if row["step"] <= step]
    write_atomic(run / "metrics.jsonl", "".join(map(_line, kept)))


def plot_metrics(run: Path) -> None:
    """Draw loss and perplexity over steps, and mark the best validation, if anything was held out."""
    rows = read_metrics(run)
    if not rows:
        return
    from matplotlib.figure import Figure

    curves = {"training": ("train_loss", "--"), "held out": ("valid_loss", "-")}
    if all(row.get("valid_loss") is None for row in rows):
        del curves["held out"]
    steps = [row["step"] for row in rows]
    score = "valid_loss" if "held out" in curves else "train_loss"
    drawn = {
        key: [math.nan if row.get(key) is None else row[key] for row in rows] for key, _ in curves.values()
    }
    best = min(range(len(rows)), key=lambda n: math.inf if math.isnan(drawn[score][n]) else drawn[score][n])
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    values: tuple[Callable[[float], float], ...] = (float, perplexity)
    for panel, value in zip(axes, values, strict=True):
        for label, (key, style) in curves.items():
            panel.plot(steps, list(map(value, drawn[key])), style, label=label)
        lowest = value(drawn[score][best])
        panel.plot(steps[best], lowest, "o", label=f"best {lowest:.3g} at {steps[best]:,}")
        panel.legend()
        panel.grid(alpha=0.3)
    axes[0].set(title="Loss", xlabel="step", ylabel="natural log a target token")
    axes[1].set(title="Perplexity", xlabel="step", yscale="log")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120, metadata={"Software": None})
    write_atomic(run / "metrics.png", png.getvalue())
