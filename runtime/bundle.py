"""A bundle on disk: a folder of files with fixed names, whose hashes are in the manifest, or the same files
as one file (`archive.py`).

Bundles are untrusted, so nothing in one is used before it was checked: the names, that each is a regular file
and not a link, the sizes, the signature if one is required, then the hashes. Every byte is read only once, so
the bytes that were hashed are the bytes that are used.
"""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from .archive import (
    BUNDLE_SUFFIX,
    MAX_ARCHIVE_BYTES,
    NOT_A_BUNDLE,
    ZIP_MAGIC,
    Archive,
    is_archive,
    write_archive,
)
from .arguments import short_repr
from .atomic_write import atomic_folder, sha256, would_overwrite, write_atomic
from .errors import BundleError, UsageError
from .manifest import FileEntry, Manifest
from .signature import PublicKey, Signer, check_signature, check_signature_size, load_public_key

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

MANIFEST_FILE = "edgechat.json"
#: A file in every run folder. It shows that a folder that was given as a bundle is a run.
RUN_FILE = "run.json"
SIGNATURE_FILE = "signature.ed25519"
#: Suffixes of single files, which a bundle in a folder is not.
_FILE_SUFFIXES = {".zip", ".tar", ".gz", ".tgz", ".onnx"}
MEGABYTE = 1_000_000
#: Every file name that a bundle may contain, with its maximum size in bytes. The one-file form has the files
#: in this order: what is needed to check a signature comes first.
SIZE_CAPS = {
    MANIFEST_FILE: 4 * MEGABYTE,
    SIGNATURE_FILE: 4096,
    "tokenizer.json": 64 * MEGABYTE,
    "encoder.onnx": 2_000 * MEGABYTE,
    "decoder.onnx": 2_000 * MEGABYTE,
    "golden.json": 16 * MEGABYTE,
    "MODEL_CARD.md": 4 * MEGABYTE,
    "replies.json": 16 * MEGABYTE,  # loading that much takes seconds and hundreds of megabytes
}
REQUIRED_FILES = (
    MANIFEST_FILE,
    "tokenizer.json",
    "encoder.onnx",
    "decoder.onnx",
    "golden.json",
    "MODEL_CARD.md",
)


@dataclass(frozen=True)
class Bundle:
    """A checked bundle in memory."""

    manifest: Manifest
    files: dict[str, bytes]  # the files whose hashes are in the manifest
    manifest_bytes: bytes  # edgechat.json as it was read, which is what a signature signs
    signature: bytes | None = None  # signature.ed25519; checked only if a signature was required
    path: Path | None = field(default=None, compare=False)  # where it was read from

    @property
    def all_files(self) -> dict[str, bytes]:
        """All files: `files`, edgechat.json and, if there is one, the signature."""
        signed = {} if self.signature is None else {SIGNATURE_FILE: self.signature}
        return {MANIFEST_FILE: self.manifest_bytes, **self.files, **signed}

    @property
    def size(self) -> int:
        """Total size of all files in bytes."""
        return sum(map(len, self.all_files.values()))


class _BundleReader(Protocol):
    """A bundle open for reading. Names, types and sizes of its files have been checked."""

    @property
    def names(self) -> list[str]: ...

    def read(self, name: str, expected: int | None = None) -> bytes:
        """The content of a file, whose size must be `expected` bytes if that is given."""


def package_files(package: str) -> "Traversable":
    """The folder of a package's data files."""
    from importlib.resources import files  # imported here because it is slow to load

    return files(package)


def is_run(folder: Path) -> bool:
    """Whether `folder` is a run folder, as `edgechat train` writes it."""
    return (folder / RUN_FILE).is_file()


def find_bundle(name: str) -> Path:
    """The path of a bundle. `demo` is the one in the package, unless a bundle or run has that path.

    Raises:
        UsageError: there is no file or folder `name`, or it is not a bundle, such as a run.
    """
    path = Path(name)
    try:
        if name and (path.exists() or path.is_symlink()):  # Path("") would be the current folder
            if is_run(path) and not (path / MANIFEST_FILE).exists():
                raise UsageError(
                    f"{path} is a run, not a bundle: export it with edgechat export {path} --out BUNDLE"
                )
            if (
                name != "demo"
                and path.is_dir()
                and not any((path / file).exists() for file in REQUIRED_FILES)
            ):
                raise UsageError(f"{path} {NOT_A_BUNDLE}")
            if name != "demo" or (path / MANIFEST_FILE).exists() or is_archive(path):
                return path
    except OSError as error:  # such as a name that is too long, or a folder without permission
        raise UsageError(f"the bundle {name[:100]} cannot be opened: {error.strerror}") from None
    if name == "demo":
        demo = Path(str(package_files("edgechat.models"))) / "demo"
        if (demo / MANIFEST_FILE).is_file():
            return demo
        raise UsageError(
            "this installation has no demo bundle: train and export one, or run `make demo` in the "
            "repository, which makes bundles/demo"
        )
    literally = " (~ is not expanded here)" if name.startswith("~") else ""
    raise UsageError(
        f"there is no bundle {name or repr(name)}{literally}: give the folder or file that `edgechat export` "
        "wrote"
    )


