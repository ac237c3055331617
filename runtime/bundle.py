"""A bundle on the disk: a folder with fixed file names, each of which is hashed in the manifest, or the
same files as one (`archive.py`).

A bundle may come from anybody, so nothing of it is used before it was checked: the names, that each
is a regular file and no link, its size, the signature where one is required, then its hash. Every byte is
read once, and what was hashed is what is used.
"""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from .archive import ENDING, LARGEST, NO_BUNDLE, Archive, is_archive, write_archive
from .arguments import shown
from .errors import BundleError, UsageError
from .files import folder_atomic, occupied, sha256, write_atomic
from .manifest import FileEntry, Manifest
from .signature import Signer, check_form, check_signature, load_public_key

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

MANIFEST = "edgechat.json"
#: In the folder of a training: what a bundle is made of, and is often taken for one.
RUN = "run.json"
SIGNATURE = "signature.ed25519"
MEGABYTE = 1_000_000
#: Every name a bundle may hold, with the most bytes it may have. In one file they lie in this order: what a
#: signature is checked with comes first.
SIZE_CAPS = {
    MANIFEST: 4 * MEGABYTE,
    SIGNATURE: 4096,
    "tokenizer.json": 64 * MEGABYTE,
    "encoder.onnx": 2_000 * MEGABYTE,
    "decoder.onnx": 2_000 * MEGABYTE,
    "golden.json": 16 * MEGABYTE,
    "MODEL_CARD.md": 4 * MEGABYTE,
    "replies.json": 16 * MEGABYTE,  # a few seconds and hundreds of megabytes as a trie
}
REQUIRED = (MANIFEST, "tokenizer.json", "encoder.onnx", "decoder.onnx", "golden.json", "MODEL_CARD.md")


@dataclass(frozen=True)
class Bundle:
    """A checked bundle in memory."""

    manifest: Manifest
    files: dict[str, bytes]  # those that the manifest has the hashes of
    sealed: bytes  # edgechat.json as it was read: what a signature is of
    signature: bytes | None = None  # signature.ed25519; checked only where one was required
    path: Path | None = field(default=None, compare=False)  # where it was read

    @property
    def stored(self) -> dict[str, bytes]:
        """All files: these, edgechat.json and, where there is one, the signature."""
        signed = {} if self.signature is None else {SIGNATURE: self.signature}
        return {MANIFEST: self.sealed, **self.files, **signed}

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.stored.values()))


class _Source(Protocol):
    """A bundle that is open for reading; its names, kinds and sizes were checked."""

    @property
    def names(self) -> list[str]: ...

    def read(self, name: str, expected: int | None = None) -> bytes:
        """All bytes of a file; exactly `expected` many where given."""


def package_files(package: str) -> "Traversable":
    """The folder of a package's data. What finds it is loaded only where it is wanted: it is slow to load."""
    from importlib.resources import files

    return files(package)


def is_run(folder: Path) -> bool:
    """Whether this is the folder of a training."""
    return (folder / RUN).is_file()


def find_bundle(name: str) -> Path:
    """The path of a bundle; `demo` is the one that comes with the package, unless a path of that name is
    one, or a run.

    Raises:
        UsageError: there is nothing of that name, or it is a run that was not exported, or another folder.
    """
    path = Path(name)
    try:
        if name and (path.exists() or path.is_symlink()):  # an empty one would be this folder
            if is_run(path) and not (path / MANIFEST).exists():
                raise UsageError(f"{path} is a run, not a bundle: edgechat export {path} --out BUNDLE first")
            if name != "demo" and path.is_dir() and not any((path / file).exists() for file in REQUIRED):
                raise UsageError(f"{path} {NO_BUNDLE}")
            if name != "demo" or (path / MANIFEST).exists() or is_archive(path):
                return path
    except OSError as error:  # a name that is too long, a folder that may not be searched
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


def read_bundle(path: Path, *, require_signature: str | os.PathLike[str] | None = None) -> Bundle:
    """Read and check every file of the bundle `path`, a folder or one file.

    With `require_signature`, the path of a public key, only edgechat.json and the signature are read, and
    not yet understood, before the signature was found to be of that key.

    Raises:
        UsageError: `require_signature` is no public key.
        BundleError: names the file and what is wrong with it; nothing is changed.
    """
    public_key = None if require_signature is None else load_public_key(require_signature)
    try:
        with _open_bundle(path) as source:
            return _check(path, source, public_key)
    except OSError as error:
        if error.errno is None:  # an app's own TimeoutError, of a signal's handler
            raise
        raise BundleError(f"{error.filename or path} cannot be read: {error.strerror}") from error


