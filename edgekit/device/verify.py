"""A bundle on disk is what its manifest says, or it is refused before ONNX Runtime sees a byte."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from edgekit.device import strict_json
from edgekit.device.manifest import BUNDLE_FILE, COMPONENT_FILE, PACKAGE_FILE, FileEntry, Manifest
from edgekit.device.opening import Archive, Folder, Source, refuse, shown
from edgekit.device.opening.archive import SUFFIX
from edgekit.errors import BundleError

MAX_TOTAL_BYTES = 16_000_000_000
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle whose files are all there and all ordinary, and whose manifest can be read.

    `sha256` is the digest of `edgekit/bundle.json`, which holds the digests of all other files: it stands for all.
    """

    source: Source = field(repr=False)
    manifest: Manifest
    sha256: str

    @property
    def root(self) -> Path:
        """The bundle's folder, or its file."""
        return self.source.path

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of every file by its name, `edgekit/bundle.json` among them."""
        return {BUNDLE_FILE: self.sha256, **{path: entry.sha256 for path, entry in self.manifest.files.items()}}

    def read(self, path: str) -> bytes:
        """The bytes of a file of the bundle, checked as they are read: what is returned is what was hashed.

        Raises:
            BundleError: the file changed.
        """
        data = _whole(self.source, path, self.source.sizes[path])
        if hashlib.sha256(data).hexdigest() != self.digests[path]:
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
        with self.source.open(path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest() == entry.sha256


def is_bundle(path: str | Path) -> bool:
    """Whether `path` is what bundles are: a folder, or a file that ends in .zip; nothing is read."""
    return Path(path).is_dir() or (Path(path).suffix.lower() == SUFFIX and Path(path).is_file())


def open_bundle(path: str | Path) -> Opened:
    """Read the manifest of a bundle and compare it with what is there: names, kinds of files, sizes; no digests yet.

    Args:
        path: the bundle's folder, or its file `NAME.edgekit.zip`: the same rules hold for both.

    Raises:
        BundleError: not a bundle; or a file is missing, extra, of another size, a symlink, a hard link, no regular
            file; or the zip is more than stored files one after the other; or the manifest is malformed.
    """
    source = _source(Path(path))
    if BUNDLE_FILE not in source.sizes:
        raise BundleError(f"no {BUNDLE_FILE}", where=shown(source.path), rule="a bundle holds edgekit/bundle.json")
    data = _whole(source, BUNDLE_FILE, min(source.sizes[BUNDLE_FILE], strict_json.MAX_JSON_BYTES + 1))
    manifest = Manifest.from_dict(strict_json.parse(data, BUNDLE_FILE))
    _compare(source.path, manifest, source.sizes)
    opened = Opened(source, manifest, hashlib.sha256(data).hexdigest())
    for file, expected in ((PACKAGE_FILE, manifest.package()), (COMPONENT_FILE, manifest.component())):
        # ONNX Runtime itself would open what these name; so they name what bundle.json does, and nothing else.
        if opened.json(file) != expected:
            refuse("says something else than edgekit/bundle.json", source.path / file, "both agree")
    return opened


def _source(path: Path) -> Source:
    if path.is_dir():
        return Folder(path)
    if path.suffix.lower() == SUFFIX and path.exists():
        return Archive(path)
    raise BundleError(
        "neither a folder nor a .zip" if path.exists() else "no such folder or file",
        where=shown(path),
        rule="a bundle is a folder or a zip that holds edgekit/bundle.json",
        way_out="name the folder that `edgekit compress` or `edgekit bundle` printed",
    )


def _compare(root: Path, manifest: Manifest, sizes: Mapping[str, int]) -> None:
    listed = {BUNDLE_FILE, *manifest.files}
    for extra in sorted(set(sizes) - listed):
        refuse("not in the manifest", root / extra, "only listed files")
    for missing in sorted(listed - set(sizes)):
        refuse("missing", root / missing, "every listed file")
    for name, entry in manifest.files.items():
        if sizes[name] != entry.size:
            refuse(f"{sizes[name]} bytes", root / name, f"{entry.size} bytes in the manifest")
    if sum(sizes.values()) > MAX_TOTAL_BYTES:
        refuse(f"{sum(sizes.values())} bytes", root, f"at most {MAX_TOTAL_BYTES} bytes in all")


def _whole(source: Source, name: str, size: int) -> bytes:
    """The first `size` bytes of a file.

    Raises:
        BundleError: it cannot be read, or ends early.
    """
    with source.open(name) as file:
        data = file.read(size)
    if len(data) != size:
        refuse(f"ends after {len(data)} bytes", source.path / name, f"{size} bytes")
    return data


def _refuse_changed(root: Path, path: str) -> NoReturn:
    refuse("changed: its SHA-256 is not the manifest's", root / path, "every file as written")
