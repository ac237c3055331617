"""`edgechat bench`: how fast a bundle is on this machine."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import check_writable, put_json, put_table, say
from .options import (
    BeamOption,
    BundleArgument,
    DeviceOption,
    JsonOption,
    RequireSignatureOption,
    ThreadsOption,
)
from .progress import counting
from .talk import decoding_options

if TYPE_CHECKING:
    from ..runtime import ChatModel, DecodingOptions
    from ..runtime.backend import Backend
    from ..runtime.bundle import Bundle

_BATCH_SIZES = (1, 8, 32)
_ROUNDS = 3
_ONE_REPLY = """
import sys
from edgechat.runtime import ChatModel
print(ChatModel.load(sys.argv[1], device=sys.argv[2], threads=int(sys.argv[3])).reply("hi"))
"""


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    bundle: BundleArgument,
    repeat: Annotated[int, typer.Option(min=3, help="Replies timed at batch 1.")] = 50,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="File with a prompt a line.  [default: the golden vectors, which are random tokens]",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Also time the run that the bundle was made of, in turns: in fp32, and in PyTorch.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="PNG file for a picture of the figures.", show_default=False)
    ] = None,
    beam: BeamOption = None,
    json: JsonOption = False,
    require_signature: RequireSignatureOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Time a bundle on this machine: start-up, latency at batch 1, throughput by batch, memory and size.

    A step cannot be faster than its floor, the time in which one thread reads the decoder's weights from
    memory, unless they stay in the CPU's cache. Figures of two bundles compare only on the same prompts.
    Let nothing else run meanwhile.
    """
    from ..runtime import ChatModel
    from ..runtime.bundle import find_bundle, read_bundle
    from ..runtime.measure import percentile, read_bandwidth, weight_bytes

    if plot is not None:
        check_writable(plot)
    start = time.perf_counter()
    checked = read_bundle(find_bundle(bundle), require_signature=require_signature)
    model = ChatModel.from_bundle(checked, device=device, threads=threads)
    loaded = (time.perf_counter() - start) * 1e3
    options = decoding_options(model.defaults, beam=beam)
    texts = _golden_prompts(checked, model) if prompts is None else _prompts(prompts)
    models = {"bundle": model, **(_of_run(checked, model, against) if against else {})}
    say(f"timing on {model.device}, {threads} thread(s), beam {options.beam}")
    with counting("timing", len(models) * repeat + len(_BATCH_SIZES) * _ROUNDS) as progress:
        taken = _latency(models, texts, options, repeat, progress)
        throughput = _throughput(model, texts, options, progress)
    replies = [model.reply(text, options) for text in texts]
    steps = sum(len(reply.tokens) + 1 for reply in replies) / len(replies)
    read = weight_bytes(checked.files["decoder.onnx"])
    floor = read / read_bandwidth() * 1e3
    result: dict[str, Any] = {
        "bundle": bundle,
        "device": model.device,
        "threads": threads,
        "beam": options.beam,
        "load_ms": round(loaded, 1),
        "reply_ms": _percentiles(taken["bundle"]),
        "first_piece_ms": round(percentile(_first_pieces(model, texts, options), 50), 2),
        "token_ms": round(percentile(taken["bundle"], 50) / steps, 3),
        "floor_ms": round(floor, 3),
        "replies_per_second": {str(size): round(rate, 1) for size, rate in throughput.items()},
        "process": _process(bundle, model.device, threads),
        "weights_a_step": read,
        "size": {name: len(data) for name, data in sorted(checked.files.items())},
        "against": {name: _percentiles(ms) for name, ms in taken.items() if name != "bundle"},
    }
    if plot is not None:
        _plot(plot, taken, throughput)
        say(f"wrote {plot}")
    if json:
        put_json(result)
    else:
        put_table(_rows(result))


def _rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    process, size = result["process"], result["size"]
    p50 = result["reply_ms"]["p50"]
    return [
        ("size", f"{sum(size.values()) / 1e6:.1f} MB, decoder {size['decoder.onnx'] / 1e6:.1f} MB"),
        ("load", f"{result['load_ms']:.0f} ms"),
        *(
            [
                (
                    "fresh process",
                    f"{process['wall_s']:.2f} s, {process['cpu_s']:.2f} s of CPU, "
                    f"{process['peak_bytes'] / 1e6:.0f} MB at most, one reply included",
                )
            ]
            if process
            else []
        ),
        ("reply, batch 1", _shown(result["reply_ms"])),
        ("first piece", f"p50 {result['first_piece_ms']} ms"),
        ("a token", f"{result['token_ms']} ms"),
        (
            "floor of a step",
            f"{result['floor_ms']} ms, to read {result['weights_a_step'] / 1e6:.1f} MB of weights",
        ),
        *(
            (f"{name}, batch 1", f"{_shown(ms)}: {ms['p50'] / p50:.1f}x the bundle")
            for name, ms in result["against"].items()
        ),
        *(
            (f"batch {size}", f"{rate:.1f} replies a second")
            for size, rate in result["replies_per_second"].items()
        ),
    ]


