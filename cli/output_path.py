"""Checks, before the work begins, that a path named by an option can be written."""

import tempfile
from pathlib import Path

from ..runtime.bundle import check_not_in_bundle
from ..runtime.errors import EdgeChatError, UsageError


def check_writable(out: Path, option: str = "--out") -> None:
    """Raise an error where the path `out` of `option` cannot be created."""
    if out.name in ("", ".."):
        raise UsageError(f"{option} is {out}, which does not end with a name: add the name of the output")
    if str(out) == "-":
        raise UsageError(f"{option} is -, but it is not written to stdout: give it a name")
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise UsageError(f"{option} is {out}, but {parent} is a file, not a folder")
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise EdgeChatError(
            f"{out} cannot be written: no file can be created in {parent} ({error.strerror})"
        ) from None


def check_file(option: str, path: Path) -> None:
    """Raise an error where the file `path` of `option` cannot be written, or would lie in a bundle."""
    if path.is_dir():
        raise UsageError(f"{option} is {path}, which is a folder: name a file in it")
    if path.is_symlink() or (path.exists() and not path.is_file()):  # the new file would replace it
        raise UsageError(f"{option} is {path}, which is a link or a device, not a file: name another file")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{option} is {path}, but there is no folder {path.parent}")
    check_not_in_bundle(path, option)
    check_writable(path, option)
