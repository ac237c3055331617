"""`edgechat pack`, `unpack`, `sign` and `keygen`: a bundle as one file, and who made it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..runtime.archive import ENDING
from ..runtime.bundle import check_out, check_outside, find_bundle, read_bundle, store_bundle, store_signature
from ..runtime.errors import EdgeChatError, UsageError
from ..runtime.files import write_new
from ..runtime.signature import fingerprint, load_public_key, load_signer, make_key, signing_key
from .console import check_writable, say
from .options import BundleArgument, ForceOption, RequireSignatureOption, ask_passphrase


def register(app: typer.Typer) -> None:
    for command in (pack, unpack, sign, keygen):
        app.command()(command)


def pack(
    bundle: BundleArgument,
    out: Annotated[Path, typer.Option(help="File to write, NAME.edgechat; only replaced with --force.")],
    force: ForceOption = False,
    require_signature: RequireSignatureOption = None,
) -> None:
    """Make one file of a bundle folder, to copy or to send.

    It holds the same files with the same hashes, so a signature stays right. Every command that takes a
    bundle takes it as it is: there is no need to unpack it.
    """
    if out.suffix != ENDING:
        raise UsageError(f"--out is {out}, but the name of a bundle file ends with {ENDING}")
    _copy(bundle, out, force, require_signature)


def unpack(
    bundle: Annotated[str, typer.Argument(metavar="FILE", help="A .edgechat file.")],
    out: Annotated[
        Path, typer.Option(help="Folder to write; one that is there is only replaced with --force.")
    ],
    force: ForceOption = False,
    require_signature: RequireSignatureOption = None,
) -> None:
    """Make a folder of a bundle file. Packing it again gives the same file, byte for byte."""
    if out.suffix == ENDING:
        raise UsageError(f"--out is {out}, but a name that ends with {ENDING} is a file: name a folder")
    _copy(bundle, out, force, require_signature)


def _copy(bundle: str, out: Path, force: bool, require_signature: Path | None) -> None:
    """Read and check a bundle, and write it as `out`, in the form that its ending asks for."""
    check_writable(out)
    check_out(out, force)
    checked = read_bundle(find_bundle(bundle), require_signature=require_signature)
    out.parent.mkdir(parents=True, exist_ok=True)
    store_bundle(out, checked, replace_existing=force)
    say(f"wrote {out}, {checked.size / 1e6:.1f} MB")


def sign(
    bundle: Annotated[str, typer.Argument(help="Folder or .edgechat file; the signature is put into it.")],
    key: Annotated[
        Path,
        typer.Option(
            metavar="KEY",
            readable=False,
            help="Ed25519 private key (PEM, PKCS#8): NAME.key of `edgechat keygen`.",
        ),
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace the signature of another key.")] = False,
) -> None:
    """Sign a bundle, so that who has your public key can tell that it is yours and unchanged.

    The signature is of edgechat.json, which holds the hash of every other file, and is the same in a folder
    and in one file. `--require-signature NAME.pub` of the other commands checks it.
    """
    path = find_bundle(bundle)
    if path != Path(bundle):
        raise UsageError(
            f"{bundle} is the bundle in the package, which stays as it is: "
            f"edgechat pack {bundle} --out {bundle}.edgechat, then sign that"
        )
    signer = load_signer(key, ask_passphrase(key))
    checked = read_bundle(path)
    signature = signer(checked.sealed)
    before = checked.signature
    if before is not None and signing_key(before) != signing_key(signature) and not force:
        raise UsageError(
            f"{bundle} is signed by another key, {fingerprint(signing_key(before))}: "
            "give --force to replace its signature"
        )
    if before != signature:
        try:
            store_signature(path, checked, signature)
        except PermissionError as error:
            raise EdgeChatError(
                f"{bundle} cannot be written: no file can be created in it ({error.strerror})"
            ) from None
    say(f"signed {bundle} with the key {fingerprint(signing_key(signature))}")


def keygen(
    out: Annotated[
        Path,
        typer.Option(
            metavar="NAME", help="Where to write NAME.key and NAME.pub, making its folder; never overwritten."
        ),
    ],
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for a passphrase that protects the private key.")
    ] = False,
) -> None:
    """Make an Ed25519 key pair for signatures: NAME.key to sign with, NAME.pub to check with.

    Keep NAME.key to yourself (its mode is 600): whoever has it can sign in your name. Give NAME.pub to those
    who load your bundles, by a way that they trust.
    """
    check_writable(out)
    private, public = (out.with_name(out.name + ending) for ending in (".key", ".pub"))
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path} exists, and a key is never overwritten: choose another --out")
    check_outside(out)
    secret = None
    if passphrase:
        if sys.stdin is None or not sys.stdin.isatty():
            raise UsageError("--passphrase asks for it in a terminal, and this is none")
        secret = str(
            typer.prompt(f"passphrase of {private}", hide_input=True, confirmation_prompt=True, err=True)
        )
    made, shown = make_key(secret)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_new(private, made, mode=0o600)
    write_new(public, shown)
    say(f"wrote {private}, to sign with: keep it to yourself")
    say(f"wrote {public}, to check with: the key {fingerprint(load_public_key(public))}")
    say(f"next: edgechat sign BUNDLE --key {private}, or edgechat export RUN --out BUNDLE --sign {private}")
