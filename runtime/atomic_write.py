"""Atomic writes: a temporary file beside the target, fsync, rename.

A process that is killed at any moment leaves the old content or the new content, and perhaps a leftover whose
name starts with `.tmp-`, but never a partly written file under its final name. Permissions follow the umask.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from .errors import UsageError

TEMPORARY_PREFIX = ".tmp-"
_SYNC_UNSUPPORTED = (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h


def sha256(data: bytes) -> str:
    """Lower-case hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def would_overwrite(out: Path) -> bool:
    """Whether a write to `out` would replace anything. An empty folder does not count.

    Raises:
        UsageError: `out` is the current folder or a parent of it, which cannot be replaced.
    """
    if out.is_symlink() or not out.is_dir():
        return out.is_symlink() or out.exists()
    if out.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise UsageError(
            f"{out} is the current folder or a parent of it, which cannot be replaced: choose another --out"
        )
    return any(out.iterdir())


def write_new(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file that must not exist yet. It never has more permissions than `mode`.

    Raises:
        FileExistsError: the file exists; it is not changed.
    """
    _create(path, data, mode)
    sync_folder(path.parent)


def _create(path: Path, data: bytes, mode: int) -> None:
    """`write_new`, except that the name of the file is not yet durable."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        path.unlink()
        _name_target_in_error(error, str(path), path)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, if the system can: Windows cannot open folders, and some network
    and shared file systems cannot sync them."""
    try:
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in _SYNC_UNSUPPORTED:
            raise


def write_atomic(
    path: Path,
    data: bytes | str,
    *,
    replace: bool = True,
    mode: int | None = None,
    beside: Path | None = None,
) -> None:
    """Write `data` to `path`, replacing an existing file only when the new content is on the disk.

    `mode` are its permissions; None follows the umask. The temporary file is created in the folder of
    `beside`, by default that of `path`.

    Raises:
        FileExistsError: `path` exists, and `replace` is false.
    """
    raw = data.encode() if isinstance(data, str) else data
    with _temporary_files_beside(beside or path) as folder:
        temporary = _new_name(folder)
        # With `mode`, nobody else may read the file before it has its permissions.
        _create(temporary, raw, 0o666 if mode is None else 0o600)
        try:
            if mode is not None:
                temporary.chmod(mode)
            if replace:
                temporary.replace(path)
            else:
                _rename_without_replacing(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    sync_folder(path.parent)


def _new_name(folder: Path, kind: str = "") -> Path:
    """A name in `folder` for a temporary file or folder. The file or folder must be created with the
    permissions that the umask leaves: to read the umask, one must change it for all threads."""
    return folder / f"{TEMPORARY_PREFIX}{kind}{os.urandom(8).hex()}"


def _rename_without_replacing(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path` without replacing anything.

    A hard link fails if `path` exists. On file systems without hard links, a file that another process
    creates between the check and the rename is replaced.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        if path.exists() or path.is_symlink():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        temporary.replace(path)
    else:
        temporary.unlink()


@contextlib.contextmanager
def atomic_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that becomes `path` when the block ends without an exception.

    Every file in it is synced before the rename. If the block raises, the temporary folder is removed and
    `path` is not changed. An empty folder at `path` is replaced. With `replace`, a non-empty one is replaced
    too: in one step where the system can exchange names (Linux). Elsewhere the old folder is moved aside
    first and deleted last, so there is always a complete version on the disk, but a kill between the two
    renames leaves both beside `path`, the old one in a folder `.tmp-old-...`.
    """
    with _temporary_files_beside(path) as parent:
        temporary = _new_name(parent)
        temporary.mkdir()
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("r+b") as opened:  # Windows syncs only what may be written
                        os.fsync(opened.fileno())
            for folder in (temporary, *(f for f in temporary.rglob("*") if f.is_dir())):
                sync_folder(folder)
            if replace and path.exists() and _exchange(temporary, path):
                _remove_or_warn(temporary)  # the old one
            elif replace and path.exists():
                aside = _new_name(parent, "old-")
                aside.mkdir(mode=0o700)
                old = aside / "old"
                try:
                    path.rename(old)
                    temporary.rename(path)
                except BaseException:
                    if old.exists():
                        old.rename(path)
                    aside.rmdir()
                    raise
                _remove_or_warn(aside)
            else:
                with contextlib.suppress(OSError):  # Windows cannot rename onto an empty folder
                    path.rmdir()
                temporary.rename(path)
            sync_folder(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextlib.contextmanager
def _temporary_files_beside(path: Path) -> Iterator[Path]:
    """Yield the folder for temporary files while `path` is written. An OSError about them names `path`."""
    parent = path.parent.resolve()
    try:
        yield parent
    except OSError as error:
        _name_target_in_error(error, str(parent / TEMPORARY_PREFIX), path)
        raise


def _name_target_in_error(error: BaseException, temporary: str, path: Path) -> None:
    """Make an OSError name the target `path` if it names a temporary file or nothing."""
    if isinstance(error, OSError) and str(error.filename or temporary).startswith(temporary):
        error.filename, error.filename2 = str(path), None


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step, with renameat2 of Linux. Where that is not possible, return False and
    change nothing."""
    import ctypes

    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    return (
        rename is not None
        and rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0
    )


def _remove_or_warn(path: Path) -> None:
    """Delete something that is no longer needed. If that fails, log a warning."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    if path.exists():
        import logging  # slow to load

        logging.getLogger(__name__).warning("%s is no longer needed, but cannot be removed", path)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed process left in `folder`."""
    for leftover in folder.glob(TEMPORARY_PREFIX + "*"):
        _remove_or_warn(leftover)
