"""`edgechat bench`: the speed of a bundle on this machine."""

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..runtime import ChatModel
from ..runtime.atomic_write import write_atomic
from ..runtime.bundle import MANIFEST_FILE, SIGNATURE_FILE, Bundle, find_bundle, read_bundle
from ..runtime.display import plural, printable
from ..runtime.errors import UsageError
from ..runtime.golden import golden_sources
from .console import print_json, print_stderr, print_table, read_lines
from .options import BundleArgument, DeviceOption, JsonOption, RequireSignatureOption, ThreadsOption
from .output_path import check_file
from .progress import progress_bar
from .pytorch import set_torch_threads
from .search_options import BeamOption, decoding_options
from .speed import BATCH_SIZES, PERCENTILES, Speed, measure_speeds, measure_startup, measure_step

#: Fresh processes that are timed, at most.
_MAX_STARTS = 5
#: Seconds between calls, after which threads that spin while they wait for work are asleep.
_PAUSE_SECONDS = 0.02


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    bundle: BundleArgument,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Also time the checkpoint that the bundle was exported from, as fp32 and in PyTorch; needs "
            "torch.",
            show_default=False,
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="File of prompts to reply to, one per line.  [default: the golden vectors of the bundle, "
            "which are random tokens]",
            show_default=False,
        ),
    ] = None,
    repeat: Annotated[int, typer.Option(min=3, help="Number of replies timed at batch 1.")] = 50,
    beam: BeamOption = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Plot latency and throughput to this file, which is replaced; needs matplotlib.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
    require_signature: RequireSignatureOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Measure the speed of a bundle on this machine.

    Shown are the latency of a reply and of the first piece of a stream at batch 1, replies per second by
    batch size, the time and peak memory of a fresh process until its first reply, and the size of each file;
    on a CPU also the time of a decoder step, and the time of reading its weights from memory, which a cache
    saves for small models.

    With --against, the engines are timed in turns. Compare two bundles only if their prompts and sizes are
    the same. Run nothing else meanwhile.
    """
    if plot is not None:
        _check_plot(plot)
    path = find_bundle(bundle)
    load_start = time.perf_counter()
    checked = read_bundle(path, require_signature=require_signature)
    model = ChatModel.from_bundle(checked, device=device, threads=threads)
    load_ms = (time.perf_counter() - load_start) * 1e3
    options = decoding_options(model.defaults, beam=beam)
    texts = _golden_prompts(checked, model) if prompts is None else _read_prompts(prompts)
    engines: dict[str, ChatModel] = {checked.manifest.precision: model}
    if against is not None:
        engines |= _load_baselines(checked, against, model, threads)
    print_stderr(
        f"timing {', '.join(engines)} on {model.device}, {plural(threads, 'thread')}, beam {options.beam}"
    )
    rounds = max(3, repeat // 10)
    with progress_bar(
        "timing", len(engines) * (2 * (repeat + 1) + len(BATCH_SIZES) * (rounds + 1))
    ) as progress:
        speeds = measure_speeds(
            engines, texts, options, repeat, rounds, progress, pause=_PAUSE_SECONDS if threads > 1 else 0.0
        )
    bundle_speed = speeds.pop(checked.manifest.precision)
    print_stderr("starting fresh processes")
    arguments = [str(path), model.device, str(threads)]
    start = measure_startup(arguments, texts[0], options, min(_MAX_STARTS, repeat))
    step = None
    if model.device == "cpu":
        print_stderr("timing a decoder step, and reading from memory")
        step = measure_step(checked, model, options.beam)
    result = {
        "bundle": bundle,
        "precision": checked.manifest.precision,
        "device": model.device,
        "threads": threads,
        "beam": options.beam,
        "load_ms": round(load_ms, 1),
        **asdict(bundle_speed),
        "start": start,
        "bytes": _file_sizes(checked),
        "step": step,
        "against": {name: asdict(speed) for name, speed in speeds.items()},
    }
    all_speeds = {checked.manifest.precision: bundle_speed, **speeds}
    if plot is not None:
        _draw_plot(plot, bundle, all_speeds)
        print_stderr(f"wrote {plot}")
    if json:
        print_json(result)
    else:
        print_table([*_bundle_rows(result), *_engine_rows(all_speeds)])


def _file_sizes(bundle: Bundle) -> dict[str, int]:
    """Bytes of each file, the largest first."""
    files = {**bundle.files, MANIFEST_FILE: bundle.manifest_bytes, SIGNATURE_FILE: bundle.signature or b""}
    by_size = sorted(files.items(), key=lambda file: (-len(file[1]), file[0]))
    return {name: len(data) for name, data in by_size if data}


def _load_baselines(bundle: Bundle, run: Path, model: ChatModel, threads: int) -> dict[str, ChatModel]:
    """The checkpoint that the bundle was exported from, as fp32 and in PyTorch."""
    from ..export.baselines import load_baselines

    set_torch_threads(threads)
    return load_baselines(bundle, run, device="cuda" if model.device == "cuda" else "cpu", threads=threads)


def _golden_prompts(bundle: Bundle, model: ChatModel) -> list[str]:
    """The sources of the bundle's golden vectors as text."""
    return list(map(model.codec.decode, golden_sources(bundle.files["golden.json"], model.codec.vocab_size)))


