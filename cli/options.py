"""Options that several commands have, so that each is spelled and explained once."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..runtime.errors import DeviceError

BundleArgument = Annotated[
    str,
    typer.Argument(
        help="Folder or .edgechat file that `edgechat export` wrote, or `demo` for the one in the package."
    ),
]
RequireSignatureOption = Annotated[
    Path | None,
    typer.Option(
        metavar="KEY",
        help="Public key (PEM): use the bundle only if it is signed by it and was not changed since.",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(
        help="auto takes CUDA where it can really be used, else the CPU; cuda fails where it cannot.",
    ),
]
ThreadsOption = Annotated[
    int, typer.Option(min=1, max=1024, help="Threads of ONNX Runtime; one is fastest for small models.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace --out if it is there.")]
BeamOption = Annotated[
    int | None,
    typer.Option(help="Hypotheses kept at each step; 1 is greedy.  [default: the bundle's, mostly 5]"),
]
NormalizeOption = Annotated[
    Literal["none", "gnmt", "average"] | None,
    typer.Option(
        help="How scores are normalized by length; gnmt is Wu et al. 2016.  [default: the bundle's]",
    ),
]
LengthPenaltyOption = Annotated[
    float | None, typer.Option(help="alpha of gnmt; larger favours longer replies.  [default: 0.6]")
]
MinLengthOption = Annotated[int | None, typer.Option(help="Tokens that a reply has at least.  [default: 0]")]
MaxLengthOption = Annotated[
    int | None,
    typer.Option(help="Tokens that a reply has at most.  [default: the longest the model learned]"),
]
StopOption = Annotated[
    Literal["exact", "first"] | None,
    typer.Option(
        help="exact: when no better reply can come; first: with the first finished.  [default: the bundle's]"
    ),
]
OutOption = Annotated[
    Path,
    typer.Option(help="Folder to write, or one file if it ends with .edgechat; only replaced with --force."),
]


SignOption = Annotated[
    Path | None,
    typer.Option(
        metavar="KEY",
        help="Sign the bundle with this Ed25519 private key (PEM, PKCS#8), as `edgechat keygen` makes one.",
        show_default=False,
    ),
]


def ask_passphrase(key: Path) -> Callable[[], str] | None:
    """What asks for the passphrase of a private key, on the terminal; None where there is none."""
    if sys.stdin is None or not sys.stdin.isatty():
        return None
    return lambda: str(typer.prompt(f"passphrase of {key}", hide_input=True, err=True))


def set_torch_threads(threads: int | None) -> None:
    """Let PyTorch compute with so many threads; None leaves them as they are."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def torch_device(device: str) -> Literal["cpu", "cuda"]:
    """What `auto`, `cpu` or `cuda` means to PyTorch on this machine."""
    import torch

    if device == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise DeviceError("device cuda cannot be used: this PyTorch finds no CUDA device")
    return "cpu"
