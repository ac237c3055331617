"""The bundle loader checks everything before it uses it, in this order: names, types and sizes of files, the
manifest's seal and format, hashes."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgechat.runtime import ChatModel
from edgechat.runtime import bundle as module
from edgechat.runtime.atomic_write import sha256
from edgechat.runtime.bundle import (
    MANIFEST_FILE,
    REQUIRED_FILES,
    SIGNATURE_FILE,
    SIZE_CAPS,
    find_bundle,
    read_bundle,
    write_bundle,
)
from edgechat.runtime.errors import BundleError, UsageError


@pytest.fixture
def bundle(bundle_folder: Path, tmp_path: Path) -> Path:
    """A valid bundle that a test may damage."""
    path = tmp_path / "bundle"
    shutil.copytree(bundle_folder, path)
    return path


def refused(path: Path) -> str:
    with pytest.raises(BundleError) as raised:
        read_bundle(path)
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_reading_a_bundle_returns_the_content_of_its_files(bundle_folder):
    read = read_bundle(bundle_folder)
    on_disk = {path.name: path.read_bytes() for path in bundle_folder.iterdir()}
    assert read.files == {name: data for name, data in on_disk.items() if name != MANIFEST_FILE}
    assert read.manifest.to_bytes() == on_disk[MANIFEST_FILE]
    assert read.size == sum(path.stat().st_size for path in bundle_folder.iterdir())
    assert dataclasses.replace(read, signature=bytes(96)).size == read.size + 96


def test_a_written_bundle_is_read_back(bundle_folder, tmp_path):
    read = read_bundle(bundle_folder)
    sealed = write_bundle(tmp_path / "copy", read.manifest, read.files, replace_existing=False)
    assert sealed == read.manifest
    assert read_bundle(tmp_path / "copy") == read


def test_a_bundle_that_would_not_be_read_is_not_written(bundle_folder, tmp_path):
    read = read_bundle(bundle_folder)
    for files in (
        {**read.files, "notes.txt": b"x"},
        {n: d for n, d in read.files.items() if n != "encoder.onnx"},
    ):
        with pytest.raises(BundleError):
            write_bundle(tmp_path / "copy", read.manifest, files, replace_existing=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in SIZE_CAPS if name != MANIFEST_FILE])
def test_every_file_in_a_bundle_is_checked(bundle_folder, tmp_path, name):
    """Every file except the model card, which is for people, must have valid content."""
    read, path = read_bundle(bundle_folder), tmp_path / "bundle"
    hidden = b'"anything"'
    if name == SIGNATURE_FILE:
        shutil.copytree(bundle_folder, path)
        (path / SIGNATURE_FILE).write_bytes(hidden)
    else:
        write_bundle(path, read.manifest, {**read.files, name: hidden}, replace_existing=False)
    if name == "MODEL_CARD.md":
        ChatModel.load(path)
        return
    with pytest.raises(BundleError, match=name):
        ChatModel.load(path).verify()


@pytest.mark.parametrize("name", ["notes.txt", ".DS_Store", "Encoder.onnx", "weights.bin", "edgechat.json~"])
def test_an_unknown_name_is_refused(bundle, name):
    (bundle / name).write_bytes(b"")
    assert repr(name) in refused(bundle)


def test_a_name_that_is_not_utf8_is_refused(bundle):
    try:
        (bundle / os.fsdecode(b"\xff\x1b[2J")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes only names of UTF-8")
    assert "\x1b" not in refused(bundle)


def test_a_folder_in_a_bundle_is_refused(bundle):
    (bundle / "deep").mkdir()
    assert "'deep'" in refused(bundle)


@pytest.mark.parametrize("name", REQUIRED_FILES)
def test_a_file_that_is_missing_is_named(bundle, name):
    (bundle / name).unlink()
    assert f"has no {name}" in refused(bundle)


KINDS = {
    "link": lambda path, outside: (shutil.move(path, outside), path.symlink_to(outside)),
    "link to nowhere": lambda path, outside: (path.unlink(), path.symlink_to(outside)),
    "folder": lambda path, outside: (path.unlink(), path.mkdir()),
    "pipe": lambda path, outside: (path.unlink(), os.mkfifo(path)),
    "device": lambda path, outside: (path.unlink(), path.symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*REQUIRED_FILES, "replies.json", "signature.ed25519"])
def test_anything_but_a_regular_file_is_refused_under_every_name_and_never_opened(
    bundle, tmp_path, kind, name
):
    (bundle / name).touch()
    KINDS[kind](bundle / name, tmp_path / "outside")
    said = refused(bundle)
    assert name in said
    assert "is a symbolic link" in said or "is not a regular file" in said


def test_a_hard_link_does_no_harm(bundle, bundle_folder, tmp_path):
    os.link(bundle / "encoder.onnx", tmp_path / "second name")
    assert read_bundle(bundle).files == read_bundle(bundle_folder).files


def test_a_link_that_appears_after_the_first_look_is_not_followed(bundle, tmp_path, monkeypatch):
    real = os.open
    shutil.copy(bundle / "encoder.onnx", tmp_path / "outside")

    def swap(path: Path, flags: int) -> int:
        if Path(path).name == "encoder.onnx":
            Path(path).unlink()
            Path(path).symlink_to(tmp_path / "outside")
        return real(path, flags)

    monkeypatch.setattr(module.os, "open", swap)
    assert "encoder.onnx" in refused(bundle)


def test_a_pipe_that_appears_after_the_first_look_does_not_block(bundle, monkeypatch):
    real = os.open

    def swap(path: Path, flags: int) -> int:
        if Path(path).name == "encoder.onnx":
            Path(path).unlink()
            os.mkfifo(path)
        return real(path, flags)

    monkeypatch.setattr(module.os, "open", swap)
    assert "encoder.onnx is not a regular file" in refused(bundle)


@pytest.mark.parametrize("name", SIZE_CAPS)
def test_a_file_above_its_cap_is_refused_without_being_read(bundle, name):
    with (bundle / name).open("ab") as file:
        file.truncate(SIZE_CAPS[name] + 1)  # sparse: it takes no disk space
    said = refused(bundle)
    assert name in said
    assert "allowed" in said


def test_a_file_above_its_cap_is_not_written(bundle, tmp_path, monkeypatch):
    read = read_bundle(bundle)
    monkeypatch.setitem(SIZE_CAPS, "golden.json", 9)
    with pytest.raises(UsageError, match=r"golden\.json has .* bytes, but in a bundle it may have at most 9"):
        write_bundle(tmp_path / "new", read.manifest, read.files, replace_existing=False)
    assert not (tmp_path / "new").exists()


def test_a_file_of_another_size_is_refused_before_it_is_hashed(bundle, monkeypatch):
    os.truncate(bundle / "decoder.onnx", (bundle / "decoder.onnx").stat().st_size - 1)
    hashed: list[int] = []
    monkeypatch.setattr(module, "sha256", lambda data: hashed.append(len(data)) or sha256(data))
    assert "decoder.onnx has" in refused(bundle)
    assert (bundle / "decoder.onnx").stat().st_size not in hashed


def test_names_are_checked_before_file_types_then_the_seal_then_hashes(bundle):
    raw = (bundle / "encoder.onnx").read_bytes()
    (bundle / "encoder.onnx").write_bytes(bytes(len(raw)))
    assert "sha256 differs" in refused(bundle)
    manifest = (bundle / MANIFEST_FILE).read_bytes()
    (bundle / MANIFEST_FILE).write_bytes(manifest.replace(b'"hidden"', b'"hiding"'))
    assert "changed after it was sealed" in refused(bundle)
    (bundle / "golden.json").unlink()
    (bundle / "golden.json").symlink_to("nowhere")
    assert "symbolic link" in refused(bundle)
    (bundle / "notes.txt").touch()
    assert "'notes.txt'" in refused(bundle)


def test_a_file_that_the_manifest_does_not_know_is_refused(bundle):
    (bundle / "replies.json").write_bytes(b"[]")
    assert "'replies.json'" in refused(bundle)


def test_a_file_that_only_the_manifest_knows_is_refused(bundle_folder, tmp_path):
    read = read_bundle(bundle_folder)
    write_bundle(
        tmp_path / "bundle", read.manifest, {**read.files, "replies.json": b"[]"}, replace_existing=False
    )
    assert read_bundle(tmp_path / "bundle").files["replies.json"] == b"[]"
    (tmp_path / "bundle" / "replies.json").unlink()
    assert "'replies.json'" in refused(tmp_path / "bundle")


def add_to_manifest(bundle: Path, name: str, content: bytes) -> None:
    """Add the file `name` to edgechat.json, but not to the bundle, and seal it again."""
    values = json.loads((bundle / MANIFEST_FILE).read_bytes())
    values["files"][name] = {"sha256": sha256(content), "size": len(content)}
    values["sha256"] = "0" * 64
    text = json.dumps(values)
    (bundle / MANIFEST_FILE).write_text(text.replace("0" * 64, sha256(text.encode())))


def test_a_name_of_megabytes_is_shortened_in_the_message(bundle):
    add_to_manifest(bundle, "f" * 3_000_000, b"x")
    assert f"'{'f' * 27}...{'f' * 28}' is in the bundle or in edgechat.json" in refused(bundle)


def test_a_manifest_cannot_name_files_outside_the_bundle(bundle, tmp_path):
    (tmp_path / "secret").write_bytes(b"x")
    add_to_manifest(bundle, "../secret", b"x")
    assert "'../secret'" in refused(bundle)


def test_a_newer_minor_format_is_read(bundle_folder, tmp_path):
    read = read_bundle(bundle_folder)
    newer = dataclasses.replace(read.manifest, format="1.9")
    write_bundle(tmp_path / "bundle", newer, read.files, replace_existing=False)
    assert read_bundle(tmp_path / "bundle").manifest.format == "1.9"


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_a_path_without_a_bundle_is_refused(tmp_path, kind):
    path = tmp_path / ("bundle.edgechat" if kind == "file" else "bundle")
    if kind == "file":
        path.write_bytes(b"")
    elif kind == "empty":
        path.mkdir()
    assert "bundle" in refused(path)


def test_a_file_with_another_suffix_that_is_not_a_bundle_is_a_usage_error(tmp_path):
    (tmp_path / "chats.jsonl").write_text("{}")
    with pytest.raises(UsageError, match="is not a bundle: give the folder"):
        read_bundle(tmp_path / "chats.jsonl")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_single_byte_that_was_changed_anywhere_is_found(bundle, data):
    path = bundle / data.draw(st.sampled_from(REQUIRED_FILES))
    raw = path.read_bytes()
    at = data.draw(st.integers(0, len(raw) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != raw[at]))
    path.write_bytes(raw[:at] + bytes([value]) + raw[at + 1 :])
    try:
        said = refused(bundle)
    finally:
        path.write_bytes(raw)
    assert path.name == MANIFEST_FILE or path.name in said


def test_every_byte_of_the_manifest_is_covered_by_a_check(bundle_folder):
    """Tested for every byte, since the manifest is parsed before its seal is checked."""
    manifest = read_bundle(bundle_folder).manifest
    raw = manifest.to_bytes()
    for at in range(len(raw)):
        for flip in (0x01, 0x20, 0x80):
            changed = raw[:at] + bytes([raw[at] ^ flip]) + raw[at + 1 :]
            with pytest.raises(BundleError):
                type(manifest).from_bytes(changed)


def test_a_name_of_nothing_is_a_usage_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("nowhere", "x" * 5000, "a\0b"):
        with pytest.raises(UsageError):
            find_bundle(name)


def test_a_link_to_a_bundle_folder_is_as_good_as_the_folder(bundle_folder, tmp_path):
    (tmp_path / "link").symlink_to(bundle_folder)
    assert read_bundle(find_bundle(str(tmp_path / "link"))) == read_bundle(bundle_folder)


def test_a_link_that_is_changed_while_a_bundle_is_read_does_not_matter(
    bundle, bundle_folder, tmp_path, monkeypatch
):
    (bundle / "golden.json").write_bytes(b"{}")
    link, real = tmp_path / "current", os.open
    link.symlink_to(bundle_folder)

    def switch(path: Path, flags: int) -> int:
        link.unlink()
        link.symlink_to(bundle)
        return real(path, flags)

    monkeypatch.setattr(module.os, "open", switch)
    assert read_bundle(link) == read_bundle(bundle_folder)


def test_messages_about_a_linked_bundle_use_the_path_that_was_given(bundle, tmp_path):
    (bundle / "golden.json").write_bytes(b"{}")
    (tmp_path / "current").symlink_to(bundle)
    assert refused(tmp_path / "current").startswith(f"{tmp_path / 'current' / 'golden.json'} has 2 bytes")
