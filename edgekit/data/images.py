"""Image folders, as directories or as zip files: one folder per class."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edgekit.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
MAX_FILE_BYTES = 200_000_000
LAYOUT = "one folder per class: cat/1.jpg, dog/7.png, ..., in a directory or a zip"


class ImageFolder:
    """Images in one folder per class; items are (float32 array [channels, height, width], class index).

    Classes are numbered in sorted order. Folders that hold everything else, as archives often have, are skipped. A zip
    is opened once in every process that reads from it.

    Args:
        path: a directory or a zip file.
        prepare: an RGB image uint8 [height, width, 3] to float32 [1, channels, height, width].

    Raises:
        DataError: there is no image, or the images do not lie in class folders.
    """

    def __init__(self, path: Path, prepare: Callable[[np.ndarray], np.ndarray]) -> None:
        self.path, self.prepare = path, prepare
        names = sorted(name for name in _names(path) if is_image(name))
        if not names:
            raise DataError("no images", where=str(path), rule=LAYOUT, way_out=f"supported are {' '.join(SUFFIXES)}")
        parts = _below_common_folder([PurePosixPath(name).parts for name in names])
        outside = [name for name, part in zip(names, parts, strict=True) if len(part) < 2]
        if outside:
            raise DataError(
                f"{outside[0]!r} lies in no class folder ({len(outside)} such images)", where=str(path), rule=LAYOUT
            )
        self.names = names
        self.classes = sorted({part[0] for part in parts})
        index = {name: number for number, name in enumerate(self.classes)}
        self.labels = [index[part[0]] for part in parts]
        self._zips: dict[int, zipfile.ZipFile] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.prepare(self.decode(index))[0], self.labels[index]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zips": {}}

    def decode(self, index: int) -> np.ndarray:
        """Image `index` as RGB uint8 [height, width, 3].

        Raises:
            DataError: the file is no image, or damaged.
        """
        return decoded(self._read(self.names[index]), self.names[index], str(self.path))

    def _read(self, name: str) -> bytes:
        if self.path.is_dir():
            return (self.path / name).read_bytes()
        process = os.getpid()
        if process not in self._zips:
            # A handle that came through a fork shares its file position with the parent: every process opens its own.
            self._zips = {process: zipfile.ZipFile(self.path)}
        archive = self._zips[process]
        size = archive.getinfo(name).file_size
        if size > MAX_FILE_BYTES:
            raise DataError(f"{name} unpacks to {size} bytes", where=str(self.path), rule=f"at most {MAX_FILE_BYTES}")
        try:
            return archive.read(name)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"cannot read {name}: {error}",
                where=str(self.path),
                rule="a whole zip",
                way_out="check that the download is whole",
            ) from error


def decoded(content: bytes, name: str, where: str) -> np.ndarray:
    """The bytes of an image file as RGB uint8 [height, width, 3]; `name` and `where` say which, if it is none.

    Raises:
        DataError: Pillow is missing, or the file is no image, or damaged.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise DataError(
            "images need Pillow, which is not installed",
            where=where,
            rule="arrays (.npz) need numpy only",
            way_out="pip install 'edgekit[image]'",
        ) from error
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(
            f"cannot decode {name}: {error}",
            where=where,
            rule="every file with an image's suffix is an image",
            way_out="remove or replace the file",
        ) from error


def is_image(name: str) -> bool:
    """Whether a name has an image's suffix and nothing hides it."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _names(path: Path) -> list[str]:
    if path.is_dir():
        return [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    try:
        with zipfile.ZipFile(path) as archive:
            return list(dict.fromkeys(archive.namelist()))
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"cannot open: {error}", where=str(path), rule=LAYOUT, way_out="check that the download is whole"
        ) from error


def _below_common_folder(parts: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    while all(len(part) > 2 for part in parts) and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    return parts
