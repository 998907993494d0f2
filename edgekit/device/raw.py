"""Raw input from files: what a preprocessing starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekit.device.processing import ImagePreprocessing, Preprocessing, SoundPreprocessing
from edgekit.device.processing.image import read_image
from edgekit.device.processing.sound import read_wav
from edgekit.errors import DataError


def read_raw(raw: str | Path, preprocessing: Preprocessing) -> np.ndarray | str:
    """An image uint8 [H, W, 3], a recording float32 [n] or a text, as the preprocessing takes it.

    Args:
        raw: a file; for a preprocessing of text, a `str` is the text itself and a `Path` a file with it.
        preprocessing: whose kind says what the file holds.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    if isinstance(preprocessing, ImagePreprocessing):
        return read_image(Path(raw))
    if isinstance(preprocessing, SoundPreprocessing):
        return read_wav(Path(raw), preprocessing.sample_rate)
    if isinstance(raw, str):
        return raw
    try:
        return raw.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read: {error}", where=str(raw), rule="a text file in UTF-8") from error
