"""The one-file form: an uncompressed zip that is accepted only exactly as our writer writes it."""

import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgechat.runtime import ChatModel, archive
from edgechat.runtime.archive import Archive, write_archive
from edgechat.runtime.atomic_write import TEMPORARY_PREFIX
from edgechat.runtime.bundle import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    SIZE_CAPS,
    Bundle,
    check_bundle_target,
    find_bundle,
    read_bundle,
    read_bundle_bytes,
    store_bundle,
)
from edgechat.runtime.errors import BundleError, UsageError

Members = list[tuple[str, bytes]]


@pytest.fixture(scope="module")
def good(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle as one file. Tests must not change it."""
    path = tmp_path_factory.mktemp("archive") / "good.edgechat"
    store_bundle(path, read_bundle(bundle_folder), replace_existing=False)
    return path


@pytest.fixture(scope="module")
def members(good: Path) -> Members:
    with zipfile.ZipFile(good) as opened:
        return [(info.filename, opened.read(info)) for info in opened.infolist()]


def zipped(members: Members, change: Callable[[zipfile.ZipInfo], None] = lambda info: None) -> bytes:
    """The members as Python's zipfile writes them, with our fixed fields. `change` changes a field."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as writing:
        for name, data in members:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o100644 << 16
            change(info)
            writing.writestr(info, data, info.compress_type)
    return buffer.getvalue()


def refused(path: Path, raw: bytes | None = None) -> str:
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(BundleError) as raised:
        read_bundle(path)
    text = str(raised.value)
    assert "\n" not in text
    assert str(path.name) in text
    return text


# What is accepted -----------------------------------------------------------------------------------------


def test_another_zip_program_reads_it_and_writes_the_same_bytes(good, members, bundle_folder):
    assert zipfile.ZipFile(good).testzip() is None
    assert dict(members) == {path.name: path.read_bytes() for path in bundle_folder.iterdir()}
    assert zipped(members) == good.read_bytes()


def test_one_file_and_folder_are_the_same_bundle(good, bundle_folder):
    assert read_bundle(good) == read_bundle(bundle_folder) == read_bundle_bytes(good.read_bytes())
    assert find_bundle(str(good)) == good


def test_one_file_and_folder_give_the_same_replies(good, bundle_folder):
    prompts = ["hello", "turn the lamp on", "what is this"]
    models = [ChatModel.load(path, device="cpu") for path in (good, bundle_folder)]
    models.append(ChatModel.load_bytes(good.read_bytes(), device="cpu"))
    told = [[(r.text, r.score, r.tokens) for r in model.reply_batch(prompts)] for model in models]
    assert told[0] == told[1] == told[2]


def test_bytes_are_refused_for_the_same_reasons_as_the_file(good):
    raw = good.read_bytes()
    changed = bytearray(raw)
    changed[raw.index(b"PK\x03\x04", 1) - 1] ^= 1  # the end of edgechat.json
    for wrong, said in (
        (bytes(changed), "the bundle/edgechat.json is damaged or was changed: its checksum differs"),
        (raw[:-1], "the bundle differs from what edgechat writes, starting at byte"),
        (raw + b"x", "the bundle has 1 byte after its end"),
        (zipped([("notes.txt", b"")]), "the bundle contains 'notes.txt', which is not a file of a bundle"),
    ):
        with pytest.raises(BundleError, match=f"^{said}"):
            ChatModel.load_bytes(wrong)
    for wrong, said in (
        (b"", "raw must be the bytes of an .edgechat file, not b''"),
        (b"{}", "raw must be the bytes of an .edgechat file, not b'{}'"),
        (str(good), "raw must be the bytes of an .edgechat file, not "),
        (good, "raw must be the bytes of an .edgechat file, not "),
    ):
        with pytest.raises(UsageError, match=f"^{said}"):
            ChatModel.load_bytes(wrong)


def test_packing_and_unpacking_give_the_same_bytes(good, bundle_folder, tmp_path):
    store_bundle(tmp_path / "folder", read_bundle(good), replace_existing=False)
    assert {p.name: p.read_bytes() for p in (tmp_path / "folder").iterdir()} == {
        p.name: p.read_bytes() for p in bundle_folder.iterdir()
    }
    store_bundle(tmp_path / "again.edgechat", read_bundle(tmp_path / "folder"), replace_existing=False)
    assert (tmp_path / "again.edgechat").read_bytes() == good.read_bytes()


def test_what_a_signature_check_needs_comes_first(good, tmp_path):
    signed = Bundle(**{**vars(read_bundle(good)), "signature": bytes(96)})
    store_bundle(tmp_path / "signed.edgechat", signed, replace_existing=False)
    assert zipfile.ZipFile(tmp_path / "signed.edgechat").namelist()[:2] == [MANIFEST_FILE, SIGNATURE_FILE]
    assert read_bundle(tmp_path / "signed.edgechat") == signed


@given(st.dictionaries(st.sampled_from(list(SIZE_CAPS)), st.binary(max_size=300), min_size=1))
def test_any_files_come_back_as_they_were_and_as_zipfile_would_write_them(files):
    ordered = {name: files[name] for name in SIZE_CAPS if name in files}
    raw = write_archive(ordered)
    assert raw == zipped([*ordered.items()])
    opened = Archive(io.BytesIO(raw), len(raw), Path("a.edgechat"), SIZE_CAPS)
    assert {name: opened.read(name) for name in opened.names} == ordered


@settings(max_examples=300)
@given(st.binary(max_size=400) | st.binary(max_size=200).map(lambda raw: b"PK\x03\x04" + raw))
def test_any_bytes_are_refused_unless_our_writer_would_write_them(raw):
    try:
        opened = Archive(io.BytesIO(raw), len(raw), Path("a.edgechat"), SIZE_CAPS)
    except BundleError:
        return
    assert write_archive({name: opened.read(name) for name in opened.names}) == raw


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_byte_that_was_changed_added_or_lost_anywhere_is_found(good, tmp_path, data):
    raw = good.read_bytes()
    at = data.draw(st.integers(0, len(raw) - 1))
    byte = bytes([data.draw(st.integers(0, 255).filter(lambda value: value != raw[at]))])
    kind = data.draw(st.sampled_from(["changed", "added", "lost"]))
    changed = raw[:at] + (b"" if kind == "lost" else byte) + raw[at + (kind != "added") :]
    refused(tmp_path / "bad.edgechat", changed)


def test_every_byte_of_the_headers_and_the_directory_is_covered_by_a_check():
    raw = write_archive({MANIFEST_FILE: b"", "tokenizer.json": b"t", "golden.json": b"gg"})
    for at in range(len(raw)):
        for flip in (0x01, 0x02, 0x20, 0x80, 0xFF):
            changed = raw[:at] + bytes([raw[at] ^ flip]) + raw[at + 1 :]
            with pytest.raises(BundleError):
                read_all(changed)


def read_all(raw: bytes) -> None:
    opened = Archive(io.BytesIO(raw), len(raw), Path("a.edgechat"), SIZE_CAPS)
    for name in opened.names:
        opened.read(name)


# Attacks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/passwd", "..\\evil", "C:\\evil", "deep/encoder.onnx", "./edgechat.json", "a\0b", ""],
)
def test_a_name_with_a_path_is_refused(tmp_path, members, name):
    raw = zipped([(name if n == "golden.json" else n, data) for n, data in members])
    if "\0" in name:  # zipfile cuts it there
        raw = zipped([("axb" if n == "golden.json" else n, d) for n, d in members]).replace(b"axb", b"a\0b")
    said = refused(tmp_path / "bad.edgechat", raw)
    assert "which is not a file of a bundle" in said
    assert [path.name for path in tmp_path.iterdir()] == ["bad.edgechat"]


