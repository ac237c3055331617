"""`edgechat pack`, `unpack`, `sign` and `keygen`, and one-file bundles and signatures in other commands."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from edgechat.cli import passphrase, sign
from edgechat.runtime import atomic_write as bundle_files
from edgechat.runtime.bundle import read_bundle

#: The export that the tests' `bundle_folder` is.
LAST = ["--checkpoint", "last", "--precision", "fp32"]


@pytest.fixture(scope="module")
def keys(invoke, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two key pairs of keygen, mine and other."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        assert invoke("keygen", "--out", folder / name).returncode == 0
    return folder


@pytest.fixture(scope="module")
def signed_export(invoke, run_folder, keys, tmp_path_factory) -> Path:
    """The run's last checkpoint as one signed file. Tests must not change it."""
    out = tmp_path_factory.mktemp("signed") / "mine.edgechat"
    done = invoke("export", run_folder, "--out", out, *LAST, "--sign", keys / "mine.key", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["size"] == out.stat().st_size
    assert f"signed with {keys / 'mine.key'}" in done.stderr
    return out


def lines(done) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_export_writes_one_file_with_what_a_folder_would_have(signed_export, bundle_folder):
    one, folder = read_bundle(signed_export), read_bundle(bundle_folder)
    assert (one.manifest_bytes, one.files) == (folder.manifest_bytes, folder.files)
    assert signed_export.with_name("mine.edgechat.report.json").is_file()


def test_two_signed_exports_of_a_checkpoint_are_the_same_bytes(
    invoke, run_folder, keys, signed_export, tmp_path
):
    out = tmp_path / "again.edgechat"
    invoke("export", run_folder, "--out", out, *LAST, "--sign", keys / "mine.key")
    assert out.read_bytes() == signed_export.read_bytes()


def test_export_replaces_one_file_only_with_force(invoke, run_folder, signed_export, tmp_path):
    out = tmp_path / "mine.edgechat"
    shutil.copy(signed_export, out)
    done = invoke("export", run_folder, "--out", out, *LAST)
    assert done.returncode == 2
    assert "exists" in done.sentence
    assert out.read_bytes() == signed_export.read_bytes()
    assert invoke("export", run_folder, "--out", out, *LAST, "--force").returncode == 0
    assert read_bundle(out).signature is None


def test_export_looks_at_the_key_before_the_work(invoke, run_folder, tmp_path):
    done = invoke("export", run_folder, "--out", tmp_path / "a.edgechat", "--sign", tmp_path / "nowhere.key")
    assert done.returncode == 2
    assert "nowhere.key cannot be read" in done.sentence
    assert not list(tmp_path.iterdir())


def test_every_command_takes_one_file_as_it_takes_a_folder(invoke, signed_export, bundle_folder, corpus_file):
    for command in (["reply", "hello", "good night"], ["eval", "--data", corpus_file]):
        name, *rest = command
        one, other = (
            [
                line.replace(str(path), "BUNDLE")
                for line in lines(invoke(name, path, *rest))
                if "time" not in line
            ]
            for path in (signed_export, bundle_folder)
        )
        assert one == other
    assert lines(invoke("verify", signed_export))[-1] == "passed"
    assert lines(invoke("bench", signed_export, "--repeat", 3))
    assert lines(invoke("info", signed_export))


def test_packing_and_unpacking_give_the_same_bytes(invoke, tree, bundle_folder, tmp_path):
    assert lines(invoke("pack", bundle_folder, "--out", tmp_path / "deep" / "a.edgechat")) == []
    assert lines(invoke("unpack", tmp_path / "deep" / "a.edgechat", "--out", tmp_path / "folder")) == []
    assert tree(tmp_path / "folder") == tree(bundle_folder)
    invoke("pack", tmp_path / "folder", "--out", tmp_path / "b.edgechat")
    assert (tmp_path / "b.edgechat").read_bytes() == (tmp_path / "deep" / "a.edgechat").read_bytes()


def size_of(bundle: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = bundle.iterdir() if bundle.is_dir() else [bundle]
    return sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("command", ["pack", "unpack"])
def test_pack_and_unpack_print_json(invoke, bundle_folder, signed_export, keys, tmp_path, command):
    key = key_of(invoke, signed_export)
    for bundle, options, signature in (
        (bundle_folder, [], None),
        (signed_export, [], {"key": key, "checked": False}),
        (signed_export, ["--require-signature", keys / "mine.pub"], {"key": key, "checked": True}),
    ):
        out = tmp_path / ("new.edgechat" if command == "pack" else "new")
        done = invoke(command, bundle, "--out", out, "--json", "--force", *options)
        assert (done.returncode, done.stderr.startswith(f"wrote {out}, ")) == (0, True)
        values = json.loads(done.stdout)
        assert values == {"bundle": str(out), "size": size_of(out), "signature": signature}


def key_of(invoke, bundle: Path) -> str:
    """The fingerprint of the key of a signed bundle."""
    return json.loads(lines(invoke("info", bundle, "--json"))[0])["signature"]["key"]


@pytest.mark.parametrize("form", ["folder", "one.edgechat"])
def test_sign_prints_json(invoke, bundle_folder, keys, tmp_path, form):
    bundle = tmp_path / form
    invoke("pack" if bundle.suffix else "unpack", bundle_folder, "--out", bundle)
    before = size_of(bundle)
    for _ in range(2):  # the second time, the signature is there
        values = json.loads(lines(invoke("sign", bundle, "--key", keys / "mine.key", "--json"))[0])
        assert values == {"bundle": str(bundle), "size": size_of(bundle), "key": key_of(invoke, bundle)}
        assert values["size"] >= before + 96  # a key of 32 bytes, a signature of 64


def test_keygen_prints_json(invoke, bundle_folder, tmp_path):
    values = json.loads(lines(invoke("keygen", "--out", tmp_path / "me", "--json"))[0])
    private, public = tmp_path / "me.key", tmp_path / "me.pub"
    assert values["private_key"] == {"file": str(private), "size": size_of(private)}
    assert values["public_key"] == {"file": str(public), "size": size_of(public)}
    invoke("pack", bundle_folder, "--out", tmp_path / "a.edgechat")
    invoke("sign", tmp_path / "a.edgechat", "--key", private)
    assert values["key"] == key_of(invoke, tmp_path / "a.edgechat")
    assert values.keys() == {"private_key", "public_key", "key"}


def test_pack_and_unpack_overwrite_nothing_without_force(
    invoke, tree, bundle_folder, signed_export, tmp_path
):
    (tmp_path / "a.edgechat").write_bytes(signed_export.read_bytes())
    shutil.copytree(bundle_folder, tmp_path / "folder")
    before = tree(tmp_path)
    for command in (
        ["pack", bundle_folder, "--out", tmp_path / "a.edgechat"],
        ["unpack", signed_export, "--out", tmp_path / "folder"],
    ):
        done = invoke(*command)
        assert done.returncode == 2
        assert "exists" in done.sentence
        assert tree(tmp_path) == before
    for command in (
        ["pack", bundle_folder, "--out", tmp_path / "a.edgechat", "--force"],
        ["unpack", signed_export, "--out", tmp_path / "folder", "--force"],
    ):
        assert invoke(*command).returncode == 0
    assert read_bundle(tmp_path / "a.edgechat") == read_bundle(bundle_folder)
    assert read_bundle(tmp_path / "folder") == read_bundle(signed_export)


def test_a_damaged_bundle_is_neither_packed_nor_unpacked_nor_signed(
    invoke, tree, bundle_folder, signed_export, keys, tmp_path
):
    shutil.copytree(bundle_folder, tmp_path / "folder")
    (tmp_path / "folder" / "golden.json").write_bytes(b"{}")
    (tmp_path / "a.edgechat").write_bytes(signed_export.read_bytes()[:-1])
    before = tree(tmp_path)
    for command in (
        ["pack", tmp_path / "folder", "--out", tmp_path / "b.edgechat"],
        ["unpack", tmp_path / "a.edgechat", "--out", tmp_path / "out"],
        ["sign", tmp_path / "folder", "--key", keys / "mine.key"],
        ["sign", tmp_path / "a.edgechat", "--key", keys / "mine.key"],
    ):
        done = invoke(*command)
        assert done.returncode == 1
        assert "golden.json" in done.sentence or "a.edgechat" in done.sentence
        assert tree(tmp_path) == before


def test_the_ending_of_out_must_fit_what_is_made(invoke, bundle_folder, signed_export, tmp_path):
    for command, said in (
        (["pack", bundle_folder, "--out", tmp_path / "a.zip"], "ends with .edgechat"),
        (["unpack", signed_export, "--out", tmp_path / "a.edgechat"], "name a folder"),
        (["pack", bundle_folder, "--out", bundle_folder / "a.edgechat"], "is a bundle"),
    ):
        done = invoke(*command)
        assert done.returncode == 2
        assert said in done.sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["bundle", "bundle.edgechat"])
def test_sign_gives_the_signature_of_a_signed_export(
    invoke, bundle_folder, signed_export, keys, tmp_path, form
):
    bundle = tmp_path / form
    invoke("pack" if bundle.suffix else "unpack", bundle_folder, "--out", bundle)
    done = invoke("sign", bundle, "--key", keys / "mine.key")
    assert (done.returncode, done.stdout) == (0, "")
    assert read_bundle(bundle) == read_bundle(signed_export)
    assert [path.name for path in tmp_path.iterdir()] == [form]
    assert invoke("sign", bundle, "--key", keys / "mine.key").returncode == 0  # signing again changes nothing
    done = invoke("sign", bundle, "--key", keys / "other.key")
    assert done.returncode == 2
    assert "signed by another key" in done.sentence
    assert read_bundle(bundle) == read_bundle(signed_export)
    assert invoke("sign", bundle, "--key", keys / "other.key", "--force").returncode == 0
    read_bundle(bundle, require_signature=keys / "other.pub")


def test_a_link_to_a_folder_stays_a_link_when_the_folder_is_signed(invoke, bundle_folder, keys, tmp_path):
    shutil.copytree(bundle_folder, tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert invoke("sign", tmp_path / "link", "--key", keys / "mine.key").returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert read_bundle(tmp_path / "real").signature is not None


def _identity(path: Path) -> tuple[int, ...]:
    """What changes when a file is written again. The access time is left out, since reading changes it."""
    found = path.stat()
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@pytest.mark.parametrize("form", ["folder", "one.edgechat"])
def test_a_signature_changes_nothing_else(invoke, bundle_folder, keys, tmp_path, monkeypatch, form):
    bundle = tmp_path / form
    invoke("pack" if bundle.suffix else "unpack", bundle_folder, "--out", bundle)
    files = [*bundle.iterdir()] if bundle.is_dir() else [bundle]
    for path in files:
        path.chmod(0o600)
    if bundle.is_dir():
        bundle.chmod(0o700)
        monkeypatch.chdir(bundle)
    before = bundle.stat()
    files = [path for path in files if path != bundle]
    kept = [_identity(path) for path in files]
    assert (
        invoke("sign", Path.cwd() if bundle.is_dir() else bundle, "--key", keys / "mine.key").returncode == 0
    )
    assert bundle.stat().st_mode == before.st_mode
    assert [_identity(path) for path in files] == kept
    if bundle.is_dir():
        assert Path.cwd() == bundle
        assert bundle.stat().st_ino == before.st_ino  # a shell in the folder is not left in a deleted one
        assert stat.S_IMODE((bundle / "signature.ed25519").stat().st_mode) == 0o600
    read_bundle(bundle, require_signature=keys / "mine.pub")


def test_a_folder_is_a_valid_bundle_at_every_moment_of_signing(
    invoke, bundle_folder, keys, tmp_path, monkeypatch
):
    bundle = tmp_path / "bundle"
    shutil.copytree(bundle_folder, bundle)
    real = os.fsync

    def fsync(fd: int) -> None:
        read_bundle(bundle)
        real(fd)

    monkeypatch.setattr(bundle_files.os, "fsync", fsync)
    assert invoke("sign", bundle, "--key", keys / "mine.key").returncode == 0


COMMANDS_WITH_REQUIRE_SIGNATURE = {
    "reply": ["hello"],
    "verify": [],
    "info": [],
    "bench": ["--repeat", 3],
    "eval": ["--data", "corpus"],
    "pack": ["--out", "FILE"],
    "unpack": ["--out", "FOLDER"],
}


@pytest.mark.parametrize("command", COMMANDS_WITH_REQUIRE_SIGNATURE)
def test_a_required_signature_is_checked_by_every_command(
    invoke, bundle_folder, signed_export, keys, corpus_file, tmp_path, command
):
    files = {"corpus": corpus_file, "FILE": tmp_path / "new.edgechat", "FOLDER": tmp_path / "new"}
    rest = [files.get(str(word), word) for word in COMMANDS_WITH_REQUIRE_SIGNATURE[command]]
    done = invoke(command, signed_export, *rest, "--require-signature", keys / "mine.pub")
    assert done.returncode == 0, done.stderr
    rest += ["--force"] if command in ("pack", "unpack") else []
    for bundle, key, said in (
        (signed_export, "other.pub", "signed by another key"),
        (bundle_folder, "mine.pub", "is not signed"),
    ):
        done = invoke(command, bundle, *rest, "--require-signature", keys / key)
        assert done.returncode == 1
        assert said in done.sentence
    done = invoke(command, signed_export, *rest, "--require-signature", keys / "mine.key")
    assert done.returncode == 2
    assert "is a private key" in done.sentence


def test_sign_with_a_public_key_is_refused(invoke, tree, bundle_folder, keys):
    before = tree(bundle_folder)
    done = invoke("sign", bundle_folder, "--key", keys / "mine.pub")
    assert done.returncode == 2
    assert "mine.pub is a public key, which cannot sign: give the private key" in done.sentence
    assert tree(bundle_folder) == before


class Terminal:
    """A standard stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_required_signature_is_checked_before_the_terminal_is_taken_over(
    bundle_folder, signed_export, keys, monkeypatch
):
    import edgechat.tui
    from edgechat.cli import tui
    from edgechat.runtime import BundleError

    opened: list[object] = []
    monkeypatch.setattr(tui.sys, "stdin", Terminal())
    monkeypatch.setattr(tui.sys, "stderr", Terminal())
    monkeypatch.setattr(
        edgechat.tui, "run_chat", lambda bundles, **given: opened.append(given["require_signature"])
    )
    with pytest.raises(BundleError, match="is not signed"):
        tui.tui([str(bundle_folder)], require_signature=keys / "mine.pub")
    assert opened == []
    tui.tui([str(signed_export)], require_signature=keys / "mine.pub")
    assert opened == [keys / "mine.pub"]  # checked again when the bundle is loaded


def test_a_run_has_no_signature(invoke, run_folder, keys):
    done = invoke("eval", run_folder, "--require-signature", keys / "mine.pub")
    assert done.returncode == 2
    assert "a run is not signed" in done.sentence


@pytest.mark.parametrize("command", ["info", "verify"])
def test_a_signature_is_shown_as_checked_only_if_it_was(invoke, bundle_folder, signed_export, keys, command):
    def row(*arguments: object) -> str:
        return next(line for line in lines(invoke(command, *arguments)) if line.startswith("signature"))

    required = ["--require-signature", keys / "mine.pub"]
    assert row(bundle_folder).split() == ["signature", "none"]
    assert "not checked (--require-signature KEY checks it)" in row(signed_export)
    assert "valid, by the key" in row(signed_export, *required)
    shown = row(signed_export, *required).split()[-1]
    assert json.loads(lines(invoke(command, bundle_folder, "--json"))[0])["signature"] is None
    for arguments, checked in (([], False), (required, True)):
        values = json.loads(lines(invoke(command, signed_export, "--json", *arguments))[0])
        assert values["signature"] == {"key": shown, "checked": checked}


def test_keygen_protects_the_private_key_and_overwrites_none(invoke, tree, tmp_path):
    done = invoke("keygen", "--out", tmp_path / "deep" / "me.v1")
    assert (done.returncode, done.stdout) == (0, "")
    private, public = tmp_path / "deep" / "me.v1.key", tmp_path / "deep" / "me.v1.pub"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert private.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert public.read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----")
    for there in (private, public):
        (private if there is public else public).unlink()
        before = tree(tmp_path)
        done = invoke("keygen", "--out", tmp_path / "deep" / "me.v1")
        assert done.returncode == 2
        assert f"{there} exists" in done.sentence
        assert tree(tmp_path) == before
        (private if there is public else public).write_bytes(b"")


def test_passphrases_are_asked_for_on_a_terminal_only(invoke, bundle_folder, tmp_path, monkeypatch):
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    done = invoke("keygen", "--out", tmp_path / "me", "--passphrase")
    assert done.returncode == 2
    assert "--passphrase asks for the passphrase on a terminal" in done.sentence
    asked: list[str] = []

    def prompt(text: str, **options: bool) -> str:
        assert options["hide_input"]
        assert options["err"]
        asked.append(text)
        return "mellon"

    arguments = ["sign", tmp_path / "bundle", "--key", tmp_path / "me.key"]
    with monkeypatch.context() as patch:
        patch.setattr(passphrase.typer, "prompt", prompt)
        patch.setattr(passphrase.sys, "stdin", Terminal())
        sign.keygen(tmp_path / "me", passphrase=True)
        assert b"ENCRYPTED" in (tmp_path / "me.key").read_bytes()
        sign.sign(str(tmp_path / "bundle"), tmp_path / "me.key")
    assert asked == [f"passphrase of {tmp_path / 'me.key'}"] * 2
    read_bundle(tmp_path / "bundle", require_signature=tmp_path / "me.pub")
    done = invoke(*arguments)
    assert done.returncode == 2
    assert "is protected by a passphrase" in done.sentence


def test_the_bundle_in_the_package_is_not_signed_in_place(invoke, bundle_folder, keys, tmp_path, monkeypatch):
    from edgechat.runtime import bundle as module

    shutil.copytree(bundle_folder, tmp_path / "package" / "demo")
    monkeypatch.setattr(module, "package_files", lambda name: tmp_path / "package")
    monkeypatch.chdir(tmp_path)
    done = invoke("sign", "demo", "--key", keys / "mine.key")
    assert done.returncode == 2
    assert "edgechat pack demo --out demo.edgechat" in done.sentence
    assert invoke("pack", "demo", "--out", "demo.edgechat").returncode == 0
    assert invoke("sign", "demo.edgechat", "--key", keys / "mine.key").returncode == 0


def test_a_pipe_or_a_link_in_place_of_a_bundle_file_is_refused(invoke, signed_export, tmp_path):
    os.mkfifo(tmp_path / "pipe.edgechat")
    (tmp_path / "link.edgechat").symlink_to(signed_export)
    for name, said in (("pipe", "not a regular file"), ("link", "symbolic link")):
        done = invoke("reply", tmp_path / f"{name}.edgechat", "hello")
        assert done.returncode == 1
        assert said in done.sentence
