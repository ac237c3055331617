"""Options that several commands share, each declared and documented once."""

from pathlib import Path
from typing import Annotated

import typer

from ..train.option_types import DeviceName

BundleArgument = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE",
        help="Bundle: a folder, a .edgechat file, or `demo` for the one in the package (unless there is a "
        "bundle of that name here).",
    ),
]
RequireSignatureOption = Annotated[
    Path | None,
    typer.Option(
        metavar="KEY",
        readable=False,
        help="Refuse the bundle unless it is signed with this public key (PEM) and unchanged since.",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    DeviceName,
    typer.Option(
        help="auto: CUDA if it works (never for int8), else the CPU; cuda: fail if CUDA does not work."
    ),
]
ThreadsOption = Annotated[
    int, typer.Option(min=1, max=1024, help="Threads of ONNX Runtime; 1 is fastest for small models.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result to stdout as JSON.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace --out if it exists.")]
SignOption = Annotated[
    Path | None,
    typer.Option(
        metavar="KEY",
        readable=False,
        help="Sign the bundle with this Ed25519 private key (PEM, PKCS#8); `edgechat keygen` makes one.",
        show_default=False,
    ),
]
