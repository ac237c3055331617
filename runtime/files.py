"""Writes that are all or nothing: temporary file beside the target, fsync, rename.

A process killed at any moment leaves the old content, the new content, or a leftover whose name
starts with `.tmp-`; never a half-written file under a good name. Modes follow the umask.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".tmp-"

# The only way to read it is to set it; done once, at import, before there are other threads to disturb.
_UMASK = os.umask(0o022)
os.umask(_UMASK)


def sha256(data: bytes) -> str:
    """Lower-case hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable. Platforms that cannot open a folder (Windows) skip it."""
    with contextlib.suppress(PermissionError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write `data` to `path`, replacing what is there only once the new content is on the disk."""
    raw = data.encode() if isinstance(data, str) else data
    fd, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_UMASK)
        Path(name).replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        _name_target(error, name, path)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def folder_atomic(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that becomes `path` when the block ends well.

    Every file in it is synced before the rename. If the block raises, the temporary folder is
    removed and `path` is untouched. With `replace`, an existing `path` is moved aside first and
    deleted last: there is always one whole version on the disk, but a kill between the two renames
    leaves both beside `path`, the old one in a folder `.tmp-old-...`.
    """
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        for folder in (temporary, *(f for f in temporary.rglob("*") if f.is_dir())):
            sync_folder(folder)
        temporary.chmod(0o777 & ~_UMASK)
        if replace and path.exists():
            aside = Path(tempfile.mkdtemp(prefix=TEMPORARY + "old-", dir=path.parent))
            path.rename(aside / path.name)
            try:
                temporary.rename(path)
            except BaseException:
                (aside / path.name).rename(path)
                aside.rmdir()
                raise
            shutil.rmtree(aside, ignore_errors=True)
        else:
            temporary.rename(path)
        sync_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _name_target(error, str(temporary), path)
        raise


def _name_target(error: BaseException, temporary: str, path: Path) -> None:
    """Let the error of a write name what was to be written, not the temporary file nor nothing."""
    if isinstance(error, OSError) and str(error.filename or temporary).startswith(temporary):
        error.filename, error.filename2 = str(path), None


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process left half-written in `folder`."""
    for leftover in folder.glob(TEMPORARY + "*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
