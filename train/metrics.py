"""`metrics.jsonl`, one row per validation, and the same rows as curves in `metrics.png`."""

import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.atomic_write import write_atomic
from ..runtime.strict_json import replace_nonfinite
from .perplexity import perplexity

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of a run, without damaged lines and a last line that a kill cut short."""
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [row for row in map(_parse_row, lines) if row is not None]


def _parse_row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    numbers = all(value is None or isinstance(value, int | float) for value in row.values())
    return row if numbers else None


def _format_row(row: dict[str, Any]) -> str:
    return json.dumps(replace_nonfinite(row), allow_nan=False) + "\n"


def append_metrics(run: Path, row: dict[str, Any]) -> None:
    """Append a row and sync it to disk."""
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(_format_row(row))
        file.flush()
        os.fsync(file.fileno())


def truncate_metrics(run: Path, step: int) -> None:
    """Remove the rows after `step`; a resumed run writes them again."""
    kept = [row for row in read_metrics(run) if row["step"] <= step]
    write_atomic(run / "metrics.jsonl", "".join(map(_format_row, kept)))


def plot_metrics(run: Path, best_step: int, metric: str | None = None) -> None:
    """Draw loss and perplexity over steps, and `metric` if it decides which checkpoint is best. The
    validation at `best_step` is marked if there is one."""
    if rows := read_metrics(run):
        png = io.BytesIO()
        make_figure(rows, best_step, metric).savefig(png, format="png", dpi=120, metadata={"Software": None})
        write_atomic(run / "metrics.png", png.getvalue())


def make_figure(rows: list[dict[str, Any]], best_step: int, metric: str | None = None) -> "Figure":
    """The figure of these rows, as described in `plot_metrics`."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    held_out = any(row.get("valid_loss") is not None for row in rows)
    losses = ["train_loss", "valid_loss"] if held_out else ["train_loss"]
    panels: list[tuple[str, list[str], Callable[[float], float]]] = [
        ("loss, natural log per target token", losses, float),
        ("perplexity", losses, perplexity),
    ]
    if metric is not None:
        panels.append((metric, [f"valid_{metric}"], float))
    figure = Figure(figsize=(4.5 * len(panels), 3.6))
    # Margins that are given draw in half the time of margins that are found.
    grid = figure.subplots(1, len(panels), gridspec_kw={"wspace": 0.25})
    figure.subplots_adjust(left=0.15 / len(panels), right=1 - 0.04 / len(panels), bottom=0.14, top=0.91)
    for axes, (title, columns, scale) in zip(grid, panels, strict=True):
        axes.set(title=title, xlabel="step", yscale="log" if scale is perplexity else "linear")
        if scale is perplexity:
            axes.yaxis.set_major_formatter(LogFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
        for column in columns:
            curve = {row["step"]: math.nan if row.get(column) is None else scale(row[column]) for row in rows}
            label, style = ("training", "--") if column == "train_loss" else ("held out", "-")
            axes.plot(list(curve), list(curve.values()), style, label=label)
        if best_step in curve:  # of the last column: the held-out one, if there is one
            axes.plot(best_step, curve[best_step], "o", label=f"best {curve[best_step]:.3g} at {best_step:,}")
        axes.legend()
        axes.grid(alpha=0.3)
    return figure