def test_a_name_of_other_characters_is_refused(tmp_path, members):
    said = refused(tmp_path / "bad.edgechat", zipped([*members, ("\u202egolden.json", b"")]))
    assert "which is not a file of a bundle" in said
    assert "\u202e" not in said


def test_a_name_of_64_kilobytes_is_refused(tmp_path, members):
    assert "a name of 65,000 bytes" in refused(
        tmp_path / "bad.edgechat", zipped([("x" * 65_000, b""), *members])
    )


def test_a_file_that_is_there_twice_is_refused(tmp_path, members):
    with pytest.warns(UserWarning, match="Duplicate"):
        raw = zipped([*members, members[-1]])
    assert "twice" in refused(tmp_path / "bad.edgechat", raw)


def test_a_compressed_file_is_refused_and_never_decompressed(tmp_path, members, monkeypatch):
    """Including a zip bomb: 50 MB of zeros in 50 kB."""
    monkeypatch.setattr(zlib, "decompressobj", lambda *arguments: pytest.fail("it was decompressed"))
    bomb = [(name, bytes(50_000_000) if name == "encoder.onnx" else data) for name, data in members]

    def deflate(info: zipfile.ZipInfo) -> None:
        if info.filename == "encoder.onnx":
            info.compress_type = zipfile.ZIP_DEFLATED

    raw = zipped(bomb, deflate)
    assert len(raw) < 5_000_000
    assert "differs from what edgechat writes" in refused(tmp_path / "bad.edgechat", raw)