def read_bundle(path: Path, *, require_signature: PublicKey | None = None) -> Bundle:
    """Read and check every file of the bundle `path`, a folder or one file.

    With `require_signature`, a public key, the signature is checked first; until then only edgechat.json and
    the signature are read, and neither is parsed.

    Raises:
        UsageError: `require_signature` is not a public key.
        BundleError: names the file and what is wrong with it. Nothing is changed.
    """
    public_key = None if require_signature is None else load_public_key(require_signature)
    try:
        with _open_bundle(path) as reader:
            return _read_and_check(path, reader, public_key)
    except OSError as error:
        if error.errno is None:  # such as a TimeoutError that the app's signal handler raised
            raise
        raise BundleError(f"{error.filename or path} cannot be read: {error.strerror}") from error


def read_bundle_bytes(
    raw: bytes, *, require_signature: PublicKey | None = None, path: Path = Path("the bundle")
) -> Bundle:
    """Like `read_bundle`, from the content of a one-file bundle. Errors call it `path`."""
    if not isinstance(raw, bytes) or not raw.startswith(ZIP_MAGIC):
        raise UsageError(f"raw must be the bytes of an {BUNDLE_SUFFIX} file, not {short_repr(raw)}")
    public_key = None if require_signature is None else load_public_key(require_signature)
    return _read_and_check(path, _open_archive(io.BytesIO(raw), len(raw), path), public_key)


def write_bundle(
    path: Path,
    manifest: Manifest,
    contents: dict[str, bytes],
    *,
    replace_existing: bool,
    sign: Signer | None = None,
) -> Manifest:
    """Put the hashes of `contents` into `manifest`, seal it, sign it if `sign` is given, store the bundle at
    `path`, and return the manifest.

    Raises:
        UsageError: a file is larger than `read_bundle` accepts.
    """
    for name, data in contents.items():
        if len(data) > SIZE_CAPS.get(name, len(data)):
            raise UsageError(
                f"{name} has {len(data):,} bytes, but in a bundle it may have at most {SIZE_CAPS[name]:,}"
            )
    entries = {name: FileEntry(sha256(data), len(data)) for name, data in sorted(contents.items())}
    manifest = replace(manifest, files=entries)
    manifest_bytes = manifest.to_bytes()
    signature = sign(manifest_bytes) if sign else None
    store_bundle(
        path, Bundle(manifest, contents, manifest_bytes, signature), replace_existing=replace_existing
    )
    return manifest


def store_bundle(path: Path, bundle: Bundle, *, replace_existing: bool, mode: int | None = None) -> None:
    """Write a bundle atomically: as one file, with the permissions `mode`, if `path` ends with .edgechat,
    else as a folder.

    It is read back and checked before it gets its name. Both forms have the same files, byte for byte.

    Raises:
        BundleError: `read_bundle` would refuse it.
    """
    files = bundle.all_files
    if path.suffix == BUNDLE_SUFFIX:
        raw = write_archive({name: files[name] for name in sorted(files, key=_archive_position)})
        read_bundle_bytes(raw, path=path)
        write_atomic(path, raw, replace=replace_existing, mode=mode)
        return
    with atomic_folder(path, replace=replace_existing) as folder:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        read_bundle(folder)


def store_signature(path: Path, bundle: Bundle, signature: bytes) -> None:
    """Add a signature to the bundle that was read from `path`, or replace it. Everything else stays the same,
    permissions included."""
    if path.is_dir():
        mode = stat.S_IMODE((path / MANIFEST_FILE).stat().st_mode)
        # The temporary file is beside the bundle: one inside would make it invalid for a moment.
        write_atomic(path / SIGNATURE_FILE, signature, mode=mode, beside=path.resolve())
    else:
        mode = stat.S_IMODE(path.stat().st_mode)
        store_bundle(path, replace(bundle, signature=signature), replace_existing=True, mode=mode)


def check_not_in_bundle(out: Path, option: str = "--out") -> None:
    """Refuse to write into a bundle folder, which would make the bundle invalid."""
    if (out.parent / MANIFEST_FILE).exists():
        raise UsageError(f"{out.parent} is a bundle, which may hold no other files: choose another {option}")


def check_bundle_target(out: Path, force: bool) -> None:
    """Refuse to overwrite anything except a bundle of the same form, and refuse that too unless `force` is
    true, which is what --force sets."""
    if out.suffix.lower() in _FILE_SUFFIXES and not out.exists():
        raise UsageError(
            f"{out} would be a folder: a bundle in one file has a name that ends with {BUNDLE_SUFFIX}"
        )
    taken = would_overwrite(out)
    check_not_in_bundle(out)
    if not _is_replaceable(out):
        kind = "a bundle file" if out.suffix == BUNDLE_SUFFIX else "a bundle"
        raise UsageError(
            f"{out} is not {kind}, or holds other files too, so --force does not replace it: "
            "choose another --out"
        )
    if taken and not force:
        raise UsageError(f"{out} exists: choose another --out, or give --force to replace it")


