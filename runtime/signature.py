"""Ed25519 signatures of bundles (RFC 8032): who made a bundle, and that nobody changed it since.

Signed are the bytes of edgechat.json, which hold the hash of every other file, so that a signature is the
same for a folder and for one file. `signature.ed25519` is the public key, 32 bytes, and the signature, 64:
the key says who claims to have signed; what decides is the key that the loader was given.

The package `cryptography` is only needed, and only imported, where a signature is made or required.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import path_text
from .errors import BundleError, EdgeChatError, UsageError
from .files import sha256

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: What stands before edgechat.json in the signed message, so that no signature for another purpose fits.
CONTEXT = b"edgechat bundle signature 1\0"
KEY_BYTES, SIGNATURE_BYTES = 32, 64
# An Ed25519 SubjectPublicKeyInfo (RFC 8410) is these bytes and the key.
_SPKI = bytes.fromhex("302a300506032b6570032100")
_LARGEST_KEY_FILE = 1 << 16

#: Gives the content of signature.ed25519 for the bytes of edgechat.json.
Signer = Callable[[bytes], bytes]


def fingerprint(public_key: bytes) -> str:
    """SHA-256 of a public key in DER, as `openssl pkey -pubin -in NAME.pub -outform DER | sha256sum` says."""
    return sha256(_SPKI + public_key)


def signing_key(signature: bytes) -> bytes:
    """The public key that made a signature.ed25519, as that claims."""
    return signature[:KEY_BYTES]


def make_key(passphrase: str | None = None) -> tuple[bytes, bytes]:
    """A new private key and its public key, in PEM (PKCS#8 and SubjectPublicKeyInfo)."""
    _need_cryptography()
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    protection = pem.BestAvailableEncryption(passphrase.encode()) if passphrase else pem.NoEncryption()
    private = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, protection)
    return private, key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)


def load_signer(path: str | os.PathLike[str], ask: Callable[[], str] | None = None) -> Signer:
    """What signs with the private key in the PEM file `path`; `ask` gives its passphrase if it has one.

    Raises:
        UsageError: there is no such file, it holds no Ed25519 private key, or the passphrase is wrong.
    """
    _need_cryptography()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = _private_key(Path(path), ask)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return lambda sealed: public + key.sign(CONTEXT + sealed)


def load_public_key(path: str | os.PathLike[str]) -> bytes:
    """The 32 bytes of the Ed25519 public key in the PEM file `path`.

    Raises:
        UsageError: there is no such file, or it holds no such key.
    """
    _need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    path = path_text("require_signature", path)
    raw = _read(path)
    if b"PRIVATE KEY" in raw:
        raise UsageError(f"{path} is a private key, which stays with who signs: give the public one")
    try:
        key = load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path} is not a PEM file with an Ed25519 public key, as edgechat keygen makes it")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def check_signature(bundle: Path, sealed: bytes, signature: bytes | None, public_key: bytes) -> None:
    """Refuse `bundle` unless `signature` is that of `sealed`, its edgechat.json, by `public_key`.

    Raises:
        BundleError: it is unsigned, signed by another key, or was changed since.
    """
    _need_cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    wanted = f"a signature by the key {fingerprint(public_key)} is required"
    if signature is None:
        raise BundleError(f"{bundle} is not signed, but {wanted}")
    check_form(bundle, signature)
    if signing_key(signature) != public_key:
        raise BundleError(
            f"{bundle} is signed by another key, {fingerprint(signing_key(signature))}, but {wanted}"
        )
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature[KEY_BYTES:], CONTEXT + sealed)
    except InvalidSignature:
        raise BundleError(
            f"the signature of {bundle} is wrong: its edgechat.json was changed after it was signed"
        ) from None


def check_form(bundle: Path, signature: bytes) -> None:
    """Refuse what cannot be a signature of ours, without checking whether it is right."""
    if len(signature) != KEY_BYTES + SIGNATURE_BYTES:
        raise BundleError(
            f"{bundle / 'signature.ed25519'} has {len(signature)} bytes, not the "
            f"{KEY_BYTES + SIGNATURE_BYTES} of a public key and a signature"
        )


def _private_key(path: Path, ask: Callable[[], str] | None) -> "Ed25519PrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    raw = _read(path)
    passphrase = None
    try:
        try:
            key = load_pem_private_key(raw, None)
        except TypeError:  # it has a passphrase
            if ask is None:
                raise UsageError(
                    f"{path} is protected by a passphrase, which can only be asked for in a terminal: "
                    "run this there, or use a key without one"
                ) from None
            passphrase = ask()
            key = load_pem_private_key(raw, passphrase.encode())
    except (TypeError, ValueError, UnsupportedAlgorithm):
        if passphrase is not None:
            raise UsageError(f"that is not the passphrase of {path}") from None
        key = None
    if b"PUBLIC KEY" in raw:
        raise UsageError(f"{path} is a public key, which only checks: give the private one, NAME.key")
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(
            f"{path} is not a PEM file with an Ed25519 private key (PKCS#8): edgechat keygen makes one"
        )
    return key


def _read(path: str | Path) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_LARGEST_KEY_FILE)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"the key {path or repr(path)} cannot be read: {reason}") from None


def _need_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise EdgeChatError("signatures need the package cryptography: pip install cryptography") from None