@pytest.mark.parametrize("size", [1 << 31, (1 << 32) - 1])
def test_a_wrong_size_takes_no_memory(tmp_path, good, size):
    raw = bytearray(good.read_bytes())
    struct.pack_into("<2I", raw, 18, size, size)
    assert "allowed" in refused(tmp_path / "bad.edgechat", bytes(raw))
    within_cap = SIZE_CAPS[MANIFEST_FILE]
    struct.pack_into("<2I", raw, 18, within_cap, within_cap)
    assert "is cut off" in refused(tmp_path / "bad.edgechat", bytes(raw)[:100_000])


def test_a_file_above_its_cap_is_refused_without_being_read(tmp_path, good, monkeypatch):
    raw = good.read_bytes()
    monkeypatch.setitem(SIZE_CAPS, "decoder.onnx", 1000)
    monkeypatch.setattr(Archive, "read", lambda *arguments: pytest.fail("it was read"))
    assert "decoder.onnx has" in refused(tmp_path / "bad.edgechat", raw)


def test_a_file_larger_than_a_zip_can_be_is_refused(tmp_path):
    path = tmp_path / "bad.edgechat"
    with path.open("wb") as file:
        file.truncate(archive.MAX_ARCHIVE_BYTES + 1)  # sparse: it takes no disk space
    assert "allowed" in refused(path)


def test_every_bundle_is_small_enough_for_one_file():
    """4 + 0.004096 + 64 + 2000 + 2000 + 16 + 4 + 16 MB; a zip may have 2**32 - 1 bytes."""
    assert sum(SIZE_CAPS.values()) == 4_104_004_096
    assert sum(SIZE_CAPS.values()) + 1000 * len(SIZE_CAPS) < archive.MAX_ARCHIVE_BYTES


def test_an_encrypted_file_is_refused(tmp_path, members, good):
    raw = good.read_bytes()
    first = raw.index(b"PK\x01\x02")
    for at in (6, first + 8):
        raw = raw[:at] + b"\x01" + raw[at + 1 :]
    assert zipfile.ZipFile(io.BytesIO(raw)).infolist()[0].flag_bits & 1
    assert ", starting at byte 6:" in refused(tmp_path / "bad.edgechat", raw)


