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

from .archive import ENDING, LARGEST, MARK, NO_BUNDLE, Archive, is_archive, write_archive
from .arguments import shown
from .errors import BundleError, UsageError
from .files import folder_atomic, occupied, sha256, write_atomic
from .manifest import FileEntry, Manifest
from .signature import PublicKey, Signer, check_form, check_signature, load_public_key

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

MANIFEST = "edgechat.json"
#: A file in every run folder. It shows that a folder that was given as a bundle is a run.
RUN = "run.json"
SIGNATURE = "signature.ed25519"
MEGABYTE = 1_000_000
#: Every file name that a bundle may contain, with its maximum size in bytes. The one-file form has the files
#: in this order: what is needed to check a signature comes first.
SIZE_CAPS = {
    MANIFEST: 4 * MEGABYTE,
    SIGNATURE: 4096,
    "tokenizer.json": 64 * MEGABYTE,
    "encoder.onnx": 2_000 * MEGABYTE,
    "decoder.onnx": 2_000 * MEGABYTE,
    "golden.json": 16 * MEGABYTE,
    "MODEL_CARD.md": 4 * MEGABYTE,
    "replies.json": 16 * MEGABYTE,  # loading that much takes seconds and hundreds of megabytes
}
REQUIRED = (MANIFEST, "tokenizer.json", "encoder.onnx", "decoder.onnx", "golden.json", "MODEL_CARD.md")


@dataclass(frozen=True)
class Bundle:
    """A checked bundle in memory."""

    manifest: Manifest
    files: dict[str, bytes]  # the files whose hashes are in the manifest
    sealed: bytes  # edgechat.json as it was read, which is what a signature signs
    signature: bytes | None = None  # signature.ed25519; checked only if a signature was required
    path: Path | None = field(default=None, compare=False)  # where it was read from

    @property
    def stored(self) -> dict[str, bytes]:
        """All files: `files`, edgechat.json and, if there is one, the signature."""
        signed = {} if self.signature is None else {SIGNATURE: self.signature}
        return {MANIFEST: self.sealed, **self.files, **signed}

    @property
    def size(self) -> int:
        """Total size of all files in bytes."""
        return sum(map(len, self.stored.values()))


class _Source(Protocol):
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
    return (folder / RUN).is_file()


def find_bundle(name: str) -> Path:
    """The path of a bundle. `demo` is the one in the package, unless a bundle or run has that path.

    Raises:
        UsageError: there is no file or folder `name`, or it is not a bundle, such as a run.
    """
    path = Path(name)
    try:
        if name and (path.exists() or path.is_symlink()):  # Path("") would be the current folder
            if is_run(path) and not (path / MANIFEST).exists():
                raise UsageError(
                    f"{path} is a run, not a bundle: export it with edgechat export {path} --out BUNDLE"
                )
            if name != "demo" and path.is_dir() and not any((path / file).exists() for file in REQUIRED):
                raise UsageError(f"{path} {NO_BUNDLE}")
            if name != "demo" or (path / MANIFEST).exists() or is_archive(path):
                return path
    except OSError as error:  # such as a name that is too long, or a folder without permission
        raise UsageError(f"the bundle {name[:100]} cannot be opened: {error.strerror}") from None
    if name == "demo":
        demo = Path(str(package_files("edgechat.models"))) / "demo"
        if (demo / MANIFEST).is_file():
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
        with _open_bundle(path) as source:
            return _check(path, source, public_key)
    except OSError as error:
        if error.errno is None:  # such as a TimeoutError that the app's signal handler raised
            raise
        raise BundleError(f"{error.filename or path} cannot be read: {error.strerror}") from error


def read_packed(
    raw: bytes, *, require_signature: PublicKey | None = None, path: Path = Path("raw")
) -> Bundle:
    """Like `read_bundle`, from the content of a one-file bundle. Errors call it `path`."""
    if not isinstance(raw, bytes) or not raw.startswith(MARK):
        raise UsageError(f"{path} must be the bytes of an {ENDING} file, not {shown(raw)}")
    public_key = None if require_signature is None else load_public_key(require_signature)
    return _check(path, _open_archive(io.BytesIO(raw), len(raw), path), public_key)


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
    sealed = manifest.to_bytes()
    signature = sign(sealed) if sign else None
    store_bundle(path, Bundle(manifest, contents, sealed, signature), replace_existing=replace_existing)
    return manifest