def read_packed(
    raw: bytes, *, require_signature: str | os.PathLike[str] | None = None, path: Path = Path("raw")
) -> Bundle:
    """As `read_bundle`, of the bytes of a bundle that is one file; errors call it `path`."""
    if not isinstance(raw, bytes):
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
    """Seal `contents` into `manifest`, sign it where asked to, and store it; gives the sealed manifest.

    Raises:
        UsageError: a file is larger than what `read_bundle` takes.
    """
    for name, data in contents.items():
        if len(data) > SIZE_CAPS.get(name, len(data)):
            raise UsageError(
                f"{name} has {len(data):,} bytes, but a bundle's has at most {SIZE_CAPS[name]:,}"
            )
    entries = {name: FileEntry(sha256(data), len(data)) for name, data in sorted(contents.items())}
    manifest = replace(manifest, files=entries)
    sealed = manifest.to_bytes()
    signature = sign(sealed) if sign else None
    store_bundle(path, Bundle(manifest, contents, sealed, signature), replace_existing=replace_existing)
    return manifest


def store_bundle(path: Path, bundle: Bundle, *, replace_existing: bool, mode: int | None = None) -> None:
    """Write a bundle, all or nothing: one file, with the rights `mode`, where `path` ends with .edgechat,
    else a folder.

    It is read back and checked before it has its name. Both forms have the same files, byte for byte.

    Raises:
        BundleError: it would not be read.
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
    """Put a signature into the bundle that was read at `path`; all else of it stays, the rights too."""
    if path.is_dir():
        mode = stat.S_IMODE((path / MANIFEST).stat().st_mode)
        # Not even for a moment is anything else in a bundle.
        write_atomic(path / SIGNATURE, signature, mode=mode, beside=path.resolve())
    else:
        mode = stat.S_IMODE(path.stat().st_mode)
        store_bundle(path, replace(bundle, signature=signature), replace_existing=True, mode=mode)


def check_outside(out: Path, option: str = "--out") -> None:
    """Refuse to write into a bundle, which would be none any more."""
    if (out.parent / MANIFEST).exists():
        raise UsageError(f"{out.parent} is a bundle, and nothing else may lie in it: choose another {option}")


def check_out(out: Path, force: bool, option: str = "--force") -> None:
    """Refuse to write over anything but a bundle of that form, and over that without `force`, which `option`
    gives."""
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
    """Whether `out` is not there, an empty folder, or a bundle, of the form that its ending asks for. What
    its files hold is not looked at: a damaged one may be replaced."""
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
    """Where a file comes in the one-file form; unknown ones last, where reading it back refuses them."""
    return [*SIZE_CAPS, name].index(name)


@contextlib.contextmanager
def _open_bundle(path: Path) -> Iterator[_Source]:
    """Open a bundle of either form, and check all that can be checked without a look into its files."""
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
    """A bundle that is a folder, or a link to one: where it leads is looked at once, so all files are of one
    bundle."""

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
    """Read every file of `source` and check it against the manifest, the signature first."""
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
            raise BundleError(f"{path} holds {name!r}, which is no file of a bundle: take it out")
    for name in REQUIRED:
        if name not in names:
            raise BundleError(f"{path} has no {name}: it is no bundle, or an incomplete one")


@contextlib.contextmanager
def _open_file(path: Path, at: Path, cap: int) -> Iterator[tuple[BinaryIO, int]]:
    """The regular file `at`, of at most `cap` bytes, opened, and its size; errors name `path`."""
    _check_file(path, at.lstat(), cap)
    # The name may have changed since it was looked at: no link is followed, no pipe blocks, and what
    # was opened is looked at again.
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
            f"{path} is a symbolic link: neither a bundle file nor a file in a bundle may be one"
        )
    if not stat.S_ISREG(info.st_mode):
        raise BundleError(f"{path} is not a regular file")
    if info.st_size > cap:
        raise BundleError(f"{path} has {info.st_size:,} bytes, more than the {cap:,} allowed")
