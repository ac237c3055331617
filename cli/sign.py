"""`edgechat sign` and `keygen`: signatures of bundles, and the keys to sign with."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..runtime.atomic_write import write_new
from ..runtime.bundle import check_not_in_bundle, find_bundle, read_bundle, store_signature
from ..runtime.errors import EdgeChatError, UsageError
from ..runtime.signature import claimed_key, fingerprint, load_public_key, load_signer, make_key_pair
from .console import print_json, print_stderr
from .options import JsonOption
from .output_path import check_writable
from .passphrase import ask_new_passphrase, make_passphrase_prompt


def register(app: typer.Typer) -> None:
    for command in (sign, keygen):
        app.command()(command)


def sign(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="Folder or .edgechat file; the signature is added to it.")
    ],
    key: Annotated[
        Path,
        typer.Option(
            metavar="KEY",
            readable=False,
            help="Ed25519 private key (PEM, PKCS#8): NAME.key of `edgechat keygen`.",
        ),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Replace a signature made with another key.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Sign a bundle, so that whoever has your public key can check that it is yours and unchanged.

    The signature covers edgechat.json, which holds the hash of every other file. It is the same for a folder
    and for a .edgechat file. `--require-signature NAME.pub` of other commands checks it.

    --json prints bundle, size (bytes, with the signature) and key (SHA-256 of the public key).
    """
    path = find_bundle(bundle)
    if path != Path(bundle):
        raise UsageError(
            f"{bundle} is the bundle in the package, which is not changed: "
            f"edgechat pack {bundle} --out {bundle}.edgechat, then sign that"
        )
    signer = load_signer(key, make_passphrase_prompt(key))
    checked = read_bundle(path)
    signature = signer(checked.manifest_bytes)
    before = checked.signature
    if before is not None and claimed_key(before) != claimed_key(signature) and not force:
        raise UsageError(
            f"{bundle} is signed by another key, {fingerprint(claimed_key(before))}: "
            "give --force to replace that signature"
        )
    if before != signature:
        try:
            store_signature(path, checked, signature)
        except PermissionError as error:
            raise EdgeChatError(
                f"{bundle} cannot be written: no file can be created in it ({error.strerror})"
            ) from None
    key_fingerprint = fingerprint(claimed_key(signature))
    if json:
        size = path.stat().st_size if path.is_file() else replace(checked, signature=signature).size
        print_json({"bundle": bundle, "size": size, "key": key_fingerprint})
    print_stderr(f"signed {bundle} with the key {key_fingerprint}")


def keygen(
    out: Annotated[
        Path,
        typer.Option(
            metavar="NAME",
            help="Write NAME.key and NAME.pub, creating their folder; existing keys are never overwritten.",
        ),
    ],
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for a passphrase that protects the private key.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Make an Ed25519 key pair for signatures: NAME.key to sign with, NAME.pub to check with.

    Keep NAME.key secret (its mode is 600): whoever has it can sign in your name. Give NAME.pub to those who
    load your bundles, over a channel that they trust.

    --json prints private_key and public_key (each with file and size in bytes) and key (SHA-256 of the public
    key).
    """
    check_writable(out)
    private, public = (out.with_name(out.name + ending) for ending in (".key", ".pub"))
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path} exists, and a key is never overwritten: choose another --out")
    check_not_in_bundle(out)
    private_pem, public_pem = make_key_pair(ask_new_passphrase(private) if passphrase else None)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_new(private, private_pem, mode=0o600)
    write_new(public, public_pem)
    key_fingerprint = fingerprint(load_public_key(public))
    if json:
        print_json(
            {
                "private_key": {"file": str(private), "size": len(private_pem)},
                "public_key": {"file": str(public), "size": len(public_pem)},
                "key": key_fingerprint,
            }
        )
    print_stderr(f"wrote {private}, the private key, to sign with: keep it secret")
    print_stderr(f"wrote {public}, the public key, to check with: the key {key_fingerprint}")
    print_stderr(
        f"next: edgechat sign BUNDLE --key {private}, or edgechat export RUN --out BUNDLE --sign {private}"
    )
