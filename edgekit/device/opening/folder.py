"""A bundle that is a folder: its files are ordinary ones, and no link is followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from edgekit.device.manifest import MAX_FILES
from edgekit.device.opening.source import AGAIN, Reader, refuse, shown
from edgekit.errors import BundleError


class Folder:
    """The files below a folder.

    Raises:
        BundleError: one is a symlink, a hard link or no regular file; a folder is empty; there are too many.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sizes = dict(_listing(path))

    def open(self, name: str) -> Reader:
        """Open a file for reading that is an ordinary one even now, whatever the listing saw before."""
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(self.path / name, flags)
            file = os.fdopen(descriptor, "rb")
        except OSError as error:
            raise BundleError(
                f"cannot read: {error.strerror}",
                where=f"{self.path}/{name}",
                rule="readable regular files",
                way_out=AGAIN,
            ) from error
        try:
            _check_ordinary(os.fstat(descriptor), self.path / name)
        except BundleError:
            file.close()
            raise
        return file


def _listing(root: Path) -> Iterator[tuple[str, int]]:
    """(path, size) of every file below `root`, all of them ordinary; no link is followed."""
    pending, count = [PurePosixPath()], 0
    while pending:
        folder = pending.pop()
        entries = sorted(_entries(root / folder), key=lambda entry: entry.name)
        if not entries and folder != PurePosixPath():
            refuse("an empty folder", root / folder, "only listed files")
        for entry in entries:
            count += 1
            if count > 2 * MAX_FILES:
                refuse(f"more than {2 * MAX_FILES} files and folders", root, f"at most {MAX_FILES} files")
            status = os.lstat(entry.path)
            if stat.S_ISDIR(status.st_mode) and not entry.is_symlink():
                if len(folder.parts) >= 8:
                    refuse("folders nested too deeply", root / folder, "at most 8 levels")
                pending.append(folder / entry.name)
            else:
                _check_ordinary(status, Path(entry.path))
                yield (folder / entry.name).as_posix(), status.st_size


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        raise BundleError(
            f"cannot read: {error.strerror}", where=shown(folder), rule="readable folders", way_out=AGAIN
        ) from error


def _check_ordinary(status: os.stat_result, path: Path) -> None:
    if stat.S_ISLNK(status.st_mode):
        refuse("a symbolic link", path, "regular files only: a link can lead out of the bundle")
    if not stat.S_ISREG(status.st_mode):
        refuse("not a regular file", path, "regular files only")
    if status.st_nlink > 1:
        raise BundleError(
            f"a file with {status.st_nlink} hard links",
            where=shown(path),
            rule="one link: the file could be another one outside of the bundle",
            way_out="copy the bundle without hard links (cp -r), and check where it came from",
        )
