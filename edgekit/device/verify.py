"""A bundle on disk is what its manifest says, or it is refused before ONNX Runtime sees a byte."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from edgekit.device import strict_json
from edgekit.device.manifest import (
    BUNDLE_FILE,
    COMPONENT_FILE,
    MAX_FILES,
    PACKAGE_FILE,
    FileEntry,
    Manifest,
)
from edgekit.errors import BundleError

MAX_TOTAL_BYTES = 16_000_000_000
AGAIN = "get the bundle again from where it was made; do not run this one"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle whose files are all there and all ordinary, and whose manifest can be read.

    `sha256` is the digest of `edgekit/bundle.json`, which holds the digests of all other files: it stands for all.
    """

    root: Path
    manifest: Manifest
    sha256: str

    def read(self, path: str) -> bytes:
        """The bytes of a listed file, checked as they are read: what is returned is what was hashed.

        Raises:
            BundleError: the file changed.
        """
        entry = self.manifest.files[path]
        data = read_ordinary(self.root, path, entry.size)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            _refuse_changed(self.root, path)
        return data

    def json(self, path: str) -> dict[str, Any]:
        """A listed file as strict JSON."""
        return strict_json.parse(self.read(path), path)

    def check_digests(self) -> None:
        """Compare every file with its digest.

        Raises:
            BundleError: the first file that differs.
        """
        for path, entry in self.manifest.files.items():
            if not self.matches(path, entry):
                _refuse_changed(self.root, path)

    def matches(self, path: str, entry: FileEntry) -> bool:
        """Whether a listed file has its digest."""
        digest = hashlib.sha256()
        with _open_ordinary(self.root, path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest() == entry.sha256


def open_bundle(path: str | Path) -> Opened:
    """Read the manifest of a bundle and compare it with the folder: names, kinds of files, sizes; no digests yet.

    Raises:
        BundleError: not a bundle; or a file is missing, extra, of another size, a symlink, a hard link, no regular
            file; or the manifest is malformed.
    """
    root = Path(path)
    if not root.is_dir():
        raise BundleError(
            "no such folder" if not root.exists() else "not a folder",
            where=str(root),
            rule="a bundle is a folder that holds edgekit/bundle.json",
            way_out="name the folder that `edgekit compress` or `edgekit bundle` printed",
        )
    sizes = dict(_listing(root))
    if BUNDLE_FILE not in sizes:
        raise BundleError(
            f"no {BUNDLE_FILE}", where=str(root), rule="a bundle is a folder that holds edgekit/bundle.json"
        )
    data = read_ordinary(root, BUNDLE_FILE, min(sizes[BUNDLE_FILE], strict_json.MAX_JSON_BYTES + 1))
    manifest = Manifest.from_dict(strict_json.parse(data, BUNDLE_FILE))
    _compare(root, manifest, sizes)
    opened = Opened(root, manifest, hashlib.sha256(data).hexdigest())
    for file, expected in ((PACKAGE_FILE, manifest.package()), (COMPONENT_FILE, manifest.component())):
        # ONNX Runtime itself would open what these name; so they name what bundle.json does, and nothing else.
        if opened.json(file) != expected:
            raise BundleError(
                "says something else than edgekit/bundle.json", where=f"{root}/{file}", rule="both agree", way_out=AGAIN
            )
    return opened


def _compare(root: Path, manifest: Manifest, sizes: dict[str, int]) -> None:
    listed = {BUNDLE_FILE, *manifest.files}
    for extra in sorted(set(sizes) - listed):
        raise BundleError("not in the manifest", where=_shown(root / extra), rule="only listed files", way_out=AGAIN)
    for missing in sorted(listed - set(sizes)):
        raise BundleError("missing", where=f"{root}/{missing}", rule="every listed file", way_out=AGAIN)
    for name, entry in manifest.files.items():
        if sizes[name] != entry.size:
            raise BundleError(
                f"{sizes[name]} bytes",
                where=f"{root}/{name}",
                rule=f"{entry.size} bytes in the manifest",
                way_out=AGAIN,
            )
    if sum(sizes.values()) > MAX_TOTAL_BYTES:
        raise BundleError(
            f"{sum(sizes.values())} bytes", where=str(root), rule=f"at most {MAX_TOTAL_BYTES} bytes in all"
        )


def _listing(root: Path) -> Iterator[tuple[str, int]]:
    """(path, size) of every file below `root`, all of them ordinary; no link is followed."""
    pending, count = [PurePosixPath()], 0
    while pending:
        folder = pending.pop()
        entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        if not entries and folder != PurePosixPath():
            _refuse("an empty folder", root / folder, "only listed files")
        for entry in entries:
            count += 1
            if count > 2 * MAX_FILES:
                _refuse(f"more than {2 * MAX_FILES} files and folders", root, f"at most {MAX_FILES} files")
            status = os.lstat(entry.path)
            if stat.S_ISDIR(status.st_mode) and not entry.is_symlink():
                if len(folder.parts) >= 8:
                    _refuse("folders nested too deeply", root / folder, "at most 8 levels")
                pending.append(folder / entry.name)
            else:
                _check_ordinary(status, Path(entry.path))
                yield (folder / entry.name).as_posix(), status.st_size


def _check_ordinary(status: os.stat_result, path: Path) -> None:
    if stat.S_ISLNK(status.st_mode):
        _refuse("a symbolic link", path, "regular files only: a link can lead out of the bundle")
    if not stat.S_ISREG(status.st_mode):
        _refuse("not a regular file", path, "regular files only")
    if status.st_nlink > 1:
        raise BundleError(
            f"a file with {status.st_nlink} hard links",
            where=_shown(path),
            rule="one link: the file could be another one outside of the bundle",
            way_out="copy the bundle without hard links (cp -r), and check where it came from",
        )


def _open_ordinary(root: Path, path: str) -> Any:
    """Open a file for reading that is a regular one even now, whatever the listing saw before."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(root / path, flags)
        file = os.fdopen(descriptor, "rb")
    except OSError as error:
        raise BundleError(
            f"cannot read: {error.strerror}", where=f"{root}/{path}", rule="readable regular files", way_out=AGAIN
        ) from error
    try:
        _check_ordinary(os.fstat(descriptor), root / path)
    except BundleError:
        file.close()
        raise
    return file


def read_ordinary(root: Path, path: str, size: int) -> bytes:
    """At most `size` bytes of a regular file.

    Raises:
        BundleError: it cannot be read, is no regular file, or ends early.
    """
    with _open_ordinary(root, path) as file:
        data: bytes = file.read(size)
    if len(data) != size:
        _refuse(f"ends after {len(data)} bytes", root / path, f"{size} bytes")
    return data


def _refuse_changed(root: Path, path: str) -> NoReturn:
    raise BundleError(
        "changed: its SHA-256 is not the manifest's",
        where=f"{root}/{path}",
        rule="every file as written",
        way_out=AGAIN,
    )


def _refuse(problem: str, where: Path, rule: str) -> NoReturn:
    raise BundleError(problem, where=_shown(where), rule=rule, way_out=AGAIN)


def _shown(path: Path) -> str:
    """`path` as text that can be printed: a file's name may be any bytes."""
    return str(path).encode("utf-8", "backslashreplace").decode()