def _is_replaceable(out: Path) -> bool:
    """Whether `out` does not exist, or is an empty folder, or a bundle of the form that its suffix calls for.
    The content of its files is not checked: a damaged bundle may be replaced."""
    if out.is_symlink() or not out.exists():
        return not out.is_symlink()
    if out.suffix != BUNDLE_SUFFIX:
        names = {path.name for path in out.iterdir()} if out.is_dir() else {""}
        return not names or (MANIFEST_FILE in names and names <= SIZE_CAPS.keys())
    try:
        with _open_bundle(out) as reader:
            return isinstance(reader, Archive)
    except (BundleError, UsageError):
        return False


def _archive_position(name: str) -> int:
    """The position of a file in the one-file form. Unknown names come last; reading the file back refuses
    them."""
    return [*SIZE_CAPS, name].index(name)


@contextlib.contextmanager
def _open_bundle(path: Path) -> Iterator[_BundleReader]:
    """Open a bundle of either form, and check everything except the content of its files."""
    if path.is_dir():
        yield _FolderReader(path)
    else:
        with _open_file(path, path, MAX_ARCHIVE_BYTES) as (file, size):
            yield _open_archive(file, size, path)


def _open_archive(file: BinaryIO, size: int, path: Path) -> Archive:
    archive = Archive(file, size, path, SIZE_CAPS)
    _check_names(path, archive.names)
    return archive


class _FolderReader:
    """A bundle that is a folder or a link to one. A link is resolved only once, so that all files are from
    the same bundle."""

    def __init__(self, path: Path) -> None:
        self._path, self._folder = path, path.resolve()
        self.names = sorted(os.listdir(self._folder))  # noqa: PTH208 - names, not paths
        _check_names(path, self.names)
        for name in self.names:
            _check_file(path / name, (self._folder / name).lstat(), SIZE_CAPS[name])

    def read(self, name: str, expected: int | None = None) -> bytes:
        with _open_file(self._path / name, self._folder / name, SIZE_CAPS[name]) as (file, size):
            if expected is not None and size != expected:
                raise BundleError(f"{self._path / name} has {size} bytes, edgechat.json says {expected}")
            return file.read(size)


def _read_and_check(path: Path, reader: _BundleReader, public_key: bytes | None) -> Bundle:
    """Read every file of `reader` and check the signature, then each file against the manifest."""
    manifest_bytes = reader.read(MANIFEST_FILE)
    signature = reader.read(SIGNATURE_FILE) if SIGNATURE_FILE in reader.names else None
    if public_key is not None:
        check_signature(path, manifest_bytes, signature, public_key)
    elif signature is not None:
        check_signature_size(path, signature)
    try:
        manifest = Manifest.from_bytes(manifest_bytes)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error.__cause__
    odd = (set(reader.names) - {MANIFEST_FILE, SIGNATURE_FILE}) ^ set(manifest.files)
    if odd:
        raise BundleError(
            f"{path}: {short_repr(min(odd))} is in the bundle or in edgechat.json, but not in both"
        )
    contents = {}
    for name, entry in sorted(manifest.files.items()):
        contents[name] = reader.read(name, entry.size)
        if sha256(contents[name]) != entry.sha256:
            raise BundleError(
                f"{path / name} is damaged or was changed: its sha256 differs from edgechat.json"
            )
    return Bundle(manifest, contents, manifest_bytes, signature, path)


def _check_names(path: Path, names: list[str]) -> None:
    for name in names:
        if name not in SIZE_CAPS:
            raise BundleError(f"{path} contains {name!r}, which is not a file of a bundle: remove it")
    for name in REQUIRED_FILES:
        if name not in names:
            raise BundleError(f"{path} has no {name}: it is not a bundle, or an incomplete one")


@contextlib.contextmanager
def _open_file(path: Path, at: Path, cap: int) -> Iterator[tuple[BinaryIO, int]]:
    """Open the regular file `at`, of at most `cap` bytes; yields it and its size. Errors call it `path`."""
    _check_file(path, at.lstat(), cap)
    # The file may have been replaced since the check: no link is followed, no pipe blocks, and the opened
    # file is checked again.
    flags = (
        os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    with os.fdopen(os.open(at, flags), "rb") as file:
        info = os.fstat(file.fileno())
        _check_file(path, info, cap)
        yield file, info.st_size


def _check_file(path: Path, info: os.stat_result, cap: int) -> None:
    if stat.S_ISLNK(info.st_mode):
        raise BundleError(
            f"{path} is a symbolic link, which neither a bundle file nor a file in a bundle may be"
        )
    if not stat.S_ISREG(info.st_mode):
        raise BundleError(f"{path} is not a regular file")
    if info.st_size > cap:
        raise BundleError(f"{path} has {info.st_size:,} bytes, more than the {cap:,} allowed")
