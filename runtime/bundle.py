"""A bundle on the disk: a folder with fixed file names, each of which is hashed in the manifest.

A bundle may come from anybody, so nothing of it is used before it was checked: the names, that each
is a regular file and no link, its size, then its hash. Every byte is read once, and what was hashed
is what is used.
"""

import os
import stat
from dataclasses import dataclass, replace
from importlib.resources import files as package_files
from pathlib import Path

from .errors import BundleError, UsageError
from .files import folder_atomic, sha256
from .manifest import FileEntry, Manifest

MANIFEST = "edgechat.json"
MEGABYTE = 1_000_000
#: Every name a bundle may hold, with the most bytes it may have.
SIZE_CAPS = {
    MANIFEST: 4 * MEGABYTE,
    "tokenizer.json": 64 * MEGABYTE,
    "encoder.onnx": 2_000 * MEGABYTE,
    "decoder.onnx": 2_000 * MEGABYTE,
    "golden.json": 16 * MEGABYTE,
    "MODEL_CARD.md": 4 * MEGABYTE,
    "reverse_encoder.onnx": 2_000 * MEGABYTE,
    "reverse_decoder.onnx": 2_000 * MEGABYTE,
    "replies.json": 64 * MEGABYTE,
    "signature.ed25519": 4096,
}
REQUIRED = (MANIFEST, "tokenizer.json", "encoder.onnx", "decoder.onnx", "golden.json", "MODEL_CARD.md")
_UNSEALED = (MANIFEST, "signature.ed25519")


@dataclass(frozen=True)
class Bundle:
    """A checked bundle in memory."""

    manifest: Manifest
    files: dict[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))


def find_bundle(name: str) -> Path:
    """The path of a bundle; `demo` is the one that comes with the package, unless a path has that name.

    Raises:
        UsageError: there is nothing of that name, or it is a run that was not exported.
    """
    path = Path(name)
    try:
        if path.exists() or path.is_symlink():
            if (path / "run.json").is_file() and not (path / MANIFEST).exists():
                raise UsageError(f"{path} is a run, not a bundle: edgechat export {path} --out BUNDLE first")
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
    raise UsageError(f"there is no bundle {name}: give the folder that `edgechat export` wrote")


def read_bundle(path: Path) -> Bundle:
    """Read and check every file of the bundle folder `path`.

    Raises:
        BundleError: names the file and what is wrong with it; nothing is changed.
    """
    try:
        if not path.is_dir():
            raise BundleError(f"{path} is not a bundle folder")
        names = sorted(os.listdir(path))  # noqa: PTH208 - names, not paths
        for name in names:
            if name not in SIZE_CAPS:
                raise BundleError(f"{path} holds {name!r}, which is no file of a bundle")
        for name in REQUIRED:
            if name not in names:
                raise BundleError(f"{path} has no {name}: it is no bundle, or an incomplete one")
        for name in names:
            _check_file(path / name, (path / name).lstat(), SIZE_CAPS[name])
        manifest = Manifest.from_bytes(_read(path / MANIFEST, SIZE_CAPS[MANIFEST]))
        sealed = set(names) - set(_UNSEALED)
        if sealed != set(manifest.files):
            odd = min(sealed ^ set(manifest.files))
            raise BundleError(f"{path}: {odd!r} is in the folder or in edgechat.json, but not in both")
        contents = {}
        for name, entry in sorted(manifest.files.items()):
            contents[name] = _read(path / name, SIZE_CAPS[name], expected=entry.size)
            if sha256(contents[name]) != entry.sha256:
                raise BundleError(
                    f"{path / name} is damaged or was changed: its sha256 differs from edgechat.json"
                )
    except OSError as error:
        raise BundleError(f"{error.filename or path} cannot be read: {error.strerror}") from error
    return Bundle(manifest, contents)


def write_bundle(
    path: Path, manifest: Manifest, contents: dict[str, bytes], *, replace_existing: bool
) -> Manifest:
    """Seal `contents` into `manifest` and write the folder, all or nothing; gives the sealed manifest."""
    entries = {name: FileEntry(sha256(data), len(data)) for name, data in sorted(contents.items())}
    sealed = replace(manifest, files=entries)
    with folder_atomic(path, replace=replace_existing) as folder:
        for name, data in contents.items():
            (folder / name).write_bytes(data)
        (folder / MANIFEST).write_bytes(sealed.to_bytes())
        read_bundle(folder)
    return sealed


def _read(path: Path, cap: int, *, expected: int | None = None) -> bytes:
    """All bytes of a regular file of at most `cap` bytes (exactly `expected` where given)."""
    # The name may have changed since it was looked at: no link is followed, no pipe blocks, and what
    # was opened is looked at again.
    flags = (
        os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    with os.fdopen(os.open(path, flags), "rb") as file:
        info = os.fstat(file.fileno())
        _check_file(path, info, cap)
        if expected is not None and info.st_size != expected:
            raise BundleError(f"{path} has {info.st_size} bytes, edgechat.json says {expected}")
        return file.read(info.st_size)


def _check_file(path: Path, info: os.stat_result, cap: int) -> None:
    if stat.S_ISLNK(info.st_mode):
        raise BundleError(f"{path} is a symbolic link: a bundle holds its files itself")
    if not stat.S_ISREG(info.st_mode):
        raise BundleError(f"{path} is not a regular file")
    if info.st_size > cap:
        raise BundleError(f"{path} has {info.st_size:,} bytes, more than the {cap:,} allowed")
