"""The one-file form of a bundle: an uncompressed zip file whose every byte is determined by its members.

The order of the members, their dates and every other field are fixed, so the same files give the same
bytes. The reader accepts a file only if it is, byte for byte, what the writer would produce for its members.
So it never decompresses anything, and never follows an offset from the file.
"""

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .display import plural
from .errors import BundleError, UsageError

BUNDLE_SUFFIX = ".edgechat"
NOT_A_BUNDLE = f"is not a bundle: give the folder or the {BUNDLE_SUFFIX} file that edgechat export wrote"
#: Size limit of a file in bytes: the offsets in a zip file have 32 bits.
MAX_ARCHIVE_BYTES = (1 << 32) - 1
#: The first bytes of every file.
ZIP_MAGIC = b"PK\x03\x04"

# APPNOTE.TXT of PKWARE, 4.3.7, 4.3.12 and 4.3.16; all little-endian.
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION, _UNIX = 20, 3 << 8  # version 2.0, which every program can read
_FLAGS = _STORED = _TIME = 0
_DATE = 1 << 5 | 1  # 1980-01-01, the earliest date
_MODE = 0o100644 << 16  # a regular file, rw-r--r--
_MAX_NAME_BYTES = 255
_HINT = "create it with edgechat export or edgechat pack, not with another zip program"


@dataclass(frozen=True)
class _Member:
    name: str
    crc: int
    size: int  # bytes
    offset: int  # of its header in the file

    @property
    def header(self) -> bytes:
        fields = (_VERSION, _FLAGS, _STORED, _TIME, _DATE, self.crc, self.size, self.size, len(self.name), 0)
        return _LOCAL.pack(ZIP_MAGIC, *fields) + self.name.encode()

    @property
    def start(self) -> int:
        """Offset of its content in the file."""
        return self.offset + _LOCAL.size + len(self.name)

    @property
    def end(self) -> int:
        return self.start + self.size


def write_archive(files: Mapping[str, bytes]) -> bytes:
    """The one-file form of `files`, in the order given. Together they must have fewer bytes than
    `MAX_ARCHIVE_BYTES`."""
    parts, members, offset = [], [], 0
    for name, data in files.items():
        member = _Member(name, zlib.crc32(data), len(data), offset)
        assert member.end <= MAX_ARCHIVE_BYTES  # the size caps of a bundle's files add up to less
        parts += [member.header, data]
        members.append(member)
        offset = member.end
    return b"".join((*parts, _directory(members, offset)))


def is_archive(path: Path) -> bool:
    """Whether `path` is a file that begins like the one-file form."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(ZIP_MAGIC)) == ZIP_MAGIC


class Archive:
    """A one-file bundle of `size` bytes, open for reading.

    The constructor checks the whole layout, that is, all bytes except the content of the members; `read`
    checks the checksum of a member. Once every member was read, every byte of the file has been checked.
    `caps` maps each name that a member may have to its maximum size in bytes, in the order in which members
    must come. Errors call the file `path`.

    Raises:
        UsageError: neither its name nor its first bytes are those of a bundle.
        BundleError: it is not what `write_archive` writes.
    """

    def __init__(self, file: BinaryIO, size: int, path: Path, caps: Mapping[str, int]) -> None:
        self.path, self._file, self._size = path, file, size
        self._members: dict[str, _Member] = {}
        order, offset = list(caps), 0
        if self._read_at(0, len(ZIP_MAGIC)) != ZIP_MAGIC:
            error = BundleError if path.suffix == BUNDLE_SUFFIX else UsageError
            raise error(f"{path} {NOT_A_BUNDLE}")
        while (header := self._read_at(offset, _LOCAL.size)).startswith(ZIP_MAGIC):
            member = self._read_header(offset, header)
            if member.name not in caps:
                raise BundleError(f"{path} contains {member.name!r}, which is not a file of a bundle")
            if member.name in self._members:
                raise BundleError(f"{path} contains {member.name!r} twice")
            self._check_bytes(offset, member.header)
            if self._members and order.index(member.name) < order.index([*self._members][-1]):
                raise BundleError(f"{path} contains {member.name!r} out of order: {_HINT}")
            if member.size > caps[member.name]:
                raise BundleError(
                    f"{path / member.name} has {member.size:,} bytes, more than the "
                    f"{caps[member.name]:,} allowed"
                )
            if member.end > size:
                raise BundleError(f"{path / member.name} is cut off: the file ends within it")
            self._members[member.name] = member
            offset = member.end
        directory = _directory(self._members.values(), offset)
        self._check_bytes(offset, directory)
        if size != offset + len(directory):
            raise BundleError(
                f"{path} has {plural(size - offset - len(directory), 'byte')} after its end: "
                "something was appended"
            )

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def read(self, name: str, expected: int | None = None) -> bytes:
        """The content of a member, whose size must be `expected` bytes if that is given."""
        member = self._members[name]
        if expected is not None and member.size != expected:
            raise BundleError(f"{self.path / name} has {member.size} bytes, edgechat.json says {expected}")
        data = self._read_at(member.start, member.size)
        if zlib.crc32(data) != member.crc:
            raise BundleError(f"{self.path / name} is damaged or was changed: its checksum differs")
        return data

    def _read_header(self, offset: int, header: bytes) -> _Member:
        """Read the name, checksum and size in the header at `offset`; the caller checks its other fields."""
        if len(header) < _LOCAL.size:
            raise self._layout_error(offset + len(header))
        *_, crc, size, _, length, _ = _LOCAL.unpack(header)
        if length > _MAX_NAME_BYTES:
            raise BundleError(
                f"{self.path} contains a name of {length:,} bytes, which is not a file of a bundle"
            )
        name = self._read_at(offset + _LOCAL.size, length).decode("ascii", "backslashreplace")
        return _Member(name, crc, size, offset)

    def _check_bytes(self, offset: int, expected: bytes) -> None:
        """Refuse the file unless it has the `expected` bytes at `offset`."""
        found = self._read_at(offset, len(expected))
        if found != expected:
            same = (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b)
            raise self._layout_error(offset + next(same, len(found)))

    def _layout_error(self, offset: int) -> BundleError:
        return BundleError(
            f"{self.path} differs from what edgechat writes, starting at byte {offset:,}: {_HINT}"
        )

    def _read_at(self, offset: int, size: int) -> bytes:
        """At most `size` bytes, fewer at the end of the file. Never allocates more than the size of the
        file."""
        self._file.seek(offset)
        return self._file.read(min(size, max(0, self._size - offset)))


def _directory(members: Iterable[_Member], start: int) -> bytes:
    """The central directory and its end record, which follow the members at offset `start`."""
    entries = [
        _CENTRAL.pack(
            b"PK\x01\x02", _UNIX | _VERSION, _VERSION, _FLAGS, _STORED, _TIME, _DATE, m.crc, m.size, m.size,
            len(m.name), 0, 0, 0, 0, _MODE, m.offset,
        ) + m.name.encode()
        for m in members
    ]  # fmt: skip
    size = sum(map(len, entries))
    end = _END.pack(b"PK\x05\x06", 0, 0, len(entries), len(entries), size, start, 0)
    return b"".join((*entries, end))