def _read_prompts(path: Path) -> list[str]:
    """The non-empty lines of a file."""
    try:
        with path.open("rb") as file:
            prompts = [line for line in read_lines(file) if line.strip()]
    except FileNotFoundError:
        raise UsageError(f"--prompts is {path}, but there is no such file") from None
    if not prompts:
        raise UsageError(f"--prompts is {path}, which has no prompt in it: write one per line")
    return prompts


def _bundle_rows(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The rows of the table about the bundle alone."""
    yield "load", f"{result['load_ms']:.0f} ms"
    if (start := result["start"]) is None:
        yield "fresh process", "not measured: this system does not report the cost of a process"
    else:
        yield (
            "fresh process",
            f"{start['cpu_s']:.2f} s CPU, {start['wall_s']:.2f} s wall, peak memory "
            f"{start['peak_bytes'] / 1e6:.0f} MB, until its first reply",
        )
    sizes = result["bytes"]
    parts = ", ".join(f"{name} {size / 1e6:.2f}" for name, size in sizes.items() if size >= 1e4)
    yield "size", f"{sum(sizes.values()) / 1e6:.2f} MB: {parts}"
    if step := result["step"]:
        yield (
            "decoder step",
            f"{step['ms']:.2f} ms; reading its {step['weight_bytes'] / 1e6:.1f} MB of weights from memory "
            f"takes {step['floor_ms']:.2f} ms at {step['bytes_per_second'] / 1e9:.1f} GB/s"
            + ("; a cache held them" if step["ms"] < step["floor_ms"] else ""),
        )


def _engine_rows(speeds: Mapping[str, Speed]) -> Iterator[tuple[str, str]]:
    """The rows of the table with a column for each engine."""

    def row(values: Sequence[object]) -> str:
        return "".join(f"{value:>10}" for value in values)

    engine_speeds = list(speeds.values())
    yield "", row(list(speeds))
    for percent in PERCENTILES:
        yield (
            f"reply p{percent}, ms",
            row([f"{speed.reply_ms[f'p{percent}']:.2f}" for speed in engine_speeds]),
        )
    for percent in PERCENTILES:
        pieces = [f"{speed.first_piece_ms[f'p{percent}']:.2f}" for speed in engine_speeds]
        yield f"first piece p{percent}, ms", row(pieces)
    yield "per token, ms", row([f"{speed.token_ms:.3f}" for speed in engine_speeds])
    for size in BATCH_SIZES:
        rates = [f"{speed.replies_per_second[str(size)]:,.1f}" for speed in engine_speeds]
        yield f"batch {size}, replies/s", row(rates)


def _check_plot(path: Path) -> None:
    """Raise an error, before the work, where the plot cannot be drawn or written."""
    import matplotlib  # noqa: F401 - fails here if it is not installed

    if path.suffix != ".png":
        raise UsageError(f"--plot is {path}, but plots are written as .png: give a name that ends with .png")
    check_file("--plot", path)


def _draw_plot(path: Path, bundle: str, speeds: Mapping[str, Speed]) -> None:
    """Plot percentiles of the latency, and the throughput by batch size, with a bar for each engine."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    latency, throughput = figure.subplots(1, 2)
    width = 0.8 / len(speeds)
    for i, (name, speed) in enumerate(speeds.items()):
        for axes, values in ((latency, speed.reply_ms), (throughput, speed.replies_per_second)):
            positions = [position + (i - (len(speeds) - 1) / 2) * width for position in range(len(values))]
            axes.bar_label(axes.bar(positions, list(values.values()), width, label=name), fmt="%.3g")
            axes.set_xticks(range(len(values)), list(values))
    latency.set(title="latency of a reply", ylabel="ms")
    throughput.set(title="throughput", xlabel="batch", ylabel="replies per second")
    for axes in (latency, throughput):
        axes.margins(y=0.15)  # room for the labels
    latency.legend(loc="upper left")
    figure.suptitle(printable(bundle), parse_math=False)
    png = io.BytesIO()
    figure.savefig(png, dpi=120)
    write_atomic(path, png.getvalue())
