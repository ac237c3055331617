"""Atomic writes, including writes that fail midway and processes that are killed."""

import errno
import importlib
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgechat.runtime import atomic_write
from edgechat.runtime.atomic_write import (
    TEMPORARY_PREFIX,
    atomic_folder,
    remove_leftovers,
    sha256,
    would_overwrite,
    write_atomic,
)
from edgechat.runtime.errors import UsageError


class BrokenError(Exception):
    """Interrupts a write."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_hash_is_that_of_the_standard():
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_file_is_written_as_bytes_or_as_utf8_with_the_rights_of_a_common_file(tmp_path):
    write_atomic(tmp_path / "bytes", b"\xff\r\n")
    write_atomic(tmp_path / "text", "tea 🍵\n")
    assert (tmp_path / "bytes").read_bytes() == b"\xff\r\n"
    assert (tmp_path / "text").read_bytes() == "tea 🍵\n".encode()
    assert stat.S_IMODE((tmp_path / "text").stat().st_mode) == 0o644
    assert names(tmp_path) == ["bytes", "text"]


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, "a long old text")
    write_atomic(path, "new")
    assert path.read_text() == "new"


def _full(fd: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_failed_write_keeps_the_old_file_and_names_it(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(atomic_write.os, "fsync", _full)
    with pytest.raises(OSError, match="No space left") as raised:
        write_atomic(path, "new")
    assert raised.value.filename == str(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_write_that_cannot_begin_names_its_target(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "nowhere" / "file", Path("nowhere/file")):
        with pytest.raises(FileNotFoundError) as raised:
            write_atomic(path, "new")
        assert raised.value.filename == str(path)
        with pytest.raises(FileNotFoundError) as raised, atomic_folder(path):
            pass
        assert raised.value.filename == str(path)


def test_a_file_has_the_rights_that_are_asked_for(tmp_path):
    write_atomic(tmp_path / "file", "private", mode=0o600)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_what_cannot_be_removed_is_logged(tmp_path, monkeypatch, caplog):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(atomic_write.shutil, "rmtree", lambda path, ignore_errors: None)
    with atomic_folder(tmp_path / "out", replace=True) as folder:
        (folder / "new").write_text("new")
    assert names(tmp_path / "out") == ["new"]
    assert caplog.messages == [f"{folder} is no longer needed, but cannot be removed"]


def test_a_folder_appears_whole(tmp_path):
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("text")
        assert not (tmp_path / "out").exists()
        assert folder.parent == tmp_path  # the same disk, or it could not be renamed
    assert (tmp_path / "out" / "deep" / "file").read_text() == "text"
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755
    assert names(tmp_path) == ["out"]


def test_every_file_and_folder_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced: list[tuple[str, bool]] = []

    def fsync(fd: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{fd}"), (tmp_path / "out").exists()))  # noqa: PTH115

    if not Path("/proc/self/fd").exists():
        pytest.skip("open files have no names here")
    monkeypatch.setattr(atomic_write.os, "fsync", fsync)
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("text")
        temporary = str(folder)
    before = [path for path, there in synced if not there]
    assert set(before) == {temporary, f"{temporary}/deep", f"{temporary}/deep/file"}
    assert synced[-1] == (str(tmp_path), True)


def test_what_is_synced_may_be_written_which_windows_asks_for(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    readable_alone: list[bool] = []

    def fsync(fd: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            readable_alone.append(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY)

    monkeypatch.setattr(atomic_write.os, "fsync", fsync)
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("text")
    write_atomic(tmp_path / "file", "text")
    assert readable_alone == [False, False]


def failing_for_folders(code: int):
    """An fsync that interrupts the write."""
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(code, os.strerror(code))
        real(fd)

    return fsync


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EPERM])
def test_a_file_system_that_syncs_no_folders_is_written_to(tmp_path, monkeypatch, code):
    monkeypatch.setattr(atomic_write.os, "fsync", failing_for_folders(code))
    write_atomic(tmp_path / "file", "text")
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("text")
    assert names(tmp_path) == ["file", "out"]


def test_a_folder_that_could_not_be_synced_raises(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_write.os, "fsync", failing_for_folders(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        write_atomic(tmp_path / "file", "text")


@pytest.mark.parametrize("replace", [False, True])
def test_a_block_that_fails_leaves_what_was_there(tmp_path, replace):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")

    def fail() -> None:
        with atomic_folder(out, replace=replace) as folder:
            (folder / "new").write_text("half")
            raise BrokenError

    with pytest.raises(BrokenError):
        fail()
    assert (out / "old").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_a_folder_that_is_not_to_be_replaced_stays(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    with pytest.raises(OSError, match=re.escape(str(out))) as raised, atomic_folder(out) as folder:
        (folder / "new").write_text("new")
    assert raised.value.filename == str(out)
    assert names(out) == ["old"]
    assert names(tmp_path) == ["out"]


def test_a_folder_that_is_replaced_has_nothing_of_the_old_one(tmp_path):
    out = tmp_path / "out"
    for content in ("old", "new"):
        with atomic_folder(out, replace=True) as folder:
            (folder / content).write_text(content)
    assert names(out) == ["new"]
    assert names(tmp_path) == ["out"]


def test_a_link_to_a_folder_is_replaced_and_the_folder_it_names_stays(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "old").write_text("old")
    (tmp_path / "out").symlink_to(tmp_path / "real")
    with atomic_folder(tmp_path / "out", replace=True) as folder:
        (folder / "new").write_text("new")
    assert names(tmp_path / "real") == ["old"]
    assert names(tmp_path / "out") == ["new"]
    assert not (tmp_path / "out").is_symlink()


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_folder_that_cannot_be_replaced_stays_alone(tmp_path, monkeypatch, exchanged):
    (tmp_path / "old").write_text("old")
    monkeypatch.chdir(tmp_path)
    if not exchanged:
        monkeypatch.setattr(atomic_write, "_exchange", lambda one, other: False)
    with pytest.raises(OSError, match=r"busy|Invalid"), atomic_folder(Path(), replace=True) as folder:
        (folder / "new").write_text("new")
    assert names(tmp_path) == ["old"]


@pytest.mark.parametrize("windows", [True, False])
def test_an_empty_folder_is_replaced(tmp_path, monkeypatch, windows):
    rename = Path.rename

    def as_windows(self: Path, target: Path) -> Path:
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        return rename(self, target)

    if windows:
        monkeypatch.setattr(Path, "rename", as_windows)
    (tmp_path / "out").mkdir()
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "new").write_text("new")
    assert names(tmp_path / "out") == ["new"]


def test_occupied_says_whether_a_write_would_replace_anything(tmp_path):
    for name in ("empty", "full", "real"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "nowhere").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    told = {
        name: would_overwrite(tmp_path / name) for name in ("new", "empty", "full", "link", "nowhere", "loop")
    }
    assert told == {
        "new": False, "empty": False, "full": True, "link": True, "nowhere": True, "loop": True
    }  # fmt: skip
    assert would_overwrite(tmp_path / "full" / "file")


@pytest.mark.parametrize("out", [".", "..", "../..", "../here", "/"])
def test_the_current_folder_and_those_above_it_are_never_written_over(tmp_path, monkeypatch, out):
    (tmp_path / "above" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "above" / "here")
    with pytest.raises(UsageError, match=f"^{re.escape(out)} is the current folder or a parent of it"):
        would_overwrite(Path(out))
    (tmp_path / "above" / "beside").mkdir()
    assert not would_overwrite(Path("../beside"))


def test_a_failed_replacement_restores_the_old_folder(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if target == out and (self / "new").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(atomic_write, "_exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Input/output"), atomic_folder(out, replace=True) as folder:
        (folder / "new").write_text("new")
    assert names(out) == ["old"]
    assert names(tmp_path) == ["out"]


@pytest.mark.skipif(sys.platform != "linux", reason="two names are swapped by a call of Linux")
@pytest.mark.parametrize("kind", ["folder", "link"])
def test_two_names_are_swapped_in_one_step_or_not_at_all(tmp_path, kind):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    (one / "new").write_text("new")
    assert not atomic_write._exchange(one, other)
    assert names(tmp_path) == ["one"]
    if kind == "folder":
        other.mkdir()
    else:
        other.symlink_to(tmp_path)
    assert atomic_write._exchange(one, other)
    assert names(other) == ["new"]
    assert one.is_symlink() == (kind == "link")


def test_a_new_file_has_its_rights_from_the_first_moment_and_is_never_overwritten(tmp_path, monkeypatch):
    modes: list[int] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(fd).st_mode))
        real(fd)

    monkeypatch.setattr(atomic_write.os, "fsync", fsync)
    atomic_write.write_new(tmp_path / "secret", b"old", mode=0o600)
    assert modes[0] == 0o600
    with pytest.raises(FileExistsError):
        atomic_write.write_new(tmp_path / "secret", b"new", mode=0o600)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        atomic_write.write_new(tmp_path / "link", b"new")
    assert (tmp_path / "secret").read_bytes() == b"old"
    assert names(tmp_path) == ["link", "secret"]


def test_a_new_file_that_cannot_be_written_whole_is_not_left_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_write.os, "fsync", _full)
    with pytest.raises(OSError, match="No space left"):
        atomic_write.write_new(tmp_path / "secret", b"half")
    assert names(tmp_path) == []


def test_a_file_that_is_not_to_be_replaced_stays(tmp_path):
    write_atomic(tmp_path / "file", "old", replace=False)
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "file", "new", replace=False)
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_file_created_after_the_check_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("another's")
    monkeypatch.setattr(Path, "exists", lambda self, **_: False)
    with pytest.raises(FileExistsError) as raised:
        write_atomic(path, "new", replace=False)
    assert raised.value.filename == str(path)
    assert raised.value.filename2 is None
    assert path.read_text() == "another's"
    assert names(tmp_path) == ["file"]


def test_a_file_that_is_not_to_be_replaced_stays_on_file_systems_without_hard_links(tmp_path, monkeypatch):
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(atomic_write.os, "link", link)
    test_a_file_that_is_not_to_be_replaced_stays(tmp_path)


#: Exits, as if by SIGKILL and without any cleanup, at the n-th call of a function of `os`, or at the exchange
#: of two names. "rename" simulates a system that cannot exchange names.
_DIE = """
import os, sys
from pathlib import Path
from edgechat.runtime import atomic_write
from edgechat.runtime.atomic_write import atomic_folder, write_atomic
folder, name, after = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
swap = atomic_write._exchange
def dying_swap(one, other):
    if name == "rename":
        return False
    if name == "swap" and after == 0:
        os._exit(9)
    done = swap(one, other)
    if name == "swap":
        os._exit(9)
    return done