def test_zip64_is_refused(tmp_path, members, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    raw = zipped(members)
    assert b"PK\x06\x06" in raw
    assert "differs from what edgechat writes" in refused(tmp_path / "bad.edgechat", raw)


@pytest.mark.parametrize("added", [b"\0", b"PK\x05\x06" + bytes(18), b"#!/bin/sh\n" * 1000])
def test_bytes_behind_the_end_are_refused(tmp_path, good, added):
    assert "after its end" in refused(tmp_path / "bad.edgechat", good.read_bytes() + added)


def test_bytes_before_the_beginning_are_refused(tmp_path, good):
    raw = b"#!/bin/sh\n" + good.read_bytes()
    assert zipfile.ZipFile(io.BytesIO(raw)).testzip() is None  # other programs accept it
    assert "is not a bundle" in refused(tmp_path / "bad.edgechat", raw)


def test_bytes_between_two_files_are_refused(tmp_path, good, members):
    """As after a file was removed from the directory, but not from the zip."""
    raw, hidden = good.read_bytes(), write_archive({"replies.json": b"[]"})
    hole = hidden[: hidden.index(b"PK\x01\x02")]
    start = raw.index(b"PK\x01\x02")
    raw = raw[:start] + hole + raw[start:]
    end = raw.rindex(b"PK\x05\x06")
    (offset,) = struct.unpack_from("<I", raw, end + 16)
    raw = raw[: end + 16] + struct.pack("<I", offset + len(hole)) + raw[end + 20 :]
    assert zipfile.ZipFile(io.BytesIO(raw)).namelist() == [name for name, _ in members]
    assert "differs from what edgechat writes" in refused(tmp_path / "bad.edgechat", raw)


def test_a_comment_is_refused(tmp_path, members, good):
    buffer = io.BytesIO(good.read_bytes())
    with zipfile.ZipFile(buffer, "a") as opened:
        opened.comment = b"hello"
    refused(tmp_path / "bad.edgechat", buffer.getvalue())
    refused(tmp_path / "bad.edgechat", zipped(members, lambda info: setattr(info, "comment", b"hello")))


def test_extra_fields_are_refused(tmp_path, members):
    extra = struct.pack("<2H4s", 0xCAFE, 4, b"evil")
    refused(tmp_path / "bad.edgechat", zipped(members, lambda info: setattr(info, "extra", extra)))


def test_another_date_is_refused(tmp_path, members):
    date = (2026, 1, 1, 0, 0, 0)
    refused(tmp_path / "bad.edgechat", zipped(members, lambda info: setattr(info, "date_time", date)))


def test_data_descriptors_are_refused(tmp_path, members):
    class Pipe(io.BytesIO):
        """A stream in which zipfile cannot seek, so that it writes sizes after the data."""

        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

        def seek(self, *arguments: int) -> int:
            raise OSError

    buffer = Pipe()
    with zipfile.ZipFile(buffer, "w") as writing:
        for name, data in members:
            writing.writestr(zipfile.ZipInfo(name), data)
    assert zipfile.ZipFile(io.BytesIO(buffer.getvalue())).infolist()[0].flag_bits & 8
    refused(tmp_path / "bad.edgechat", buffer.getvalue())


def test_overlapping_files_are_refused(tmp_path, good):
    """The directory gives the decoder the offset of the encoder, like the zip bombs of 2019."""
    raw = bytearray(good.read_bytes())
    entry = {}
    at = raw.index(b"PK\x01\x02")
    while raw[at : at + 4] == b"PK\x01\x02":
        (length,) = struct.unpack_from("<H", raw, at + 28)
        entry[bytes(raw[at + 46 : at + 46 + length])] = at
        at += 46 + length
    raw[entry[b"decoder.onnx"] + 42 : entry[b"decoder.onnx"] + 46] = raw[
        entry[b"encoder.onnx"] + 42 : entry[b"encoder.onnx"] + 46
    ]
    assert "differs from what edgechat writes" in refused(tmp_path / "bad.edgechat", bytes(raw))


@pytest.mark.parametrize("mode", [0o120777, 0o040755, 0o010644, 0o104755, 0])
def test_a_link_a_folder_a_pipe_and_other_rights_are_refused(tmp_path, members, mode):
    def change(info: zipfile.ZipInfo) -> None:
        info.external_attr = mode << 16 or 1

    refused(tmp_path / "bad.edgechat", zipped(members, change))


def test_another_name_in_the_directory_than_at_the_file_is_refused(tmp_path, good):
    raw = good.read_bytes()
    start = raw.index(b"PK\x01\x02")
    swapped = raw[start:].replace(b"encoder.onnx", b"_").replace(b"decoder.onnx", b"encoder.onnx")
    refused(tmp_path / "bad.edgechat", raw[:start] + swapped.replace(b"_", b"decoder.onnx"))


def test_files_in_another_order_are_refused(tmp_path, members):
    assert "out of order" in refused(tmp_path / "bad.edgechat", write_archive(dict(members[::-1])))


def test_files_that_were_swapped_are_refused(tmp_path, members):
    files = dict(members)
    files["encoder.onnx"], files["decoder.onnx"] = files["decoder.onnx"], files["encoder.onnx"]
    assert "edgechat.json says" in refused(tmp_path / "bad.edgechat", write_archive(files))


def test_a_file_that_was_replaced_with_all_checksums_right_is_refused(tmp_path, members):
    files = dict(members)
    files["encoder.onnx"] = files["encoder.onnx"][:-1] + bytes([files["encoder.onnx"][-1] ^ 1])
    assert "sha256 differs" in refused(tmp_path / "bad.edgechat", write_archive(files))


@pytest.mark.parametrize(
    "name", [name for name in SIZE_CAPS if name not in ("replies.json", SIGNATURE_FILE)][:6]
)
def test_a_file_that_is_missing_is_named(tmp_path, members, name):
    files = {n: data for n, data in members if n != name}
    assert f"has no {name}" in refused(tmp_path / "bad.edgechat", write_archive(files))


def test_a_file_that_the_manifest_does_not_know_is_refused(tmp_path, members):
    said = refused(tmp_path / "bad.edgechat", write_archive(dict(members) | {"replies.json": b"[]"}))
    assert "'replies.json'" in said


@pytest.mark.parametrize("raw", [b"", b"PK", b"PK\x05\x06" + bytes(18), b"\x1f\x8b", b'{"format": "1.0"}'])
def test_a_file_that_is_not_a_bundle_is_refused(tmp_path, raw):
    refused(tmp_path / "bad.edgechat", raw)


@pytest.mark.parametrize("cut", [1, 22, 200, 10_000])
def test_a_file_that_is_cut_off_is_refused(tmp_path, good, cut):
    refused(tmp_path / "bad.edgechat", good.read_bytes()[:-cut])


def test_a_link_is_refused(tmp_path, good):
    (tmp_path / "bad.edgechat").symlink_to(good)
    assert "symbolic link" in refused(tmp_path / "bad.edgechat")


def test_a_pipe_is_refused_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "bad.edgechat")
    assert "not a regular file" in refused(tmp_path / "bad.edgechat")


