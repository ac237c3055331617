"""Ed25519 signatures of bundles (RFC 8032): they show who made a bundle, and that nobody changed it since.

The signed message is edgechat.json, which contains the hash of every other file, so a folder and its
one-file form have the same signature. `signature.ed25519` holds the public key (32 bytes) and the signature
(64 bytes). The key in it only says who claims to have signed; the key given to the loader decides.

The package `cryptography` is needed, and imported, only where a signature is made or required.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import check_path, short_repr
from .atomic_write import sha256
from .errors import BundleError, EdgeChatError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: Precedes edgechat.json in the signed message, so that no signature made for another purpose is valid here.
SIGNATURE_CONTEXT = b"edgechat bundle signature 1\0"
KEY_BYTES, SIGNATURE_BYTES = 32, 64
# Precedes the key in an Ed25519 SubjectPublicKeyInfo (RFC 8410).
_SPKI = bytes.fromhex("302a300506032b6570032100")
_MAX_KEY_FILE_BYTES = 1 << 16
_KEY_USAGE = "require_signature must be a path, or the content of a PEM file as bytes"

#: Returns the content of signature.ed25519 for the bytes of edgechat.json.
Signer = Callable[[bytes], bytes]
#: The path of a PEM file with an Ed25519 public key, or the content of one.
PublicKey = str | os.PathLike[str] | bytes


def fingerprint(public_key: bytes) -> str:
    """SHA-256 of a public key in DER, as `openssl pkey -pubin -in NAME.pub -outform DER | sha256sum` prints
    it."""
    return sha256(_SPKI + public_key)


def claimed_key(signature: bytes) -> bytes:
    """The public key that a signature.ed25519 claims to be from."""
    return signature[:KEY_BYTES]


def make_key_pair(passphrase: str | None = None) -> tuple[bytes, bytes]:
    """Create a private key and its public key, in PEM (PKCS#8 and SubjectPublicKeyInfo)."""
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    protection = pem.BestAvailableEncryption(passphrase.encode()) if passphrase else pem.NoEncryption()
    private = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, protection)
    return private, key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)


def load_signer(path: str | os.PathLike[str], ask_passphrase: Callable[[], str] | None = None) -> Signer:
    """A `Signer` with the private key in the PEM file `path`. `ask_passphrase` is called for its passphrase,
    if it has one.

    Raises:
        UsageError: there is no such file, it holds no Ed25519 private key, or the passphrase is wrong.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = _private_key(Path(path), ask_passphrase)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return lambda manifest_bytes: public + key.sign(SIGNATURE_CONTEXT + manifest_bytes)


def load_public_key(given: PublicKey) -> bytes:
    """The 32 bytes of an Ed25519 public key in PEM.

    Raises:
        UsageError: there is no such file, or it is not an Ed25519 public key, or `given` has a wrong type.
        EdgeChatError: the package cryptography is not installed.
    """
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    if isinstance(given, bytes):
        name, raw = "require_signature", given
    elif isinstance(given, str) and "-----BEGIN" in given:  # not shown, since it may be a private key
        raise UsageError(f"{_KEY_USAGE}: give the text of a key as bytes")
    elif isinstance(given, str | os.PathLike):
        name = check_path("require_signature", given)
        raw = _read(name)
    else:
        raise UsageError(f"{_KEY_USAGE}, not {short_repr(given)}")
    if b"PRIVATE KEY" in raw:
        raise UsageError(f"{name} is a private key, which belongs only to the signer: give the public key")
    try:
        key = load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{name} is not an Ed25519 public key in PEM, as edgechat keygen writes it")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def check_signature(bundle: Path, manifest_bytes: bytes, signature: bytes | None, public_key: bytes) -> None:
    """Refuse `bundle` unless `signature` is a signature of `manifest_bytes`, its edgechat.json, by
    `public_key`.

    Raises:
        BundleError: the bundle is not signed, is signed by another key, or was changed afterwards.
    """
    _require_cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    required = f"a signature by the key {fingerprint(public_key)} is required"
    if signature is None:
        raise BundleError(f"{bundle} is not signed, but {required}")
    check_signature_size(bundle, signature)
    if claimed_key(signature) != public_key:
        raise BundleError(
            f"{bundle} is signed by another key, {fingerprint(claimed_key(signature))}, but {required}"
        )
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(
            signature[KEY_BYTES:], SIGNATURE_CONTEXT + manifest_bytes
        )
    except InvalidSignature:
        raise BundleError(
            f"the signature of {bundle} is wrong: edgechat.json or the signature was changed after signing"
        ) from None


def check_signature_size(bundle: Path, signature: bytes) -> None:
    """Refuse a signature.ed25519 of the wrong size; whether the signature is valid is not checked."""
    if len(signature) != KEY_BYTES + SIGNATURE_BYTES:
        raise BundleError(
            f"{bundle / 'signature.ed25519'} has {len(signature)} bytes, but must have "
            f"{KEY_BYTES + SIGNATURE_BYTES}: a public key and a signature"
        )


def _private_key(path: Path, ask_passphrase: Callable[[], str] | None) -> "Ed25519PrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    raw = _read(path)
    passphrase = None
    try:
        try:
            key = load_pem_private_key(raw, None)
        except TypeError:  # the key has a passphrase
            if ask_passphrase is None:
                raise UsageError(
                    f"{path} is protected by a passphrase, which can only be entered in a terminal: "
                    "run this in one, or use a key without a passphrase"
                ) from None
            passphrase = ask_passphrase()
            key = load_pem_private_key(raw, passphrase.encode())
    except (TypeError, ValueError, UnsupportedAlgorithm):
        if passphrase is not None:
            raise UsageError(f"the passphrase of {path} is wrong") from None
        key = None
    if b"PUBLIC KEY" in raw:
        raise UsageError(f"{path} is a public key, which cannot sign: give the private key, NAME.key")
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} is not an Ed25519 private key in PEM (PKCS#8): edgechat keygen creates one")
    return key


def _read(path: str | Path) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_MAX_KEY_FILE_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"the key {path or repr(path)} cannot be read: {reason}") from None


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise EdgeChatError("signatures need the package cryptography: pip install cryptography") from None
