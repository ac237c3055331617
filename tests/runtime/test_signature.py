"""Ed25519 signatures: what is signed, and that nothing else is read before they are checked."""

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgechat.runtime import BundleError, ChatModel, EdgeChatError, UsageError
from edgechat.runtime import bundle as module
from edgechat.runtime.archive import Archive
from edgechat.runtime.bundle import SIGNATURE_FILE, read_bundle, store_bundle
from edgechat.runtime.signature import (
    SIGNATURE_CONTEXT,
    fingerprint,
    load_public_key,
    load_signer,
    make_key_pair,
)

# RFC 8032, 7.1, TEST 1.
SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def key_file(folder: Path, name: str, key: object, passphrase: bytes | None = None) -> Path:
    protection = pem.BestAvailableEncryption(passphrase) if passphrase else pem.NoEncryption()
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, protection)
    )
    (folder / f"{name}.pub").write_bytes(
        key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    )
    return folder / f"{name}.key"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with the key pairs mine and other."""
    folder = tmp_path / "keys"
    folder.mkdir()
    key_file(folder, "mine", Ed25519PrivateKey.from_private_bytes(SECRET))
    key_file(folder, "other", Ed25519PrivateKey.generate())
    return folder


@pytest.fixture(params=["bundle", "bundle.edgechat"])
def signed(request, bundle_folder: Path, keys: Path, tmp_path: Path) -> Path:
    """The bundle signed with mine, as a folder and as one file."""
    read = read_bundle(bundle_folder)
    signature = load_signer(keys / "mine.key")(read.manifest_bytes)
    path = tmp_path / request.param
    store_bundle(path, dataclasses.replace(read, signature=signature), replace_existing=False)
    return path


def changed(path: Path, **values: object) -> Path:
    """The bundle with other values, in the same form, written without a check."""
    out = path.with_name("changed" + path.suffix)
    bundle = dataclasses.replace(read_bundle(path), **values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_read_and_check", lambda *arguments: None)
        store_bundle(out, bundle, replace_existing=True)
    return out


def test_the_signed_message_is_a_context_and_the_manifest(signed, keys):
    content = read_bundle(signed).signature
    assert content[:32] == PUBLIC
    message = b"edgechat bundle signature 1\0" + read_bundle(signed).manifest_bytes
    key = Ed25519PrivateKey.from_private_bytes(SECRET)
    key.public_key().verify(content[32:], message)
    assert content[32:] == key.sign(message)  # the same each time
    assert len(content) == 96


def test_a_fingerprint_is_the_hash_of_the_key_in_der(keys):
    key = Ed25519PrivateKey.from_private_bytes(SECRET).public_key()
    der = key.public_bytes(pem.Encoding.DER, pem.PublicFormat.SubjectPublicKeyInfo)
    assert load_public_key(keys / "mine.pub") == PUBLIC
    assert fingerprint(PUBLIC) == hashlib.sha256(der).hexdigest()


def test_a_signed_bundle_loads_with_its_key_and_without_any(signed, keys):
    with ChatModel.load(signed, device="cpu", require_signature=keys / "mine.pub") as model:
        assert str(model.reply("hello")) == "hi there"
    assert read_bundle(signed, require_signature=str(keys / "mine.pub")) == read_bundle(signed)


def test_a_signature_is_the_same_in_both_forms(signed, keys, tmp_path):
    for name in ("folder", "file.edgechat"):
        store_bundle(tmp_path / name, read_bundle(signed), replace_existing=False)
        assert read_bundle(tmp_path / name, require_signature=keys / "mine.pub") == read_bundle(signed)
    raw = (tmp_path / "file.edgechat").read_bytes()
    assert ChatModel.load_bytes(raw, device="cpu", require_signature=keys / "mine.pub").verify().passed
    with pytest.raises(BundleError, match=r"^the bundle is signed by another key"):
        ChatModel.load_bytes(raw, device="cpu", require_signature=keys / "other.pub")


def test_the_key_may_be_given_as_the_content_of_its_file(signed, keys):
    mine, other = (keys / "mine.pub").read_bytes(), (keys / "other.pub").read_bytes()
    assert read_bundle(signed, require_signature=mine) == read_bundle(signed)
    if signed.is_file():
        with ChatModel.load_bytes(signed.read_bytes(), device="cpu", require_signature=mine) as model:
            assert str(model.reply("hello")) == "hi there"
    with pytest.raises(BundleError, match="signed by another key"):
        ChatModel.load(signed, require_signature=other)
    with pytest.raises(UsageError, match=r"^require_signature must be [^\n]+ as bytes$"):
        ChatModel.load(signed, require_signature=mine.decode())


def test_a_private_key_is_refused_and_not_shown(signed, keys):
    private = (keys / "mine.key").read_bytes()
    for given, said in ((private, "is a private key"), (private.decode(), "must be a path")):
        with pytest.raises(UsageError, match=rf"^require_signature {said}, [^\n]+$") as raised:
            ChatModel.load(signed, require_signature=given)
        assert not any(line in str(raised.value) for line in private.decode().splitlines())


def test_an_unsigned_bundle_is_refused_where_a_signature_is_required(bundle_folder, keys):
    with pytest.raises(BundleError, match="is not signed") as raised:
        ChatModel.load(bundle_folder, require_signature=keys / "mine.pub")
    assert fingerprint(PUBLIC) in str(raised.value)


def test_a_bundle_that_is_signed_by_another_key_is_refused(signed, keys):
    with pytest.raises(BundleError, match="signed by another key") as raised:
        ChatModel.load(signed, require_signature=keys / "other.pub")
    assert fingerprint(PUBLIC) in str(raised.value)


def test_a_signature_of_another_key_that_claims_the_right_one_is_refused(signed, keys):
    theirs = load_signer(keys / "other.key")(read_bundle(signed).manifest_bytes)
    with pytest.raises(BundleError, match="is wrong: edgechat"):
        read_bundle(changed(signed, signature=PUBLIC + theirs[32:]), require_signature=keys / "mine.pub")


def test_a_signature_of_another_bundle_is_refused(signed, keys):
    signature = load_signer(keys / "mine.key")(b"another manifest")
    with pytest.raises(BundleError, match="was changed after signing"):
        read_bundle(changed(signed, signature=signature), require_signature=keys / "mine.pub")


def test_a_signature_for_another_purpose_is_refused(signed, keys):
    """Signed by the same key, but without our context."""
    sealed = read_bundle(signed).manifest_bytes
    bare = Ed25519PrivateKey.from_private_bytes(SECRET).sign(sealed)
    assert not sealed.startswith(SIGNATURE_CONTEXT)
    with pytest.raises(BundleError, match="is wrong"):
        read_bundle(changed(signed, signature=PUBLIC + bare), require_signature=keys / "mine.pub")


def test_a_bundle_that_was_changed_and_sealed_again_is_refused(signed, keys):
    """All hashes are right: only the signature is wrong."""
    read = read_bundle(signed)
    manifest = dataclasses.replace(read.manifest, provenance={"data": "mine, really"})
    forged = changed(signed, manifest=manifest, manifest_bytes=manifest.to_bytes())
    assert read_bundle(forged).manifest.provenance["data"] == "mine, really"
    with pytest.raises(BundleError, match="was changed after signing"):
        read_bundle(forged, require_signature=keys / "mine.pub")


@pytest.mark.parametrize("name", ["encoder.onnx", "tokenizer.json", "golden.json", "MODEL_CARD.md"])
def test_a_file_that_was_changed_in_a_signed_bundle_is_refused(signed, keys, name):
    files = read_bundle(signed).files
    forged = changed(signed, files=files | {name: files[name][:-1] + b"\0"})
    with pytest.raises(BundleError, match=name):
        read_bundle(forged, require_signature=keys / "mine.pub")


@pytest.mark.parametrize("at", [0, 31, 32, 63, 64, 95])
def test_a_changed_byte_of_the_signature_is_found(signed, keys, at):
    content = read_bundle(signed).signature
    forged = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    with pytest.raises(BundleError, match="another key" if at < 32 else "is wrong"):
        read_bundle(changed(signed, signature=forged), require_signature=keys / "mine.pub")


@pytest.mark.parametrize("size", [0, 64, 95, 97, 4000])
def test_a_signature_of_another_size_is_refused_even_if_none_is_required(signed, keys, size):
    forged = changed(signed, signature=bytes(size))
    for key in (None, keys / "mine.pub"):
        with pytest.raises(BundleError, match=f"{SIGNATURE_FILE} has {size} bytes"):
            read_bundle(forged, require_signature=key)


def test_only_manifest_and_signature_are_read_before_the_signature_is_checked(signed, keys, monkeypatch):
    seen: list[str] = []
    for source in (Archive, module._FolderReader):

        def read(self, name, expected=None, real=source.read):
            seen.append(name)
            return real(self, name, expected)

        monkeypatch.setattr(source, "read", read)
    monkeypatch.setattr(module.Manifest, "from_bytes", lambda raw: pytest.fail("the manifest was parsed"))
    with pytest.raises(BundleError):
        read_bundle(signed, require_signature=keys / "other.pub")
    assert seen == ["edgechat.json", "signature.ed25519"]


def test_a_new_key_signs_and_verifies(tmp_path, bundle_folder):
    for passphrase in (None, "mellon"):
        private, public = make_key_pair(passphrase)
        (tmp_path / "a.key").write_bytes(private)
        (tmp_path / "a.pub").write_bytes(public)
        assert (b"ENCRYPTED" in private) == (passphrase is not None)
        signature = load_signer(tmp_path / "a.key", lambda: "mellon")(b"sealed")
        assert signature[:32] == load_public_key(tmp_path / "a.pub")
    assert make_key_pair()[0] != make_key_pair()[0]


def test_a_wrong_or_unavailable_passphrase_is_one_sentence(tmp_path):
    key = key_file(tmp_path, "a", Ed25519PrivateKey.generate(), b"mellon")
    with pytest.raises(UsageError, match="is protected by a passphrase"):
        load_signer(key)
    for wrong in ("melon", ""):
        with pytest.raises(UsageError, match=r"the passphrase of .* is wrong"):
            load_signer(key, lambda wrong=wrong: wrong)


def test_a_file_that_is_not_a_key_is_one_sentence(tmp_path, keys):
    key_file(tmp_path, "ec", generate_private_key(SECP256R1()))
    (tmp_path / "text").write_text("no key")
    (tmp_path / "broken").write_bytes((keys / "mine.key").read_bytes()[:60])
    (tmp_path / "folder").mkdir()
    for name in ("ec.key", "ec.pub", "text", "broken", "folder", "nowhere", "keys/mine.pub", "a\0b"):
        with pytest.raises(UsageError, match="key"):
            load_signer(tmp_path / name)
    for name in ("ec.key", "ec.pub", "text", "broken", "folder", "nowhere", "a\0b"):
        with pytest.raises(UsageError, match="key"):
            load_public_key(tmp_path / name)
    with pytest.raises(UsageError, match="is a private key"):
        load_public_key(keys / "mine.key")


def test_without_cryptography_only_bundles_that_need_no_signature_are_read(signed, keys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert read_bundle(signed).signature is not None
    with pytest.raises(EdgeChatError, match=r"pip install cryptography$"):
        read_bundle(signed, require_signature=keys / "mine.pub")
    with pytest.raises(EdgeChatError, match=r"pip install cryptography$"):
        load_signer(keys / "mine.key")


def test_reading_a_bundle_loads_no_cryptography(signed):
    code = (
        "import sys; from pathlib import Path; from edgechat.runtime.bundle import read_bundle\n"
        "read_bundle(Path(sys.argv[1])); print('cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, signed], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
