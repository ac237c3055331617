"""`edgechat pack` and `unpack`: the one-file form of a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from ..runtime.archive import BUNDLE_SUFFIX
from ..runtime.bundle import check_bundle_target, find_bundle, read_bundle, store_bundle
from ..runtime.errors import UsageError
from .console import print_json, print_stderr
from .describe import signature_json
from .options import BundleArgument, ForceOption, JsonOption, RequireSignatureOption
from .output_path import check_writable


def register(app: typer.Typer) -> None:
    for command in (pack, unpack):
        app.command()(command)


def pack(
    bundle: BundleArgument,
    out: Annotated[Path, typer.Option(help="File to write, NAME.edgechat; replaced only with --force.")],
    force: ForceOption = False,
    json: JsonOption = False,
    require_signature: RequireSignatureOption = None,
) -> None:
    """Write a bundle folder as one .edgechat file, to copy or to send.

    The file holds the same files with the same hashes, so a signature stays valid. Every command that takes a
    bundle folder takes a .edgechat file too, without unpacking it.

    --json prints bundle (the file written), size (bytes) and signature (key, and checked: whether
    --require-signature checked it; null if unsigned).
    """
    if out.suffix != BUNDLE_SUFFIX:
        raise UsageError(f"--out is {out}, but the name of a bundle file ends with {BUNDLE_SUFFIX}")
    _convert_bundle(bundle, out, force, require_signature, json)


def unpack(
    bundle: Annotated[str, typer.Argument(metavar="FILE", help="A .edgechat file.")],
    out: Annotated[Path, typer.Option(help="Folder to write; replaced only with --force.")],
    force: ForceOption = False,
    json: JsonOption = False,
    require_signature: RequireSignatureOption = None,
) -> None:
    """Write a .edgechat file as a bundle folder. Packing it again gives the same file, byte for byte.

    --json prints bundle (the folder written), size (bytes of its files) and signature (key, and checked:
    whether --require-signature checked it; null if unsigned).
    """
    if out.suffix == BUNDLE_SUFFIX:
        raise UsageError(
            f"--out is {out}, but a name that ends with {BUNDLE_SUFFIX} is a file: name a folder"
        )
    _convert_bundle(bundle, out, force, require_signature, json)


def _convert_bundle(bundle: str, out: Path, force: bool, require_signature: Path | None, json: bool) -> None:
    """Read and check a bundle, and write it as `out`, in the form that the ending of `out` selects."""
    check_writable(out)
    check_bundle_target(out, force)
    checked = read_bundle(find_bundle(bundle), require_signature=require_signature)
    out.parent.mkdir(parents=True, exist_ok=True)
    store_bundle(out, checked, replace_existing=force)
    size = out.stat().st_size if out.is_file() else checked.size
    if json:
        signature = signature_json(checked, checked_with=require_signature)
        print_json({"bundle": str(out), "size": size, "signature": signature})
    print_stderr(f"wrote {out}, {size / 1e6:.1f} MB")
