"""The lock of a run folder: one process trains in it at a time.

The operating system releases it when the process ends, however it ends. The file `lock`, which holds the
process number, may stay behind and is taken over.
"""

import contextlib
import errno
import os
import sys
from pathlib import Path

from ..runtime.errors import CheckpointError

LOCK = "lock"


class RunLock:
    """Held from its creation until `release`, or the end of the process.

    Raises CheckpointError if another process, or another lock of this process, holds it, or if the file
    system has no locks.
    """

    def __init__(self, run: Path) -> None:
        self._run, self._path, self._file = run, run / LOCK, -1
        while self._file < 0:
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise CheckpointError(
                    f"{run} cannot be written: no file can be created in it ({error.strerror})"
                ) from None
            try:
                _lock(file)
            except OSError as error:
                reason = _describe_lock_error(error, file)
                os.close(file)
                raise CheckpointError(f"{run} {reason}") from None
            if self._is_in_place(file):
                self._file = file
            else:
                os.close(file)  # its previous holder has just deleted it
        os.ftruncate(self._file, 0)
        os.write(self._file, f" {os.getpid()}\n".encode("ascii"))

    def check(self) -> None:
        """Raise CheckpointError if the folder is no longer the one that was locked, and must not be
        written."""
        if not self._is_in_place(self._file):
            raise CheckpointError(
                f"{self._run} was moved or replaced while it was trained: nothing more is written there, and "
                "what was saved before is in the moved folder"
            )

    def _is_in_place(self, file: int) -> bool:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return os.path.samestat(os.fstat(file), self._path.stat())
        return False

    def release(self) -> None:
        """Release the lock, and delete the file if it is still ours. A second call does nothing."""
        if self._file < 0:
            return
        ours = self._is_in_place(self._file)
        if ours and _POSIX:  # Windows deletes no file that is open
            self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1
        if ours and not _POSIX:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def __del__(self) -> None:
        self.release()


def _describe_lock_error(error: OSError, file: int) -> str:
    if error.errno in (errno.EWOULDBLOCK, errno.EACCES):  # the second on Windows
        holder = _read_holder(file) or "(unknown)"
        return f"is being trained by process {holder}: wait for it, end it, or choose another --out"
    return (
        f"cannot be locked against a second training ({error.strerror}): choose an --out on a file system "
        "with locks"
    )


def _read_holder(file: int) -> str:
    os.lseek(file, 1, os.SEEK_SET)  # Windows locks the first byte against reading, too
    return os.read(file, 20).decode("ascii", "replace").strip()


_POSIX = sys.platform != "win32"

if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