def store_bundle(path: Path, bundle: Bundle, *, replace_existing: bool, mode: int | None = None) -> None:
    """Write a bundle atomically: as one file, with the permissions `mode`, if `path` ends with .edgechat,
    else as a folder.

    It is read back and checked before it gets its name. Both forms have the same files, byte for byte.

    Raises:
        BundleError: `read_bundle` would refuse it.
    """
    files = bundle.stored
    if path.suffix == ENDING:
        raw = write_archive({name: files[name] for name in sorted(files, key=_place)})
        read_packed(raw, path=path)
        write_atomic(path, raw, replace=replace_existing, mode=mode)
        return
    with folder_atomic(path, replace=replace_existing) as folder:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        read_bundle(folder)


def store_signature(path: Path, bundle: Bundle, signature: bytes) -> None:
    """Add a signature to the bundle that was read from `path`, or replace it. Everything else stays the same,
    permissions included."""
    if path.is_dir():
        mode = stat.S_IMODE((path / MANIFEST).stat().st_mode)
        # The temporary file is beside the bundle: one inside would make it invalid for a moment.
        write_atomic(path / SIGNATURE, signature, mode=mode, beside=path.resolve())
    else:
        mode = stat.S_IMODE(path.stat().st_mode)
        store_bundle(path, replace(bundle, signature=signature), replace_existing=True, mode=mode)


def check_outside(out: Path, option: str = "--out") -> None:
    """Refuse to write into a bundle folder, which would make the bundle invalid."""
    if (out.parent / MANIFEST).exists():
        raise UsageError(f"{out.parent} is a bundle, which may hold no other files: choose another {option}")


def check_out(out: Path, force: bool, option: str = "--force") -> None:
    """Refuse to overwrite anything except a bundle of the same form, and refuse that too unless `force` is
    true, which is what `option` sets."""
    taken = occupied(out)
    check_outside(out)
    if not _replaceable(out):
        kind = "a bundle file" if out.suffix == ENDING else "a bundle"
        raise UsageError(
            f"{out} is not {kind}, or holds other files too, so {option} does not replace it: "
            "choose another --out"
        )
    if taken and not force:
        raise UsageError(f"{out} exists: choose another --out, or give {option} to replace it")


def _replaceable(out: Path) -> bool:
    """Whether `out` does not exist, or is an empty folder, or a bundle of the form that its suffix calls for.
    The content of its files is not checked: a damaged bundle may be replaced."""
    if out.is_symlink() or not out.exists():
        return not out.is_symlink()
    if out.suffix != ENDING:
        names = {path.name for path in out.iterdir()} if out.is_dir() else {""}
        return not names or (MANIFEST in names and names <= SIZE_CAPS.keys())
    try:
        with _open_bundle(out) as source:
            return isinstance(source, Archive)
    except (BundleError, UsageError):
        return False


def _place(name: str) -> int:
    """The position of a file in the one-file form. Unknown names come last; reading the file back refuses
    them."""
    return [*SIZE_CAPS, name].index(name)


@contextlib.contextmanager
def _open_bundle(path: Path) -> Iterator[_Source]:
    """Open a bundle of either form, and check everything except the content of its files."""
    if path.is_dir():
        yield _Folder(path)
    else:
        with _open_file(path, path, LARGEST) as (file, size):
            yield _open_archive(file, size, path)


def _open_archive(file: BinaryIO, size: int, path: Path) -> Archive:
    archive = Archive(file, size, path, SIZE_CAPS)
    _check_names(path, archive.names)
    return archive


class _Folder:
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


def _check(path: Path, source: _Source, public_key: bytes | None) -> Bundle:
    """Read every file of `source` and check the signature, then each file against the manifest."""
    sealed = source.read(MANIFEST)
    signature = source.read(SIGNATURE) if SIGNATURE in source.names else None
    if public_key is not None:
        check_signature(path, sealed, signature, public_key)
    elif signature is not None:
        check_form(path, signature)
    try:
        manifest = Manifest.from_bytes(sealed)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error.__cause__
    odd = (set(source.names) - {MANIFEST, SIGNATURE}) ^ set(manifest.files)
    if odd:
        raise BundleError(f"{path}: {shown(min(odd))} is in the bundle or in edgechat.json, but not in both")
    contents = {}
    for name, entry in sorted(manifest.files.items()):
        contents[name] = source.read(name, entry.size)
        if sha256(contents[name]) != entry.sha256:
            raise BundleError(
                f"{path / name} is damaged or was changed: its sha256 differs from edgechat.json"
            )
    return Bundle(manifest, contents, sealed, signature, path)


def _check_names(path: Path, names: list[str]) -> None:
    for name in names:
        if name not in SIZE_CAPS:
            raise BundleError(f"{path} contains {name!r}, which is not a file of a bundle: remove it")
    for name in REQUIRED:
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