atomic_write._exchange = dying_swap
real, calls = getattr(os, name, None), 0
def dying(*args, **kwargs):
    global calls
    calls += 1
    if calls > after:
        os._exit(9)
    return real(*args, **kwargs)
setattr(os, name, dying)
write_atomic(folder / "file", "new")
with atomic_folder(folder / "out", replace=True) as temporary:
    (temporary / "a").write_text("new")
    (temporary / "b").write_text("new")
"""


@pytest.mark.parametrize(
    ("name", "after"),
    [("fsync", n) for n in range(6)]
    + [("replace", 0), ("rename", 0), ("rename", 1), ("swap", 0), ("swap", 1)],
)
def test_a_process_that_dies_leaves_the_old_or_the_new_and_leftovers_that_can_be_removed(
    tmp_path, name, after
):
    (tmp_path / "file").write_text("old")
    (tmp_path / "out").mkdir()
    for part in ("a", "b"):
        (tmp_path / "out" / part).write_text("old")
    done = subprocess.run([sys.executable, "-c", _DIE, tmp_path, name, str(after)], check=False)
    assert done.returncode == 9
    assert (tmp_path / "file").read_text() in ("old", "new")
    # Between the two renames the old folder is moved aside, and the new one is a complete leftover. With an
    # exchange there is no such moment.
    folders = (
        [tmp_path / "out"] if (tmp_path / "out").exists() else list(tmp_path.glob(TEMPORARY_PREFIX + "*/old"))
    )
    assert len(folders) == 1
    assert [(folders[0] / part).read_text() for part in ("a", "b")] in (["old"] * 2, ["new"] * 2)
    assert (tmp_path / "out").exists() or (name, after) == ("rename", 1)
    if (tmp_path / "out").exists():
        remove_leftovers(tmp_path)
        assert names(tmp_path) == ["file", "out"]


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    (tmp_path / ".tmp-file").write_text("half")
    (tmp_path / ".tmp-folder").mkdir()
    (tmp_path / ".tmp-folder" / "deep").write_text("half")
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "precious").write_text("whole")
    (tmp_path / ".tmp-link").symlink_to(tmp_path / "real")
    (tmp_path / ".tmpfile").write_text("of another program")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".tmpfile", "real"]
    assert (tmp_path / "real" / "precious").read_text() == "whole"


def test_rights_follow_a_later_umask_which_no_write_changes(tmp_path, monkeypatch):
    def changed(mask: int) -> None:
        pytest.fail("the umask of the process was changed, which affects other threads")

    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "umask", changed)
            importlib.reload(atomic_write)
            atomic_write.write_atomic(tmp_path / "file", "text")
            with atomic_write.atomic_folder(tmp_path / "out") as folder:
                (folder / "file").write_text("text")
    finally:
        os.umask(before)
    made = (tmp_path / "file", tmp_path / "out", tmp_path / "out" / "file")
    assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o640, 0o750, 0o640]


def test_rights_follow_the_umask(tmp_path):
    code = (
        "import os, sys; os.umask(0o077); from pathlib import Path\n"
        "from edgechat.runtime.atomic_write import atomic_folder, write_atomic\n"
        "with atomic_folder(Path(sys.argv[1]) / 'out') as folder: write_atomic(folder / 'file', 'private')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out", tmp_path / "out" / "file")]
    assert modes == [0o700, 0o600]
