"""`metrics.jsonl`, one row a validation, and the same rows as curves in `metrics.png`."""

import json
import os
from pathlib import Path
from typing import Any

from ..runtime.files import write_atomic
from .loss import perplexity


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of a run; a last line that a kill cut is not one."""
    path = run / "metrics.jsonl"
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
            int(row["step"])
        except (ValueError, KeyError, TypeError):
            break
        rows.append(row)
    return rows


def append_metrics(run: Path, row: dict[str, Any]) -> None:
    """Add a row, durably."""
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def cut_metrics(run: Path, step: int) -> None:
    """Drop the rows after `step`: a resumed run writes them again."""
    kept = [row for row in read_metrics(run) if row["step"] <= step]
    write_atomic(run / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))


def plot_metrics(run: Path) -> None:
    """Draw loss and perplexity over steps, and mark the best validation."""
    rows = read_metrics(run)
    if not rows:
        return
    import io

    from matplotlib.figure import Figure

    steps = [row["step"] for row in rows]
    best = min(rows, key=lambda row: row["valid_loss"])
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss_axes, ppl_axes = figure.subplots(1, 2)
    for key, label, style in (("train_loss", "training", "--"), ("valid_loss", "held out", "-")):
        loss_axes.plot(steps, [row[key] for row in rows], style, label=label)
        ppl_axes.plot(steps, [perplexity(row[key]) for row in rows], style, label=label)
    loss_axes.set(title="Loss", xlabel="step", ylabel="natural log a target token")
    ppl_axes.set(title="Perplexity", xlabel="step", yscale="log")
    for axes, value in ((loss_axes, best["valid_loss"]), (ppl_axes, perplexity(best["valid_loss"]))):
        axes.plot(best["step"], value, "o", label=f"best {value:.3g} at {best['step']:,}")
        axes.legend()
        axes.grid(alpha=0.3)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120, metadata={"Software": None})
    write_atomic(run / "metrics.png", png.getvalue())