def test_a_device_is_refused_and_not_opened(monkeypatch):
    monkeypatch.setattr(os, "open", lambda *arguments: pytest.fail("it was opened"))
    with pytest.raises(BundleError, match="not a regular file"):
        read_bundle(Path("/dev/zero"))


def test_a_file_that_changes_after_the_first_check_is_refused(tmp_path, good, members, monkeypatch):
    """The bytes that are used are those that were hashed, whatever is on the disk by then."""
    path = tmp_path / "bad.edgechat"
    path.write_bytes(good.read_bytes())
    real = Archive.read

    def read(self: Archive, name: str, expected: int | None = None) -> bytes:
        if name == "decoder.onnx":
            with path.open("r+b") as file:
                file.seek(good.read_bytes().index(dict(members)["decoder.onnx"]) + 500)
                file.write(b"evil")
        return real(self, name, expected)

    monkeypatch.setattr(Archive, "read", read)
    assert "decoder.onnx" in refused(path)


# Writing --------------------------------------------------------------------------------------------------


def test_a_bundle_that_would_not_be_read_is_not_written(good, tmp_path):
    bundle = read_bundle(good)
    for files in (
        {**bundle.files, "notes.txt": b""},
        {name: data for name, data in bundle.files.items() if name != "encoder.onnx"},
        {**bundle.files, "encoder.onnx": b""},
    ):
        with pytest.raises(BundleError):
            store_bundle(
                tmp_path / "a.edgechat",
                Bundle(bundle.manifest, files, bundle.manifest_bytes),
                replace_existing=True,
            )
    assert not list(tmp_path.iterdir())


def test_only_a_bundle_of_the_same_form_is_replaced_and_only_with_force(good, bundle_folder, tmp_path):
    (tmp_path / "a.edgechat").write_bytes(good.read_bytes())
    with pytest.raises(UsageError, match="exists"):
        check_bundle_target(tmp_path / "a.edgechat", force=False)
    check_bundle_target(tmp_path / "a.edgechat", force=True)
    (tmp_path / "thesis.edgechat").write_text("the only copy")
    (tmp_path / "link.edgechat").symlink_to(good)
    (tmp_path / "folder.edgechat").mkdir()
    store_bundle(tmp_path / "folder", read_bundle(good), replace_existing=False)
    (tmp_path / "folder").rename(tmp_path / "bundle.edgechat")
    (tmp_path / "file").write_bytes(good.read_bytes())
    os.mkfifo(tmp_path / "pipe.edgechat")
    for name in (
        "thesis.edgechat",
        "link.edgechat",
        "folder.edgechat",
        "bundle.edgechat",
        "file",
        "pipe.edgechat",
    ):
        with pytest.raises(UsageError, match="is not a bundle"):
            check_bundle_target(tmp_path / name, force=True)


def test_nothing_is_written_into_a_bundle(bundle_folder):
    with pytest.raises(UsageError, match="is a bundle"):
        check_bundle_target(bundle_folder / "inner.edgechat", force=True)


#: Exits, as if by SIGKILL, at the n-th fsync or at the rename while a bundle file replaces another.
_DIE = """
import os, sys
from pathlib import Path
from edgechat.runtime.bundle import read_bundle, store_bundle
source, out, name, after = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
bundle = read_bundle(source)
real, calls = getattr(os, name), 0
def dying(*arguments, **options):
    global calls
    calls += 1
    if calls > after:
        os._exit(9)
    return real(*arguments, **options)
setattr(os, name, dying)
store_bundle(out, bundle, replace_existing=True)
"""


@pytest.mark.parametrize(("name", "after"), [("fsync", 0), ("replace", 0), ("fsync", 1)])
def test_a_write_that_is_killed_leaves_the_old_file_or_the_new(good, tmp_path, name, after):
    out = tmp_path / "out.edgechat"
    old = Bundle(**{**vars(read_bundle(good)), "signature": bytes(96)})
    store_bundle(out, old, replace_existing=False)
    done = subprocess.run([sys.executable, "-c", _DIE, good, out, name, str(after)], check=False)
    assert done.returncode == 9
    assert read_bundle(out) == (read_bundle(good) if (name, after) == ("fsync", 1) else old)
    assert all(path == out or path.name.startswith(TEMPORARY_PREFIX) for path in tmp_path.iterdir())
