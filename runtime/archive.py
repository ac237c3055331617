"""The one-file form of a bundle: a zip that is only stored, and of which there is one way to write it.

The order of the members, their dates and every other field are fixed, so the same files give the same
bytes. The reader knows nothing of zip but that: it accepts a file only if it is, byte for byte, what the
writer makes of its members. So it never decompresses, and never follows an offset that the file names.
"""

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .errors import BundleError, UsageError

ENDING = ".edgechat"
NO_BUNDLE = f"is not a bundle: give the folder or the {ENDING} file that edgechat export wrote"
#: Bytes of the largest file: a zip's offsets have 32 bits.
LARGEST = (1 << 32) - 1

# APPNOTE.TXT of PKWARE, 4.3.7, 4.3.12 and 4.3.16; all little-endian.
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_MARK = b"PK\x03\x04"
_VERSION, _UNIX = 20, 3 << 8  # 2.0, which every program reads
_FLAGS = _STORED = _TIME = 0
_DATE = 1 << 5 | 1  # 1980-01-01, the first there is
_MODE = 0o100644 << 16  # a regular file, rw-r--r--
_LONGEST_NAME = 255
_MEND = "make it with edgechat export or edgechat pack, not with another zip program"


@dataclass(frozen=True)
class _Member:
    name: str
    crc: int
    size: int  # bytes
    offset: int  # of its header

    @property
    def header(self) -> bytes:
        fields = (_VERSION, _FLAGS, _STORED, _TIME, _DATE, self.crc, self.size, self.size, len(self.name), 0)
        return _LOCAL.pack(_LOCAL_MARK, *fields) + self.name.encode()

    @property
    def start(self) -> int:
        """Where its bytes are."""
        return self.offset + _LOCAL.size + len(self.name)

    @property
    def end(self) -> int:
        return self.start + self.size


def write_archive(files: Mapping[str, bytes]) -> bytes:
    """The one-file form of `files`, in their order; they are no larger than a zip can be."""
    parts, members, offset = [], [], 0
    for name, data in files.items():
        member = _Member(name, zlib.crc32(data), len(data), offset)
        assert member.end <= LARGEST  # the caps of a bundle's files are less together
        parts += [member.header, data]
        members.append(member)
        offset = member.end
    return b"".join((*parts, _directory(members, offset)))


def is_archive(path: Path) -> bool:
    """Whether `path` is a file that begins as the one-file form does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_LOCAL_MARK)) == _LOCAL_MARK


class Archive:
    """A one-file bundle of `size` bytes that is open for reading.

    Its layout is checked at once: everything but the members' bytes, whose checksum is compared when they
    are read. Who has read every member knows the whole file. `caps` has every name that a member may
    have, in the order in which they come, with the most bytes of each. Errors name the file `path`.

    Raises:
        UsageError: neither its name nor its first bytes are those of a bundle.
        BundleError: it is not what `write_archive` writes.
    """

    def __init__(self, file: BinaryIO, size: int, path: Path, caps: Mapping[str, int]) -> None:
        self.path, self._file, self._size = path, file, size
        self._members: dict[str, _Member] = {}
        order, offset = list(caps), 0
        if self._at(0, len(_LOCAL_MARK)) != _LOCAL_MARK:
            error = BundleError if path.suffix == ENDING else UsageError
            raise error(f"{path} {NO_BUNDLE}")
        while (header := self._at(offset, _LOCAL.size)).startswith(_LOCAL_MARK):
            member = self._member(offset, header)
            if member.name not in caps:
                raise BundleError(f"{path} holds {member.name!r}, which is no file of a bundle")
            if member.name in self._members:
                raise BundleError(f"{path} holds {member.name!r} twice")
            self._expect(offset, member.header)
            if self._members and order.index(member.name) < order.index([*self._members][-1]):
                raise BundleError(f"{path} holds {member.name!r} out of order: {_MEND}")
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
        self._expect(offset, directory)
        if size != offset + len(directory):
            raise BundleError(
                f"{path} has {size - offset - len(directory):,} bytes behind its end: something was added"
            )

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def read(self, name: str, expected: int | None = None) -> bytes:
        """The bytes of a member; exactly `expected` many where given."""
        member = self._members[name]
        if expected is not None and member.size != expected:
            raise BundleError(f"{self.path / name} has {member.size} bytes, edgechat.json says {expected}")
        data = self._at(member.start, member.size)
        if zlib.crc32(data) != member.crc:
            raise BundleError(f"{self.path / name} is damaged or was changed: its checksum differs")
        return data

    def _member(self, offset: int, header: bytes) -> _Member:
        """What the header at `offset` says; only its name, checksum and size are believed, so far."""
        if len(header) < _LOCAL.size:
            raise self._odd(offset + len(header))
        *_, crc, size, _, length, _ = _LOCAL.unpack(header)
        if length > _LONGEST_NAME:
            raise BundleError(f"{self.path} holds a name of {length:,} bytes, which is no file of a bundle")
        name = self._at(offset + _LOCAL.size, length).decode("ascii", "backslashreplace")
        return _Member(name, crc, size, offset)

    def _expect(self, offset: int, expected: bytes) -> None:
        """Refuse bytes at `offset` that are not the expected ones."""
        found = self._at(offset, len(expected))
        if found != expected:
            same = (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b)
            raise self._odd(offset + next(same, len(found)))

    def _odd(self, offset: int) -> BundleError:
        return BundleError(
            f"{self.path} is not as edgechat writes a bundle, from byte {offset:,} on: {_MEND}"
        )

    def _at(self, offset: int, size: int) -> bytes:
        """At most `size` bytes, fewer at the end of the file; never more memory than the file has bytes."""
        self._file.seek(offset)
        return self._file.read(min(size, max(0, self._size - offset)))


def _directory(members: Iterable[_Member], start: int) -> bytes:
    """What follows the members, at `start`: the central directory and its end record."""
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
