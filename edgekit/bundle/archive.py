"""A bundle as one file: the same files, stored one after the other."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

from edgekit.device.opening.archive import SUFFIX
from edgekit.device.verify import open_bundle
from edgekit.errors import BundleError
from edgekit.store import writing

_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX, _REGULAR = 3, 0o100644 << 16


def pack(bundle: Path, path: Path) -> Path:
    """Write a bundle that is there as one file; equal bundles give equal bytes.

    Args:
        bundle: the bundle, every digest of which is checked.
        path: of the file; it ends in .zip.

    Returns:
        `path`.

    Raises:
        BundleError: the bundle is not whole, or `path` does not end in .zip.
        StoreError: the file cannot be written.
    """
    if path.suffix != SUFFIX:
        raise BundleError("not the name of a zip", where=str(path), rule=f"a name that ends in {SUFFIX}")
    opened = open_bundle(bundle)
    write_archive(path, {name: opened.read(name) for name in opened.digests})
    return path


def write_archive(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write a bundle's files as a zip that `edgekit.device` reads: stored, sorted, all of one time.

    It is read back as a device would before it gets its name.

    Raises:
        BundleError: `contents` are no bundle.
        StoreError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial{SUFFIX}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                    for name, data in sorted(contents.items()):
                        entry = zipfile.ZipInfo(name, _EPOCH)
                        entry.create_system, entry.external_attr = _UNIX, _REGULAR
                        archive.writestr(entry, data)
                file.flush()
                os.fsync(file.fileno())
            open_bundle(partial).check_digests()
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
