"""How raw samples become inputs: what the user says, and where that is silent what the model's library knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.data.source import Image, Text
from edgekit.device.processing import (
    ImagePreprocessing,
    Preprocessing,
    Vocabulary,
    WordpiecePreprocessing,
    preprocessing_from,
)
from edgekit.errors import DataError


def preprocessing_of(
    known: Preprocessing | None,
    *,
    given: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    shorter_side: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Preprocessing | None:
    """The preprocessing of a model.

    Args:
        known: what the model's library says.
        given: all of it as an object, which then is all that counts.
        size: height and width of images.
        shorter_side: what the shorter side is resized to before `size` is cut out.
        mean: of each channel.
        std: of each channel.

    Raises:
        DataError: the parts do not make a preprocessing.

    >>> usual = ImagePreprocessing(size=(224, 224), fit="resize-crop", shorter_side=256, filter="bicubic")
    >>> smaller = preprocessing_of(usual, size=(160, 160))
    >>> smaller.shorter_side, smaller.filter
    (183, 'bicubic')
    """
    if given is not None:
        return preprocessing_from(given, complete=False)
    before = known if isinstance(known, ImagePreprocessing) else None
    parts: dict[str, Any] = {"size": size, "shorter_side": shorter_side, "mean": mean, "std": std}
    said = {name: value for name, value in parts.items() if value is not None}
    if before is None:
        if size is None:
            return known
        return ImagePreprocessing(fit="stretch" if shorter_side is None else "resize-crop", **said)
    if shorter_side is not None:
        said["fit"] = "resize-crop"
    elif size is not None and before.shorter_side is not None:
        # The same share is cut out as before.
        said["shorter_side"] = round(max(size) * before.shorter_side / max(before.size))
    return replace(before, **said)


def as_image(preprocessing: Preprocessing | None) -> Image | None:
    """What makes inputs of images, if this preprocessing does."""
    return preprocessing.apply if isinstance(preprocessing, ImagePreprocessing) else None


def as_text(preprocessing: Preprocessing | None, vocabulary: Path | bytes | None) -> Text | None:
    """What makes inputs of texts, if this preprocessing does.

    Raises:
        DataError: it leaves the number of tokens open, or the vocabulary cannot be read.
    """
    if not isinstance(preprocessing, WordpiecePreprocessing) or vocabulary is None:
        return None
    if preprocessing.length is None:
        raise DataError(
            "length is null",
            where="preprocessing.length",
            rule="a number, so that texts of a batch have as many tokens",
            way_out='name it in the preprocessing: "length": 128',
        )
    return _Wordpieces(preprocessing, vocabulary)


class _Wordpieces:
    """A class rather than a closure: loaders carry it to other processes."""

    def __init__(self, preprocessing: WordpiecePreprocessing, vocabulary: Path | bytes) -> None:
        self.preprocessing = preprocessing
        self.vocabulary = read_vocabulary(vocabulary)

    def __call__(self, text: str) -> dict[str, np.ndarray]:
        return {name: ids[0] for name, ids in self.preprocessing.apply(text, self.vocabulary).items()}


def read_vocabulary(vocabulary: Path | bytes) -> Vocabulary:
    """The tokens of a file, or of its bytes.

    Raises:
        DataError: it cannot be read.
    """
    if isinstance(vocabulary, bytes):
        return Vocabulary.parse(vocabulary)
    try:
        return Vocabulary.parse(vocabulary.read_bytes(), str(vocabulary))
    except OSError as error:
        raise DataError(
            f"cannot read: {error.strerror}", where=str(vocabulary), rule="a text file with one token a line"
        ) from error
