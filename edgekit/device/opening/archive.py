"""A bundle that is one file, `NAME.edgekit.zip`: a zip without any of a zip's freedoms.

Every byte of the file is accounted for: entry after entry (local header, name, data), then the central directory, then
its end (APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16). Entries are stored as they are, so nothing can grow on
reading; both headers of an entry agree, so no two readers see different files; there are no extra fields, comments,
data descriptors, encryption or zip64, so there is nothing else to agree on.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NoReturn, Self

from edgekit.device.manifest import MAX_FILE_BYTES, MAX_FILES, check_path
from edgekit.device.opening.source import refuse
from edgekit.errors import BundleError

SUFFIX = ".zip"
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCAL_MARK, _CENTRAL_MARK, _END_MARK = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_UTF8 = 1 << 11
"""The only flag that an entry may bear: its name is UTF-8, as ASCII is."""
_VERSION = 20
"""The newest version of the format that may be needed: above lie zip64 and encryption."""
_DOS_FOLDER = 0x10
_LONGEST_NAME = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One stored file: what both of its headers say. `start` is where its local header begins."""

    name: bytes
    version: int
    flags: int
    time: int
    date: int
    crc: int
    size: int
    start: int

    @property
    def data(self) -> int:
        """Where its bytes begin."""
        return self.start + _LOCAL.size + len(self.name)

    @property
    def end(self) -> int:
        """Where they end."""
        return self.data + self.size

    def local_header(self) -> bytes:
        """The header that stands before its bytes."""
        numbers = (self.version, self.flags, 0, self.time, self.date, self.crc, self.size, self.size)
        return _LOCAL.pack(_LOCAL_MARK, *numbers, len(self.name), 0) + self.name


class Archive:
    """The entries of a zip file.

    Raises:
        BundleError: the file is none of these zips; the text says which entry breaks which rule.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _opened(path) as file:
            self._entries = _read(file, path)
        self.sizes = {name: entry.size for name, entry in self._entries.items()}

    def open(self, name: str) -> Window:
        """The bytes of an entry; their CRC-32 is compared at the end."""
        return Window(_opened(self.path), self._entries[name], f"{self.path}/{name}")


class Window:
    """An entry's bytes in the open file."""

    def __init__(self, file: BinaryIO, entry: Entry, where: str) -> None:
        self._file, self._left, self._crc, self._expected, self._where = file, entry.size, 0, entry.crc, where
        file.seek(entry.data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end.

        Raises:
            BundleError: the file ends within the entry, or its CRC-32 is another one.
        """
        wanted = min(size, self._left)
        data = self._file.read(wanted)
        if len(data) != wanted:
            refuse("the file ends within an entry", self._where, "whole entries")
        self._left -= wanted
        self._crc = zlib.crc32(data, self._crc)
        if not self._left and self._crc != self._expected:
            refuse("changed: its CRC-32 is not the zip's", self._where, "every file as written")
        return data


def _opened(path: Path) -> BinaryIO:
    """The file, which is a regular one: a pipe would keep its reader waiting."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        file = os.fdopen(descriptor, "rb")
    except OSError as error:
        raise BundleError(f"cannot read: {error.strerror}", where=str(path), rule="a readable file") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        refuse("not a regular file", path, "a regular file")
    return file


def _read(file: BinaryIO, path: Path) -> dict[str, Entry]:
    """The entries by name, every byte of the file accounted for."""
    total = os.fstat(file.fileno()).st_size
    if total > MAX_FILE_BYTES:
        refuse(f"{total} bytes", path, f"at most {MAX_FILE_BYTES} bytes")
    count, begin, length = _end(file, total, path)
    file.seek(begin)
    directory = file.read(length)
    entries: dict[str, Entry] = {}
    position = 0
    for _ in range(count):
        entry, position = _central(directory, position, path)
        name = entry.name.decode("ascii", "backslashreplace")
        check_path(name, str(path))
        if name in entries:
            refuse(f"two entries {name!r}", path, "each name once")
        entries[name] = entry
    if position != length:
        refuse(f"{length - position} bytes after the last entry of the directory", path, "entries alone")
    _check_layout(file, entries, begin, path)
    return entries


def _end(file: BinaryIO, total: int, path: Path) -> tuple[int, int, int]:
    """How many entries there are, where the central directory begins, and its length."""
    file.seek(max(0, total - _END.size))
    data = file.read(_END.size)
    if len(data) < _END.size or data[:4] != _END_MARK:
        refuse("no end of a zip at the end of the file", path, "a whole zip without a comment, and nothing after it")
    _, disk, first_disk, here, count, length, begin, comment = _END.unpack(data)
    if disk or first_disk or here != count or comment:
        refuse("several disks or a comment", path, "one file without a comment")
    if not 1 <= count <= MAX_FILES + 1:
        refuse(f"{count} entries", path, f"1 to {MAX_FILES + 1}, without zip64")
    if begin + length + _END.size != total or length > count * (_CENTRAL.size + _LONGEST_NAME):
        refuse(f"a directory of {length} bytes at {begin}", path, "it ends where the file's end begins")
    return count, begin, length


def _central(directory: bytes, position: int, path: Path) -> tuple[Entry, int]:
    """The entry that the directory has at `position`, and where the next one begins."""
    if len(directory) - position < _CENTRAL.size or directory[position : position + 4] != _CENTRAL_MARK:
        refuse("no entry where the directory should have one", path, "a whole central directory")
    (_, _, version, flags, method, time, date, crc, packed, size, named, extra, comment, disk, _, attributes, start) = (
        _CENTRAL.unpack_from(directory, position)
    )
    position += _CENTRAL.size
    name = directory[position : position + named]

    def wrong(problem: str, rule: str) -> NoReturn:
        refuse(problem, f"{path}, entry {name!r}", rule)

    if flags & ~_UTF8:
        wrong(f"flags {flags:#06x}", "no encryption and no data descriptor")
    if method or packed != size:
        wrong(f"compression method {method}, {packed} bytes for {size}", "entries stored as they are")
    if version > _VERSION or disk:
        wrong(f"needs version {version / 10}, disk {disk}", "at most version 2.0, without zip64, on one disk")
    if extra or comment or not named:
        wrong(f"{extra} bytes of extra fields, {comment} of a comment", "a name, and neither of these")
    if stat.S_IFMT(attributes >> 16) not in {0, stat.S_IFREG} or attributes & _DOS_FOLDER:
        wrong(f"attributes {attributes:#010x}", "regular files only: a link can lead out of the bundle")
    return Entry(
        name=name, version=version, flags=flags, time=time, date=date, crc=crc, size=size, start=start
    ), position + named


def _check_layout(file: BinaryIO, entries: dict[str, Entry], end: int, path: Path) -> None:
    """That entries stand one after the other from the first byte on, and each as the directory says."""
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].start):
        where = f"{path}, entry {name!r}"
        if entry.start != position:
            refuse(f"begins at {entry.start}", where, f"entries without gap or overlap: at {position}")
        position = entry.end
        if position > end:
            refuse(f"{entry.size} bytes, {end - entry.data} are left", where, "whole entries before the directory")
        file.seek(entry.start)
        header = entry.local_header()
        if file.read(len(header)) != header:
            refuse("the local header says something else than the directory", where, "both agree")
    if position != end:
        refuse(f"{end - position} bytes between the entries and the directory", path, "entries without gap")