def _percentiles(milliseconds: list[float]) -> dict[str, float]:
    from ..runtime.measure import percentile

    return {f"p{percent}": round(percentile(milliseconds, percent), 2) for percent in (50, 90, 99)}


def _shown(percentiles: dict[str, float]) -> str:
    return ", ".join(f"{name} {value} ms" for name, value in percentiles.items())


def _latency(
    models: "dict[str, ChatModel]",
    texts: list[str],
    options: "DecodingOptions",
    repeat: int,
    progress: Callable[[int], None],
) -> dict[str, list[float]]:
    """Wall milliseconds of single replies by model, in turns."""
    from ..runtime.measure import interleaved

    def replier(model: "ChatModel") -> Callable[[], None]:
        given = 0

        def reply() -> None:
            nonlocal given
            model.reply(texts[given % len(texts)], options)
            given += 1
            progress(1)

        return reply

    calls = {name: replier(model) for name, model in models.items()}
    return interleaved(calls, repeat, clock=time.perf_counter)


def _throughput(
    model: "ChatModel", texts: list[str], options: "DecodingOptions", progress: Callable[[int], None]
) -> dict[int, float]:
    """Replies a second by batch size."""
    rates = {}
    for size in _BATCH_SIZES:
        batch = [texts[i % len(texts)] for i in range(size)]
        model.reply_batch(batch, options, batch_size=size)  # warm
        start = time.perf_counter()
        for _ in range(_ROUNDS):
            model.reply_batch(batch, options, batch_size=size)
            progress(1)
        rates[size] = _ROUNDS * size / (time.perf_counter() - start)
    return rates


def _first_pieces(model: "ChatModel", texts: list[str], options: "DecodingOptions") -> list[float]:
    """Wall milliseconds until each reply's first settled piece."""
    taken = []
    for text in texts:
        start = time.perf_counter()
        next(iter(model.stream(text, options)), "")
        taken.append((time.perf_counter() - start) * 1e3)
    return taken


def _process(bundle: str, device: str, threads: int) -> dict[str, float] | None:
    """What a fresh process costs that prints one reply; None where the system does not say."""
    from ..runtime.measure import process_cost

    command = [sys.executable, "-c", _ONE_REPLY, bundle, device, str(threads)]
    process_cost(command)  # warm
    cost = process_cost(command)
    if cost is None:
        return None
    return {"wall_s": round(cost.wall, 3), "cpu_s": round(cost.cpu, 3), "peak_bytes": cost.peak}


def _of_run(bundle: "Bundle", model: "ChatModel", folder: Path) -> "dict[str, ChatModel]":
    """The model of the bundle's checkpoint in fp32, and in PyTorch."""
    from ..export.exporter import model_of
    from ..export.variants import exact_backend
    from ..runtime import ChatModel
    from ..train.backend import TorchBackend
    from ..train.run import open_run
    from .options import set_torch_threads

    found = model_of(open_run(folder), bundle.manifest.provenance)
    set_torch_threads(1)
    backends: dict[str, Backend[Any]] = {"fp32": exact_backend(found), "PyTorch": TorchBackend(found)}
    return {
        name: ChatModel(backend, model.codec, model.defaults, device="cpu")
        for name, backend in backends.items()
    }


def _plot(path: Path, taken: dict[str, list[float]], throughput: dict[int, float]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.boxplot(list(taken.values()), tick_labels=list(taken), showfliers=False)
    left.set(title="a reply at batch 1", ylabel="milliseconds", ylim=(0, None))
    right.bar([str(size) for size in throughput], list(throughput.values()))
    right.set(title="throughput", xlabel="batch", ylabel="replies a second")
    figure.savefig(path, dpi=120, format="png")
    plt.close(figure)


def _prompts(path: Path) -> list[str]:
    from ..runtime import DataError

    try:
        lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    except OSError as error:
        raise DataError(f"--prompts {path} cannot be read: {error.strerror}") from None
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise DataError(f"--prompts {path} holds no prompt")
    return texts


def _golden_prompts(bundle: "Bundle", model: "ChatModel") -> list[str]:
    """The sources of the bundle's golden vectors as text."""
    import json

    from ..runtime import BundleError

    try:
        prompts = [
            model.codec.decode(case["src"]) for case in json.loads(bundle.files["golden.json"])["cases"]
        ]
        return prompts or [""]
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise BundleError(f"golden.json cannot be used: {error}") from None
